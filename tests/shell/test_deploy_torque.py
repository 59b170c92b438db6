"""What a cluster's administrator may install: epilogue and submit filter do what they say, no more."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tiltd.daemon.cli.dispatch import dispatch

MOMS_PATH = "/usr/bin:/bin"
"""A mom that was started by hand may have no more of it; what root alone uses is not there."""
DEPLOY = Path(__file__).parents[2] / "deploy" / "torque"


def epilogue(tmp_path: Path, job_id: str) -> int:
    script = (DEPLOY / "epilogue").read_text()
    assert "\nscratch=/scratch\n" in script
    here = tmp_path / "epilogue"
    script = script.replace("\nscratch=/scratch\n", f"\nscratch='{tmp_path}/scratch'\n")
    here.write_text(script.replace('"$(id -u)" = 0', "1 = 0"))
    return subprocess.run(["sh", here, job_id, "tomography", "tomography"], check=False).returncode


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("python3", path=MOMS_PATH), reason="a mom is root, with a python3"
)
def test_as_root_it_works_as_the_user_of_the_job_whatever_path_the_mom_has() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        theirs, other = (left(Path(folder), name, job_id="7.server") for name in ("A.1.1.a1", "B.1.1.a1"))
        for each in (theirs, Path(folder, "scratch")):
            os.chown(each, nobody.pw_uid, nobody.pw_gid)
        here = Path(folder, "epilogue")
        script = (DEPLOY / "epilogue").read_text()
        here.write_text(script.replace("\nscratch=/scratch\n", f"\nscratch='{folder}/scratch'\n"))
        argv = ["sh", str(here), "7.server", "nobody", "nogroup"]
        done = subprocess.run(argv, env={"PATH": MOMS_PATH}, cwd="/", capture_output=True, check=True)
        assert done.stderr == b"" and not theirs.exists() and other.exists()


def left(tmp_path: Path, name: str, **lease: object) -> Path:
    folder = tmp_path / "scratch" / name
    folder.mkdir(parents=True)
    (folder / "lease.json").write_text(json.dumps(lease))
    return folder


def test_the_epilogue_removes_what_this_job_left_and_nothing_else(tmp_path: Path) -> None:
    mine = left(tmp_path, "A.1.1.a1", job_id="7.server", stranded=False)
    kept = [
        left(tmp_path, "B.1.1.a1", job_id="8.server"),
        left(tmp_path, "C.1.1.a1", job_id="7.server", stranded=True),
        left(tmp_path, "someone's"),
    ]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lease.json").write_text(json.dumps({"job_id": "7.server"}))
    (tmp_path / "scratch" / "link").symlink_to(elsewhere)
    (tmp_path / "scratch" / "garbage").mkdir()
    (tmp_path / "scratch" / "garbage" / "lease.json").write_bytes(b"\xff[")
    assert epilogue(tmp_path, "7.server") == 0
    assert not mine.exists()
    assert all(folder.exists() for folder in [*kept, elsewhere, tmp_path / "scratch" / "garbage"])
    assert epilogue(tmp_path, "") == 0, "a mom that tells no job"


def submitted(tmp_path: Path, script: str, *arguments: str, conf: str = "") -> str:
    (tmp_path / "conf").write_text(conf)
    done = subprocess.run(
        [DEPLOY / "submitfilter", *arguments],
        input=script.encode(),
        env=os.environ | {"TILTD_SUBMITFILTER": str(tmp_path / "conf")},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.decode()


HAND_MADE = "#!/bin/bash\n#PBS -N mine\ncd $PBS_O_WORKDIR\nbatchruntomo -directive x.adoc\n"


def test_a_hand_made_job_that_says_nothing_gets_the_defaults(tmp_path: Path) -> None:
    out = submitted(tmp_path, HAND_MADE)
    assert out.splitlines()[:3] == ["#!/bin/bash", "#PBS -l nodes=1:ppn=4", "#PBS -l walltime=00:30:00"]
    assert out.replace("#PBS -l nodes=1:ppn=4\n#PBS -l walltime=00:30:00\n", "") == HAND_MADE
    assert submitted(tmp_path, "tilt -h\n").startswith("#PBS -l nodes=1:ppn=4\n"), "a script without #!"


@pytest.mark.parametrize(
    ("more", "arguments", "added"),
    [
        ("#PBS -l nodes=2:ppn=8\n", (), ["walltime"]),
        ("", ("-l", "walltime=10:00:00"), ["nodes"]),
        ("#PBS -l nodes=1,walltime=1:00\n", (), []),
        ("", ("-lprocs=3,walltime=10:00",), []),
    ],
)
def test_what_a_job_says_itself_counts(
    tmp_path: Path, more: str, arguments: tuple[str, ...], added: list[str]
) -> None:
    script = HAND_MADE.replace("cd ", more + "cd ")
    new = [line for line in submitted(tmp_path, script, *arguments).splitlines() if line not in script]
    assert [line.split()[2].partition("=")[0] for line in new] == added


@pytest.mark.parametrize(
    "script", ["#!/bin/sh\necho hello\n", "", "no newline", "#!/bin/sh\nbtilt x\ntilting\n"]
)
def test_other_jobs_go_through_as_they_are(tmp_path: Path, script: str) -> None:
    assert submitted(tmp_path, script) == script


def test_the_site_has_figures_of_its_own(tmp_path: Path) -> None:
    out = submitted(tmp_path, HAND_MADE, conf="ppn=8\nwalltime=2:00:00\nproperty=tomography\n")
    assert "#PBS -l nodes=1:ppn=8:tomography\n#PBS -l walltime=2:00:00\n" in out
    assert submitted(tmp_path, HAND_MADE, conf="programs=relion\n") == HAND_MADE


POLICY = """
[resources]
cores = { base = 6 }
[[rule]]
name = "big"
when = { size = { min = "5GB" } }
set = { cores = 12, walltime = "2.5h", properties = ["tomography", "fast"] }
"""


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert dispatch(["policy", "explain", "--submit-filter", *arguments]) == 0
    return capsys.readouterr().out


def test_its_figures_are_those_of_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    asked = ("--shipped", "--policy", str(tmp_path / "policy.toml"), "--size")
    conf = told(capsys, *asked, "9GB")
    assert submitted(tmp_path, HAND_MADE, conf=conf).splitlines()[1:3] == [
        "#PBS -l nodes=1:ppn=12:tomography:fast", "#PBS -l walltime=02:30:00"
    ]  # fmt: skip
    conf = told(capsys, *asked, "2.6GB")
    assert "nodes=1:ppn=6\n" in submitted(tmp_path, HAND_MADE, conf=conf)


def test_what_it_does_without_a_file_is_what_the_shipped_policy_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = told(capsys, "--shipped", "--size", "2.6GB")
    assert submitted(tmp_path, HAND_MADE, conf=conf) == submitted(tmp_path, HAND_MADE)


def test_every_script_is_one_for_sh() -> None:
    for name in ("prologue", "epilogue", "submitfilter"):
        assert subprocess.run(["sh", "-n", DEPLOY / name], check=False).returncode == 0
        assert os.access(DEPLOY / name, os.X_OK)
