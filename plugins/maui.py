"""Maui's own words on a job, from ``checkjob`` and ``showstart``.  Pure.

They are for people only.  Recorded: with the server down Maui's tools still answer with code 0, show no job
active and an ended one as running; so nothing is ever concluded from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tiltd.daemon.text import one_line

WORDS_MAX = 12
_TELLING = re.compile(
    r"job is deferred|job cannot run|cannot select job|Holds:|Rejection Reasons:|Reservation '|BlockReason|"
    r"job violates|Messages:|no matching|job must wait|EState:",
    re.IGNORECASE,
)
_START = re.compile(r"Earliest start in +(\S+) on (.{1,40})")


def number(job_id: str) -> str:
    """Maui knows a job by its number alone."""
    return job_id.partition(".")[0]


def checkjob_words(text: str) -> tuple[str, ...]:
    """The lines that tell why a job does not run, as they are, each with runs of blanks made one."""
    return tuple(dict.fromkeys(_joined(text)))[:WORDS_MAX]


def _joined(text: str) -> Iterator[str]:
    """A bracket that Maui closes on the next line belongs to the line before."""
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if not _TELLING.search(line):
            continue
        following = lines[index + 1].strip() if index + 1 < len(lines) else ""
        whole = line + following if following == ")" else line
        words = " ".join(one_line(whole).split())
        yield re.sub(r"\[(\w+) ?: ?(\d+)\]", r"[\1: \2]", words)[:300]


def showstart_words(text: str) -> str:
    """The estimate of the start, or nothing."""
    found = _START.search(text)
    return f"earliest start in {found.group(1)}, on {one_line(found.group(2)).strip()}" if found else ""
