"""Exit codes, and errors of the client as sentences with an exit code."""

from __future__ import annotations

import sys

from tiltd.daemon.client import Answered, NotRunning
from tiltd.daemon.text import one_line, shown

OK, FAILED, USAGE, NOT_RUNNING, NOT_FOUND, INTERRUPTED = 0, 1, 2, 3, 4, 130


def told(error: NotRunning | Answered) -> int:
    """Prints the sentence (and candidates) on standard error; returns the exit code."""
    print(f"tiltd: {one_line(str(error))}", file=sys.stderr)
    if isinstance(error, NotRunning):
        return NOT_RUNNING
    for candidate in error.body.get("candidates", []):
        line = f"  {candidate['dataset_id']}  {shown(candidate['feed'])}  {candidate['state']}"
        print(line, file=sys.stderr)
    return {400: USAGE, 404: NOT_FOUND, 409: NOT_FOUND}.get(error.status, FAILED)
