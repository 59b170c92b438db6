"""The project's own pages, as the tests on documentation read them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def tracked(project: Path) -> list[str]:
    """Names of all files of the project: git's, or of an unpacked source distribution all."""
    if (project / ".git").exists():
        # With what is new and not yet committed, so that a test tells before the commit does.
        argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(argv, cwd=project, check=True, capture_output=True, text=True)
        return [name for name in listed.stdout.split("\0") if name and (project / name).exists()]
    inside = (path.relative_to(project) for path in project.rglob("*") if path.is_file())
    return sorted(str(path) for path in inside if not path.parts[0].startswith(".venv"))


def pages(project: Path) -> dict[str, str]:
    """Every Markdown page by its name, as text."""
    names = (name for name in tracked(project) if name.endswith(".md"))
    return {name: (project / name).read_text(encoding="utf-8") for name in names}


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """What `#...` can point at in a page: its headings, lower case, with hyphens for blanks."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*$", prose(text), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = 0
        anchor = plain
        while anchor in found:
            count += 1
            anchor = f"{plain}-{count}"
        found.add(anchor)
    return found
