"""The spool as the daemon uses it: everything twice, everything torn, everything full."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shell.test_jobfile import STEPS, dataset, document
from tiltd.daemon import jobfile, runner
from tiltd.daemon import spool as spool_module
from tiltd.daemon import told as told_module
from tiltd.daemon.core.model import JobFile, Progress, RunSeen
from tiltd.daemon.spool import Spool
from tiltd.daemon.spool_watch import SpoolWatch
from tiltd.plugins.api import Temporary

ATTEMPT = "TS-0.1.1.a1"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def claimed(spool: Spool, job_id: str = "7.srv") -> Path:
    spool.prepare(ATTEMPT, document())
    folder = spool.folder(ATTEMPT)
    (folder / "job.json").rename(folder / f"claimed.{job_id}")
    return folder


def end_line(outcome: str, **more: Any) -> bytes:
    record = {"job_id": "7.srv", "nonce": "n", "outcome": outcome, "ended_at": 5.0, "node": "core-012"}
    return json.dumps(record | more).encode() + b"\n"


def test_the_runner_is_copied_by_content(spool: Spool) -> None:
    path = Path(spool.install_runner())
    assert path.read_bytes() == Path(runner.__file__).read_bytes()
    before = path.stat().st_mtime_ns
    assert spool.install_runner() == str(path) and path.stat().st_mtime_ns == before
    path.write_bytes(b"half")
    spool.install_runner()
    assert path.read_bytes() == Path(runner.__file__).read_bytes()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_preparing_twice_changes_nothing(spool: Spool) -> None:
    folder = Path(spool.prepare(ATTEMPT, document()))
    assert sorted(os.listdir(folder)) == ["end", "job.json", "progress"]
    before = (folder / "job.json").stat().st_mtime_ns
    spool.prepare(ATTEMPT, document(nonce="other"))
    assert (folder / "job.json").stat().st_mtime_ns == before
    assert spool.attempts() == [ATTEMPT]


def test_a_claimed_or_revoked_attempt_is_not_prepared_again(spool: Spool) -> None:
    folder = claimed(spool)
    spool.prepare(ATTEMPT, document())
    assert not (folder / "job.json").exists()
    assert spool.revoke(ATTEMPT) == (False, "7.srv")
    assert spool.revoke("TS-0.1.1.a2") == (True, "")
    spool.prepare("TS-0.1.1.a2", document())
    assert not (spool.folder("TS-0.1.1.a2") / "job.json").exists()


def test_a_crash_while_preparing_is_repaired(spool: Spool) -> None:
    folder = spool.folder(ATTEMPT)
    folder.mkdir(parents=True)
    (folder / ".job.json.9.new").write_bytes(b"{half")
    (folder / "progress").touch()
    assert not spool.read(ATTEMPT).prepared
    spool.prepare(ATTEMPT, document())
    assert spool.read(ATTEMPT).prepared


@pytest.mark.parametrize("torn", [b"", b"{half", b'{"format": 1, "nonce": "\0\0\0"}'])
def test_a_job_file_that_a_power_cut_tore_is_written_again(spool: Spool, torn: bytes) -> None:
    folder = Path(spool.prepare(ATTEMPT, document()))
    (folder / "job.json").write_bytes(torn)
    later = Spool(spool.root)
    assert later.nonce(ATTEMPT, "job.json") == ""
    later.prepare(ATTEMPT, document())
    assert later.document(ATTEMPT) == jobfile.decode(jobfile.encode(document()))
    assert later.nonce(ATTEMPT, "job.json") == document()["nonce"]
    (folder / "job.json").rename(folder / "revoked")
    (folder / "revoked").write_bytes(torn)
    later.prepare(ATTEMPT, document())
    assert sorted(os.listdir(folder)) == ["end", "progress", "revoked"], "only job.json is ever written again"


def test_once_prepared_all_of_it_is_durable(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made since the last fsync of each is what a power cut may take."""
    loose: set[str] = set()
    commits: list[str] = []
    real = {name: getattr(os, name) for name in ("mkdir", "open", "rename", "fsync")}

    def made(name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> Any:
            done = real[name](*arguments, **more)
            path = str(arguments[-1] if name == "rename" else arguments[0])
            if name != "open" or arguments[1] & os.O_CREAT:
                loose.add(os.path.dirname(path))
                if name == "rename":
                    loose.add(path)
            return done

        return call

    def synced(descriptor: int) -> None:
        real["fsync"](descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        commits.append(path.name)
        loose.discard(str(path))

    spool.prepare("before.a1", document())
    for name in ("mkdir", "open", "rename"):
        monkeypatch.setattr(spool_module.os, name, made(name))
    monkeypatch.setattr(spool_module.os, "fsync", synced)
    spool.prepare(ATTEMPT, document())
    assert not loose and commits == ["job.json", ATTEMPT, "attempts"]
    spool.prepare(ATTEMPT, document())
    assert commits == 2 * ["job.json", ATTEMPT, "attempts"], "who made it may have died before it was durable"


def test_where_it_cannot_be_made_durable_it_is_not_prepared(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(spool_module.os, "fsync", fails)
    with pytest.raises(Temporary):
        spool.prepare(ATTEMPT, document())
    assert sorted(os.listdir(spool.folder(ATTEMPT))) == ["end", "progress"]


def test_revoking_twice(spool: Spool) -> None:
    spool.prepare(ATTEMPT, document())
    assert spool.revoke(ATTEMPT) == (True, "")
    assert spool.revoke(ATTEMPT) == (True, "")
    assert spool.read(ATTEMPT).revoked


def test_claim_or_revoke_one_wins(spool: Spool) -> None:
    for number in range(200):
        attempt_id = f"race.a{number}"
        folder = spool.prepare(attempt_id, {"format": 1})
        barrier, won = threading.Barrier(2), []

        def claim(barrier: threading.Barrier = barrier, folder: str = folder, won: list[bool] = won) -> None:
            barrier.wait()
            won.append(runner.claim(folder, "7"))

        thread = threading.Thread(target=claim)
        thread.start()
        barrier.wait()
        revoked, by = spool.revoke(attempt_id)
        thread.join()
        assert won == [not revoked] and by == ("" if revoked else "7")


def test_fencing_twice(spool: Spool) -> None:
    claimed(spool)
    assert not spool.read(ATTEMPT).fenced
    spool.fence(ATTEMPT)
    spool.fence(ATTEMPT)
    assert spool.read(ATTEMPT).fenced


def test_what_the_runner_told_is_read(spool: Spool) -> None:
    folder = claimed(spool)
    claim = {"phase": "claimed", "job_id": "7.srv", "node": "core-012", "pid": 5, "pid_started": 9, "at": 3.0}
    step = {"phase": "step", "step": "align", "done": 3, "total": 41, "at": 4.5, "later_field": 1}
    (folder / "progress").write_text(f"\n{json.dumps(claim)}\n{json.dumps(step)}\n")
    seen = spool.read(ATTEMPT)
    assert (seen.claimed_by, seen.claimed_node, seen.claimed_at) == ("7.srv", "core-012", 3.0)
    assert (seen.pid, seen.pid_started) == (5, 9)
    assert seen.progress is not None and (seen.progress.step, seen.progress.done) == ("align", 3.0)
    observed = seen.observed(6.0)
    assert (observed.at, observed.claimed_by, observed.progress) == (6.0, "7.srv", seen.progress)


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"phase": "st',
        b"\xff\xfe\0\n",
        b"[1]\n",
        b'{"phase": 3}\n',
        b"[" * 100_000 + b"\n",
        b'{"at": "x"}\n',
    ],
)
def test_garbage_and_torn_lines_are_passed_over(spool: Spool, garbage: bytes) -> None:
    folder = claimed(spool)
    good = b'{"phase": "step", "at": 4.0}\n'
    for content in (good + garbage, garbage + b"\n" + good):
        (folder / "progress").write_bytes(content)
        (folder / "end").write_bytes(end_line("failed") + garbage)
        seen = spool.read(ATTEMPT)
        assert seen.progress is not None and seen.progress.at == 4.0
        assert seen.end is not None and seen.end.outcome == "failed"


def test_a_huge_file_costs_no_more_than_a_small_one(spool: Spool) -> None:
    folder = claimed(spool)
    claim = {"phase": "claimed", "job_id": "7.srv", "node": "core-012", "at": 3.0}
    with open(folder / "progress", "wb") as file:
        file.write(json.dumps(claim).encode() + b"\n")
        file.truncate(50 << 30)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"phase": "step", "at": 4.0}\n')
    seen = spool.read(ATTEMPT)
    assert seen.claimed_node == "core-012"
    assert seen.progress is not None and seen.progress.phase == "step"


def test_only_this_runs_end_counts_and_success_is_final(spool: Spool) -> None:
    folder = claimed(spool)
    (folder / "end").write_bytes(end_line("success", nonce="other") + b"\n" + end_line("terminated"))
    end = spool.read(ATTEMPT).end
    assert end is not None and end.outcome == "terminated"
    with open(folder / "end", "ab") as file:
        file.write(end_line("success") + end_line("terminated") + end_line("lost_claim"))
    end = spool.read(ATTEMPT).end
    assert end is not None and end.outcome == "success"


def test_of_a_long_run_only_what_is_asked_for_is_parsed(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its progress grows all the time, and is read whenever it did."""
    folder = claimed(spool)
    first = {"phase": "claimed", "job_id": "7.srv", "node": "n1", "at": 1.0, "pid": 7, "pid_started": 8}
    lines = [first, *({"phase": "step", "at": 2.0 + number} for number in range(500))]
    lines += [
        {"phase": "cleaned", "node": "n1", "at": 600.0},
        {"phase": "claimed", "job_id": "7.srv", "node": "n2"},
    ]
    lines += [{"phase": "step", "at": 700.0, "done": 3.0}, {"phase": "step", "at": "soon"}]
    content = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n{torn"
    (folder / "progress").write_bytes(content)
    parsed: list[bytes] = []
    real = told_module._object
    monkeypatch.setattr(told_module, "_object", lambda line: parsed.append(line) or real(line))
    seen = spool.read(ATTEMPT)
    assert seen.progress == Progress(phase="step", at=700.0, done=3.0) and len(parsed) == 6
    assert seen.runs == (RunSeen(node="n1", cleaned=True), RunSeen(node="n2", cleaned=False))
    assert (seen.claimed_node, seen.pid) == ("n2", 0)


def test_the_story_of_an_orphan(spool: Spool) -> None:
    claimed(spool)
    told = spool.story(ATTEMPT)
    assert told is not None and told.dataset_id == dataset().dataset_id and told.attempts
    assert spool.story("nobody") is None
    copied = ATTEMPT[:-1] + "7"
    shutil.copytree(spool.folder(ATTEMPT), spool.folder(copied))
    assert spool.story(copied) is None
    (spool.folder(ATTEMPT) / "claimed.7.srv").write_bytes(b"{")
    assert spool.story(ATTEMPT) is None
    spool.revoke("never")
    assert spool.story("never") is None


def test_what_a_job_file_tells_is_read_once_and_long_texts_when_they_are_asked_for(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (spool.told(ATTEMPT), spool.texts(ATTEMPT)) == ({}, {}), "nothing there yet, which is not kept"
    kept = (JobFile(name="a.adoc", text="x" * 9000, kept=True), JobFile(name="b", text="y"))
    written = document(msgspec.structs.replace(STEPS, files=kept))
    spool.prepare(ATTEMPT, written)
    reads: list[str] = []
    real = Spool.document
    monkeypatch.setattr(Spool, "document", lambda self, each: reads.append(each) or real(self, each))
    for whose, first in ((spool, 0), (Spool(spool.root), 1)):
        for _ in range(2):
            told = whose.told(ATTEMPT)
            assert jobfile.expected_results(told) == STEPS.results and jobfile.step_names(told) == ("align",)
            assert (told["nonce"], jobfile.staging(told)) == ("n", "/out/.tiltd-a")
        assert len(reads) == first and "x" * 9000 not in str(told) and "story" not in told
        assert whose.texts(ATTEMPT) == {"a.adoc": "x" * 9000} and len(reads) == first + 1
        reads.clear()


def test_removing_twice(spool: Spool) -> None:
    claimed(spool)
    spool.remove(ATTEMPT)
    spool.remove(ATTEMPT)
    assert spool.attempts() == [] and spool.read(ATTEMPT).claimed_by == ""


def test_the_watch_tells_changes_only(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    real = Spool.read

    def counted(self: Spool, attempt_id: str, **how: Any) -> Any:
        reads.append(attempt_id)
        return real(self, attempt_id, **how)

    monkeypatch.setattr(Spool, "read", counted)
    ids = [f"x.a{number}" for number in range(10)]
    for attempt_id in ids:
        spool.prepare(attempt_id, document())
    watch = SpoolWatch(spool)
    assert [seen.attempt_id for seen in watch.look(ids)] == ids
    for _ in range(25):
        assert watch.look(ids) == []
    folder = spool.folder(ids[3])
    (folder / "job.json").rename(folder / "claimed.7")
    assert [seen.claimed_by for seen in watch.look(ids)] == ["7"]
    runner.append(str(folder / "progress"), {"phase": "step", "at": 1.0})
    assert [seen.attempt_id for seen in watch.look(ids)] == [ids[3]]
    runner.append(str(folder / "end"), {"outcome": "failed"})
    assert [seen.attempt_id for seen in watch.look(ids)] == [ids[3]]
    assert len(reads) == 13
    assert watch.look(["new.a1"]) == [], "there is nothing yet to be read"
    spool.prepare("new.a1", document())
    assert [seen.attempt_id for seen in watch.look()] == ["new.a1"]
    assert watch.look([], ids) == [] and len(reads) == 14
    (folder / "end").unlink()
    assert watch.look() == [], "one that is gone is looked at no more"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_a_spool_that_cannot_be_written_is_temporary(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(_fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(spool_module.os, "fsync", fails)
    calls = (
        lambda: spool.prepare(ATTEMPT, document()),
        lambda: spool.revoke("x.a1"),
        lambda: spool.fence(ATTEMPT),
        spool.install_runner,
    )
    for call in calls:
        with pytest.raises(Temporary, match=os.strerror(code)) as found:
            call()
        assert ("make room" in str(found.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
    monkeypatch.undo()
    assert not list(spool.root.rglob("*.new"))
    spool.prepare(ATTEMPT, document())
    assert spool.read(ATTEMPT).prepared


def test_an_id_never_leads_out_of_the_spool(spool: Spool) -> None:
    for name in ("../x", "", "a/b", ".hidden", "a\0"):
        with pytest.raises(ValueError):
            spool.folder(name)
