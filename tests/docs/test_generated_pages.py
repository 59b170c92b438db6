from __future__ import annotations

from pathlib import Path

from tiltd.daemon import docs

DOCS = Path(__file__).parents[2] / "docs"


def test_the_generated_pages_are_what_the_code_says() -> None:
    for name, text in docs.pages().items():
        assert (DOCS / name).read_text() == text, f"docs/{name} is old; run: python -m tiltd.daemon.docs"
