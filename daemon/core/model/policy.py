"""The policy as the core reads it: plain values, built and validated by :mod:`tiltd.policy.policy`.

Units: bytes, seconds, cores.  Where a value was set (file and line) is in ``origins``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

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
        if self.min is not None:
            value = max(self.min, value)
        if self.max is not None:
            value = min(self.max, value)
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


class LimitPolicy(Record):
    """Caps on own work; 0 means none."""

    running_max: int = 0
    queued_max: int = 0
    per_project_max: int = 0


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


class PlacementPolicy(Record):
    """How nodes are chosen among those that fit."""

    scratch_margin_bytes: int = 1_000_000_000
    aged_seconds: float = 1800.0
    node_stale_seconds: float = 300.0
    properties: tuple[str, ...] = ()
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


class Policy(Record):
    """One whole, validated policy.  ``version`` is a hash of its text."""

    version: str
    completeness: CompletenessPolicy = CompletenessPolicy()
    resources: ResourcePolicy = ResourcePolicy()
    limits: LimitPolicy = LimitPolicy()
    retry: RetryPolicy = RetryPolicy()
    placement: PlacementPolicy = PlacementPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    marker_grace_seconds: float = 90.0
    node_lost_after_seconds: float = 1800.0
    origins: dict[str, str] = {}
