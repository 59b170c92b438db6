"""The runner as a process: claim, run, results, ends."""

from __future__ import annotations

import ast
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from shell.runner_site import MAKE_RESULT, RUNNER, RunnerSite, file_print, python
from tiltd.daemon import runner

FOUND = [shutil.which(name) for name in ("python3.6", "python3.7", "python3.8")]
OLD_PYTHONS = [Path(path) for path in FOUND if path and "shims" not in path]
OLD_PYTHONS += sorted(Path.home().glob(".pyenv/versions/3.[678].*/bin/python3"))


@pytest.fixture
def site(tmp_path: Path) -> RunnerSite:
    return RunnerSite(tmp_path)


def test_a_run_delivers_a_checksummed_staging_folder_and_leaves_nothing_behind(site: RunnerSite) -> None:
    site.prepare()
    assert site.run() == 0
    seen = site.seen()
    assert seen.claimed_by == "7.here"
    assert seen.claimed_node and seen.claimed_at and seen.pid and seen.pid_started
    assert seen.end is not None and seen.end.outcome == "success" and seen.end.exit_status == 0
    assert seen.end.measured.stage_in_bytes == 100_000
    assert "work" in seen.end.measured.step_seconds
    assert (site.staging / "tomogram.mrc").read_bytes() == site.stack.read_bytes()[::-1]
    sums = site.sums()
    assert sums["nonce"] == "n0nce"
    assert [file["name"] for file in sums["files"]] == ["logs/work.log", "tomogram.mrc"]
    for file in sums["files"]:
        expected = file_print(site.staging / file["name"], "", "", 1 << 30)
        assert (file["size_bytes"], file["sha256"]) == (expected["size_bytes"], expected["head_sha256"])
    assert sums["inputs"][0]["sha256"] == file_print(site.stack, "", "", 1 << 30)["head_sha256"]
    assert site.clean()


@pytest.mark.parametrize("interpreter", OLD_PYTHONS or [Path(sys.executable)], ids=str)
def test_an_old_python_in_the_c_locale_runs_it_too(site: RunnerSite, interpreter: Path) -> None:
    name = os.fsdecode(b"TS \xff \xc3\xa9'\n$(touch x).mrc")
    (site.feed / name).write_bytes(b"x" * 9000)
    files = [file_print(site.feed / name, name, "stack.mrc")]
    check = "assert os.fsencode(sys.argv[4]) == b'\\xc3\\xa9\\xff'; open(o + b'/r\\xc3\\xa9', 'w')"
    odd = python(check)
    odd["argv"] = [*odd["argv"], "é\udcff"]
    site.prepare(odd, input={"root": str(site.feed), "files": files})
    locale = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert site.run(interpreter=str(interpreter), env=locale) == 0, site.seen().end
    assert (site.staging / "ré").exists()
    assert "ré" in [file["name"] for file in site.sums()["files"]]
    assert site.clean()


def test_it_is_one_file_of_the_standard_library_for_python_3_6() -> None:
    tree = ast.parse(RUNNER.read_text(), feature_version=(3, 6))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").split(".")[0])
    assert names <= sys.stdlib_module_names
    assert not names & {"dataclasses", "__future__", "graphlib", "tomllib", "zoneinfo"}


def test_of_fifty_runners_one_wins(site: RunnerSite) -> None:
    site.prepare(python("open(o + b'/r', 'w').write('x')"))
    racers = [site.start(f"{number}.here") for number in range(50)]
    for racer in racers:
        racer.communicate(timeout=120)
    assert {racer.returncode for racer in racers} == {0}
    claims = [name for name in os.listdir(site.folder) if name.startswith("claimed.")]
    assert len(claims) == 1
    told = [json.loads(line) for line in (site.folder / "progress").read_text().splitlines() if line]
    assert len([line for line in told if line["phase"] == "claimed"]) == 1
    assert told[0]["phase"] == "claimed" and claims == [f"claimed.{told[0]['job_id']}"]
    ends = [line for line in (site.folder / "end").read_text().splitlines() if line]
    assert len(ends) == 1 and json.loads(ends[0])["outcome"] == "success"


def test_a_revoked_attempt_is_left_alone(site: RunnerSite) -> None:
    site.prepare()
    assert site.spool.revoke(site.attempt_id) == (True, "")
    assert site.run() == 0
    assert site.seen().end is None and not site.staging.exists() and site.clean()
    assert (site.folder / "progress").read_bytes() == b""


def test_a_rerun_that_finds_its_success_does_nothing(site: RunnerSite) -> None:
    site.prepare()
    assert site.run() == 0
    before = (site.folder / "progress").read_bytes(), (site.staging / "tomogram.mrc").stat().st_mtime_ns
    assert site.run() == 0
    after = (site.folder / "progress").read_bytes(), (site.staging / "tomogram.mrc").stat().st_mtime_ns
    assert before == after


def test_a_rerun_after_an_end_runs_again_and_beside_a_living_run_does_not(site: RunnerSite) -> None:
    site.prepare()
    folder = site.folder
    (folder / "job.json").rename(folder / "claimed.7.here")
    mine = {"phase": "claimed", "job_id": "7.here", "node": os.uname().nodename, "pid": os.getpid()}
    mine["pid_started"] = runner.pid_started(os.getpid())
    (folder / "progress").write_text(json.dumps(mine) + "\n")
    assert site.run() == 0
    assert site.seen().end is None
    (folder / "progress").write_text(json.dumps(mine | {"node": "another"}) + "\n")
    assert site.run() == 0
    assert site.seen().end is None
    (folder / "end").write_text(json.dumps({"nonce": "n0nce", "outcome": "terminated"}) + "\n")
    assert site.run() == 0
    end = site.seen().end
    assert end is not None and end.outcome == "success"


def test_a_claim_whose_answer_was_lost_is_ours(site: RunnerSite) -> None:
    site.prepare()
    (site.folder / "job.json").rename(site.folder / "claimed.7.here")
    assert site.run() == 0
    end = site.seen().end
    assert end is not None and end.outcome == "success"


def test_a_folder_the_node_cannot_see_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "late"
    looks: list[float] = []

    def appear(seconds: float) -> None:
        looks.append(seconds)
        folder.mkdir()
        (folder / "job.json").touch()

    monkeypatch.setattr(runner.time, "sleep", appear)
    assert runner.claim(str(folder), "1") is True
    assert len(looks) == 1
    monkeypatch.setattr(runner, "SIGHT_SECONDS", -1.0)
    assert runner.claim(str(tmp_path / "never"), "1") is False


def test_a_fence_stops_it_before_the_steps(site: RunnerSite) -> None:
    site.prepare(python("open(o + b'/../../../ran', 'w')"))
    site.spool.fence(site.attempt_id)
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and end.outcome == "fenced"
    assert not (site.root / "ran").exists() and not site.staging.exists() and site.clean()


def test_a_fence_stops_it_before_it_stages_out(site: RunnerSite) -> None:
    fence = str(site.folder / "fence")
    site.prepare(MAKE_RESULT, python(f"open({fence!r}, 'w')", name="fence"))
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and end.outcome == "fenced"
    assert not site.staging.exists() and site.clean()


def test_steps_get_what_was_placed_and_nothing_meets_a_shell(site: RunnerSite) -> None:
    step = python(
        "import json; n = '_NUM_THREADS'\n"
        "keys = ['OMP' + n, 'OPENBLAS' + n, 'MKL' + n, 'TMPDIR', 'X', 'HOME']\n"
        "json.dump([sys.argv[4:], {k: os.environ[k] for k in keys}, sys.stdin.read(),"
        " os.getpgid(0) == os.getpid()], open(o + b'/told', 'w'))",
        environment={"X": "{cores} $(touch y)", "MKL_NUM_THREADS": "9"},
    )
    step["argv"] = [*step["argv"], "{cores}-{threads}", "$(touch x); {unknown} {{input}}", "-n\n*"]
    site.prepare(step, texts=[{"name": "sub/angles.txt", "text": "é\udcff"}])
    assert site.run() == 0
    words, environment, stdin, own_group = json.loads((site.staging / "told").read_text())
    scratch = site.job_scratch
    assert words == ["2-3", f"$(touch x); {{unknown}} {{{scratch}/input}}", "-n\n*"]
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "3"
    assert environment["MKL_NUM_THREADS"] == "9" and environment["X"] == "2 $(touch y)"
    assert environment["TMPDIR"] == f"{scratch}/tmp" and environment["HOME"] == os.environ["HOME"]
    assert stdin == "" and own_group


def test_progress_follows_patterns_and_a_bad_pattern_is_reported(site: RunnerSite) -> None:
    patterns = [{"pattern": p} for p in ("(", r"^begin (?P<step>\w+)", r"(?P<done>\d+) of (?P<total>\d+)")]
    patterns.append({"pattern": r"took (?P<seconds>[\d.]+) s"})
    code = "print('begin align'); print('x' * 100000); print('3 of 9'); print('took 4.5 s', flush=True)"
    site.prepare(python(code, patterns=patterns))
    assert site.run() == 0
    told = [json.loads(line) for line in (site.folder / "progress").read_text().splitlines() if line]
    assert any("pattern '(' is ignored" in line.get("note", "") for line in told)
    assert any(line["step"] == "work: align" and (line["done"], line["total"]) == (3, 9) for line in told)
    end = site.seen().end
    assert end is not None and end.measured.step_seconds["align"] == 4.5


@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        ("print('oh\\x1b\\xff no'); sys.exit(3)", "exit 3", 3),
        ("os.kill(os.getpid(), 11)", "signal 11 (SIGSEGV)", 139),
    ],
)
def test_a_failing_step_is_told_with_its_last_lines(
    site: RunnerSite, code: str, reason: str, status: int
) -> None:
    site.prepare(python("print('first'); " + code), MAKE_RESULT | {"name": "never"})
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and end.outcome == "failed"
    assert (end.reason, end.exit_status, end.step) == (reason, status, "work")
    assert "never" not in end.measured.step_seconds
    assert site.clean() and not site.staging.exists()


def test_a_log_tail_is_bounded(site: RunnerSite) -> None:
    site.prepare(python("os.write(1, b'\\xff' * 100000 + b'\\n' + b'y\\n' * 100); sys.exit(1)"))
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and end.log_tail == ("y",) * 40


def test_a_program_that_is_not_there(site: RunnerSite) -> None:
    site.prepare({"name": "imod", "argv": ["/nonexistent/newstack"], "environment": {}, "patterns": []})
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and (end.reason, end.exit_status) == ("exit 127", 127)
    assert "newstack" in end.detail


def test_walltime_is_the_runners_to_enforce(site: RunnerSite) -> None:
    site.prepare(python("time.sleep(600)"), walltime_seconds=0.5)
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and (end.outcome, end.reason, end.step) == ("failed", "walltime", "work")
    assert site.clean()


def test_memory_of_the_whole_tree_is_watched(site: RunnerSite) -> None:
    grandchild = "import time; x = b'x' * 300_000_000; time.sleep(600)"
    code = (
        f"import subprocess; subprocess.run([sys.executable, '-c', {grandchild!r}], start_new_session=True)"
    )
    site.prepare(python(code), memory_bytes=200_000_000)
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and (end.outcome, end.reason) == ("failed", "memory")
    assert end.measured.peak_memory_bytes > 200_000_000
    assert site.clean()


def test_what_a_step_leaves_running_is_ended(site: RunnerSite) -> None:
    code = (
        "import subprocess; p = subprocess.Popen(['sleep', '600'], start_new_session=True); "
        "print(p.pid, file=open(o + b'/pid', 'w'))"
    )
    site.prepare(python(code))
    assert site.run() == 0
    pid = int((site.staging / "pid").read_text())
    assert runner.pid_started(pid) == 0


def mrc(size: tuple[int, int, int], mode: int = 1, cut: int = 0) -> str:
    header = struct.pack("<4i", *size, mode).ljust(1024, b"\0")
    return f"open(o + b'/v.mrc', 'wb').write({header!r} + bytes({size[0] * size[1] * size[2] * 2 - cut}))"


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        ("pass", "missing result", "not there"),
        ("os.symlink('/etc/passwd', o + b'/v.mrc')", "missing result", "no regular file"),
        ("open(o + b'/v.mrc', 'wb')", "missing result", "at least"),
        (mrc((4, 5, 7)), "wrong result", "4x5x7, expected 4x5x6"),
        (mrc((4, 5, 6), 6), "wrong result", "mode 6, expected 1"),
        (mrc((4, 5, 6), cut=1), "wrong result", "its header asks for"),
        ("open(o + b'/v.mrc', 'wb').write(b'xxxx')", "wrong result", "too short"),
        (mrc((4, 5, 6)), "", ""),
    ],
)
def test_results_are_checked(site: RunnerSite, code: str, reason: str, words: str) -> None:
    expected = {"name": "v.mrc", "min_bytes": 1, "image_size": [4, 5, 6], "mode": 1}
    document = site.document(python(code))
    document["output"]["results"] = [expected]
    site.spool.prepare(site.attempt_id, document)
    site.run()
    end = site.seen().end
    assert end is not None and end.reason == reason and words in end.detail
    assert site.staging.exists() == (not reason)


def test_figures_come_back(site: RunnerSite) -> None:
    code = "import json; f = {'residual_px': 0.4, 'bad': 'x', 'n': float('nan')}\n"
    site.prepare(python(code + "json.dump(f, open(o + b'/figures.json', 'w'))"))
    assert site.run() == 0
    end = site.seen().end
    assert end is not None and end.figures == {"residual_px": 0.4}
    assert (site.staging / "figures.json").exists()


@pytest.mark.parametrize("change", [{"attempt_id": "../x"}, {"kind": "run", "output": {"staging": "/"}}])
def test_a_job_file_with_paths_of_no_good_is_refused(site: RunnerSite, change: dict[str, object]) -> None:
    site.prepare(**change)
    process = subprocess.run(
        [sys.executable, str(RUNNER), str(site.folder)], capture_output=True, timeout=60, check=False
    )
    assert process.returncode == 1 and b"cannot be used" in process.stderr
