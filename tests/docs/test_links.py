"""A link in a page leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from docs.pages import anchors, pages, prose

LINK = re.compile(r"(?<!\\)\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")


def broken(project: Path, name: str, text: str) -> list[str]:
    found = []
    for target in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = ((project / name).parent / path).resolve() if path else project / name
        if not file.exists() or not file.is_relative_to(project):
            found.append(f"{name}: {target} is not there")
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8")):
            found.append(f"{name}: {target} has no such heading")
    return found


def test_every_link_resolves(project: Path) -> None:
    assert not [fault for name, text in pages(project).items() for fault in broken(project, name, text)]


def test_every_page_is_reached_from_the_index(project: Path) -> None:
    index = (project / "docs" / "README.md").read_text(encoding="utf-8")
    linked = {target.partition("#")[0] for target in LINK.findall(prose(index))}
    missing = [
        name
        for name in pages(project)
        if name.startswith("docs/") and name != "docs/README.md" and name.removeprefix("docs/") not in linked
    ]
    assert not missing, f"docs/README.md does not lead to {missing}"


def test_a_dead_link_is_found(project: Path) -> None:
    text = "[a](nowhere.md) [b](docs/README.md#no-such-heading) [c](#none) [d](https://example.org/)"
    assert len(broken(project, "README.md", text)) == 3
