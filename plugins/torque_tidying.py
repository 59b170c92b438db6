"""Two jobs of one name, and jobs of attempts that were revoked: harmless, but deleted."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

from tiltd.daemon.core.model import Job, JobState
from tiltd.plugins import torque_intent
from tiltd.plugins.torque_asking import Listing
from tiltd.plugins.torque_intent import Trace

_log = logging.getLogger(__name__)
_ATTEMPT_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.a[0-9]{1,6}", re.ASCII)
_WAITING = (JobState.QUEUED, JobState.HELD)
NAMES_AT_ONCE = 50


def best(jobs: Iterable[Job], claimed_by: str) -> Job:
    """Which of the jobs of one name is the attempt's: the one that claimed it, else one that is not over,
    else the older.  ``jobs`` must not be empty.

    The job itself may know its server by another name (PBS_JOBID), so the number alone is compared.
    """
    claimant = number(claimed_by)
    return min(
        jobs, key=lambda job: (number(job.job_id) != claimant, job.state is JobState.COMPLETED, _age(job))
    )


def number(job_id: str) -> str:
    """A job's id without its server."""
    return job_id.partition(".")[0]


def _age(job: Job) -> tuple[float, int, str]:
    digits = re.match(r"[0-9]+", job.job_id)
    return (job.submitted_at or 0.0, int(digits.group()) if digits else 0, job.job_id)


def superfluous(jobs: Collection[Job], trace: Trace) -> Iterator[str]:
    """Ids of the live jobs of one name that are to be deleted.

    Of two running ones of which none has claimed yet, both are let alone: a moment later one has, and the
    other ends by itself.
    """
    live = list(filter(_is_live, jobs))
    kept = best(jobs, trace.claimed_by) if jobs else None
    for job in live:
        nobody_may = trace.revoked and not trace.prepared and not trace.claimed_by
        if nobody_may or (job is not kept and (trace.claimed_by or job.state in _WAITING)):
            yield job.job_id


class Tidying:
    """After each complete list: one glance at the names, and at a folder only for those in question."""

    def __init__(self, attempts_folder: str, delete: Callable[[str], Awaitable[None]]) -> None:
        self._attempts = attempts_folder
        self._delete = delete
        self._task: asyncio.Task[None] | None = None
        self.deleted: dict[str, int] = {}

    def trace(self, name: str) -> Trace:
        """What the attempt's folder shows; nothing where it is gone."""
        if not _ATTEMPT_NAME.fullmatch(name):
            return Trace()
        try:
            return torque_intent.read(os.path.join(self._attempts, name))
        except OSError:
            return Trace()

    def look(self, listing: Listing, expected: Collection[str]) -> None:
        """Begin to tidy what the listing shows, unless that is still going on.  Never raises."""
        if self._task is not None and not self._task.done():
            return
        if doubtful := self._doubtful(listing, expected):
            self._task = asyncio.create_task(self._tidy(doubtful), name="tidy")

    def _doubtful(self, listing: Listing, expected: Collection[str]) -> list[list[Job]]:
        by_name: dict[str, list[Job]] = {job.job_name: [] for job in listing.jobs.values() if _is_live(job)}
        for job in listing.jobs.values():
            if job.job_name in by_name:
                by_name[job.job_name].append(job)
        doubtful = [name for name, jobs in by_name.items() if _in_question(jobs, expected)]
        return [by_name[name] for name in doubtful if _ATTEMPT_NAME.fullmatch(name)][:NAMES_AT_ONCE]

    async def _tidy(self, groups: list[list[Job]]) -> None:
        for jobs in groups:
            trace = await asyncio.to_thread(self.trace, jobs[0].job_name)
            for job_id in superfluous(jobs, trace):
                _log.warning("the job %s of %s is one too many, and deleted", job_id, jobs[0].job_name)
                await self._delete(job_id)


def _in_question(jobs: list[Job], expected: Collection[str]) -> bool:
    """Of these jobs of one name at least one is live."""
    return len(jobs) > 1 or jobs[0].job_id not in expected


def _is_live(job: Job) -> bool:
    return job.state is not JobState.COMPLETED
