"""What was seen of one live attempt, by both witnesses; memory, not history."""

from __future__ import annotations

from msgspec.structs import replace

from .model import Attempt, Job, JobState, Progress, Record, RunEnd

BACK_IN_QUEUE = frozenset({JobState.QUEUED, JobState.HELD})


class Followed(Record):
    """What was seen of one live attempt; memory, not history.  ``moved``: its job was listed on other nodes
    than before, so it was started anew between two looks."""

    job: Job | None = None
    job_asked_at: float = 0.0
    ended_at: float | None = None
    absent_asked_at: float | None = None
    claimed_by: str = ""
    claimed_node: str = ""
    claimed_at: float | None = None
    progress: Progress | None = None
    end: RunEnd | None = None
    news_at: float = 0.0
    moved: bool = False
    suspended_since_at: float | None = None
    suspended_seconds: float = 0.0


def note_move(attempt_id: str, here: set[str], there: set[str]) -> None:
    """Whoever goes back before anybody asked has not moved: where nobody asks, nothing gathers."""
    if attempt_id in there:
        there.discard(attempt_id)
    else:
        here.add(attempt_id)


def known_since_at(attempt: Attempt) -> float:
    """When the resource manager had the job for certain: it accepted it, or the job told so by its claim (a
    death, or a lost reply, may be why nobody heard that it was accepted)."""
    known = [at for at in (attempt.accepted_at, attempt.started_at) if at is not None]
    return min(known, default=float("inf"))


def last_word_may_come(seen: Followed, stopped: bool) -> bool:
    """Of a job that is over: none was heard of its runner, or one that may be of an earlier start.

    A requeue ends a runner with TERM and starts it again, which no look need have seen.  ``stopped``: we
    ended it ourselves.
    """
    if seen.end is None:
        return True
    again = seen.job is None or seen.job.start_count > 1
    return again and not stopped and seen.end.outcome == "terminated"


def moved(before: Job | None, now: Job) -> bool:
    """Listed running, and before on other nodes: it was started anew between two looks."""
    return (
        before is not None
        and before.state is now.state is JobState.RUNNING
        and bool(before.exec_host)
        and bool(now.exec_host)
        and before.exec_host != now.exec_host
    )


def suspended(known: Followed, job: Job, now: float) -> Followed:
    """Count the time that a job is suspended: it does not count towards its deadline."""
    since_at = known.suspended_since_at
    if job.state is JobState.SUSPENDED:
        return known if since_at is not None else replace(known, suspended_since_at=now)
    if since_at is None:
        return known
    spent = known.suspended_seconds + now - since_at
    return replace(known, suspended_since_at=None, suspended_seconds=spent)
