"""A run of batchruntomo that is ended from outside, at every step: nothing is left, nothing was touched."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from plugins.replaying import ReplaySite
from shell.runner_site import running, wait_until

STEPS = ("setup", "eraser", "stats", "archiveorig", "xcorr", "prenewst", "autofidseed", "track", "align")
STEPS += ("newst", "tilt", "trimvol")


def held(root: Path, step: str, **wishes: Any) -> tuple[ReplaySite, Any]:
    """A run that stays in ``step``, and its runner."""
    replay = ReplaySite(root, "full_S_2cpu", hold=step, **wishes)
    replay.prepare()
    process = replay.site.start(env={"TILTD_TEST_MARK": str(root)})
    whole = step if step == "validate" else f"batchruntomo: {step}"
    wait_until(lambda: label(replay) == whole or process.poll() is not None)
    return replay, process


def label(replay: ReplaySite) -> str:
    progress = replay.site.seen().progress
    return progress.step if progress else ""


def nothing_is_left(replay: ReplaySite) -> None:
    wait_until(lambda: not running(f"TILTD_TEST_MARK={replay.site.root}"))
    assert replay.site.clean() and list(replay.site.scratch.iterdir()) == []
    assert not replay.site.staging.exists()
    assert replay.identity() == replay.before


@pytest.mark.parametrize("step", STEPS)
def test_term_at_every_step(tmp_path: Path, step: str) -> None:
    replay, process = held(tmp_path, step)
    assert len(running(f"TILTD_TEST_MARK={tmp_path}")) >= 3, "runner, batchruntomo and the step's program"
    process.terminate()
    assert process.wait(timeout=30) == 143
    end = replay.site.seen().end
    assert end is not None and end.outcome == "terminated" and end.step == f"batchruntomo: {step}"
    failure = replay.judge(end).failure
    assert failure is not None and failure.failure_class == "killed"
    nothing_is_left(replay)


def test_term_while_the_directives_are_looked_at(tmp_path: Path) -> None:
    replay, process = held(tmp_path, "validate")
    process.terminate()
    assert process.wait(timeout=30) == 143
    nothing_is_left(replay)


@pytest.mark.parametrize(("signum", "step"), [(signal.SIGTERM, "tilt"), (signal.SIGHUP, "xcorr")])
def test_a_run_that_does_not_heed_its_check_file_is_signalled(
    tmp_path: Path, signum: signal.Signals, step: str
) -> None:
    replay, process = held(tmp_path, step, deaf=True)
    process.send_signal(signum)
    assert process.wait(timeout=30) == 143
    nothing_is_left(replay)


def test_the_replay_takes_disk_space_as_recorded(tmp_path: Path) -> None:
    """While it was trimmed there was 13.5 times the stack; the runner sees it, and it is given back."""
    replay, process = held(tmp_path, "trimvol")
    folder, stack = replay.site.job_scratch / "input", replay.site.stack.stat().st_size

    def ratio() -> float:
        return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / stack

    wait_until(lambda: 13.0 < ratio() < 14.5)
    process.terminate()
    assert process.wait(timeout=30) == 143
    nothing_is_left(replay)


def test_a_killed_runner_leaves_nothing_of_batchruntomo(tmp_path: Path) -> None:
    replay, process = held(tmp_path, "track")
    process.kill()
    process.wait(timeout=30)
    wait_until(lambda: not running(f"TILTD_TEST_MARK={tmp_path}") and replay.site.clean())
    nothing_is_left(replay)


def test_batchruntomo_alone_being_ended_leaves_no_orphan(tmp_path: Path) -> None:
    """As recorded in s_sigterm_only, where processchunks went on by itself."""
    replay, process = held(tmp_path, "tilt")
    mine = [pid for pid in running(f"TILTD_TEST_MARK={tmp_path}") if b"standin" in command_of(pid)]
    assert len(mine) == 1
    os.kill(mine[0], signal.SIGTERM)
    assert process.wait(timeout=30) == 1
    end = replay.site.seen().end
    assert end is not None and (end.outcome, end.exit_status) == ("failed", 143)
    failure = replay.judge(end).failure
    assert failure is not None and (failure.failure_class, failure.reason) == ("killed", "terminated")
    nothing_is_left(replay)


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
