"""The sections and keys of a policy file: what each means, its unit, and what is allowed.

Every key is optional in a file, since files are laid over the shipped ``default.toml``.  The field's name
is that of the record in :mod:`tiltd.daemon.core.model.policy`, its alias the key in the file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic.fields import FieldInfo

from tiltd.daemon.core.model import FailureClass

from .amounts import Bytes, ByteSteps, CoreSteps, Growing, Section, Span, SpanSteps
from .breaker import MARKS_MAX


def _each_once(classes: list[str]) -> list[str]:
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ValueError(f'names "{twice[0]}" twice: name each class once')
    return classes


Classes = Annotated[list[FailureClass], AfterValidator(_each_once)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:@-]*$", max_length=64)]
Factor = Annotated[float, Field(ge=1, le=64)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Limit = Annotated[int, Field(ge=0, le=1_000_000)]


def key(alias: str, meaning: str, example: str, unit: str = "") -> Any:
    """A key of the file that may be absent."""
    return Field(
        default=None, alias=alias, description=meaning, examples=[example], json_schema_extra={"unit": unit}
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

    nodes: Annotated[int, Field(ge=1, le=64)] = key(
        "nodes", "nodes of one job; more gained nothing", "1", "nodes"
    )
    cores: CoreSteps = key("cores", "cores on each node; a node with fewer gives its maximum", "4", "cores")
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


class Limits(Section):
    """Caps on tiltd's own work; 0 means none."""

    running_max: Limit = key(
        "running_max", "attempts at once, those in the resource manager's queue included", "40", "attempts"
    )
    per_project_max: Limit = key("per_project_max", "attempts of one project at once", "10", "attempts")


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
    properties: list[Name] = key("properties", "properties that every node must have", '["tomo"]')
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


class PolicyFile(Section):
    """A whole file."""

    completeness: Completeness = key("completeness", "", "")
    resources: Resources = key("resources", "", "")
    limits: Limits = key("limits", "", "")
    retry: Retry = key("retry", "", "")
    placement: Placing = key("placement", "", "")
    breaker: Breaking = key("breaker", "", "")
    jobs: Jobs = key("jobs", "", "")


def keys_of(table: type[Section]) -> dict[str, FieldInfo]:
    """Key in the file -> its field, in the order of the class."""
    return {field.alias or name: field for name, field in table.model_fields.items()}


def tables() -> dict[str, type[Section]]:
    """Dotted name of every table of a policy file -> its class; "" is the file itself."""
    found: dict[str, type[Section]] = {"": PolicyFile}
    for name, field in keys_of(PolicyFile).items():
        if isinstance(field.annotation, type):
            found[name] = field.annotation
    return found | {"placement.weights": Weights}


def _known_keys() -> dict[str, tuple[str, ...]]:
    known = {name: tuple(keys_of(table)) for name, table in tables().items()}
    for name, table in tables().items():
        for key_name, field in keys_of(table).items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Growing):
                known[f"{name}.{key_name}"] = tuple(field.annotation.model_fields)
                known[f"{name}.{key_name}.steps"] = ("above", "value")
    return known


KNOWN_KEYS: dict[str, tuple[str, ...]] = _known_keys()
"""The keys of each table, by its dotted name; for "did you mean"."""
