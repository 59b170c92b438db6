"""Where a question is asked: policy, nodes, history and pipelines, of files or of the site's daemon."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import tomli
from pydantic import Field, ValidationError

from tiltd.daemon import registry
from tiltd.daemon.config import Settings
from tiltd.daemon.core.model import NodeInfo, Options, Policy, Record, ResourceRequest, TiltSeries
from tiltd.daemon.core.state import CoreState
from tiltd.daemon.journal import Journal
from tiltd.daemon.journal_file import JournalError, connect
from tiltd.plugins.api import Context, Permanent, Pipeline
from tiltd.policy.amounts import Section
from tiltd.policy.predict import Samples
from tiltd.policy.schema_test import NodeTable


class SceneError(Exception):
    """Something that was named cannot be used; one sentence."""


class Scene(Record):
    """``source`` says in words where the policy is from, and so on."""

    policy: Policy
    samples: Samples
    nodes: tuple[NodeInfo, ...] = ()
    source: dict[str, str] = {}


class _NodesFile(Section):
    node: list[NodeTable] = Field(min_length=1)


def nodes_of(path: Path) -> tuple[NodeInfo, ...]:
    """``[[node]]`` tables as in a policy's tests, or what ``tiltd nodes --json`` printed.

    Raises SceneError with all faults in a line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.lstrip().startswith(("{", "[")) and not text.lstrip().startswith("[["):
            return nodes_of_answer(json.loads(text))
        read = _NodesFile.model_validate(tomli.loads(text))
    except OSError as error:
        raise SceneError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        told = [
            "there is no [[node]] table"
            if d["loc"] == ("node",) and d["type"] == "missing"
            else f"{'.'.join(map(str, d['loc']))}: {d['msg']}"
            for d in error.errors(include_url=False)
        ]
        raise SceneError(f"{path}: " + "; ".join(told)) from None
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise SceneError(f"{path}: holds no nodes: {error}") from None
    return tuple(node for table in read.node for node in table.records())


def nodes_of_answer(answer: Any) -> tuple[NodeInfo, ...]:
    """From the daemon's answer to ``nodes``: cores and scratch that it has booked count as taken."""
    rows = answer["nodes"] if isinstance(answer, Mapping) else answer
    nodes = []
    for row in rows:
        node = msgspec.convert(row, NodeInfo)
        free = max(0, node.cores - int(row.get("cores_reserved", 0)))
        scratch = max(0, node.scratch_total_bytes - int(row.get("scratch_reserved_bytes", 0)))
        nodes.append(
            msgspec.structs.replace(
                node,
                cores_free=min(free, node.cores),
                scratch_free_bytes=min(scratch, node.scratch_free_bytes),
            )
        )
    return tuple(nodes)


def state_of(journal: Path) -> CoreState:
    """The state as recorded, read beside a running daemon.  Raises JournalError."""
    if not journal.is_file():
        raise JournalError(f"there is no journal {journal}")
    connection = connect(journal, read_only=True)
    try:
        return Journal(journal, connection).load()
    finally:
        connection.close()


def pipelines_of(settings: Settings | None, names: set[str]) -> dict[str, Pipeline]:
    """Those that are installed and can be made; the rest is left out."""
    context = Context(state_folder="", spool_folder="", journal_id="question", owner="")
    found = {}
    for name in sorted(names):
        try:
            found[name] = registry.make("pipeline", name, settings.table(name) if settings else {}, context)
        except registry.RegistryError:
            continue
    return found


def asked_by(pipeline: Pipeline | None, series: TiltSeries, options: Options) -> tuple[ResourceRequest, str]:
    """What the pipeline asks for; or nothing, and why it could not be asked."""
    if pipeline is None:
        return ResourceRequest(), "no pipeline was asked"
    try:
        return pipeline.request(series, options), ""
    except Permanent as error:
        return ResourceRequest(), str(error)
