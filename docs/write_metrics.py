"""docs/metrics.md from the table of metrics: ``docs/write_metrics.py`` writes it, ``--check`` compares."""

from __future__ import annotations

import sys
from pathlib import Path

from tiltd.daemon.metrics.page import as_markdown

PAGE = Path(__file__).parent / "metrics.md"


def main(argv: list[str]) -> int:
    """Exit code 1 if the page is not what the table says."""
    if "--check" not in argv:
        PAGE.write_text(as_markdown(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == as_markdown():
        return 0
    print("docs/metrics.md is old; run: python docs/write_metrics.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
