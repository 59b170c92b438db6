"""``[[test]]``: a dataset, the nodes if wanted, and what the policy must make of it."""

from __future__ import annotations

from typing import Annotated, Any, Self

from msgspec.structs import replace
from pydantic import Field, model_validator

from tiltd.daemon.core.model import (
    CivilTime,
    Expected,
    Features,
    NodeInfo,
    PolicyTest,
    ResourceRequest,
)

from .amounts import Bytes, Section, Span
from .schema_parts import (
    CountRange,
    Limit,
    Name,
    Names,
    OptionTable,
    Range,
    RuleName,
    SizeOrRange,
    Spacing,
    SpanOrRange,
    Text,
    Texts,
    Title,
    Weekdays,
    key,
)
from .schema_sections import Completeness, Retry
from .schema_set import section_values

Pixels = Annotated[int, Field(ge=1, le=100_000)]
NODES_MAX = 300
EVERY_ZONE = "*"
"""Stands in a test's features for the time in whatever zone a rule asks for."""


class Sample(Section):
    """The dataset of a test; what is left out is not known of it."""

    feed: Text = key("feed", "name of its feed", '"krios1"')
    microscope: Text = key("microscope", "its label microscope", '"krios1"')
    project: Text = key("project", "its project", '"p1234"')
    session: Text = key("session", "its session", '"2026-07-01"')
    name: Text = key("name", "name of the tilt series", '"TS_01"')
    pipeline: Text = key("pipeline", "the pipeline of its feed", '"wbp"')
    labels: dict[Title, Text] = key("labels", "other labels of its", '{ detector = "K3" }')
    size: Bytes = key("size", "bytes of its input files", '"2.6GB"', "bytes")
    tilts: Limit = key("tilts", "number of its tilts", "41", "tilts")
    image_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = key(
        "image_size", "width and height of its images", "[4096, 4096]", "pixels"
    )
    pixel_size: Spacing = key("pixel_size", "size of a pixel", '"1.35A"', "A or nm")
    attempt: Annotated[int, Field(ge=1, le=1000)] = key(
        "attempt", "number of the attempt to be placed", "2", "attempts"
    )
    waiting: Limit = key("waiting", "how many series are ready and have no place", "120", "series")
    hour: Annotated[int, Field(ge=0, le=23)] = key(
        "hour", "the hour, in every zone of the rules", "14", "hours"
    )
    weekday: Weekdays = key("weekday", "the day, in every zone of the rules", '"sat"')

    def features(self) -> Features:
        civil = {}
        if self.hour is not None or self.weekday is not None:
            hour = -1 if self.hour is None else self.hour
            weekday = -1 if self.weekday is None else self.weekday[0]
            civil[EVERY_ZONE] = CivilTime(zone=EVERY_ZONE, hour=hour, weekday=weekday, valid_until_at=0.0)
        labels = dict(self.labels or {})
        return Features(
            feed=self.feed or "",
            microscope=self.microscope or labels.get("microscope", ""),
            project=self.project or labels.get("project", ""),
            session=self.session or labels.get("session", ""),
            name=self.name or "",
            size_bytes=self.size or 0,
            tilt_count=self.tilts,
            image_size=None if self.image_size is None else (self.image_size[0], self.image_size[1]),
            pixel_spacing_angstrom=self.pixel_size,
            pipeline=self.pipeline or "",
            attempt_number=self.attempt or 1,
            labels=labels,
            waiting_count=self.waiting or 0,
            civil=civil,
        )


class Asks(Section):
    """What its pipeline asks; what is left out is figured by size."""

    cores: Annotated[int, Field(ge=1, le=4096)] = key(
        "cores", "cores that its walltime is meant for", "4", "cores"
    )
    memory: Bytes = key("memory", "memory", '"4GB"', "bytes")
    scratch: Bytes = key("scratch", "scratch, its input included", '"45GB"', "bytes")
    walltime: Span = key("walltime", "run time", '"20min"', "span")
    properties: Names = key("properties", "properties of nodes", '["gpu"]')

    def request(self) -> ResourceRequest:
        return ResourceRequest(
            cores=self.cores or 4,
            memory_bytes=self.memory or 0,
            scratch_bytes=self.scratch or 0,
            walltime_seconds=self.walltime or 0.0,
            properties=tuple(self.properties or ()),
        )


class NodeTable(Section):
    """A node of a test, empty and up; ``count`` makes several, NAME1, NAME2 and so on."""

    name: RuleName = Field(alias="name", description="its name", examples=['"node01"'])
    count: Annotated[int, Field(ge=1, le=300)] = key("count", "so many like it", "15", "nodes", default=1)
    cores: Annotated[int, Field(ge=1, le=4096)] = Field(
        alias="cores", description="its cores", examples=["8"]
    )
    free_cores: Annotated[int, Field(ge=0, le=4096)] = key("free_cores", "those that are free", "4", "cores")
    memory: Bytes = key("memory", "its memory; left out it is not known", '"16GB"', "bytes")
    scratch: Bytes = Field(
        alias="scratch",
        description="its scratch, all of it free",
        examples=['"200GB"'],
        json_schema_extra={"unit": "bytes"},
    )
    properties: Names = key("properties", "its properties", '["ssd"]')

    def records(self) -> list[NodeInfo]:
        node = NodeInfo(
            name=self.name,
            state="free",
            cores=self.cores,
            cores_free=min(self.cores, self.cores if self.free_cores is None else self.free_cores),
            memory_bytes=self.memory or 0,
            scratch_total_bytes=self.scratch,
            scratch_free_bytes=self.scratch,
            scratch_path="/scratch",
            observed_at=0.0,
            properties=tuple(self.properties or ()),
        )
        if self.count == 1:
            return [node]
        return [replace(node, name=f"{node.name}{number}") for number in range(1, self.count + 1)]


class Expect(Section):
    """What must come of it; what is left out may be anything."""

    rules: list[RuleName] = key("rules", "exactly these rules match, in this order", '["urgent"]')
    nodes: CountRange = key("nodes", "nodes of its job", "1", "nodes")
    cores: CountRange = key("cores", "cores on each (with nodes given: as placed)", "4", "cores")
    threads: CountRange = key("threads", "threads", "4", "threads")
    memory: SizeOrRange = key("memory", "memory", '{ max = "16GB" }', "bytes")
    scratch: SizeOrRange = key("scratch", "scratch on each node", '{ max = "200GB" }', "bytes")
    walltime: SpanOrRange = key("walltime", "walltime", '{ min = "30min", max = "4h" }', "span")
    queue: Name = key("queue", "queue", '"express"')
    account: Name = key("account", "account", '"em-facility"')
    priority: Annotated[int, Field(ge=-1000, le=1000)] = key("priority", "priority", "100")
    properties: Names = key("properties", "properties of its nodes, all of them", '["ssd"]')
    pipeline: Name = key("pipeline", "pipeline", '"wbp"')
    options: OptionTable = key("options", "options of the pipeline that rules set", "{ binning = 4 }")
    directives: list[Text] = key("directives", "further words for the resource manager", '["-W x=y"]')
    destination: Text = key("destination", "where its result goes instead", '"/data/urgent/{series}"')
    hold: bool = key("hold", "is it held?", "true")
    due: Span = key("due", "so long after its last tilt its result is due", '"4h"', "span")
    completeness: Completeness = key("completeness", "keys of [completeness] for it", '{ partial = "run" }')
    retry: Retry = key("retry", "keys of [retry] for it", "{ attempts_max = 5 }")
    placed: bool = key("placed", "does it find a place on the test's nodes?", "true")
    node: Texts = key("node", "it is placed on a node of this name (patterns)", '"node1*"')
    refused: dict[Title, Name] = key("refused", "nodes that refuse it, and why", '{ node1 = "cores" }')

    def expected(self) -> tuple[Expected, ...]:
        return tuple(
            _expected(name, getattr(self, name))
            for name in type(self).model_fields
            if name in self.model_fields_set
        )


class TestTable(Section):
    """A test of the policy.  A policy whose tests fail is refused.  A later file's test of the same name
    replaces it."""

    __test__ = False  # for pytest

    name: Title = Field(
        alias="name", description="its name, told where it fails", examples=['"large series"']
    )
    dataset: Sample = Field(
        alias="dataset", description="see [test.dataset]", examples=['{ size = "2.6GB" }']
    )
    asks: Asks = key("asks", "see [test.asks]", '{ memory = "4GB" }')
    node: Annotated[list[NodeTable], Field(max_length=100)] = key("node", "see [[test.node]]", "")
    expect: Expect = Field(alias="expect", description="see [test.expect]", examples=["{ cores = 4 }"])

    @model_validator(mode="after")
    def _no_cluster_of_clusters(self) -> Self:
        if sum(table.count for table in self.node or ()) > NODES_MAX:
            raise ValueError(f"has too many nodes: allowed are {NODES_MAX} in all")
        return self

    def record(self) -> PolicyTest:
        return PolicyTest(
            name=self.name,
            features=self.dataset.features(),
            request=self.asks.request() if self.asks is not None else ResourceRequest(),
            nodes=tuple(node for table in self.node or () for node in table.records()),
            expected=self.expect.expected(),
        )


def _expected(name: str, value: Any) -> Expected:
    if isinstance(value, Range):
        return Expected(key=name, least=value.min, most=value.max)
    if isinstance(value, Section):
        value = section_values(value)
    return Expected(key=name, value=tuple(value) if isinstance(value, list) else value)
