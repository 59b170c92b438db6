"""Readers of every released version of what the journal keeps.

A stored document has a kind and a version.  ``upcast`` lifts it, version by version, to the one written
today; a kind that was never changed needs nothing here.  To change a fact: raise its version in
``facts.VERSIONS``, add the step from the version before to ``STEPS``, and add a journal written by the last
release to ``tests/golden/journals``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .core.facts import VERSIONS

Document = dict[str, Any]
Step = Callable[[Document], Document]

SNAPSHOT = "Snapshot"
SNAPSHOT_VERSION = 1

STEPS: Mapping[tuple[str, int], Step] = {}
"""(kind, version) -> what makes the next version of it."""


class TooNew(Exception):
    """Written by a later tiltd than this one."""


def upcast(
    kind: str,
    version: int,
    document: Document,
    *,
    steps: Mapping[tuple[str, int], Step] = STEPS,
    versions: Mapping[str, int] = {**VERSIONS, SNAPSHOT: SNAPSHOT_VERSION},
) -> Document:
    """Raises :class:`TooNew` for a kind or version that this release does not know."""
    current = versions.get(kind, 0)
    if version > current:
        raise TooNew(
            f"the journal holds {kind} version {version}, this tiltd knows {current or 'no such kind'}: "
            "run the release that wrote it, or a later one"
        )
    for step in range(version, current):
        document = steps[kind, step](document)
    return document
