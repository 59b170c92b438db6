"""What the watcher remembers of one series of a feed while it lives."""

from __future__ import annotations

from dataclasses import dataclass

from .core.model import Sighting
from .scan import FileStat

QUIET_MAX_SECONDS = 300.0


@dataclass(slots=True)
class Watched:
    """One series that lives.  ``members`` are (folder, name) of all files that may belong to it, ``figures``
    what they measured when the detector last made of them what is remembered here."""

    key: str
    home: str
    signature: str
    since_at: float
    last: Sighting
    members: tuple[tuple[str, str], ...] = ()
    figures: tuple[FileStat | None, ...] = ()
    interval_seconds: float = 0.0
    opened: bool = False
    had_open_ts: bool = False
    retry_at: float = float("-inf")

    def open_at(self, open_after_seconds: float) -> float:
        """When its files may be opened.  A series that has been seen to grow by intervals (a tilt every few
        minutes with PACEtomo) is left alone for longer than that, unless something says that it has ended."""
        quiet_seconds = open_after_seconds
        ended = self.last.positive_signs or (self.had_open_ts and not self.last.blockers)
        if not ended:
            longer = min(1.5 * self.interval_seconds, QUIET_MAX_SECONDS)
            quiet_seconds = max(quiet_seconds, longer)
        return max(self.since_at + quiet_seconds, self.retry_at)
