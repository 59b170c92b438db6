"""What people are told, and what is put by to be told later: records only."""

from __future__ import annotations

import math
from typing import Literal, get_args

from .series import Record

NoticeEvent = Literal[
    "completed",
    "delivered",
    "doubtful",
    "failed",
    "held",
    "partial",
    "deadline",
    "quiet",
    "job_held",
    "breaker",
    "node_down",
    "server_down",
    "feed_down",
    "destination_full",
    "jobs_forgotten",
    "policy_refused",
]
EVENTS: tuple[NoticeEvent, ...] = get_args(NoticeEvent)
"""What a rule of the policy may name.  The first nine are about one series, the others about the facility."""
OF_A_SERIES = frozenset(EVENTS[:9])
NEEDS_A_PERSON = frozenset({"doubtful", "failed", "held", "partial", "deadline", "job_held", "quiet"})
"""Events of a series that stand in a session's digest by name."""
CLASS_FACTOR = 1.05
CHANNELS = ("log", "email", "webhook")
LOG = "log"
"""The destination that is always there."""


def seconds_class(seconds: float) -> str:
    """Classes are a twentieth apart; what took less than a second counts as one."""
    return str(round(math.log(max(1.0, seconds), CLASS_FACTOR)))


def channel_of(destination: str) -> str:
    """``log``, ``email`` for an address, or ``webhook`` for the name of one."""
    if destination == LOG:
        return LOG
    return "email" if "@" in destination else "webhook"


class NoticeItem(Record):
    """One thing that happened to one series (``dataset_id`` and ``name`` are empty: to the facility)."""

    event: str
    at: float
    summary: str
    dataset_id: str = ""
    name: str = ""
    remedy: str = ""


class Spread(Record):
    """How a figure of quality is spread over a session: enough for a mean and the extremes."""

    count: int
    total: float
    least: float
    most: float


class Digest(Record):
    """What came of one session in one feed, since the last digest that ``rule`` made of it.

    ``seconds`` counts the times from the last tilt to the tomogram by :func:`seconds_class`, so
    that a median costs no list of all.  ``items`` are those that need a person, ``more``
    how many did not fit; ``under_way`` and ``incomplete`` (series that are not among ``came_in``) are filled
    when it is told.
    """

    rule: str
    to: tuple[str, ...]
    feed: str
    project: str
    session: str
    since_at: float
    last_arrival_at: float = 0.0
    came_in: int = 0
    delivered: int = 0
    doubtful: int = 0
    failed: int = 0
    seconds: dict[str, int] = {}
    longest_seconds: float = 0.0
    quality: dict[str, Spread] = {}
    items: tuple[NoticeItem, ...] = ()
    more: int = 0
    under_way: int = 0
    incomplete: int = 0

    @property
    def median_seconds(self) -> float | None:
        """From the last tilt to the tomogram, within 2.5 %; ``None`` where nothing was delivered."""
        left = (sum(self.seconds.values()) + 1) // 2
        for key in sorted(self.seconds, key=int):
            left -= self.seconds[key]
            if left <= 0:
                return float(CLASS_FACTOR ** int(key))
        return None


class Gathered(Record):
    """Notices of one cause for one destination that came within the time in which it is told once.

    ``until_at`` is when they are told, in one notice.
    """

    to: str
    cause: str
    event: str
    project: str
    feed: str
    since_at: float
    until_at: float
    items: tuple[NoticeItem, ...] = ()
    more: int = 0


class Notice(Record):
    """One thing that a person should hear of, once.

    ``to`` are the destinations that have not got it yet: ``log``, e-mail addresses, names of webhooks.
    ``cause`` is what it is about; another notice of the same cause to the same destination before
    ``quiet_until_at`` is gathered.  ``items`` are those that were gathered (``more`` did not fit), ``digest``
    that of a session.
    """

    notice_id: str
    event: str
    summary: str
    dataset_id: str = ""
    project: str = ""
    due_at: float = 0.0
    to: tuple[str, ...] = (LOG,)
    name: str = ""
    feed: str = ""
    session: str = ""
    remedy: str = ""
    cause: str = ""
    quiet_until_at: float = 0.0
    items: tuple[NoticeItem, ...] = ()
    more: int = 0
    digest: Digest | None = None

    @property
    def sent_id(self) -> str:
        """What tells this notice from one of the same thing that happened again, later."""
        return f"{self.notice_id}@{self.due_at:.3f}"
