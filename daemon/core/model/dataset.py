"""The record that moves: one dataset per input revision and run number."""

from __future__ import annotations

import enum
import hashlib
import re
from typing import Literal

from .cluster import Placement, ResourceRequest
from .decided import Decided
from .job import Failure, Measured, Options, RunEnd
from .series import Evidence, Problem, Record, SeriesKind, TiltSeries


class State(enum.StrEnum):
    """Where a dataset stands.  The last three are terminal: final until an operator speaks."""

    ARRIVING = "arriving"
    READY = "ready"
    RESERVED = "reserved"
    QUEUED = "queued"
    RUNNING = "running"
    COLLECTING = "collecting"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = frozenset({State.DELIVERED, State.FAILED, State.CANCELLED})
WITH_ATTEMPT = frozenset({State.RESERVED, State.QUEUED, State.RUNNING, State.COLLECTING})

HoldCause = Literal[
    "operator",
    "policy",
    "partial",
    "input_gone",
    "input_changing",
    "breaker",
    "before_tiltd",
    "no_pipeline",
    "destination",
    "quality",
    "failure",
    "bug",
]
StopIntent = Literal["cancel", "superseded", "replace", "deadline", "lost"]
"""``replace``: the job vanished before it claimed, revoke and place anew; ``lost``: its node is out of
reach, fence and place anew; ``deadline``: far beyond its walltime."""


_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


class Hold(Record):
    """Why a dataset may not go on.  A cause lifts only its own hold."""

    cause: HoldCause
    origin: str
    detail: str
    since_at: float


class Attempt(Record):
    """One try at running a dataset: ``run``, or ``rescue`` of results stranded on a node.

    ``nodes`` are those that it runs on, ``ran_on`` those that it ran on before it was queued again: what it
    may have left there stays booked until it is over.  ``revoked`` and ``fenced`` say that this attempt can
    publish nothing any more; ``lost`` that its node is out of reach and it is to be fenced.  ``end`` is the
    last word of its runner, ``failure`` the judgement; an attempt is over when ``ended_at`` is set.
    """

    attempt_id: str
    number: int
    kind: Literal["run", "rescue"]
    placement: Placement
    request: ResourceRequest
    placed_at: float
    job_id: str = ""
    accepted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    revoked: bool = False
    fenced: bool = False
    lost: bool = False
    nodes: tuple[str, ...] = ()
    ran_on: tuple[str, ...] = ()
    rescues_attempt_id: str = ""
    rescue_path: str = ""
    decided: Decided | None = None
    failure: Failure | None = None
    end: RunEnd | None = None


class Dataset(Record):
    """Everything known of one revision and run of a tilt series; a fold of its facts.

    About 2 kB in memory.  ``retry_not_before_at`` is 0 when it may be placed at once.
    ``attempts_spent`` counts tries that the retry rule sees; an operator's retry sets it back.
    ``pipeline``, ``options`` and ``destination`` are those of the last placement; ``asked_pipeline`` and
    ``asked_options`` keep the feed's where a rule changed them.  ``operator_options`` win over every rule.
    ``released_holds`` are the reasons of a policy's holds that an operator lifted: they hold it no more.
    ``operator_priority`` is added to the policy's priority.
    """

    dataset_id: str
    feed: str
    series_key: str
    tilt_series_name: str
    kind: SeriesKind
    revision: int
    run: int
    found_at: float
    state: State
    state_since_at: float
    labels: dict[str, str] = {}
    pipeline: str = ""
    options: Options = {}
    asked_pipeline: str = ""
    asked_options: Options | None = None
    operator_options: Options = {}
    operator_priority: int = 0
    destination: str = ""
    released_holds: tuple[str, ...] = ()
    missed_at: float | None = None
    series: TiltSeries | None = None
    evidence: tuple[Evidence, ...] = ()
    partial: bool = False
    accepted_partial: bool = False
    accepted_quality: bool = False
    last_change_at: float = 0.0
    completed_at: float | None = None
    imported_path: str = ""
    holds: tuple[Hold, ...] = ()
    stop_requested: StopIntent | None = None
    stop_by: str = ""
    attempts: tuple[Attempt, ...] = ()
    attempts_spent: int = 0
    retry_not_before_at: float = 0.0
    excluded_nodes: tuple[str, ...] = ()
    changes: dict[str, float | str] = {}
    rescue: str = ""
    result_path: str = ""
    result_bytes: int = 0
    quality: dict[str, float] = {}
    verdict: str = ""
    problems: tuple[Problem, ...] = ()
    measured: Measured | None = None
    failure: Failure | None = None
    cancel_reason: str = ""
    finalized_at: float | None = None
    fact_count: int = 0

    @property
    def attempt(self) -> Attempt | None:
        """The newest attempt, over or not."""
        return self.attempts[-1] if self.attempts else None

    @property
    def live_attempt(self) -> Attempt | None:
        """The attempt that could still publish, or ``None``."""
        attempts = self.attempts
        return attempts[-1] if attempts and attempts[-1].ended_at is None else None

    def attempt_called(self, attempt_id: str) -> Attempt | None:
        """The attempt with this id; nearly always the newest is asked for."""
        for attempt in reversed(self.attempts):
            if attempt.attempt_id == attempt_id:
                return attempt
        return None

    @property
    def under_way(self) -> bool:
        """Neither at its end nor out of the working set: there is more to come."""
        return self.finalized_at is None and self.state not in TERMINAL

    @property
    def held(self) -> bool:
        return bool(self.holds)

    @property
    def project(self) -> str:
        return self.labels.get("project", "")

    @property
    def session(self) -> str:
        return self.labels.get("session", "")

    def hold(self, cause: HoldCause) -> Hold | None:
        for hold in self.holds:
            if hold.cause == cause:
                return hold
        return None


def dataset_id(feed: str, series_key: str, tilt_series_name: str, revision: int, run: int) -> str:
    """A short id that is safe everywhere: ``[A-Za-z0-9_-]`` of the name, 8 hex digits of the identity,
    revision and run, for example ``TS_01-3fa2c1d0.1.1``.

    The hash is over feed and key, so two hostile names that look alike once cleaned stay apart
    (32 bits: a clash is expected beyond some 65,000 series *of the same cleaned name*).
    """
    slug = _UNSAFE.sub("_", tilt_series_name).strip("_-")[:24] or "series"
    identity = f"{feed}\0{series_key}".encode("utf-8", "surrogateescape")
    return f"{slug}-{hashlib.sha256(identity).hexdigest()[:8]}.{revision}.{run}"


def attempt_id(dataset: str, number: int) -> str:
    """The id of an attempt: the dataset's and its number, for example ``TS_01-3fa2c1d0.1.1.a2``."""
    return f"{dataset}.a{number}"
