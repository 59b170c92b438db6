"""Jobs as plain ``qstat`` lists them: one line each, long names cut at the front."""

from __future__ import annotations

from collections.abc import Iterable

from .records import BatchJob, clock_time

HEAD = (
    "Job ID                    Name             User            Time Use S Queue\n"
    "------------------------- ---------------- --------------- -------- - -----\n"
)
NAME_WIDTH = 16


def lines(jobs: Iterable[BatchJob]) -> str:
    """Nothing at all when there are no jobs."""
    found = "".join(_line(job) for job in jobs)
    return HEAD + found if found else ""


def _line(job: BatchJob) -> str:
    name = job.name if len(job.name) <= NAME_WIDTH else "..." + job.name[-(NAME_WIDTH - 3) :]
    used = clock_time(0) if job.session_id else "0"
    return f"{job.job_id:<26} {name:<16} {job.user:<15} {used:>8} {job.state} {job.queue:<15}\n"
