"""Reference pages that are made from the code: ``python -m tiltd.daemon.docs [FOLDER]`` writes them.

A test compares them with what stands in docs/.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tiltd.daemon.metrics.table import as_markdown


def pages() -> dict[str, str]:
    """File name below docs/ -> text."""
    return {"metrics.md": as_markdown()}


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
