"""Facts: past tense, about one dataset (or one named thing of the facility), stored and versioned.

State is the fold of facts, and a replay only applies them: every decision that was taken (place here,
retry then, give up) stands *in* the fact, so neither a changed policy nor a new version of tiltd can
rewrite history.  ``VERSIONS`` gives the version written today; ``upcasters.py`` reads every older one.
"""

from __future__ import annotations

from .model import (
    Attempt,
    Dataset,
    Evidence,
    Failure,
    HoldCause,
    Measured,
    Notice,
    NoticeItem,
    Options,
    Problem,
    Record,
    RunEnd,
    SeriesKind,
    StopIntent,
    TiltSeries,
)


class Fact(Record, tag_field="kind"):
    """``at`` is when the daemon recorded it (epoch seconds, UTC)."""

    at: float


class DatasetFact(Fact):
    """A fact about one dataset; the transition table is keyed on (state, type of fact)."""

    dataset_id: str


class DatasetFound(DatasetFact):
    """A possible tilt series was met (``baseline``: it was there before tiltd, and is held).

    ``run`` > 1 is an operator's rerun, with ``series`` known already: it starts READY.  What the operator
    asked for (``operator_options``) stands in ``options`` too.
    """

    feed: str
    series_key: str
    tilt_series_name: str
    series_kind: SeriesKind
    revision: int
    run: int
    labels: dict[str, str]
    pipeline: str
    options: Options
    baseline: bool = False
    by: str = ""
    stat_signature: str = ""
    operator_options: Options = {}


class DatasetCompleted(DatasetFact):
    """The evidence suffices (or the policy or an operator runs a partial series): ready to be placed.

    ``last_change_at`` is when its files were last seen to change: the start of "last tilt to tomogram".
    """

    series: TiltSeries
    evidence: tuple[Evidence, ...]
    last_change_at: float
    partial: bool = False
    stat_signature: str = ""


class HoldPlaced(DatasetFact):
    cause: HoldCause
    origin: str
    detail: str


class HoldLifted(DatasetFact):
    cause: HoldCause
    by: str


class PartialAccepted(DatasetFact):
    """An operator wants this series run with the tilts it has."""

    by: str


class PrioritySet(DatasetFact):
    """An operator moves it in the queue: ``priority`` is added to the policy's, 0 takes that back."""

    priority: int
    by: str


class DeadlineMissed(DatasetFact):
    """Its result was due (by the policy in force) and is not there."""

    due_at: float


class StopRequested(DatasetFact):
    """An intent; only the proved end of the job changes the state.

    ``excluded_nodes`` could not run it, and are not to be tried again while others can.
    """

    intent: StopIntent
    by: str
    excluded_nodes: tuple[str, ...] = ()


class SeriesImported(DatasetFact):
    """The completed series was copied, verified, to storage that nodes see."""

    path: str


class Placed(DatasetFact):
    """The decision and what it was made from.  Reserves scratch on every node of the placement."""

    attempt: Attempt


class JobAccepted(DatasetFact):
    attempt_id: str
    job_id: str


class JobStarted(DatasetFact):
    """The runner claimed the attempt (or the resource manager shows it running).

    ``nodes`` are those where it runs: what was booked on others goes over to them.
    """

    attempt_id: str
    nodes: tuple[str, ...]
    started_at: float
    job_id: str = ""


class JobRequeued(DatasetFact):
    """A running job went back to the queue (node failure, qrerun)."""

    attempt_id: str


class JobEnded(DatasetFact):
    """The runner's own success marker was seen: results are staged, to be verified and published."""

    attempt_id: str
    end: RunEnd


class AttemptRevoked(DatasetFact):
    """The daemon won the rename: no runner can claim this attempt any more."""

    attempt_id: str


class AttemptFenced(DatasetFact):
    """The claimant is out of reach for too long: it may not publish when it comes back."""

    attempt_id: str


class AttemptFailed(DatasetFact):
    """A proved end without success, with the retry rule's decision.

    ``retry_at`` is ``None`` when it gave up (the dataset FAILED); else not before that instant.
    """

    attempt_id: str
    failure: Failure
    retry_at: float | None
    excluded_nodes: tuple[str, ...] = ()
    changes: dict[str, float | str] = {}
    end: RunEnd | None = None


class AttemptStopped(DatasetFact):
    """The attempt ended because a stop was requested: the dataset is CANCELLED, or READY for ``replace``."""

    attempt_id: str
    intent: StopIntent


class ResultStranded(DatasetFact):
    """The run succeeded but its result could not leave the node: a rescue attempt will move it."""

    attempt_id: str
    end: RunEnd
    retry_at: float


class ResultCollected(DatasetFact):
    """Verified and published: the only way to DELIVERED.  ``problems`` say what is doubtful about it."""

    attempt_id: str
    result_path: str
    result_bytes: int
    verdict: str
    quality: dict[str, float]
    measured: Measured
    adopted: bool = False
    problems: tuple[Problem, ...] = ()


class DatasetRejected(DatasetFact):
    """It can never run as it is (no pipeline takes it, no node could ever hold it)."""

    failure: Failure


class DatasetCancelled(DatasetFact):
    """Withdrawn without a live attempt: by an operator, dropped by policy, or superseded."""

    reason: str
    by: str
    stat_signature: str = ""


class DatasetRevived(DatasetFact):
    """An operator's retry of a FAILED or CANCELLED dataset: its tries are counted afresh."""

    by: str


class DatasetAdopted(DatasetFact):
    """The journal did not know it, but its job file did (journal lost or restored): taken over whole."""

    record: Dataset


class DatasetFinalized(DatasetFact):
    """Terminal, and nothing is left to do for it: it leaves the working set."""


class DatasetParked(DatasetFact):
    """Held ``before_tiltd``: leaves the working set until an operator releases it."""


class DatasetRecalled(DatasetFact):
    """Back into the working set at an operator's word, from the journal's row."""

    record: Dataset
    by: str


class ScratchReleased(Fact):
    attempt_id: str
    node: str


class FeedMet(Fact):
    """A feed's baseline was taken: what is new from here on is run."""

    feed: str
    reason: str


class SeriesIgnored(Fact):
    """Opened, and found to be no tilt series; remembered with its signature so it is not opened again."""

    feed: str
    series_key: str
    reason: str
    detail: str
    stat_signature: str


class InputUnchanged(Fact):
    """A finished series was touched, but its content is what was run: only its signature is new."""

    feed: str
    series_key: str
    stat_signature: str


class PolicyAdopted(Fact):
    """``half_life_seconds`` is that of fair sharing from here on; 0 stands for what it was."""

    version: str
    reason: str
    half_life_seconds: float = 0.0


class PolicyRejected(Fact):
    """Policy files were read and refused; the policy in force stays.

    ``content`` is a hash of the files: the same content is told once.  ``faults`` are its first lines.
    """

    content: str
    faults: tuple[str, ...]


class BreakerOpened(Fact):
    """``scope`` is ``node:NAME``, ``feed:NAME``, ``pipeline:NAME`` or ``destination:PATH``."""

    scope: str
    failure_class: str
    detail: str


class BreakerProbed(Fact):
    scope: str
    dataset_id: str


class BreakerClosed(Fact):
    scope: str
    by: str


class OperatorActed(Fact):
    """The audit: who did what, when, and what was answered.  What it changed stands in facts of its own.

    ``via`` is how they came: ``socket``, ``token``, ``proxy``.  ``project`` is that of the dataset, so that
    who sees one project only sees its part of the audit.  Asking for what is done already is no act.
    ``reload_policy`` and ``prune`` are about no dataset: the message says what they were.
    """

    by: str
    via: str
    action: str
    dataset_id: str
    project: str = ""
    reason: str = ""
    options: Options = {}
    priority: int = 0
    ok: bool = True
    message: str = ""


class NoticeDue(Fact):
    """To be told now, to each of ``notice.to``.  What had been gathered or put by for it is in it."""

    notice: Notice


class NoticeSent(Fact):
    """It has reached this destination; ``to`` of "" is all of them (written before there were several)."""

    notice_id: str
    to: str = ""


class NoticeGivenUp(Fact):
    """It will not reach this destination: refused for good, or tried for too long."""

    notice_id: str
    to: str
    reason: str


class NoticePutBy(Fact):
    """To be told later: in the digest of its session (``digests``: rule -> destinations), or with others of
    the same ``cause`` to the destinations ``gathered``, at ``until_at``.

    ``seconds`` (last tilt to tomogram) and ``quality`` are those of a delivered result.
    """

    item: NoticeItem
    feed: str = ""
    project: str = ""
    session: str = ""
    digests: dict[str, tuple[str, ...]] = {}
    gathered: tuple[str, ...] = ()
    cause: str = ""
    until_at: float = 0.0
    seconds: float = 0.0
    quality: dict[str, float] = {}


def _leaves(base: type[Fact]) -> list[type[Fact]]:
    found: list[type[Fact]] = []
    for child in base.__subclasses__():
        found += _leaves(child)
        if child is not DatasetFact:
            found.append(child)
    return found


FACTS: dict[str, type[Fact]] = {fact.__name__: fact for fact in _leaves(Fact)}
"""Every kind of fact by its name, as stored."""

DATASET_FACTS: dict[str, type[DatasetFact]] = {
    name: fact for name, fact in FACTS.items() if issubclass(fact, DatasetFact)
}

VERSIONS: dict[str, int] = dict.fromkeys(FACTS, 1)
"""The version of each kind as written today; raise it together with an upcaster from the one before."""
