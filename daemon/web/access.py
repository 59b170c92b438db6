"""Who asks, and what they may: the one record that every handler is given.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tiltd.daemon.core.model import Dataset, Record

Via = Literal["socket", "open", "token", "proxy"]
Need = Literal["nothing", "read", "whole", "act", "act_whole"]
"""What a route asks of who comes: ``whole`` is reading of all projects, ``act_whole`` acting in all."""

ALL = "*"
GRANTS: dict[Need, tuple[bool, bool]] = {
    "nothing": (False, False),
    "read": (False, False),
    "whole": (False, True),
    "act": (True, False),
    "act_whole": (True, True),
}
"""Need -> (must act, must see all projects)."""


class Principal(Record):
    """``projects`` of ``None`` is all.  ``anchor`` ties the token against forged requests to this visit."""

    name: str
    via: Via
    acts: bool = False
    projects: frozenset[str] | None = None
    anchor: str = ""

    @property
    def whole(self) -> bool:
        return self.projects is None

    @property
    def named(self) -> list[str] | None:
        """The projects as the journal is asked for them."""
        return None if self.projects is None else sorted(self.projects)

    def sees(self, dataset: Dataset) -> bool:
        return self.sees_project(dataset.project)

    def sees_project(self, project: str) -> bool:
        """What is in no project is seen by those who see all."""
        return self.projects is None or (bool(project) and project in self.projects)

    def may(self, need: Need) -> bool:
        must_act, must_whole = GRANTS[need]
        return (self.acts or not must_act) and (self.whole or not must_whole)


def projects_of(names: Sequence[str]) -> frozenset[str] | None:
    """``None``, all of them, if one is ``*``."""
    return None if ALL in names else frozenset(names)
