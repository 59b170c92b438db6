"""The words of a batch server: jobs, nodes, queues, and what a command answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

HOST = "torque-head"
KILOBYTE = 1024
Letter = Literal["Q", "H", "W", "R", "E", "C", "S", "T"]

TERMINATED, WALLTIME = 271, -11
"""Exit statuses of a job that qdel or its walltime ended."""


@dataclasses.dataclass(frozen=True)
class NodeAsk:
    """One part of ``nodes=``: ``count`` nodes with ``ppn`` processors each, one of them by name perhaps."""

    count: int
    ppn: int
    properties: tuple[str, ...] = ()
    host: str = ""


@dataclasses.dataclass
class BatchJob:
    """A job.  Instants are epochs, 0.0 where there is none yet.

    ``resources`` is Resource_List in its own order; ``hosts`` are pairs of a node and its processors.
    ``lost`` is a job whose node died: the server goes on showing it as it was; ``untold_status`` is the end
    of a job on a node that cannot tell it; ``homes`` are the folders of its nodes.
    """

    number: int
    name: str
    owner: str
    queue: str
    script: str
    resources: dict[str, str]
    asks: tuple[NodeAsk, ...]
    variables: dict[str, str]
    submit_args: str
    work_folder: str
    output_path: str
    error_path: str
    submitted_at: float
    user: str = ""
    state: Letter = "Q"
    join: str = "n"
    keep: str = "n"
    mail_points: str = "a"
    mail_users: str = ""
    account: str = ""
    shell: str = ""
    priority: int = 0
    rerunable: bool = True
    hold: str = "n"
    wait_until: float = 0.0
    depends_on: tuple[str, ...] = ()
    hosts: tuple[tuple[str, tuple[int, ...]], ...] = ()
    session_id: int = 0
    started_at: float = 0.0
    changed_at: float = 0.0
    ended_at: float = 0.0
    queued_at: float = 0.0
    start_count: int = 0
    exit_status: int | None = None
    stale_exit_status: int | None = None
    undelivered: bool = False
    deferred: str = ""
    arguments: str = ""
    lost: bool = False
    untold_status: int | None = None
    homes: tuple[str, ...] = ()

    @property
    def job_id(self) -> str:
        return f"{self.number}.{HOST}"

    @property
    def walltime_seconds(self) -> int:
        return seconds(self.resources.get("walltime", "0"))

    @property
    def processors(self) -> int:
        return sum(ask.count * ask.ppn for ask in self.asks)

    @property
    def file_bytes(self) -> int:
        """``file=``, dedicated for every processor."""
        return size_bytes(self.resources.get("file", "0"))

    def exec_host(self) -> str:
        return "+".join(f"{node}/{ranges(numbers)}" for node, numbers in self.hosts)

    def nodes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node for node, _ in self.hosts))


@dataclasses.dataclass
class Queue:
    """A queue; 0 is no limit."""

    name: str
    enabled: bool = True
    started: bool = True
    max_queuable: int = 0
    max_user_queuable: int = 0
    max_walltime_seconds: int = 0
    max_memory_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Pretend:
    """A node to be: a name, processors, and a scratch of so many bytes."""

    name: str
    cores: int = 8
    scratch_bytes: int = 4 << 30
    properties: tuple[str, ...] = ("tomography",)
    memory_bytes: int = 24_684_092 * KILOBYTE


@dataclasses.dataclass
class Node:
    """A node as the server knows it.  ``scratch`` is its folder.

    What its mom told last, and when (``rectime``), is kept: a node that is away is shown as it was.
    ``reports_size`` is ``size[fs=...]`` in the mom's configuration.  ``most_used_bytes`` is the most that was
    ever seen on its scratch: a witness for tests.
    """

    pretend: Pretend
    scratch: str
    home: str
    taken: dict[int, str] = dataclasses.field(default_factory=dict)
    state: Literal["free", "offline", "down", "job-exclusive"] = "free"
    note: str = ""
    away_since_at: float = 0.0
    rectime: int = 0
    told_free_bytes: int = 0
    told_jobs: tuple[str, ...] = ()
    told_sessions: tuple[int, ...] = ()
    reports_size: bool = True
    most_used_bytes: int = 0

    @property
    def name(self) -> str:
        return self.pretend.name

    def free_processors(self) -> list[int]:
        return [number for number in range(self.pretend.cores) if number not in self.taken]

    def shown_state(self) -> str:
        if self.state == "free" and not self.free_processors():
            return "job-exclusive"
        return self.state


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a command prints, its exit code, and how long it lets one wait; ``hang`` is for ever."""

    rc: int = 0
    out: bytes = b""
    err: bytes = b""
    delay_seconds: float = 0.0
    hang: bool = False


@dataclasses.dataclass(frozen=True)
class Call:
    """A command as it was started.  ``stdin`` is empty when there was none."""

    name: str
    argv: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    stdin: bytes = b""


class Refused(Exception):
    """The server says no: code (exit status of the command) and its words."""

    def __init__(self, rc: int, words: str) -> None:
        super().__init__(words)
        self.rc, self.words = rc, words


def said(text: str) -> bytes:
    """Text as bytes; what was no UTF-8 when it came in goes out as it came."""
    return text.encode("utf-8", "surrogateescape")


def seconds(text: str) -> int:
    """``[[HH:]MM:]SS``.  Raises ValueError."""
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total


def clock_time(total: float) -> str:
    """``HH:MM:SS``."""
    whole = max(0, int(total))
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"


_UNITS = {"b": 1, "k": KILOBYTE, "m": KILOBYTE**2, "g": KILOBYTE**3, "t": KILOBYTE**4}


def size_bytes(text: str) -> int:
    """``500mb``, ``2gb``, ``100kb``, ``7``.  Raises ValueError."""
    digits = text.rstrip("bkmgtwBKMGTW")
    unit = text[len(digits) :].lower()
    if unit not in ("", "b") and unit not in tuple(f"{letter}b" for letter in "kmgt"):
        raise ValueError(text)
    return int(digits) * (_UNITS[unit[0]] if unit else 1)


def ranges(numbers: tuple[int, ...]) -> str:
    """``0-3,6``: processors as Torque shows them."""
    parts: list[str] = []
    first = last = numbers[0]
    for number in (*numbers[1:], -1):
        if number == last + 1:
            last = number
            continue
        parts.append(str(first) if first == last else f"{first}-{last}")
        first = last = number
    return ",".join(parts)


def numbered(jobs: Mapping[int, BatchJob], job_id: str) -> BatchJob | None:
    """The job of an id, with or without the server's name; ``None`` for one unknown or of another server."""
    number, _, host = job_id.partition(".")
    if not number.isdigit() or host not in ("", HOST):
        return None
    return jobs.get(int(number))
