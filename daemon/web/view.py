"""What the web room needs of the daemon, and how records look as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from tiltd.daemon.config import Settings
from tiltd.daemon.core.facts import Fact, NoticeGivenUp, NoticeSent, OperatorActed
from tiltd.daemon.core.model import Dataset, Options, Policy, Progress
from tiltd.daemon.core.observations import OperatorAsked
from tiltd.daemon.metrics import Metrics
from tiltd.daemon.metrics.view import CoreView, waiting_reason
from tiltd.daemon.questions.candidate import Judged
from tiltd.plugins.api import DirectiveFault, DirectiveRow


class Core(CoreView, Protocol):
    """:class:`tiltd.daemon.core.core.Core`, as far as it is read here."""

    def why(self, dataset_id: str, now: float) -> Sequence[str]: ...
    def directives(
        self, dataset: Dataset
    ) -> tuple[tuple[DirectiveRow, ...], tuple[DirectiveFault, ...]] | None: ...
    def release_troubles(self, attempt_id: str, node: str) -> Sequence[str]: ...
    def objection(self, action: str, dataset: Dataset, options: Options) -> str: ...
    def progress(self, dataset: Dataset) -> Progress | None: ...
    def notice_troubles(self, notice_id: str, to: str) -> Sequence[str]: ...
    @property
    def policy(self) -> Policy: ...


class SeenRow(Protocol):
    """What was opened and found to be no tilt series, and why."""

    @property
    def series_key(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...


class Reader(Protocol):
    """:class:`tiltd.daemon.reader.JournalReader`; asked from one worker thread."""

    def dataset(self, dataset_id: str) -> Dataset | None: ...
    def find(
        self, name: str, limit: int = 20, projects: Sequence[str] | None = None
    ) -> Sequence[Dataset]: ...
    def select(
        self,
        *,
        states: Sequence[str] = (),
        feed: str = "",
        project: str = "",
        session: str = "",
        limit: int = 500,
    ) -> Sequence[Dataset]: ...
    def page(
        self,
        *,
        states: Sequence[str] = (),
        feed: str = "",
        project: str = "",
        session: str = "",
        text: str = "",
        projects: Sequence[str] | None = None,
        before: tuple[float, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Dataset]: ...
    def counts(self, projects: Sequence[str] | None = None, since_at: float = 0.0) -> Mapping[str, int]: ...
    def projects(self) -> Sequence[str]: ...
    def acts(
        self, *, before: int | None = None, dataset_id: str = "", limit: int = 100
    ) -> Sequence[tuple[int, OperatorActed]]: ...
    def facts(self, dataset_id: str) -> Sequence[tuple[int, Fact]]: ...
    def told(self, limit: int = 50) -> Sequence[NoticeSent | NoticeGivenUp]: ...
    def latest_run(self, dataset: Dataset) -> int: ...
    def ignored(self, feed: str) -> Sequence[SeenRow]: ...


class Clock(Protocol):
    def now(self) -> float: ...


class Plugged(Protocol):
    async def scheduler_words(self, job_id: str) -> Sequence[str]: ...


class OptionView(Protocol):
    """An option that a pipeline declares; ``default`` of ``None``: a number, or unset."""

    @property
    def name(self) -> str: ...
    @property
    def default(self) -> str | int | float | bool | None: ...
    @property
    def meaning(self) -> str: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def choices(self) -> tuple[str, ...]: ...


class Daemon(Protocol):
    """The running daemon, as the web room sees it; ``app.py`` is one, the tests have another."""

    @property
    def core(self) -> Core: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def reader(self) -> Reader: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def plugged(self) -> Plugged: ...

    @property
    def policy_refused(self) -> list[str]: ...

    def pipeline_options(self, name: str) -> Sequence[OptionView]: ...
    def ready(self) -> tuple[bool, list[str]]: ...
    async def ask(self, observation: OperatorAsked) -> tuple[bool, str]: ...
    async def reload_policy(self, by: str) -> tuple[bool, list[str], str]: ...
    async def try_policy(self, text: str, instead: bool) -> Judged: ...
    async def prune_journal(self, dataset_ids: Sequence[str]) -> int: ...


def record(value: Any) -> Any:
    """A record as JSON values; lone surrogates stay in the strings (``json.dumps`` escapes them)."""
    return msgspec.to_builtins(value)


def row(dataset: Dataset, core: CoreView, now: float) -> dict[str, Any]:
    """One line of ``tiltd list``."""
    attempt = dataset.attempt
    placed = attempt.nodes or attempt.placement.nodes if attempt is not None else ()
    return {
        "dataset_id": dataset.dataset_id,
        "name": dataset.tilt_series_name,
        "feed": dataset.feed,
        "project": dataset.project,
        "session": dataset.session,
        "state": dataset.state.value,
        "since_at": dataset.state_since_at,
        "held": sorted(hold.cause for hold in dataset.holds),
        "nodes": list(placed),
        "attempts": len(dataset.attempts),
        "job_id": attempt.job_id if attempt is not None else "",
        "why": _why_word(dataset, core, now),
        "completed_at": dataset.completed_at,
        "last_change_at": dataset.last_change_at,
        "finalized_at": dataset.finalized_at,
        "result_path": dataset.result_path,
        "verdict": dataset.verdict,
        "quality": dataset.quality,
    }


def _why_word(dataset: Dataset, core: CoreView, now: float) -> str:
    """Why it does not go on, in a word or two; "" when it does."""
    if dataset.holds:
        return "held: " + ", ".join(sorted(hold.cause for hold in dataset.holds))
    if dataset.failure is not None and dataset.state.value == "failed":
        return f"{dataset.failure.failure_class}: {dataset.failure.reason}"
    if dataset.state.value == "cancelled":
        return dataset.cancel_reason
    if dataset.state.value == "delivered" and dataset.verdict != "good":
        codes = ", ".join(problem.code for problem in dataset.problems)
        return f"{dataset.verdict}: {codes}" if codes else dataset.verdict
    if dataset.state.value == "ready":
        word = waiting_reason(dataset, core.blocked_by(dataset.dataset_id), now)
        return "" if word == "none" else f"waits: {word}"
    return f"stopping: {dataset.stop_requested}" if dataset.stop_requested else ""


def finished_story(dataset: Dataset) -> list[str]:
    """The lines of ``why`` for a dataset that has left the working set."""
    lines = [f"It is {dataset.state.value}."]
    if dataset.failure is not None:
        lines.append(
            f"{dataset.failure.failure_class}: {dataset.failure.reason}. {dataset.failure.detail}".strip()
        )
        lines += [f"What to do: {dataset.failure.remedy}"] if dataset.failure.remedy else []
    lines += [f"Cancelled: {dataset.cancel_reason}"] if dataset.cancel_reason else []
    lines += [f"Result ({dataset.verdict}): {dataset.result_path}"] if dataset.result_path else []
    lines += [f"Look at it: {problem.detail}" for problem in dataset.problems]
    lines += [f"Held ({hold.cause}): {hold.detail}" for hold in dataset.holds]
    lines += [f"{'+' if item.holds else '-'} {item.check}: {item.detail}" for item in dataset.evidence]
    return lines
