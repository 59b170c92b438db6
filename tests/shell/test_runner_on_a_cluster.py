"""The runner on nodes of a batch system: whose node it is, turns at staging in, errands, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shell.runner_site import MAKE_RESULT, RunnerSite, python, wait_until
from tiltd.daemon import errands, runner
from tiltd.daemon.told import RunSeen


@pytest.fixture
def site(tmp_path: Path) -> RunnerSite:
    return RunnerSite(tmp_path)


def nodefile(tmp_path: Path, *lines: str) -> dict[str, str]:
    path = tmp_path / "nodefile"
    path.write_text("".join(f"{line}\n" for line in lines))
    return {"PBS_NODEFILE": str(path), "TILTD_NODE": ""}


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "progress").read_text().splitlines() if line]


# -- whose node it is ------------------------------------------------------------------------------


def test_its_node_is_the_one_that_the_batch_system_names(site: RunnerSite, tmp_path: Path) -> None:
    site.prepare()
    assert site.run(env=nodefile(tmp_path, "core-014", "core-014")) == 0
    seen = site.seen()
    assert seen.claimed_node == "core-014"
    assert seen.end is not None and seen.end.node == "core-014"


def test_a_step_is_told_all_hosts_of_its_job(site: RunnerSite, tmp_path: Path) -> None:
    step = python("open(o + b'/hosts', 'w').write(sys.argv[4])")
    step["argv"] = [*step["argv"], "{hosts}"]
    site.prepare(step)
    nodes = nodefile(tmp_path, "core-012", "core-012", "core-014", "core-012")
    assert site.run(env=nodes) == 0
    assert (site.staging / "hosts").read_text() == "core-012#3,core-014#1"


def test_without_a_batch_system_the_host_is_this_one_with_all_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PBS_NODEFILE", raising=False)
    assert runner.host_list("here", 4) == "here#4"


@pytest.mark.parametrize(
    "scratch",
    [{"path": "/nowhere", "paths": {"core-014": "SCRATCH"}}, {"path": "ROOT/{node}"}],
    ids=["paths", "template"],
)
def test_where_nodes_have_their_own_scratch_it_takes_that_of_its_node(
    site: RunnerSite, tmp_path: Path, scratch: dict[str, Any]
) -> None:
    mine = tmp_path / "core-014"
    mine.mkdir()
    text = json.dumps(scratch).replace("SCRATCH", str(mine)).replace("ROOT", str(tmp_path))
    step = python("open(o + b'/where', 'wb').write(s)")
    site.prepare(step, scratch=json.loads(text) | {"bytes": 100_000, "ballast": True})
    assert site.run(env=nodefile(tmp_path, "core-014")) == 0
    assert (site.staging / "where").read_text() == str(mine / site.attempt_id)
    assert list(mine.iterdir()) == []


# -- what is left ----------------------------------------------------------------------------------


def test_it_says_when_nothing_of_it_is_left(site: RunnerSite, tmp_path: Path) -> None:
    site.prepare()
    assert site.run(env=nodefile(tmp_path, "core-014")) == 0
    wait_until(lambda: site.phase() == "cleaned")
    assert site.seen().runs == (RunSeen(node="core-014", cleaned=True),)
    time.sleep(0.1)
    assert [line["phase"] for line in told(site.folder)].count("cleaned") == 1, (
        "the janitor says nothing more"
    )


def test_its_janitor_says_so_when_the_runner_was_killed(site: RunnerSite) -> None:
    site.prepare(python("time.sleep(60)"))
    process = site.start()
    wait_until(lambda: site.phase() == "step")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: site.phase() == "cleaned")
    assert site.clean()


def test_a_result_that_stays_on_the_node_is_not_said_to_be_cleaned(site: RunnerSite) -> None:
    site.results.rmdir()
    site.results.write_text("no folder")
    site.prepare()
    assert site.run() == 1
    time.sleep(0.2)
    assert site.phase() != "cleaned"
    assert site.job_scratch.exists()
    site.results.unlink()
    rescue = {"kind": "rescue", "attempt_id": "TS_01.1.1.a2", "rescue": {"path": str(site.job_scratch)}}
    output = site.document()["output"] | {"staging": str(site.results / ".tiltd-TS_01.1.1.a2")}
    site.spool.prepare("TS_01.1.1.a2", site.document(steps=[], output=output, **rescue))
    run = [sys.executable, runner.__file__, str(site.spool.folder("TS_01.1.1.a2"))]
    assert subprocess.run(run, env=os.environ | {"TILTD_JOB_ID": "8.here"}, check=False).returncode == 0
    assert site.phase() == "cleaned", "the rescue has moved the last of it"


def left_behind(site: RunnerSite, name: str, **changes: Any) -> Path:
    folder = site.scratch / name
    folder.mkdir()
    (folder / "data").write_bytes(b"x" * 1000)
    lease = {"attempt_id": name, "node": "n", "run": "1.1", "expires_at": time.time() - 1, "stranded": False}
    (folder / "lease.json").write_text(json.dumps(lease | changes))
    return folder


def test_what_dead_runs_left_is_removed_once_its_lease_is_over(site: RunnerSite) -> None:
    me = f"{os.getpid()}.{runner.pid_started(os.getpid())}"
    gone = left_behind(site, "dead.1.1.a1")
    kept = [
        left_behind(site, "fresh.1.1.a1", expires_at=time.time() + 60),
        left_behind(site, "elsewhere.1.1.a1", node="another"),
        left_behind(site, "stranded.1.1.a1", stranded=True),
        left_behind(site, "alive.1.1.a1", run=me),
    ]
    (site.scratch / "someone's").mkdir()
    site.prepare()
    assert site.run(env={"TILTD_NODE": "n"}) == 0
    assert not gone.exists()
    assert all(folder.exists() for folder in [*kept, site.scratch / "someone's"])
    assert "left by a run that died" in site.log()


# -- sweep jobs ------------------------------------------------------------------------------------


def sweep(site: RunnerSite, attempt_id: str, given_up: bool = False) -> dict[str, Any]:
    document = errands.sweep_document(attempt_id, str(site.scratch), given_up, 1.0)
    folder = site.spool.prepare(document["attempt_id"], document)
    run = [sys.executable, runner.__file__, folder]
    subprocess.run(run, env=os.environ | {"TILTD_JOB_ID": "9.here", "TILTD_NODE": "n"}, check=False)
    end = site.spool.read(document["attempt_id"]).end
    assert end is not None
    return {"outcome": end.outcome, "detail": end.detail}


def test_a_sweep_removes_what_a_dead_attempt_left_and_nothing_else(site: RunnerSite) -> None:
    later = time.time() + 86400
    mine, other = (left_behind(site, name, expires_at=later) for name in ("A.1.1.a1", "B.1.1.a1"))
    (site.scratch / "A.1.1.a1.old").mkdir()
    assert sweep(site, "A.1.1.a1")["outcome"] == "success"
    assert not mine.exists() and not (site.scratch / "A.1.1.a1.old").exists()
    assert other.exists()
    assert sweep(site, "C.1.1.a1")["outcome"] == "success", "there was nothing"


def test_a_sweep_ends_the_processes_that_a_dead_runner_left(site: RunnerSite) -> None:
    left_behind(site, "A.1.1.a1", expires_at=time.time() + 86400, run="1.99")
    lost = subprocess.Popen(["sleep", "60"], env=os.environ | {"TILTD_RUN": "A.1.1.a1:1.99"})
    assert sweep(site, "A.1.1.a1")["outcome"] == "success"
    assert lost.wait(10) == -signal.SIGTERM


def test_a_sweep_leaves_a_living_run_and_a_result_that_waits(site: RunnerSite) -> None:
    me = f"{os.getpid()}.{runner.pid_started(os.getpid())}"
    left_behind(site, "A.1.1.a1", run=me)
    found = sweep(site, "A.1.1.a1")
    assert (found["outcome"], "still alive" in found["detail"]) == ("failed", True)
    stranded = left_behind(site, "B.1.1.a1", stranded=True)
    assert "waits for its rescue" in sweep(site, "B.1.1.a1")["detail"]
    assert stranded.exists()
    site.spool.remove("B.1.1.a1.sweep")
    assert sweep(site, "B.1.1.a1", given_up=True)["outcome"] == "success"
    assert not stranded.exists()


def test_a_sweep_where_there_is_no_scratch_folder_finds_nothing(site: RunnerSite) -> None:
    site.scratch.rmdir()
    assert sweep(site, "A.1.1.a1")["outcome"] == "success"
    assert not site.scratch.exists()


# -- an examination --------------------------------------------------------------------------------


def test_an_examination_tells_what_works_and_cleans_up_when_it_is_ended(
    site: RunnerSite, tmp_path: Path
) -> None:
    document = errands.check_document(
        "check-n-1",
        str(site.scratch),
        1_000_000,
        1.0,
        feeds=[("krios", str(site.feed)), ("gone", str(tmp_path / "not there"))],
        destinations=[str(site.results), "/proc/1"],
        programs=["sh", "no-such-program", "{python}"],
        modules=["json", "no_such_module"],
        output={"dir_mode": "0750", "file_mode": "0640", "group": ""},
    )
    folder = Path(site.spool.prepare("check-n-1", document))
    run = [sys.executable, runner.__file__, str(folder)]
    process = subprocess.Popen(run, env=os.environ | {"TILTD_JOB_ID": "9.here"}, start_new_session=True)
    wait_until(lambda: any(line.get("what") == "echo" for line in told(folder)))
    (folder / "echo").touch()
    wait_until(lambda: any(line["phase"] == "wait" for line in told(folder)))
    found = {line["what"]: (line["ok"], line["detail"]) for line in told(folder) if line["phase"] == "check"}
    assert {what for what, (ok, _) in found.items() if not ok} == {
        "feed gone",
        "destination /proc/1",
        "program no-such-program",
        "module no_such_module",
    }
    assert "mode 0750" in found[f"destination {site.results}"][1]
    assert found["scratch"][1].startswith("1000000 bytes are reserved")
    assert "there and back" in found["spool"][1]
    assert list(site.results.iterdir()) == []
    process.terminate()
    assert process.wait(20) == 143
    assert list(site.scratch.iterdir()) == []
    assert [line["phase"] for line in told(folder)][-1] == "cleaned"


# -- turns at staging in ---------------------------------------------------------------------------


def ticket(folder: Path, name: str, count: int = 2) -> runner.Ticket:
    return runner.Ticket(str(folder), count, name)


def test_no_more_than_the_number_of_tickets_stage_in_at_once(tmp_path: Path) -> None:
    first, second, third = (ticket(tmp_path, name) for name in "abc")
    assert (first.take(), second.take(), third.take()) == (True, True, False)
    first.give_back()
    assert third.take()
    second.give_back()
    third.give_back()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_runs_ticket_is_anybodys_after_two_minutes_and_a_renewed_one_is_not(tmp_path: Path) -> None:
    dead, living, waiting = (ticket(tmp_path, name) for name in "abc")
    assert dead.take() and living.take()
    for name in (".a", ".b"):
        os.utime(tmp_path / name, (time.time() - 200, time.time() - 200))
    living.renewed_at -= 200
    living.renew()
    assert waiting.take() and waiting.slot.endswith("/0")
    dead.give_back()
    assert (tmp_path / "0").exists(), "it is another's now"


def test_a_ticket_that_was_taken_from_a_living_run_is_put_back(tmp_path: Path) -> None:
    living, hasty = ticket(tmp_path, "a"), ticket(tmp_path, "b")
    assert living.take()
    (tmp_path / ".b").touch()
    hasty.clear(living.slot, time.time())
    assert Path(living.slot).samefile(living.own)


def test_without_the_folder_or_without_a_cap_nobody_waits(tmp_path: Path) -> None:
    assert ticket(tmp_path / "not there", "a").take()
    assert ticket(tmp_path, "a", count=0).take()
    assert list(tmp_path.iterdir()) == []


def test_a_run_waits_for_its_turn_and_gives_it_back(
    site: RunnerSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tickets = tmp_path / "tickets"
    tickets.mkdir()
    other = ticket(tickets, "other", count=1)
    assert other.take()
    site.prepare(MAKE_RESULT, stage_in={"tickets": 1, "folder": str(tickets)})
    process = site.start()
    wait_until(lambda: any(line.get("step") == "waits for its turn" for line in told(site.folder)))
    assert site.phase() == "stage_in"
    other.give_back()
    assert process.wait(20) == 0
    assert list(tickets.iterdir()) == []


def test_who_waits_for_too_long_copies_without_a_ticket(site: RunnerSite, tmp_path: Path) -> None:
    tickets = tmp_path / "tickets"
    tickets.mkdir()
    other = ticket(tickets, "other", count=1)
    assert other.take()
    site.prepare(MAKE_RESULT, stage_in={"tickets": 1, "folder": str(tickets)}, walltime_seconds=8.0)
    assert site.run() == 0
    assert any("without" in str(line.get("note")) for line in told(site.folder))
