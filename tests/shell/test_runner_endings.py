"""Every way a runner can be ended: TERM in each phase, KILL in each phase, and what is left (nothing)."""

from __future__ import annotations

import ast
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from shell.runner_site import MAKE_RESULT, RunnerSite, python, running, wait_until
from tiltd.daemon import runner

SLEEPS = python(
    "import subprocess, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen(['sleep', '600'], start_new_session=True); open(s + b'/going', 'w'); time.sleep(600)"
)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunnerSite:
    monkeypatch.setenv("TILTD_TEST_MARK", str(tmp_path))
    return RunnerSite(tmp_path)


def nothing_runs(site: RunnerSite) -> bool:
    """Steps, runner and janitor are all gone."""
    me = os.getpid()
    return not [pid for pid in running(f"TILTD_TEST_MARK={site.root}") if pid != me]


def started_in(site: RunnerSite, phase: str) -> Any:
    """A runner that stays in this phase; in the step, with a pair of stubborn processes."""
    site.prepare(SLEEPS if phase == "step" else MAKE_RESULT)
    process = site.start(hold_copy={"stage_in": 1, "step": 0, "stage_out": 2}[phase])
    sign = site.job_scratch / "going" if phase == "step" else site.holding
    wait_until(lambda: sign.exists() or process.poll() is not None)
    return process


@pytest.mark.parametrize("phase", ["stage_in", "step", "stage_out"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(site: RunnerSite, phase: str, signum: signal.Signals) -> None:
    process = started_in(site, phase)
    process.send_signal(signum)
    assert process.wait(timeout=30) == 143, site.seen().end
    end = site.seen().end
    assert end is not None and end.outcome == "terminated"
    assert end.exit_status == 128 + signum and signum.name in end.detail and phase in end.detail
    assert site.clean() and not site.staging.exists()
    wait_until(lambda: nothing_runs(site))


def test_the_end_is_told_before_the_steps_are_waited_for(site: RunnerSite) -> None:
    process = started_in(site, "step")
    process.terminate()
    wait_until(lambda: site.seen().end, seconds=runner.GRACE_SECONDS - 1)
    assert process.poll() is None
    process.kill()
    process.wait()
    wait_until(lambda: nothing_runs(site) and site.clean())
    assert (site.folder / "end").read_text().count("terminated") == 1


@pytest.mark.parametrize("phase", ["stage_in", "step", "stage_out"])
@pytest.mark.parametrize("whole_session", [False, True])
def test_a_killed_runner_leaves_nothing_behind(site: RunnerSite, phase: str, whole_session: bool) -> None:
    process = started_in(site, phase)
    if whole_session:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    wait_until(lambda: nothing_runs(site))
    assert site.clean() and not site.staging.exists()
    end = site.seen().end
    assert end is not None and (end.outcome, end.reason) == ("terminated", "killed")


def test_a_tree_that_is_killed_at_once_leaves_nothing_either(site: RunnerSite) -> None:
    process = started_in(site, "step")
    table = runner.processes()
    tree = {process.pid}
    while more := {pid for pid, found in table.items() if found[0] in tree} - tree:
        tree |= more
    for pid in tree:
        os.kill(pid, signal.SIGKILL)
    process.wait(timeout=30)
    wait_until(lambda: nothing_runs(site) and site.clean())


def test_steps_do_not_hold_the_janitors_pipe(site: RunnerSite) -> None:
    code = "print(sorted(os.listdir('/proc/self/fd')), file=open(o + b'/fds', 'w'))"
    site.prepare(python(code))
    assert site.run() == 0
    assert len(ast.literal_eval((site.staging / "fds").read_text())) <= 5  # 0, 1, 2, the folder, the file
    wait_until(lambda: nothing_runs(site))


def test_a_recycled_session_number_is_a_stranger() -> None:
    """A step's session is ours only while its leader is the process that we started, or is gone."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    try:
        wait_until(lambda: runner.processes().get(child, (0, 0, 0, 0))[1] == child)
        started = runner.pid_started(child)
        assert runner.leftovers(b"NOT=ours", {child: started + 1}) == set()
        assert runner.leftovers(b"NOT=ours", {child: started}) == {child}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_strangers_folder_on_scratch_is_not_swept(site: RunnerSite) -> None:
    other = site.scratch / "someone"
    other.mkdir()
    (other / "data").write_text("x")
    site.prepare(python("os.kill(os.getppid(), 9); time.sleep(600)"))
    process = site.start()
    process.wait(timeout=30)
    wait_until(lambda: nothing_runs(site))
    assert site.clean() and (other / "data").exists()


def test_folders_without_permissions_are_removed_too(site: RunnerSite) -> None:
    site.prepare(
        python("os.makedirs(s + b'/tmp/a/b'); open(s + b'/tmp/a/b/c', 'w'); os.chmod(s + b'/tmp/a', 0)")
    )
    assert site.run() == 0
    assert site.clean()


def test_a_failed_end_marker_does_not_lose_the_result(site: RunnerSite) -> None:
    site.prepare()
    (site.folder / "end").unlink()
    (site.folder / "end").mkdir()
    process = site.start()
    wait_until(lambda: "the end cannot be written" in site.log())
    (site.folder / "end").rmdir()
    assert process.wait(timeout=30) == 0
    end = site.seen().end
    assert end is not None and end.outcome == "success"
