"""The table ``[torque]`` of tiltd.toml, checked: every fault at once, each with its key and a sentence."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tiltd.daemon.core.units import parse_bytes
from tiltd.daemon.text import shown
from tiltd.plugins.api import Permanent
from tiltd.plugins.torque_script import Options, directive

Size = Annotated[int, BeforeValidator(lambda value: parse_bytes(value) if value != "" else 0), Field(ge=0)]
Mode = Literal["floating", "pinned"]


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must be an absolute path")
    return path


Folder = Annotated[str, AfterValidator(_absolute)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSet(_Table):
    """One ``[[torque.node]]``: what holds for the nodes whose names match ``names`` (with * and ?).

    ``scratch_bytes`` is the size of their scratch where the cluster does not report it.
    """

    names: str
    mode: Mode | None = None
    scratch: Folder | None = None
    scratch_bytes: Size = 0


class TorqueSettings(_Table):
    """All of ``[torque]``; docs/settings.md explains every key."""

    server: str = ""
    path: str = ""
    qsub: str = "qsub"
    qstat: str = "qstat"
    qdel: str = "qdel"
    pbsnodes: str = "pbsnodes"
    maui: bool = True
    checkjob: str = "checkjob"
    showstart: str = "showstart"
    environment: dict[str, str] = {}
    owner: str = ""
    queue: str = ""
    account: str = ""
    properties: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    python: str = "python3"
    rerun: bool = False
    mail: Annotated[str, Field(pattern="^(n|[abe]{1,3})$")] = "n"
    mail_users: tuple[str, ...] = ()
    ask_memory: bool = True
    ask_file: bool = False
    output: bool = True
    mode: Mode = "floating"
    scratch: Folder = "/scratch"
    node: tuple[NodeSet, ...] = ()
    empty_is_no_jobs: bool = False
    submit_at_once: Annotated[int, Field(ge=1, le=64)] = 8
    submits_per_second: Annotated[float, Field(gt=0, le=1000)] = 20.0
    timeout_seconds: Annotated[float, Field(gt=0, le=29)] = 25.0
    submit_timeout_seconds: Annotated[float, Field(gt=0, le=90)] = 60.0
    settle_seconds: Annotated[float, Field(ge=0, le=600)] = 10.0

    def options(self) -> Options:
        return Options(
            queue=self.queue,
            account=self.account,
            properties=self.properties,
            extra=self.extra,
            python=self.python,
            rerun=self.rerun,
            mail=self.mail,
            mail_users=self.mail_users,
            memory=self.ask_memory,
            file=self.ask_file,
            output=self.output,
        )

    def of_node(self, name: str) -> NodeSet:
        """What holds for one node: the first set whose pattern its name matches, filled from ``[torque]``."""
        found = next((s for s in self.node if fnmatch.fnmatchcase(name, s.names)), NodeSet(names="*"))
        return NodeSet(
            names=found.names,
            mode=found.mode or self.mode,
            scratch=found.scratch or self.scratch,
            scratch_bytes=found.scratch_bytes,
        )


def read(table: Mapping[str, Any]) -> TorqueSettings:
    """The settings, or Permanent with one sentence for all faults."""
    try:
        settings = TorqueSettings.model_validate(dict(table))
    except ValidationError as error:
        raise Permanent("; ".join(map(_sentence, error.errors()))) from None
    for line in settings.extra:
        directive(line, "[torque] extra")
    return settings


def _sentence(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = NodeSet.model_fields if where.startswith("node.") else TorqueSettings.model_fields
        return f"[torque] {shown(where)}: there is no such key; known are {', '.join(known)}"
    return f"[torque] {shown(where)}: {shown(fault['msg'].removeprefix('Value error, '))}"
