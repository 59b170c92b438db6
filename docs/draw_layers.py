"""Writes the layers of pyproject.toml, which import-linter checks, into docs/architecture.md.

.venv/bin/python docs/draw_layers.py            rewrite the part between the two markers
.venv/bin/python docs/draw_layers.py --check    exit 1 if that part is not what the contracts say
"""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from pathlib import Path

PAGE = Path(__file__).parent / "architecture.md"
PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BEGIN, END = "<!-- drawn by docs/draw_layers.py: begin -->", "<!-- drawn by docs/draw_layers.py: end -->"


def drawn(pyproject: str) -> str:
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    lines = ["```"]
    for contract in contracts:
        if contract["type"] == "layers":
            lines += [contract["name"], ""]
            container = contract.get("containers", [""])[0]
            lines += [line for layer in contract["layers"] for line in wrapped(present(layer, container))]
            lines.append("")
    return "\n".join([*lines[:-1], "```"])


def present(layer: str, container: str) -> str:
    """The layer without the rooms that are allowed for and not built yet (their names stand in brackets)."""
    parts = re.split(r" ([|:]) ", layer)
    rooms = [part for part in parts[::2] if built(part.strip("()"), container)]
    return f" {parts[1] if len(parts) > 1 else ''} ".join(rooms)


def built(room: str, container: str) -> bool:
    path = PROJECT.parent.joinpath(*f"{container}.{room}".strip(".").split(".")[1:])
    return path.is_dir() or path.with_suffix(".py").exists()


def wrapped(layer: str) -> list[str]:
    plain = re.sub(r"[()]", "", layer).replace("tiltd.daemon.", "").replace("tiltd.", "")
    return textwrap.wrap(plain, 100, initial_indent="  ", subsequent_indent="      ")


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        print(f"{PAGE}: the markers {BEGIN} and {END} are not there", file=sys.stderr)
        return 1
    wanted = f"{before}{BEGIN}\n{drawn(PROJECT.read_text(encoding='utf-8'))}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if wanted != page:
            print(f"{PAGE} is not what pyproject.toml says: run make docs", file=sys.stderr)
        return int(wanted != page)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
