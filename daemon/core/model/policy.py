"""The policy as the core reads it: plain values, built and validated by :mod:`tiltd.policy.policy`.

Units: bytes, seconds, cores.  Where a value was set (file and line) is in ``origins``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .cluster import NodeInfo, ResourceRequest
from .series import Record


class SizeStep(Record):
    """Beyond ``above_bytes`` the base is ``value``."""

    above_bytes: int
    value: float


class Steps(Record):
    """A value that grows with the size of a dataset: data, not code.

    value = base + per_gb * GB, at least ``min``, at most ``max`` (``None``: no bound).  1 GB = 1e9 bytes.
    ``table`` replaces ``base`` for larger series: the last row whose ``above_bytes`` the size exceeds counts
    (rows ascend).  Cost grows with the rows of the table, a handful.
    """

    base: float
    per_gb: float = 0.0
    min: float | None = None
    max: float | None = None
    table: tuple[SizeStep, ...] = ()

    def at(self, size_bytes: float) -> float:
        base = self.base
        for step in self.table:
            if size_bytes > step.above_bytes:
                base = step.value
        value = base + self.per_gb * size_bytes / 1e9
        if self.min is not None and value < self.min:
            value = self.min
        if self.max is not None and value > self.max:
            value = self.max
        return value


class CompletenessPolicy(Record):
    """When a series counts as complete; see ``policy/completeness.py`` for the rule and its sources."""

    quiet_min_seconds: float = 300.0
    gap_factor: float = 3.0
    gap_max_seconds: float = 1200.0
    positive_sign_seconds: float = 30.0
    short_series_wait_seconds: float = 3600.0
    min_tilts: int = 3
    planned_tilts: int | None = None
    stale_seconds: float = 7200.0
    partial: Literal["run", "hold", "drop"] = "hold"


class ResourcePolicy(Record):
    """What one job takes; a factor or floor on what the pipeline asks.

    ``*_by_size`` (bytes, seconds) speak only where neither the pipeline nor, for walltime, the history has
    an answer.  ``rule`` is the name that a placement records.
    """

    nodes: int = 1
    cores: Steps = Steps(
        base=4.0,
        table=(
            SizeStep(above_bytes=4_000_000_000, value=6.0),
            SizeStep(above_bytes=8_000_000_000, value=8.0),
        ),
    )
    threads: Steps = Steps(
        base=4.0,
        table=(
            SizeStep(above_bytes=4_000_000_000, value=6.0),
            SizeStep(above_bytes=8_000_000_000, value=8.0),
        ),
    )
    memory_by_size: Steps = Steps(base=1e9, per_gb=1.4e9)
    scratch_by_size: Steps = Steps(base=1e9, per_gb=21e9)
    walltime_by_size: Steps = Steps(base=60.0, per_gb=125.0)
    queue: str = ""
    rule: str = "default"
    memory_bytes_min: int = 0
    memory_factor: float = 1.0
    scratch_bytes_min: int = 0
    scratch_factor: float = 1.0
    walltime_seconds_min: float = 1800.0
    walltime_factor: float = 3.0
    walltime_seconds_max: float = 172800.0
    account: str = ""
    priority: int = 0
    directives: tuple[str, ...] = ()
    cores_min: int = 0


class LearningPolicy(Record):
    """How far measured peaks of memory and scratch may move what is asked; see ``policy/needs.py``.

    ``*_least`` and ``most`` are shares of what the pipeline asks (by size where it names nothing).
    """

    runs_min: int = 50
    memory_margin: float = 1.25
    memory_least: float = 0.5
    scratch_margin: float = 1.25
    scratch_least: float = 0.5
    most: float = 4.0


class LimitPolicy(Record):
    """Caps on own work; 0 means none.

    ``running_max`` counts attempts at once, those in the resource manager's queue included; ``queued_max``
    those of them that do not run yet; ``per_feed_max`` and ``per_queue_max`` those of one feed, and of one
    queue of the resource manager; ``per_node_max`` the attempts on one node; ``stage_ins_max`` those that
    copy their input to scratch or are about to (where a resource manager decides when they start, their
    runners take turns by tickets).
    """

    running_max: int = 0
    queued_max: int = 0
    per_project_max: int = 0
    per_feed_max: int = 0
    per_queue_max: int = 0
    per_node_max: int = 0
    stage_ins_max: int = 0


class SharingPolicy(Record):
    """Fair sharing between projects, by ``Policy.shares``; without any share the oldest goes first.

    What a project used (core seconds) counts half after ``half_life_seconds``; a project that is not named
    has the share ``default``.
    """

    half_life_seconds: float = 86400.0
    default: float = 1.0


class DeadlinePolicy(Record):
    """When a result is due, counted from the instant the series was complete; 0 means never.

    ``urgent_seconds`` before it the series goes before all others; missed, it is told or held.
    """

    within_seconds: float = 0.0
    urgent_seconds: float = 3600.0
    missed: Literal["notice", "hold"] = "notice"


class RetryPolicy(Record):
    """What to do after a failed attempt, per failure class; see ``policy/retry.py``."""

    attempts_max: int = 3
    delay_seconds: float = 60.0
    delay_factor: float = 4.0
    delay_seconds_max: float = 3600.0
    give_up: tuple[str, ...] = ("input", "config", "licence")
    other_node: tuple[str, ...] = ("node", "environment", "scratch", "killed", "lost")
    memory_factor: float = 1.5
    walltime_factor: float = 2.0
    more_memory: tuple[str, ...] = ("memory",)
    more_walltime: tuple[str, ...] = ("walltime",)
    hold: tuple[str, ...] = ()
    more_scratch: tuple[str, ...] = ("scratch",)
    scratch_factor: float = 1.5
    repair: tuple[str, ...] = ("rawtlt", "patch_tracking")


class PlacementPolicy(Record):
    """How nodes are chosen among those that fit."""

    scratch_margin_bytes: int = 1_000_000_000
    aged_seconds: float = 1800.0
    node_stale_seconds: float = 300.0
    move_after_seconds: float = 600.0
    properties: tuple[str, ...] = ()
    only_nodes: tuple[str, ...] = ()
    not_nodes: tuple[str, ...] = ()
    weights: dict[str, float] = msgspec.field(
        default_factory=lambda: {
            "asked_cores": 4.0,
            "pack_cores": 2.0,
            "scratch_fit": 1.0,
            "spare_properties": 1.0,
        }
    )


class BreakerPolicy(Record):
    """One cause must not eat the queue."""

    series: int = 3
    probe_seconds: float = 600.0


class NoticePolicy(Record):
    """When what people are told goes out; whom, is said by ``Policy.notice_rules``.

    ``gather_seconds``: one cause is told once, what follows within this time is gathered into one notice.
    A session's digest goes out when no series came for ``session_quiet_seconds`` and none is under way any
    more, or ``digest_wait_seconds`` later; or at ``digest_hours`` in ``zone``.
    """

    gather_seconds: float = 900.0
    session_quiet_seconds: float = 7200.0
    digest_wait_seconds: float = 43200.0
    digest_hours: tuple[int, ...] = ()
    zone: str = ""
    quiet_seconds: float = 1200.0
    give_up_seconds: float = 172800.0


class NoticeRule(Record):
    """Whom to tell of which events of which series.  ``events`` empty: of all; ``to``: e-mail addresses and
    names of webhooks; a digest is one of each session."""

    name: str
    to: tuple[str, ...]
    events: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    how: Literal["at once", "digest"] = "at once"


class CivilTime(Record):
    """The hour (0 to 23) and the weekday (0 is Monday) in a named IANA time zone.

    The core has no calendar: the shell gives one for each of :func:`tiltd.policy.rules.zones`, and a new one
    at ``valid_until_at``, when the hour turns there.
    """

    zone: str
    hour: int
    weekday: int
    valid_until_at: float


class Features(Record):
    """What a rule can see of a dataset; what is not known (yet) is ``None`` and matches no condition.

    ``image_size`` is in pixels.  ``attempt_number`` is that of the attempt to be placed, from 1.
    ``waiting_count`` is how many datasets are ready and have no place.  ``civil`` is by zone.
    """

    feed: str = ""
    microscope: str = ""
    project: str = ""
    session: str = ""
    name: str = ""
    size_bytes: int = 0
    tilt_count: int | None = None
    image_size: tuple[int, int] | None = None
    pixel_spacing_angstrom: float | None = None
    pipeline: str = ""
    attempt_number: int = 1
    labels: dict[str, str] = {}
    waiting_count: int = 0
    civil: dict[str, CivilTime] = {}


class Condition(Record):
    """One key of a rule's ``when``; of its fields those that fit the key are set.

    ``patterns``: one of them matches the text (``*`` any characters, ``?`` one).  ``least`` and ``most``: the
    figure lies between them, both included.  ``numbers``: hours or weekdays in the ``zone``.
    """

    key: str
    patterns: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    numbers: tuple[int, ...] = ()
    zone: str = ""


class Rule(Record):
    """Sets values for the datasets that fulfil all its conditions (none: for every dataset).

    ``sets`` is by the keys of a rule's ``set`` (``tiltd.policy.schema_set.Sets``).  Rules are tried in
    order, a later one wins key by key; none is tried behind a matching one with ``stop``.
    """

    name: str
    conditions: tuple[Condition, ...] = ()
    sets: dict[str, Any] = {}
    stop: bool = False


class Decision(Record):
    """What the policy says of one dataset: the defaults with the matching rules over them.

    ``memory_bytes``, ``scratch_bytes`` and ``walltime_seconds`` are a rule's plain word; ``None`` leaves them
    to the pipeline's request (and the history), the factors and the ``*_by_size`` figures.  ``pipeline``,
    ``options`` and ``destination`` are those of the feed where they are empty.  ``hold`` is the reason for
    holding the dataset, in words; "" is none.  ``due_seconds`` counts from completeness; 0 is never.
    ``rules`` are the names of those that matched, in order; ``origins`` is key -> file:line of what
    they set.
    """

    rules: tuple[str, ...] = ()
    nodes: int = 1
    cores: int = 4
    threads: int = 4
    memory_bytes: int | None = None
    memory_factor: float = 1.0
    memory_bytes_min: int = 0
    memory_by_size_bytes: float = 0.0
    scratch_bytes: int | None = None
    scratch_factor: float = 1.0
    scratch_bytes_min: int = 0
    scratch_by_size_bytes: float = 0.0
    walltime_seconds: float | None = None
    walltime_factor: float = 3.0
    walltime_seconds_min: float = 1800.0
    walltime_seconds_max: float = 172800.0
    walltime_by_size_seconds: float = 0.0
    queue: str = ""
    account: str = ""
    priority: int = 0
    properties: tuple[str, ...] = ()
    only_nodes: tuple[str, ...] = ()
    not_nodes: tuple[str, ...] = ()
    pipeline: str = ""
    options: dict[str, str | int | float | bool] = {}
    destination: str = ""
    directives: tuple[str, ...] = ()
    hold: str = ""
    due_seconds: float = 0.0
    completeness: CompletenessPolicy = CompletenessPolicy()
    retry: RetryPolicy = RetryPolicy()
    origins: dict[str, str] = {}
    cores_min: int = 0

    @property
    def rule(self) -> str:
        """The name that a placement records: the last rule that matched, or ``default``."""
        return self.rules[-1] if self.rules else "default"


class Expected(Record):
    """One key of a test's ``expect``: this value, or a figure between ``least`` and ``most``."""

    key: str
    value: Any = None
    least: float | None = None
    most: float | None = None


class PolicyTest(Record):
    """A ``[[test]]`` of a policy file: a dataset, what its pipeline asks, perhaps nodes, what must follow."""

    name: str
    features: Features
    request: ResourceRequest = ResourceRequest()
    nodes: tuple[NodeInfo, ...] = ()
    expected: tuple[Expected, ...] = ()


class Policy(Record):
    """One whole, validated policy.  ``version`` is a hash of its values.

    ``shares`` is project (a pattern) -> weight.  ``origins`` says where each key was set (file:line), those
    of rules as ``rule.NAME.set.KEY``, of tests as ``test.NAME`` and ``test.NAME.expect.KEY``.
    """

    version: str
    completeness: CompletenessPolicy = CompletenessPolicy()
    resources: ResourcePolicy = ResourcePolicy()
    learning: LearningPolicy = LearningPolicy()
    rules: tuple[Rule, ...] = ()
    limits: LimitPolicy = LimitPolicy()
    shares: dict[str, float] = {}
    sharing: SharingPolicy = SharingPolicy()
    deadlines: DeadlinePolicy = DeadlinePolicy()
    retry: RetryPolicy = RetryPolicy()
    placement: PlacementPolicy = PlacementPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    marker_grace_seconds: float = 90.0
    node_lost_after_seconds: float = 1800.0
    tests: tuple[PolicyTest, ...] = ()
    origins: dict[str, str] = {}
    notices: NoticePolicy = NoticePolicy()
    notice_rules: tuple[NoticeRule, ...] = ()
