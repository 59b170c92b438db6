"""Whether a process of this machine is still the one that was met."""

from __future__ import annotations


def is_running(pid: int, started_ticks: int) -> bool:
    """True if ``pid`` runs and was started at ``started_ticks`` (clock ticks since boot, field 22 of
    ``/proc/PID/stat``); a pid that was given out again, or a zombie, does not count."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name stands in brackets and may hold blanks and brackets itself.
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in (b"Z", b"X") and int(fields[19]) == started_ticks
