"""What a job looks like to Torque: the arguments of qsub, the script, the settings; and hostile values."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from plugins.torque_recorded import Desk
from tiltd.daemon.core.model import JobSpec
from tiltd.plugins.api import Permanent
from tiltd.plugins.torque_errors import ending
from tiltd.plugins.torque_script import (
    Options,
    directive,
    file_kib,
    hours,
    mark,
    qsub_arguments,
    resources,
    script,
)
from tiltd.plugins.torque_settings import read

SPEC = JobSpec(
    attempt_id="TS_01-3fa2c1d0.1.1.a1",
    job_name="TS_01-3fa2c1d0.1.1.a1",
    runner_path="/spool/runners/runner-0123456789ab.py",
    attempt_folder="/spool/attempts/TS_01-3fa2c1d0.1.1.a1",
    nodes=("core-014",),
    cores=4,
    threads=4,
    memory_bytes=2 * 2**30,
    scratch_bytes=6000 * 2**20,
    walltime_seconds=1200.0,
)


def arguments(spec: JobSpec = SPEC, **options: Any) -> dict[str, str]:
    """Options with their values; repeated ones as qsub takes them, the last counts."""
    words = qsub_arguments(spec, Options(**options), "/spool/job.sh", ".jabc")
    assert words[-1] == "/spool/job.sh" and len(words) % 2 == 1
    return dict(zip(words[:-1:2], words[1::2], strict=True))


def test_a_pinned_job() -> None:
    given = arguments(properties=("tomography",), queue="batch")
    assert given == {
        "-N": "TS_01-3fa2c1d0.1.1.a1.jabc",
        "-S": "/bin/sh",
        "-r": "n",
        "-m": "n",
        "-j": "oe",
        "-o": "/spool/attempts/TS_01-3fa2c1d0.1.1.a1/job.out",
        "-q": "batch",
        "-l": "nodes=core-014:ppn=4:tomography,walltime=00:20:00,mem=2097152kb",
    }


def test_a_floating_job_tells_maui_its_scratch_where_the_site_wants_that() -> None:
    """``file`` is per processor: 6000 MiB on four cores are 1500 MiB."""
    spec = replace(SPEC, floating=True, properties=("tomography", "big"))
    asked = resources(spec, Options(file=True, properties=("tomography",)))
    assert asked == "nodes=1:ppn=4:tomography:big,walltime=00:20:00,mem=2097152kb,file=1536000kb"
    assert "file" not in resources(spec, Options()) and "mem" not in resources(spec, Options(memory=False))


def test_file_is_never_below_the_largest_file_that_is_written() -> None:
    """Recorded: it is RLIMIT_FSIZE of every file, too; 10mb killed a write of 11 MB."""
    assert file_kib(replace(SPEC, largest_file_bytes=3000 * 2**20)) == 3000 * 1024
    assert file_kib(replace(SPEC, largest_file_bytes=3000 * 2**20 + 1)) == 3000 * 1024 + 1
    assert file_kib(replace(SPEC, scratch_bytes=4 * 1024 + 1)) == 2, "rounded up"
    assert file_kib(replace(SPEC, scratch_bytes=1)) == 1, "0 would end the job with its first byte"


def test_a_job_on_several_nodes() -> None:
    two = replace(SPEC, nodes=("core-014", "core-012"))
    assert resources(two, Options()).startswith("nodes=core-014:ppn=4+core-012:ppn=4,walltime")
    assert "mem=4194304kb" in resources(two, Options()), "mem is for the whole job"
    assert resources(replace(two, floating=True), Options()).startswith("nodes=2:ppn=4,")


def test_what_the_policy_says_counts_before_what_the_site_says() -> None:
    spec = replace(SPEC, queue="fast", account="proj42", priority=5000, directives=("-W x=NODESET:ONEOF",))
    given = arguments(
        spec, queue="batch", account="site", extra=("#PBS -W x=OTHER",), mail="ae", mail_users=("a@b",)
    )
    assert (given["-q"], given["-A"], given["-p"]) == ("fast", "proj42", "1023")
    assert (given["-W"], given["-m"], given["-M"]) == ("x=NODESET:ONEOF", "ae", "a@b")
    assert arguments(rerun=True)["-r"] == "y" and arguments(output=False)["-o"] == "/dev/null"


def test_the_script_is_fixed_text_around_one_folder(tmp_path: Path) -> None:
    assert script(SPEC, Options(python="/opt/python3.9/bin/python3")) == (
        "#!/bin/sh\numask 077\ncd /\n"
        "exec /opt/python3.9/bin/python3 /spool/runners/runner-0123456789ab.py "
        "/spool/attempts/TS_01-3fa2c1d0.1.1.a1 "
        ">> /spool/attempts/TS_01-3fa2c1d0.1.1.a1/runner.log 2>&1\n"
    )
    path = tmp_path / "job.sh"
    path.write_text(script(SPEC, Options()))
    subprocess.run(["/bin/sh", "-n", str(path)], check=True)


@pytest.mark.parametrize(
    "seconds", [(1, "00:00:01"), (59.2, "00:01:00"), (0, "00:00:01"), (360000, "100:00:00")]
)
def test_walltime(seconds: tuple[float, str]) -> None:
    assert hours(seconds[0]) == seconds[1]


HOSTILE = [
    "a b",
    "$(reboot)",
    "`x`",
    "a;b",
    "a\nb",
    "a,b=c",
    "-V",
    "a:ppn=64",
    "ü",
    "a'b",
    'a"b',
    "\0",
    "a+b",
    "../x y",
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["job_name", "queue", "account", "node", "property"])
def test_hostile_words_are_refused(field: str, value: str) -> None:
    changes: dict[str, Any] = {field: value}
    if field == "node":
        changes = {"nodes": (value,)}
    if field == "property":
        changes = {"properties": (value,)}
    with pytest.raises(Permanent) as caught:
        qsub_arguments(replace(SPEC, **changes), Options(), "/spool/job.sh", ".jabc")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["/sp ool", "/spool/$(x)", "spool", "/spool\n", "/spool;x", "/spo'ol"])
def test_a_spool_whose_path_needs_quoting_is_refused(value: str) -> None:
    with pytest.raises(Permanent, match="spool_dir"):
        script(replace(SPEC, attempt_folder=value), Options())


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_no_value_adds_an_argument_or_a_command(name: str, node: str, folder: str) -> None:
    spec = replace(SPEC, job_name=name, nodes=(node,), attempt_folder="/" + folder)
    try:
        words = qsub_arguments(spec, Options(output=False), "/spool/job.sh", ".jabc")
        text = script(spec, Options())
    except Permanent:
        return
    assert len(words) == 15 and len(shlex.split(text.splitlines()[3])) == 7 and text.count("\n") == 4


@pytest.mark.parametrize("letter", "NVIXtzxCoekhr")
def test_options_that_would_take_the_job_out_of_our_hands_are_refused(letter: str) -> None:
    for line in (f"-{letter}", f"-{letter} x", f"#PBS -{letter}x"):
        with pytest.raises(Permanent, match=f"-{letter} cannot be set"):
            directive(line, "the policy's directives")


@pytest.mark.parametrize(
    "line", ["", "x", "-l a -V", "-l 'a", "-W -V", "-l a\nb -V", "-l ü", "--version", "-l a b"]
)
def test_a_directive_is_one_option_and_its_value(line: str) -> None:
    with pytest.raises(Permanent, match="directives"):
        directive(line, "the policy's directives")


def test_marks_of_two_journals_differ() -> None:
    assert mark("a" * 12) != mark("b" * 12) and mark("a" * 12) == mark("a" * 12)


ENDINGS = {
    0: "exit 0", 3: "exit 3", 127: "exit 127", 128: "exit 128", 137: "signal 9", 139: "signal 11",
    255: "exit 255", 265: "signal 9", 266: "signal 10", 271: "deleted", 281: "signal 25",
    -10: "memory", -11: "walltime", -12: "cpu time", None: "",
}  # fmt: skip


@pytest.mark.parametrize("status", ENDINGS)
def test_the_end_of_a_job_in_words(status: int | None) -> None:
    assert ending(status) == ENDINGS[status]


# -- settings --------------------------------------------------------------------------------------------

FAULTS: dict[str, dict[str, Any]] = {
    "no such key": {"qeue": "batch"},
    "node.0.nmes": {"node": [{"names": "*", "nmes": "x"}]},
    "scratch": {"scratch": "scratch"},
    "mode": {"mode": "both"},
    "node.0.scratch_bytes": {"node": [{"names": "*", "scratch_bytes": "4gigs"}]},
    "submit_at_once": {"submit_at_once": 0},
    "timeout_seconds": {"timeout_seconds": -1},
    "mail": {"mail": "everything"},
    "extra": {"extra": ["-V"]},
}


@pytest.mark.parametrize("where", FAULTS)
def test_a_fault_in_the_settings_is_named(where: str) -> None:
    with pytest.raises(Permanent) as caught:
        read(FAULTS[where])
    sentence = str(caught.value)
    assert sentence.startswith("[torque]") and where in sentence and sentence.isprintable()


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(Permanent, match=r"mode: .*; \[torque\] qeue: "):
        read({"qeue": "batch", "mode": "both"})


def test_sets_of_nodes(tmp_path: Path) -> None:
    node = [
        {"names": "core-01[0-4]", "mode": "pinned"},
        {"names": "gpu*", "scratch": "/nvme", "scratch_bytes": "2TB"},
    ]
    settings = read({"node": node, "mode": "floating", "scratch": "/local"})
    assert (settings.of_node("core-014").mode, settings.of_node("core-014").scratch) == ("pinned", "/local")
    assert (settings.of_node("gpu1").mode, settings.of_node("gpu1").scratch) == ("floating", "/nvme")
    assert settings.of_node("gpu1").scratch_bytes == 2 * 10**12 and settings.of_node("x").mode == "floating"


def test_the_server_is_told_by_the_environment(tmp_path: Path) -> None:
    manager = Desk(
        tmp_path, {}, server="head.example", environment={"PBS_X": "1"}, path="/opt/torque/bin"
    ).manager
    fresh = type(manager)({"server": "head.example", "path": "/opt/torque/bin"}, Desk(tmp_path, {}).context)
    assert fresh.commands.environment["PBS_DEFAULT"] == "head.example"
    assert fresh.commands.environment["PATH"].startswith("/opt/torque/bin:")
    assert fresh.commands.environment["LC_ALL"] == "C"
