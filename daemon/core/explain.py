"""Why a dataset is where it is, in words: what ``tiltd why`` prints.  Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tiltd.plugins.api import DirectiveBook, DirectiveFault, DirectiveRow
from tiltd.policy.completeness import Complete, NotATiltSeries, Partial, Waiting

from .arriving import Arrival
from .asking import REJECTED
from .deciding import option_origins, options_of, pipeline_of
from .desk import Desk
from .following import Following
from .model import Attempt, Dataset, Evidence, Hold, Job, JobState, State
from .outstanding import WORKING_HOLDS
from .performing import Performing
from .placing import Placing
from .units import show_bytes


class Explained(Protocol):
    """The core's rooms that are asked, as :class:`.core.Core` has them."""

    desk: Desk
    placing: Placing
    following: Following
    performing: Performing
    server_up: bool | None
    server_trouble: str

    @property
    def arrivals(self) -> Mapping[tuple[str, str], Arrival]: ...


def why(core: Explained, dataset_id: str, now: float) -> list[str]:
    """The lines for one live dataset; empty if it is not in the working set."""
    dataset = core.desk.state.datasets.get(dataset_id)
    if dataset is None:
        return []
    lines = [f"It is {dataset.state} since {_ago(now - dataset.state_since_at)}."]
    lines += [_hold(hold) for hold in dataset.holds]
    match dataset.state:
        case State.ARRIVING:
            lines += _arriving(core.arrivals.get((dataset.feed, dataset.series_key)), now)
        case State.READY:
            lines += _ready(core, dataset, now)
        case State.RESERVED | State.QUEUED | State.RUNNING:
            lines += _live(core, dataset, now)
        case State.COLLECTING:
            lines += _collecting(dataset)
        case _:
            pass
    lines += _stranded(dataset)
    if dataset.failure is not None:
        failure = dataset.failure
        lines.append(f"Its last attempt failed ({failure.failure_class}, {failure.reason}): {failure.detail}")
        lines += [f"What to do: {failure.remedy}"] if failure.remedy else []
    if dataset.cancel_reason and dataset.state is State.CANCELLED:
        lines.append(f"Cancelled: {dataset.cancel_reason}.")
    lines += core.performing.troubles(dataset_id)
    if dataset.state is not State.ARRIVING and dataset.evidence:
        lines.append("It was taken as complete because:")
        lines += [_line(evidence) for evidence in dataset.evidence]
    return lines


def directives(
    core: Explained, dataset: Dataset
) -> tuple[tuple[DirectiveRow, ...], tuple[DirectiveFault, ...]] | None:
    """What its run is given, or was given when it was placed; ``None`` if its pipeline takes no directives.

    Raises Permanent for what cannot be worked out, such as a template that is not there.
    """
    decision = core.placing.deciding.decide(dataset)
    placed = dataset.state not in (State.ARRIVING, State.READY) and not _refused(dataset)
    pipeline = core.desk.pipelines.get(dataset.pipeline if placed else pipeline_of(dataset, decision))
    book: DirectiveBook | None = getattr(pipeline, "directives", None)
    if book is None or dataset.series is None:
        return None
    options = dataset.options if placed else options_of(dataset, decision)
    origins = option_origins(dataset, decision, options, core.desk.policy)
    cores = dataset.attempts[-1].placement.cores if dataset.attempts else decision.cores
    return book.shown_for(dataset.series, options, origins, cores)


def _refused(dataset: Dataset) -> bool:
    """Was it refused, or ended, before it was placed (again)?  Then the options of now are what matters."""
    return not dataset.attempts or (dataset.failure is not None and dataset.failure.reason == REJECTED)


def explain_arrival(arrival: Arrival, now: float) -> list[str]:
    """The lines for a series that is on its way and has no dataset (yet)."""
    return _arriving(arrival, now)


def _arriving(arrival: Arrival | None, now: float) -> list[str]:
    if arrival is None:
        return ["Its files were not looked at yet since tiltd started."]
    if arrival.gone_since_at is not None:
        return [f"Its files are gone from the feed since {_ago(now - arrival.gone_since_at)}."]
    judgement = arrival.judgement
    match judgement:
        case None:
            return ["It was not judged yet."]
        case Waiting():
            until = "a change of its files"
            if judgement.until_at is not None:
                until = f"{_ago(judgement.until_at - now)} without a change"
            lines = [f"It waits ({judgement.why}) for {until}."]
        case Partial():
            lines = [f"It is partial: {judgement.why}."]
        case NotATiltSeries():
            lines = [f"It is no tilt series ({judgement.why}): {judgement.detail}"]
        case Complete():
            lines = ["It is complete."]
    return lines + [_line(evidence) for evidence in judgement.evidence]


def _ready(core: Explained, dataset: Dataset, now: float) -> list[str]:
    if dataset.holds:
        return []
    if dataset.retry_not_before_at > now:
        return [f"It will be tried again in {_ago(dataset.retry_not_before_at - now)}."]
    feed = core.desk.site.feeds.get(dataset.feed)
    if feed is None:
        return [f"Its feed {dataset.feed} is not configured any more."]
    if feed.imports and not dataset.imported_path:
        return ["It is being copied to storage that nodes see."]
    blocked = core.placing.blocked.by(dataset.dataset_id)
    if blocked is None:
        return []
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(blocked.rejected.items()))
    lines = [f"It waits for a place: {blocked.detail or counted}."]
    if blocked.best_effort_node:
        lines.append(f"The node that comes closest is {blocked.best_effort_node}.")
    return [*lines, *_asked(core, dataset)]


def _asked(core: Explained, dataset: Dataset) -> list[str]:
    want = core.placing.queue.where.get(dataset.dataset_id)
    if want is None:
        return []
    request = want.request
    memory, scratch = show_bytes(request.memory_bytes), show_bytes(request.scratch_bytes)
    lines = [f"It asks for {request.cores} cores, {memory} of memory and {scratch} of scratch."]
    matched = core.placing.deciding.decide(dataset).rules
    rules = f"rules {', '.join(matched)}" if matched else "no rule but the defaults"
    lines.append(f"So say policy {core.desk.policy.version} and {rules}.")
    if core.desk.policy.shares:
        used = core.desk.state.usage.of(dataset.project, core.desk.now) / 3600
        weight = core.placing.sharing.weight(dataset.project)
        lines.append(f"Its project has used {used:.1f} core hours of late, its weight is {weight:g}.")
    return lines


def _live(core: Explained, dataset: Dataset, now: float) -> list[str]:
    attempt = dataset.attempts[-1]
    placement = attempt.placement
    lines = [
        f"Attempt {attempt.number} ({attempt.kind}) on {', '.join(attempt.nodes or placement.nodes)} with "
        f"{placement.cores} cores, {placement.threads} threads; job {attempt.job_id or 'not accepted yet'}."
        + _floats(attempt)
    ]
    lines += _stop(dataset)
    seen = core.following.seen.get(attempt.attempt_id)
    if seen is not None and seen.progress is not None:
        progress = seen.progress
        done = f", {progress.done:g} of {progress.total:g}" if progress.total else ""
        lines.append(
            f"Its runner was in {progress.phase} {progress.step}{done} {_ago(now - progress.at)} ago."
        )
    if seen is not None and seen.job is not None:
        lines += _listed(seen.job)
    if core.server_up is False:
        lines.append(f"The resource manager does not answer: {core.server_trouble}")
    return lines


def _floats(attempt: Attempt) -> str:
    if attempt.placement.mode == "pinned" or attempt.nodes:
        return ""
    return " The resource manager chooses the node; this one is booked for it."


def _listed(job: Job) -> list[str]:
    """The resource manager's word on its job."""
    lines = {
        JobState.QUEUED: [f"Its job waits in the resource manager's queue {job.queue}".rstrip() + "."],
        JobState.HELD: ["The resource manager holds its job: release it there (qrls), or cancel it here."],
        JobState.SUSPENDED: ["The resource manager has suspended its job; it goes on when that ends."],
    }.get(job.state, [])
    return [*lines, *([f"The resource manager says: {job.comment}"] if job.comment else [])]


def _collecting(dataset: Dataset) -> list[str]:
    stopped = not WORKING_HOLDS.isdisjoint(hold.cause for hold in dataset.holds)
    return _stop(dataset) if stopped else ["Its result is being verified and published.", *_stop(dataset)]


def _stop(dataset: Dataset) -> list[str]:
    if not dataset.stop_requested:
        return []
    return [f"It is to stop ({dataset.stop_requested}, by {dataset.stop_by})."]


def _stranded(dataset: Dataset) -> list[str]:
    """A result that is computed and could not leave its node."""
    told = [a.end.detail for a in dataset.attempts if a.attempt_id == dataset.rescue and a.end is not None]
    return [f"Its result is computed and waits to be delivered: {detail}." for detail in told]


def _hold(hold: Hold) -> str:
    return f"It is held ({hold.cause}, by {hold.origin}): {hold.detail}."


def _line(evidence: Evidence) -> str:
    return f"  {'+' if evidence.holds else '-'} {evidence.check}: {evidence.detail}"


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
