"""What a reviewer tried on the shell around the core, each once a bug or missing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import structlog
from msgspec.structs import replace

from shell.review_core import Scene, sighting
from tiltd.daemon import prune
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.model import State
from tiltd.daemon.core.state import replay
from tiltd.daemon.importing import import_folder
from tiltd.daemon.jobfile import REMEMBERED_MAX
from tiltd.daemon.journal import Journal
from tiltd.daemon.loop import Loop
from tiltd.daemon.metrics import Metrics
from tiltd.daemon.poll import Poll
from tiltd.daemon.spool import Spool
from tiltd.daemon.sweep import release
from tiltd.daemon.telling import tell


async def test_a_stop_in_the_middle_of_an_append_leaves_a_journal_that_can_be_read(tmp_path: Path) -> None:
    journal, scene = Journal.open(tmp_path / "journal.sqlite"), Scene()
    writing, go_on, append_now = threading.Event(), threading.Event(), journal.append_now

    def slow(steps: Sequence[Step]) -> None:
        writing.set()
        go_on.wait(10)
        append_now(steps)

    await journal.append([scene.step(o.FilesObserved, feed="f", up=True, sightings=(sighting("TS_1"),))])
    journal.append_now = slow  # type: ignore[method-assign]
    loop = Loop(scene.core, journal, lambda effect: None, FixedClock())
    task = asyncio.create_task(loop.run())
    await loop.put(o.FilesObserved(at=scene.now, feed="f", up=True, sightings=(sighting("TS_2"),)))
    await asyncio.to_thread(writing.wait, 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    threading.Timer(0.2, go_on.set).start()  # the disk answers while the journal is being closed
    await journal.close(None if loop.ahead else scene.core.state)
    again = Journal.open(tmp_path / "journal.sqlite")
    assert again.load() == replay(fact for _, fact in again.facts_after(0))
    await again.close()


class FixedClock:
    def now(self) -> float:
        return 1_000_000.0


def test_what_matters_is_told_in_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    scene, facts = Scene(), []
    handle = scene.core.handle

    def keep(observation: o.Observation) -> Step:
        step = handle(observation)
        facts.extend(step.facts)
        return step

    scene.core.handle = keep  # type: ignore[method-assign]
    dataset = scene.running()
    scene.ended(dataset, outcome="failed", reason="exit", exit_status=1)
    scene.ask("hold", scene.dataset())
    scene.ask("cancel", scene.dataset())
    with structlog.testing.capture_logs() as lines:
        tell(facts, structlog.get_logger())
    told = [line["event"] for line in lines]
    assert told == ["found", "completed", "placed", "started", "failed", "held", "cancelled"]
    assert {line["dataset"] for line in lines} == {dataset.dataset_id}


def test_a_baseline_is_one_line_however_large() -> None:
    scene = Scene()
    seen = tuple(sighting(f"TS_{n}", series=None) for n in range(50))
    facts = scene.step(o.FilesObserved, feed="f", up=True, sightings=seen, first=True).facts
    with structlog.testing.capture_logs() as lines:
        tell(facts, structlog.get_logger())
    assert [(line["event"], line["held_for_release"]) for line in lines] == [("feed met", 50)]


def test_a_stranded_result_that_nobody_wants_any_more_is_removed(tmp_path: Path) -> None:
    """Else its dataset could never leave the working set, nor its scratch be given back."""
    folder = tmp_path / "TS-1.1.a1"
    folder.mkdir()
    (folder / "lease.json").write_text('{"stranded": true}')
    assert "waits for its rescue" in release(str(tmp_path), folder.name, alive=False)
    assert release(str(tmp_path), folder.name, alive=False, given_up=True) == ""
    assert not folder.exists()


def test_imported_copies_of_what_has_ended_can_be_pruned(tmp_path: Path) -> None:
    scene = Scene()
    dataset = scene.complete()
    assert dataset.series is not None
    ended = replace(dataset, state=State.DELIVERED, finalized_at=10.0)
    known = {dataset.dataset_id: ended}
    copy = Path(import_folder(str(tmp_path), dataset.dataset_id, dataset.series))
    copy.mkdir()
    (copy / "stack.mrc").write_bytes(b"1234")
    (tmp_path / "somebody's").mkdir()
    assert not prune.imports(str(tmp_path), {dataset.dataset_id}, known.get, 20.0)
    assert not prune.imports(str(tmp_path), (), known.get, 5.0)
    (found,) = prune.imports(str(tmp_path), (), known.get, 20.0)
    assert (found.path, found.size_bytes) == (str(copy), 4)
    assert prune.remove(found, Spool(tmp_path / "spool")).done
    assert [path.name for path in tmp_path.iterdir()] == ["somebody's"]


def test_only_what_is_not_complete_is_counted_as_arriving() -> None:
    scene, metrics = Scene(), Metrics(now=lambda: 0.0)
    metrics.attach(scene.core)
    scene.running()
    scene.see(sighting("TS_2", series=None))
    assert 'tiltd_series_arriving{feed="f"} 1.0' in metrics.render().decode()


class BuggyManager:
    async def nodes(self) -> list[object]:
        raise ZeroDivisionError("a bug of the plugin")


async def test_a_bug_in_the_resource_managers_plugin_is_no_news_and_no_end() -> None:
    told: asyncio.Queue[o.Observation] = asyncio.Queue()
    poll = Poll(BuggyManager(), told.put, FixedClock())  # type: ignore[arg-type]
    asking = asyncio.create_task(poll.nodes(0.001))
    first, second = await told.get(), await told.get()
    asking.cancel()
    assert isinstance(first, o.ServerUnreachable)
    assert isinstance(second, o.ServerUnreachable)
    assert "ZeroDivisionError" in first.detail


def test_the_spool_does_not_remember_every_attempt_there_ever_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for number in range(REMEMBERED_MAX + 10):
        folder = tmp_path / "attempts" / f"TS-1.1.a{number}"
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(f'{{"format": 1, "nonce": "n{number}"}}')
        assert spool.nonce(folder.name, "job.json") == f"n{number}"
    assert 0 < len(spool._known) <= REMEMBERED_MAX
