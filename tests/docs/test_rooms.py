"""docs/architecture.md leads a newcomer to every room that there is, and to none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from docs.pages import pages, tracked


def rooms(project: Path) -> set[str]:
    """Modules and packages as the page names them, by the packages in which a newcomer looks."""
    found = set()
    for name in tracked(project):
        for folder in ("daemon/", "daemon/core/", "policy/", "plugins/"):
            inside = name.removeprefix(folder)
            if name.startswith(folder) and inside.endswith(".py") and inside != "__init__.py":
                first, slash, _ = inside.partition("/")
                found.add(f"{first}{slash}")
    return found


def test_every_room_is_on_the_plan(project: Path) -> None:
    plan = pages(project)["docs/architecture.md"]
    assert [
        room for room in sorted(rooms(project)) if not re.search(rf"(?<![\w]){re.escape(room)}", plan)
    ] == []


def test_the_plan_shows_no_room_that_is_not_there(project: Path) -> None:
    text = pages(project)["docs/architecture.md"]
    plan = text[text.index("## Rooms") : text.index("### Layers")]
    named = set(re.findall(r"(?<![\w/])([a-z_0-9]+\.py)\b", plan))
    assert sorted(named - rooms(project) - {"__main__.py"}) == []
    paths = set(re.findall(r"`((?:daemon|policy|plugins)/[\w/]+\.py)`", text))
    assert sorted(path for path in paths if not (project / path).exists()) == []
