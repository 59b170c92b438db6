"""A whole policy file: its tables, and which keys each of them knows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.fields import FieldInfo

from .amounts import Growing, Section
from .schema_notices import Notices, NoticeTable, NoticeWhen
from .schema_parts import Share, Title, key
from .schema_sections import (
    Breaking,
    Completeness,
    Deadlines,
    Jobs,
    Learning,
    Limits,
    Placing,
    Resources,
    Retry,
    Sharing,
    Weights,
)
from .schema_set import RuleTable, Sets
from .schema_test import Asks, Expect, NodeTable, Sample, TestTable
from .schema_when import When

RULES_MAX = 200
TESTS_MAX = 200


class PolicyFile(Section):
    """A whole file."""

    completeness: Completeness = key("completeness", "", "")
    resources: Resources = key("resources", "", "")
    learning: Learning = key("learning", "", "")
    limits: Limits = key("limits", "", "")
    shares: dict[Title, Share] = key("shares", "", "")
    sharing: Sharing = key("sharing", "", "")
    deadlines: Deadlines = key("deadlines", "", "")
    retry: Retry = key("retry", "", "")
    placement: Placing = key("placement", "", "")
    breaker: Breaking = key("breaker", "", "")
    jobs: Jobs = key("jobs", "", "")
    notices: Notices = key("notices", "", "")
    rule: Annotated[list[RuleTable], Field(max_length=RULES_MAX)] = key("rule", "", "")
    notice: Annotated[list[NoticeTable], Field(max_length=RULES_MAX)] = key("notice", "", "")
    test: Annotated[list[TestTable], Field(max_length=TESTS_MAX)] = key("test", "", "")


SECTIONS: dict[str, type[Section]] = {
    "completeness": Completeness,
    "resources": Resources,
    "learning": Learning,
    "limits": Limits,
    "sharing": Sharing,
    "deadlines": Deadlines,
    "retry": Retry,
    "placement": Placing,
    "placement.weights": Weights,
    "breaker": Breaking,
    "jobs": Jobs,
    "notices": Notices,
}
"""The tables whose keys have a value in ``default.toml``."""

LISTED: dict[str, type[Section]] = {
    "rule": RuleTable,
    "rule.when": When,
    "rule.set": Sets,
    "notice": NoticeTable,
    "notice.when": NoticeWhen,
    "test": TestTable,
    "test.dataset": Sample,
    "test.asks": Asks,
    "test.node": NodeTable,
    "test.expect": Expect,
}
"""The tables that stand in lists."""


def keys_of(table: type[Section]) -> dict[str, FieldInfo]:
    """Key in the file -> its field, in the order of the class."""
    return {field.alias or name: field for name, field in table.model_fields.items()}


def tables() -> dict[str, type[Section]]:
    """Dotted name of every table of a policy file -> its class; "" is the file itself."""
    return {"": PolicyFile, **SECTIONS, **LISTED}


def _known_keys() -> dict[str, tuple[str, ...]]:
    known = {name: tuple(keys_of(table)) for name, table in tables().items()}
    for name, table in (SECTIONS | LISTED).items():
        for key_name, field in keys_of(table).items():
            inner = field.annotation
            if not isinstance(inner, type) or not issubclass(inner, Section) or f"{name}.{key_name}" in known:
                continue
            known[f"{name}.{key_name}"] = tuple(keys_of(inner))
            if issubclass(inner, Growing):
                known[f"{name}.{key_name}.steps"] = ("above", "value")
    return known


KNOWN_KEYS: dict[str, tuple[str, ...]] = _known_keys()
"""The keys of each table, by its dotted name; for "did you mean"."""
