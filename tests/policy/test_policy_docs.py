"""docs/policy.md names every key, reason and class.  Run as a program, it writes the page's tables anew."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from tiltd.daemon.core.model import FailureClass
from tiltd.policy.breaker import COUNTS_FOR
from tiltd.policy.filters import REASONS
from tiltd.policy.reference import reference

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "policy.md"
BEGIN = "<!-- keys: drawn from policy/schema.py and policy/default.toml -->\n"
END = "<!-- end of keys -->\n"


def drawn() -> str:
    default = (ROOT / "policy" / "default.toml").read_text("utf-8")
    page = PAGE.read_text("utf-8")
    head, rest = page.split(BEGIN)
    return f"{head}{BEGIN}\n{reference(default)}\n{END}{rest.split(END)[1]}"


def test_the_tables_are_those_of_the_schema() -> None:
    assert PAGE.read_text("utf-8") == drawn(), f"run: PYTHONPATH=tests/_path python {Path(__file__).name}"


def test_every_reason_class_and_scope_is_named() -> None:
    page = PAGE.read_text("utf-8")
    for word in (*REASONS, *get_args(FailureClass), *COUNTS_FOR):
        assert word in page, word
    for classes in COUNTS_FOR.values():
        assert all(f"`{name}`" in page for name in classes)


if __name__ == "__main__":
    PAGE.write_text(drawn(), "utf-8")
