"""Writes a journal as this release writes it, with datasets in every state and every kind of fact.

``.venv/bin/python tests/golden/journals/write.py`` makes ``VERSION.sql`` (the journal, as text) and
``VERSION.state.json`` (the state that it stands for) beside this file.  Until a release is out, run it again
whenever a fact, or what a fact means, has changed; the files of a release that is out stay as they are.
``tests/shell/test_released_journals.py`` reads all of them with the code as it is then.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from msgspec.structs import replace

from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.model import (
    Attempt,
    CivilTime,
    Dataset,
    Decided,
    Evidence,
    Failure,
    Features,
    FilePrint,
    Fingerprint,
    Measured,
    Notice,
    NoticeItem,
    Placement,
    Prediction,
    ResourceRequest,
    RunEnd,
    State,
    TiltSeries,
    attempt_id,
    dataset_id,
)
from tiltd.daemon.core.state import CoreState
from tiltd.daemon.journal import Journal, encode

HERE = Path(__file__).parent
JOURNAL_ID = "0123456789ab"
START_AT = 1_700_000_000.0


class Book:
    """A journal and the state that it stands for, a fact at a time, one second apart."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal.open(path)
        self.state = CoreState()
        self.at = START_AT

    def note(self, fact: f.Fact) -> None:
        fact = replace(fact, at=self.at)
        self.at += 1.0
        records: tuple[Dataset, ...] = ()
        if isinstance(fact, f.DatasetFact):
            last = self.state.datasets.get(fact.dataset_id)
            self.state.apply(fact)
            now = self.state.datasets.get(fact.dataset_id)
            if now is None and last is not None:
                last = replace(last, finalized_at=fact.at)
            record = now or last
            assert record is not None
            records = (record,)
        else:
            self.state.apply(fact)
        self.journal.append_now([Step(facts=(fact,), records=records, effects=())])


class Story:
    """One dataset's facts, as they happen to it."""

    def __init__(self, book: Book, name: str, revision: int = 1, run: int = 1, *, baseline: bool = False):
        self.book, self.name, self.revision, self.run, self.baseline = book, name, revision, run, baseline
        self.key = f"apoferritin/grid1/{name}.mrc"
        self.id = dataset_id("krios1", self.key, name, revision, run)

    @property
    def record(self) -> Dataset:
        return self.book.state.datasets[self.id]

    @property
    def attempt(self) -> str:
        return self.record.attempts[-1].attempt_id

    def note(self, kind: type[f.DatasetFact], **fields: object) -> Story:
        self.book.note(kind(at=0.0, dataset_id=self.id, **fields))
        return self

    def about_attempt(self, kind: type[f.DatasetFact], **fields: object) -> Story:
        return self.note(kind, attempt_id=self.attempt, **fields)

    def found(self) -> Story:
        return self.note(
            f.DatasetFound,
            feed="krios1",
            series_key=self.key,
            tilt_series_name=self.name,
            series_kind="stack",
            revision=self.revision,
            run=self.run,
            labels={"microscope": "krios1", "project": "apoferritin", "session": "grid1"},
            pipeline="wbp",
            options={"binning": 4, "align": True, "cutoff": 0.35, "output_mode": "float32"},
            baseline=self.baseline,
            by="" if self.run == 1 else "ada",
            stat_signature=f"signature of {self.id}",
        )

    def completed(self) -> Story:
        return self.found().note(
            f.DatasetCompleted,
            series=self.series(),
            evidence=(Evidence(check="is a tilt series", holds=True, detail="41 tilts"),),
            last_change_at=self.book.at - 300.0,
            stat_signature=f"second signature of {self.id}",
        )

    def series(self) -> TiltSeries:
        prints = (
            FilePrint(
                relative_path=self.key,
                size_bytes=2_600_000_000,
                piece_bytes=1 << 20,
                head_sha256=f"{self.revision:064x}",
                tail_sha256="f" * 64,
            ),
            FilePrint(
                relative_path=f"{self.key}.mdoc", size_bytes=9000, piece_bytes=9000, head_sha256="a" * 64
            ),
        )
        return TiltSeries(
            tilt_series_name=self.name,
            kind="stack",
            fingerprint=Fingerprint(files=prints),
            stack_path=self.key,
            mdoc_path=f"{self.key}.mdoc",
            tilt_angles_deg=tuple(float(angle) for angle in range(-60, 61, 3)),
            image_size=(4096, 4096),
            pixel_spacing_angstrom=2.2,
            voltage_kv=300.0,
            tilt_axis_deg=85.3,
            exposure_dose_e_per_a2=3.1,
            first_acquired="22-Nov-26  17:00:00",
        )

    def placed(self) -> Story:
        before = self.record.attempts
        rescue = self.record.rescue
        number = len(before) + 1
        placed = Attempt(
            attempt_id=attempt_id(self.id, number),
            number=number,
            kind="rescue" if rescue else "run",
            placement=Placement(
                nodes=("n1",),
                cores=4,
                threads=4,
                memory_bytes=8_000_000_000,
                scratch_bytes=10_000_000_000,
                walltime_seconds=1800.0,
                queue="tomo",
                rule="default",
                policy_version="1f2e3d4c",
            ),
            request=ResourceRequest(
                memory_bytes=8_000_000_000,
                scratch_bytes=10_000_000_000,
                result_bytes=500_000_000,
                walltime_seconds=600.0,
            ),
            placed_at=self.book.at,
            rescues_attempt_id=rescue,
            rescue_path=f"/scratch/tiltd/{rescue}" if rescue else "",
            decided=None if rescue else decided(self.record),
        )
        return self.note(f.Placed, attempt=placed)

    def queued(self) -> Story:
        return self.completed().placed().about_attempt(f.JobAccepted, job_id="1234.head")

    def started(self) -> Story:
        return self.about_attempt(
            f.JobStarted, nodes=("n1",), started_at=self.book.at, job_id=self.record.attempts[-1].job_id
        )

    def end(self, outcome: str = "success", **fields: object) -> RunEnd:
        values: dict[str, object] = {
            "job_id": "1234.head",
            "nonce": "5eed",
            "outcome": outcome,
            "ended_at": self.book.at,
            "node": "n1",
            "exit_status": 0,
            "step": "reconstruct",
            "log_tail": ("slice 128 of 128", "done"),
            "figures": {"residual_px": 0.06},
            "measured": measured(),
        }
        return RunEnd(**(values | fields))  # type: ignore[arg-type]

    def ended(self) -> Story:
        return self.queued().started().about_attempt(f.JobEnded, end=self.end())

    def collected(self, *, adopted: bool = False) -> Story:
        return self.about_attempt(
            f.ResultCollected,
            result_path=f"/data/tomograms/apoferritin/grid1/{self.name}",
            result_bytes=480_000_000,
            verdict="good",
            quality={"residual_px": 0.06},
            measured=measured(),
            adopted=adopted,
        )

    def failed(self, *, again: bool) -> Story:
        return self.about_attempt(
            f.AttemptFailed,
            failure=Failure(
                failure_class="memory",
                reason="memory",
                detail="9000000000 bytes of memory in use, 8000000000 allowed",
                remedy="give more memory: raise memory_factor in the policy",
                exit_status=137,
                change={"memory_factor": 1.5},
            ),
            retry_at=self.book.at + 60.0 if again else None,
            excluded_nodes=("n1",),
            changes={"memory_factor": 1.5},
            end=self.end("failed", reason="memory", exit_status=137),
        )

    def finalized(self) -> Story:
        for reservation in list(self.book.state.ledger.reservations()):
            if reservation.attempt_id.startswith(f"{self.id}.a"):
                self.book.note(f.ScratchReleased(at=0.0, attempt_id=reservation.attempt_id, node="n1"))
        return self.note(f.DatasetFinalized)


def decided(dataset: Dataset) -> Decided:
    here = CivilTime(zone="Europe/Berlin", hour=9, weekday=4, valid_until_at=START_AT + 3600.0)
    return Decided(
        rules=("krios", "large"),
        features=Features(
            feed=dataset.feed,
            name=dataset.tilt_series_name,
            size_bytes=2_600_009_000,
            tilt_count=41,
            labels=dataset.labels,
            attempt_number=len(dataset.attempts) + 1,
            civil={here.zone: here},
        ),
        predicted=Prediction(
            seconds_p50=250.0,
            seconds_p99=500.0,
            memory_bytes_p99=3_640_000_000,
            scratch_bytes_p99=54_600_000_000,
        ),
        charged_core_seconds=1000.0,
        due_at=START_AT + 86400.0,
        pipeline=dataset.pipeline,
        options=dataset.options,
    )


def measured() -> Measured:
    return Measured(
        stage_in_seconds=12.0,
        run_seconds=250.0,
        stage_out_seconds=4.0,
        cpu_seconds=800.0,
        peak_memory_bytes=7_000_000_000,
        peak_scratch_bytes=9_000_000_000,
        stage_in_bytes=2_600_009_000,
        stage_out_bytes=480_000_000,
        step_seconds={"reconstruct": 250.0},
    )


def finished(book: Book) -> None:
    """Datasets that have left the working set, among them one that came back and went again."""
    first = Story(book, "TS_01").queued().started().about_attempt(f.JobRequeued).started()
    first.about_attempt(f.JobEnded, end=first.end()).collected().finalized()
    book.note(f.InputUnchanged(at=0.0, feed="krios1", series_key=first.key, stat_signature="touched"))
    Story(book, "TS_01", run=2).ended().collected().finalized()
    Story(book, "TS_01", revision=2).ended().collected(adopted=True).finalized()
    second = Story(book, "TS_02").queued().started().failed(again=True).placed()
    second.about_attempt(f.JobAccepted, job_id="1235.head").started().failed(again=False).finalized()
    third = Story(book, "TS_03").completed().note(f.DatasetCancelled, reason="wrong grid", by="ada")
    third.finalized()
    Story(book, "TS_04", baseline=True).found().note(f.DatasetParked)
    recalled = Story(book, "TS_05", baseline=True).found()
    record = recalled.record
    recalled.note(f.DatasetParked).note(f.DatasetRecalled, record=record, by="ada")
    recalled.note(f.HoldLifted, cause="before_tiltd", by="ada")


def live(book: Book) -> None:
    """One dataset in every state, and those who were stopped, fenced, stranded, revived and adopted."""
    Story(book, "TS_10").found().note(
        f.HoldPlaced, cause="partial", origin="policy", detail="too_few_tilts: 2, at least 3"
    ).note(f.PartialAccepted, by="ada")
    Story(book, "TS_11\n $(x) \udcff").found()
    Story(book, "TS_12").completed().note(f.SeriesImported, path="/import/TS_12")
    Story(book, "TS_13").completed().placed().note(
        f.StopRequested, intent="replace", by="the job is gone"
    ).about_attempt(f.AttemptRevoked)
    Story(book, "TS_14").queued().note(f.DeadlineMissed, due_at=book.at - 60.0)
    Story(book, "TS_15").queued().started().note(f.StopRequested, intent="cancel", by="ada")
    Story(book, "TS_16").ended()
    Story(book, "TS_17").ended().collected()
    Story(book, "TS_18").completed().note(
        f.DatasetRejected, failure=Failure(failure_class="config", reason="rejected", detail="no angles")
    )
    stopped = Story(book, "TS_19").queued().note(f.StopRequested, intent="cancel", by="ada")
    stopped.about_attempt(f.AttemptStopped, intent="cancel")
    fenced = Story(book, "TS_20").queued().started().note(f.StopRequested, intent="lost", by="its node")
    fenced.about_attempt(f.AttemptFenced).about_attempt(f.AttemptStopped, intent="lost")
    Story(book, "TS_21").queued().started().failed(again=False).note(f.DatasetRevived, by="ada")
    stranded = Story(book, "TS_22").queued().started()
    stranded.about_attempt(
        f.ResultStranded,
        end=stranded.end(
            "stranded", reason="no space", stranded_path="/scratch/tiltd/a1", stranded_bytes=480_000_000
        ),
        retry_at=book.at + 600.0,
    ).placed()
    known = Story(book, "TS_14").record
    adopted = Story(book, "TS_23")
    record = replace(known, dataset_id=adopted.id, series_key=adopted.key, tilt_series_name="TS_23")
    of_its_own = replace(record.attempts[-1], attempt_id=attempt_id(adopted.id, 1))
    adopted.note(f.DatasetAdopted, record=replace(record, attempts=(of_its_own,)))


def facility(book: Book) -> None:
    """What is about no dataset."""
    book.note(f.FeedMet(at=0.0, feed="krios1", reason="new feed"))
    book.note(f.PolicyAdopted(at=0.0, version="1f2e3d4c", reason="start", half_life_seconds=43200.0))
    book.note(f.PolicyRejected(at=0.0, content="0badc0de", faults=("site.toml:3: cores: no such thing",)))
    ignored = {"feed": "krios1", "series_key": "apoferritin/grid1/LMM.mrc", "stat_signature": "map"}
    book.note(f.SeriesIgnored(at=0.0, reason="montage", detail="Montage = 1", **ignored))
    for scope in ("node:n1", "pipeline:wbp"):
        book.note(f.BreakerOpened(at=0.0, scope=scope, failure_class="environment", detail="three series"))
        book.note(f.BreakerProbed(at=0.0, scope=scope, dataset_id=Story(book, "TS_14").id))
    book.note(f.BreakerClosed(at=0.0, scope="node:n1", by="ada"))
    story = Story(book, "TS_24").found().note(f.PrioritySet, priority=5, by="ada")
    acted = {"action": "prioritize", "dataset_id": story.id, "priority": 5, "message": "moved"}
    book.note(f.OperatorActed(at=0.0, by="ada", via="socket", project="apoferritin", **acted))
    for number in (1, 2):
        notice = Notice(notice_id=f"failed:{number}", event="failed", summary="it failed", due_at=book.at)
        book.note(f.NoticeDue(at=0.0, notice=notice))
    book.note(f.NoticeSent(at=0.0, notice_id="failed:1"))
    told(book)


def told(book: Book) -> None:
    """One notice for three, which one of them never gets, and what is put by for later."""
    ada, chat = "ada@example.org", "chat"
    notice = Notice(
        notice_id="held:3", event="held", summary="it is held", due_at=book.at, to=("log", ada, chat),
        name="TS_24", feed="krios1", project="apoferritin", session="grid1", remedy="look at it",
        cause="held", quiet_until_at=book.at + 900.0,
    )  # fmt: skip
    book.note(f.NoticeDue(at=0.0, notice=notice))
    book.note(f.NoticeSent(at=0.0, notice_id="held:3", to="log"))
    book.note(f.NoticeGivenUp(at=0.0, notice_id="held:3", to=ada, reason="550 no such user"))
    for number, event in enumerate(("completed", "delivered", "held")):
        item = NoticeItem(
            event=event, at=book.at, summary=f"it is {event}", dataset_id=f"TS_2{number}-0a.1.1"
        )
        book.note(
            f.NoticePutBy(
                at=0.0, item=item, feed="krios1", project="apoferritin", session="grid1",
                digests={"daily": (ada,)}, gathered=(chat,) if event == "held" else (), cause=event,
                until_at=book.at + 900.0, seconds=720.0, quality={"residual_nm": 0.5},
            )
        )  # fmt: skip


def write(path: Path) -> CoreState:
    """A journal at ``path``, with a snapshot in its middle; returns the state at its end."""
    book = Book(path)
    finished(book)
    asyncio.run(book.journal.save(book.state))
    live(book)
    facility(book)
    asyncio.run(book.journal.close())
    states = {dataset.state for dataset in book.state.datasets.values()}
    assert states == set(State), f"no live dataset is {set(State) - states}"
    return book.state


def dumped(path: Path) -> str:
    """A database as text, with the same id each time it is made."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'journal_id'", (JOURNAL_ID,))
    lines = "\n".join(connection.iterdump())
    connection.close()
    return lines + "\n"


def main() -> int:
    name = version("tiltd")
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.sqlite"
        state = write(journal)
        (HERE / f"{name}.sql").write_text(dumped(journal), encoding="utf-8")
    (HERE / f"{name}.state.json").write_text(encode(state.snapshot(0)) + "\n", encoding="ascii")
    print(f"wrote {HERE / name}.sql and .state.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
