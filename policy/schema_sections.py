"""The sections of a policy file: what each key means, its unit, and what is allowed.

Every key is optional in a file, since files are laid over the shipped ``default.toml``.  The field's name
is that of the record in :mod:`tiltd.daemon.core.model.policy`, its alias the key in the file.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .amounts import Bytes, ByteSteps, CoreSteps, Section, Span, SpanSteps
from .breaker import MARKS_MAX
from .predict import SAMPLES_MAX
from .schema_parts import (
    Classes,
    CoresMin,
    Directives,
    Factor,
    Limit,
    Margin,
    Name,
    Names,
    Nodes,
    Part,
    Patterns,
    Priority,
    Share,
    Weight,
    key,
)


class Completeness(Section):
    """When a series counts as complete."""

    quiet_min_seconds: Span = key(
        "quiet_min", "nothing may have changed for at least so long", '"5min"', "span"
    )
    gap_factor: Annotated[float, Field(ge=1, le=100)] = key(
        "gap_factor", "and for so many times the largest recent gap between two sections", "3"
    )
    gap_max_seconds: Span = key(
        "gap_max", "but the gap never makes it wait longer than this", '"20min"', "span"
    )
    positive_sign_seconds: Span = key(
        "positive_sign",
        "the wait once there is a sign of the end (.openTS gone, planned count)",
        '"30s"',
        "span",
    )
    short_series_wait_seconds: Span = key(
        "short_series_wait", "the wait for a series shorter than is usual in its session", '"1h"', "span"
    )
    min_tilts: Annotated[int, Field(ge=3, le=1000)] = key(
        "min_tilts", "fewer tilts are no tilt series", "3", "tilts"
    )
    planned_tilts: Annotated[int, Field(ge=0, le=1000)] = key(
        "planned_tilts", "tilts that a whole series has; 0: not known", "41", "tilts"
    )
    stale_seconds: Span = key(
        "stale", "what is not complete and has not changed for so long is partial", '"2h"', "span"
    )
    partial: Literal["run", "hold", "drop"] = key(
        "partial", "what becomes of a partial series: run it, hold it for a person, or drop it", '"hold"'
    )


class Resources(Section):
    """What one job gets; factors and floors on what its pipeline asks."""

    nodes: Nodes = key("nodes", "nodes of one job; more gained nothing", "1", "nodes")
    cores: CoreSteps = key("cores", "cores on each node; a node with fewer gives its maximum", "4", "cores")
    cores_min: CoresMin = key(
        "cores_min", "with many waiting or few free, as few as this; 0: cores or none", "1", "cores"
    )
    threads: CoreSteps = key("threads", "threads of programs that run once (OMP_NUM_THREADS)", "4", "threads")
    memory_factor: Factor = key("memory_factor", "times the memory that the pipeline asks", "1")
    memory_bytes_min: Bytes = key("memory_min", "least memory", '"500MB"', "bytes")
    memory_by_size: ByteSteps = key(
        "memory_by_size",
        "memory where the pipeline names none",
        '{ base = "1GB", per_gb = "1.4GB" }',
        "bytes",
    )
    scratch_factor: Factor = key("scratch_factor", "times the scratch that the pipeline asks", "1.1")
    scratch_bytes_min: Bytes = key("scratch_min", "least scratch", '"100MB"', "bytes")
    scratch_by_size: ByteSteps = key(
        "scratch_by_size",
        "scratch where the pipeline names none",
        '{ base = "1GB", per_gb = "21GB" }',
        "bytes",
    )
    walltime_factor: Factor = key("walltime_factor", "times the run time expected (p99, or as asked)", "3")
    walltime_seconds_min: Span = key("walltime_min", "least walltime", '"30min"', "span")
    walltime_seconds_max: Span = key("walltime_max", "most walltime", '"2d"', "span")
    walltime_by_size: SpanSteps = key(
        "walltime_by_size",
        "run time where neither history nor pipeline tells",
        '{ base = "1min", per_gb = "125s" }',
        "span",
    )
    queue: Name = key("queue", 'queue of the resource manager; "" leaves the choice to it', '"tomo"')
    account: Name = key("account", 'whom the resource manager books it on; "" says nothing', '"em-facility"')
    priority: Priority = key("priority", "higher goes first among those that are ready", "0")
    directives: Directives = key(
        "directives", "further words for the resource manager", '["-W group_list={project}"]'
    )


class Learning(Section):
    """How measured peaks of memory and scratch move what is asked of them."""

    runs_min: Annotated[int, Field(ge=1, le=SAMPLES_MAX)] = key(
        "runs_min", "runs of a kind measured, before less is asked than the pipeline asks", "50", "runs"
    )
    memory_margin: Margin = key("memory_margin", "times the 99th percentile of memory measured", "1.25")
    memory_least: Part = key("memory_least", "never less than this part of what the pipeline asks", "0.5")
    scratch_margin: Margin = key("scratch_margin", "times the most scratch measured", "1.25")
    scratch_least: Part = key("scratch_least", "never less than this part of what the pipeline asks", "0.5")
    most: Margin = key("most", "never more than so many times what the pipeline asks", "4")


class Limits(Section):
    """Caps on tiltd's own work; 0 means none."""

    running_max: Limit = key(
        "running_max", "attempts at once, those in the resource manager's queue included", "40", "attempts"
    )
    queued_max: Limit = key(
        "queued_max", "attempts that wait in the resource manager's queue at once", "10", "attempts"
    )
    per_project_max: Limit = key("per_project_max", "attempts of one project at once", "10", "attempts")
    per_node_max: Limit = key("per_node_max", "attempts on one node at once", "2", "attempts")
    stage_ins_max: Limit = key(
        "stage_ins_max", "attempts that copy their input to scratch at once", "8", "attempts"
    )


class Sharing(Section):
    """How projects share the nodes; without any weight in [shares] the oldest series goes first."""

    half_life_seconds: Span = key("half_life", "after so long what was used counts half", '"1d"', "span")
    default: Share = key("default", "weight of a project that [shares] does not name", "1")


class Deadlines(Section):
    """When a result is due, counted from the instant its series was complete."""

    within_seconds: Span = key("within", 'so long after that; "0s": never', '"12h"', "span")
    urgent_seconds: Span = key("urgent", "so long before it is due it goes before all others", '"1h"', "span")
    missed: Literal["notice", "hold"] = key(
        "missed", "a series that missed it: tell, or hold it for a person too", '"notice"'
    )


class Retry(Section):
    """What follows a failed attempt, by class of failure."""

    attempts_max: Annotated[int, Field(ge=1, le=20)] = key(
        "attempts_max", "attempts in all that may fail before the dataset does", "3", "attempts"
    )
    delay_seconds: Span = key("delay", "wait before the second attempt", '"1min"', "span")
    delay_factor: Factor = key("delay_factor", "each further wait is so many times longer", "4")
    delay_seconds_max: Span = key("delay_max", "but never longer than this", '"1h"', "span")
    give_up: Classes = key("give_up", "classes that are not tried again", '["input", "config"]')
    other_node: Classes = key("other_node", "classes tried again on another node", '["node", "lost"]')
    more_memory: Classes = key("more_memory", "classes tried again with more memory", '["memory"]')
    memory_factor: Factor = key("memory_factor", "so many times more memory", "1.5")
    more_walltime: Classes = key("more_walltime", "classes tried again with more walltime", '["walltime"]')
    walltime_factor: Factor = key("walltime_factor", "so many times more walltime", "2")
    hold: Classes = key(
        "hold", "classes after which it is held for a person, and tried again then", '["program"]'
    )


class Weights(Section):
    """How much each wish counts when several nodes fit; 0 switches it off."""

    asked_cores: Weight = key("asked_cores", "prefer nodes that have the cores asked for", "4")
    pack_cores: Weight = key("pack_cores", "prefer nodes that are full afterwards", "2")
    scratch_fit: Weight = key("scratch_fit", "prefer nodes with little scratch to spare", "1")
    spare_properties: Weight = key("spare_properties", "prefer nodes without properties not asked for", "1")


class Placing(Section):
    """How nodes are chosen among those that fit."""

    scratch_margin_bytes: Bytes = key(
        "scratch_margin", "scratch of each node that is never promised to a job", '"1GB"', "bytes"
    )
    aged_seconds: Span = key(
        "aged", "a series waiting longer keeps the node that comes closest for itself", '"30min"', "span"
    )
    node_stale_seconds: Span = key(
        "node_stale", "a node whose figures are older gets no new job", '"5min"', "span"
    )
    properties: Names = key("properties", "properties that every node must have", '["tomo"]')
    only_nodes: Patterns = key(
        "only_nodes", "nodes must have one of these names (patterns); []: any", '["tomo*"]'
    )
    not_nodes: Patterns = key("not_nodes", "nodes must have none of these names (patterns)", '["node24"]')
    weights: Weights = key("weights", "see [placement.weights]", "")


class Breaking(Section):
    """One cause must not eat the queue."""

    series: Annotated[int, Field(ge=1, le=MARKS_MAX)] = key(
        "series", "so many series failing alike stop a node, feed, pipeline or destination", "3", "series"
    )
    probe_seconds: Span = key("probe", "then one series is let through so often", '"10min"', "span")


class Jobs(Section):
    """How long tiltd waits for news of a job before it concludes anything."""

    marker_grace_seconds: Span = key(
        "marker_grace",
        "for the runner's last word after the job has ended (NFS shows it late)",
        '"90s"',
        "span",
    )
    node_lost_after_seconds: Span = key(
        "node_lost_after", "for a node that is out of reach, before its job is fenced off", '"30min"', "span"
    )
