"""The ``set`` of a rule: what it sets for the datasets that match."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from tiltd.daemon.core.model import Rule

from .amounts import Bytes, ByteSteps, CoreSteps, Growing, Section, Span, SpanSteps, growing
from .schema_parts import (
    CoresMin,
    Destination,
    Directives,
    Factor,
    Name,
    Names,
    Nodes,
    Option,
    Patterns,
    Pipeline,
    Priority,
    RuleName,
    Text,
    Title,
    key,
)
from .schema_sections import Completeness, Retry
from .schema_when import When


class Sets(Section):
    """What a matching rule sets; a later rule that matches too wins key by key."""

    nodes: Nodes = key("nodes", "nodes of one job; more gained nothing in the study", "2", "nodes")
    cores: CoreSteps = key("cores", "cores on each node", "{ base = 4, per_gb = 0.5, max = 8 }", "cores")
    cores_min: CoresMin = key(
        "cores_min", "with many waiting or few free, as few as this; 0: cores or none", "1", "cores"
    )
    threads: CoreSteps = key("threads", "threads of programs that run once", "4", "threads")
    memory: ByteSteps = key("memory", "memory, whatever the pipeline asks", '"12GB"', "bytes")
    memory_factor: Factor = key("memory_factor", "times the memory that the pipeline asks", "1.5")
    memory_min: Bytes = key("memory_min", "least memory", '"4GB"', "bytes")
    memory_by_size: ByteSteps = key(
        "memory_by_size",
        "memory where the pipeline names none",
        '{ base = "1GB", per_gb = "1.4GB" }',
        "bytes",
    )
    scratch: ByteSteps = key(
        "scratch",
        "scratch on each node, whatever the pipeline asks",
        '{ base = "1GB", per_gb = "10GB" }',
        "bytes",
    )
    scratch_factor: Factor = key("scratch_factor", "times the scratch that the pipeline asks", "1.2")
    scratch_min: Bytes = key("scratch_min", "least scratch", '"20GB"', "bytes")
    scratch_by_size: ByteSteps = key(
        "scratch_by_size",
        "scratch where the pipeline names none",
        '{ base = "1GB", per_gb = "21GB" }',
        "bytes",
    )
    walltime: SpanSteps = key("walltime", "walltime, whatever is expected", '"3h"', "span")
    walltime_factor: Factor = key("walltime_factor", "times the run time expected", "4")
    walltime_min: Span = key("walltime_min", "least walltime", '"1h"', "span")
    walltime_max: Span = key("walltime_max", "most walltime", '"12h"', "span")
    walltime_by_size: SpanSteps = key(
        "walltime_by_size",
        "run time where neither history nor pipeline tells",
        '{ base = "1min", per_gb = "125s" }',
        "span",
    )
    queue: Name = key("queue", 'queue of the resource manager; "" leaves the choice to it', '"express"')
    account: Name = key("account", "whom the resource manager books it on", '"em-facility"')
    priority: Priority = key("priority", "higher goes first among those that are ready", "100")
    properties: Names = key("properties", "properties that its nodes must have", '["ssd"]')
    only_nodes: Patterns = key("only_nodes", "its nodes have one of these names (patterns)", '"fast*"')
    not_nodes: Patterns = key("not_nodes", "its nodes have none of these names (patterns)", '["node24"]')
    pipeline: Pipeline = key("pipeline", "this pipeline instead of its feed's", '"command"')
    options: Annotated[dict[Title, Option], Field(min_length=1)] = key(
        "options", "options of the pipeline, over those of its feed", "{ binning = 4 }"
    )
    directives: Directives = key(
        "directives", "further words for the resource manager", '["-W group_list={project}"]'
    )
    destination: Destination = key(
        "destination", "where its result goes instead", '"/data/urgent/{project}/{series}"'
    )
    hold: Text = key("hold", 'held for a person, and why; "" holds it not', '"waits for its principal"')
    due: Span = key("due", 'so long after its last tilt its result is due; "0s": never', '"4h"', "span")
    completeness: Completeness = key(
        "completeness", "keys of [completeness] for it", '{ quiet_min = "15min" }'
    )
    retry: Retry = key("retry", "keys of [retry] for it", "{ attempts_max = 5 }")

    def values(self) -> dict[str, Any]:
        """Key -> the value that :func:`tiltd.policy.rules.decide` lays over the defaults."""
        return {
            name: _value(getattr(self, name))
            for name in type(self).model_fields
            if name in self.model_fields_set
        }


class RuleTable(Section):
    """One rule.  A later file's rule of the same name replaces it, in its place."""

    name: RuleName = Field(
        alias="name", description="its name, recorded with every placement", examples=['"urgent"']
    )
    enabled: bool = key("enabled", "false takes an earlier file's rule away", "false", default=True)
    stop: bool = key("stop", "true: where it matches no later rule is tried", "true", default=False)
    when: When = key("when", "see [rule.when]; left out it matches every dataset", '{ feed = "krios1" }')
    set: Sets = key("set", "see [rule.set]", "{ cores = 8 }")

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        sets = self.set.values() if self.set is not None else {}
        if self.enabled and not self.stop and not sets:
            raise ValueError("sets nothing: give it a set, such as set = { cores = 8 }, or stop = true")
        return self

    def record(self) -> Rule:
        return Rule(
            name=self.name,
            conditions=self.when.conditions() if self.when is not None else (),
            sets=self.set.values() if self.set is not None else {},
            stop=self.stop,
        )


def _value(value: Any) -> Any:
    if isinstance(value, Growing):
        return growing(value)
    if isinstance(value, (Completeness, Retry)):
        return section_values(value)
    return tuple(value) if isinstance(value, list) else value


def section_values(section: Section) -> dict[str, Any]:
    """Field of the record -> value, for the keys that were set."""
    found = {
        name: getattr(section, name)
        for name in type(section).model_fields
        if name in section.model_fields_set
    }
    if "planned_tilts" in found:
        found["planned_tilts"] = found["planned_tilts"] or None
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
