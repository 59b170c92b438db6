"""A job as qstat shows it in full: the elements in Torque's order, as XML or as ``-f`` text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from xml.sax.saxutils import escape

from .records import HOST, BatchJob, clock_time

HEAD = '<?xml version="1.0"?>\n'
HINT = "Unable to copy files back - please see the mother superior's log for exact details."
Element = tuple[str, "str | list[Element]"]
_TIMES = {"ctime", "mtime", "qtime", "etime", "start_time", "comp_time", "Execution_Time"}


def document(jobs: Iterable[BatchJob], now: float) -> str:
    """One document; an empty system has an empty ``Data``."""
    shown = "".join([_xml("Job", [("Job_Id", job.job_id), *elements(job, now)]) for job in jobs])
    return f"{HEAD}<Data>{shown}</Data>\n"


def _xml(name: str, value: str | list[Element]) -> str:
    if isinstance(value, str):
        # Control characters and bytes that are no UTF-8 come out raw, as they do there.
        inside = escape(value, {'"': "&quot;", "'": "&apos;"})
    else:
        inside = "".join([_xml(inner, text) for inner, text in value])
    return f"<{name}>{inside}</{name}>"


def full_text(jobs: Iterable[BatchJob], now: float) -> str:
    """``qstat -f``."""
    return "".join(f"Job Id: {job.job_id}\n{_text(elements(job, now))}\n" for job in jobs)


def _text(found: Iterable[Element], above: str = "") -> str:
    lines = ""
    for name, value in found:
        if isinstance(value, str):
            text = f"    {above}{name} = {_ctime(value) if name in _TIMES else value}"
            lines += (
                "\n\t".join(textwrap.wrap(text, 78, break_on_hyphens=False, drop_whitespace=False)) + "\n"
            )
        else:
            lines += _text(value, f"{name}.")
    return lines


def _ctime(epoch: str) -> str:
    return datetime.fromtimestamp(int(epoch)).astimezone().strftime("%a %b %e %H:%M:%S %Y")


def elements(job: BatchJob, now: float) -> list[Element]:
    """Everything that Torque has an attribute for, in its order."""
    return [element for element in _elements(job, now) if element[1] != ""]


def _elements(job: BatchJob, now: float) -> Iterator[Element]:
    yield "Job_Name", job.name
    yield "Job_Owner", job.owner
    if job.session_id and job.state != "Q":
        yield "resources_used", _used(job, now)
    yield "job_state", job.state
    yield "queue", job.queue
    yield "server", HOST
    yield "Account_Name", job.account
    yield "Checkpoint", "u"
    yield "ctime", _epoch(job.submitted_at)
    yield "depend", f"afterok:{':'.join(job.depends_on)}" if job.depends_on else ""
    yield "Error_Path", job.error_path
    if job.state in "REC" and job.hosts:
        yield "exec_host", job.exec_host()
    yield "Execution_Time", _epoch(job.wait_until)
    yield "Hold_Types", job.hold
    yield "Join_Path", job.join
    yield "Keep_Files", job.keep
    yield "Mail_Points", job.mail_points
    yield "Mail_Users", job.mail_users
    yield "mtime", _epoch(job.changed_at)
    yield "Output_Path", job.output_path
    yield "Priority", str(job.priority)
    yield "qtime", _epoch(job.submitted_at)
    yield "Rerunable", str(job.rerunable)
    yield "Resource_List", list(job.resources.items())
    yield "session_id", str(job.session_id or "")
    yield "Shell_Path_List", job.shell
    yield "Variable_List", ",".join(f"{name}={value}" for name, value in job.variables.items())
    yield from _lived(job, now)


def _lived(job: BatchJob, now: float) -> Iterator[Element]:
    yield "euser", job.user
    yield "egroup", job.user
    yield "queue_type", "E"
    yield "sched_hint", HINT if job.undelivered else ""
    yield "etime", _epoch(job.queued_at) if job.hold == "n" and job.state != "W" else ""
    status = job.exit_status if job.state in "EC" else job.stale_exit_status
    yield "exit_status", "" if status is None else str(status)
    yield "submit_args", job.submit_args
    yield "start_time", _epoch(job.started_at)
    if job.state == "R":
        left = job.started_at + job.walltime_seconds - now
        yield "Walltime", [("Remaining", str(int(left)))]
    yield "start_count", str(job.start_count or "")
    yield "fault_tolerant", "False"
    yield "comp_time", _epoch(job.ended_at)
    yield "job_radix", "0"
    if job.ended_at and job.session_id:
        yield "total_runtime", f"{job.ended_at - job.started_at:.6f}"
    yield "submit_host", HOST
    yield "init_work_dir", job.work_folder
    yield "request_version", "1"


def _used(job: BatchJob, now: float) -> list[Element]:
    """A job that is over has the same figures in another order."""
    walltime = ("walltime", clock_time((job.ended_at or now) - job.started_at))
    figures: Mapping[str, Element] = {
        "cput": ("cput", "00:00:00"), "energy": ("energy_used", "0"), "mem": ("mem", "0kb"),
        "vmem": ("vmem", "0kb"), "walltime": walltime,
    }  # fmt: skip
    order = ("cput", "vmem", "walltime", "mem", "energy") if job.state == "C" else tuple(figures)
    return [figures[name] for name in order]


def _epoch(instant: float) -> str:
    return str(int(instant)) if instant else ""
