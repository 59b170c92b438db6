"""docs/policy.md names every key, reason and class.  Run as a program, it writes the page's tables anew."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tiltd.daemon.core.model import FailureClass, Policy
from tiltd.policy.breaker import COUNTS_FOR
from tiltd.policy.filters import REASONS
from tiltd.policy.policy import load
from tiltd.policy.reference import reference
from tiltd.policy.schema import LISTED, SECTIONS, keys_of

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


_AROUND = {
    "rule": "[[rule]]\nname = 'r'\nset = {{ cores = 8 }}\n{pair}\n",
    "rule.when": "[[rule]]\nname = 'r'\nset = {{ cores = 8 }}\n[rule.when]\n{more}{pair}\n",
    "rule.set": "[[rule]]\nname = 'r'\n[rule.set]\n{pair}\n",
    "notice": "[[notice]]\nname = 'r'\nto = 'a@example.org'\n{pair}\n",
    "notice.when": "[[notice]]\nname = 'n'\nto = 'a@example.org'\nevents = 'failed'\n[notice.when]\n{pair}\n",
    "notices": "[notices]\nzone = 'UTC'\n{pair}\n",
    "test": "[[test]]\nname = 't'\ndataset = {{}}\nexpect = {{}}\n{pair}\n",
    "test.dataset": "[[test]]\nname = 't'\nexpect = {{}}\n[test.dataset]\n{pair}\n",
    "test.asks": "[[test]]\nname = 't'\ndataset = {{}}\nexpect = {{}}\n[test.asks]\n{pair}\n",
    "test.node": "[[test]]\nname = 't'\ndataset = {{}}\nexpect = {{}}\n[[test.node]]\n{more}{pair}\n",
    "test.expect": "[[test]]\nname = 't'\ndataset = {{}}\n[test.expect]\n{pair}\n",
}
_EARLIER = "[[rule]]\nname = 'r'\nset = { cores = 1 }\n[[notice]]\nname = 'r'\nto = 'x'\n"
_MORE = {
    "hours": "zone = 'UTC'\n",
    "weekdays": "zone = 'UTC'\n",
    "zone": "hours = '8-18'\n",
    "test.node": "name = 'n'\ncores = 4\nscratch = '1GB'\n",
}


@pytest.mark.parametrize("table", [*SECTIONS, *LISTED])
def test_every_example_is_what_a_file_may_say(table: str) -> None:
    for key, field in keys_of((SECTIONS | LISTED)[table]).items():
        (example,) = field.examples or [""]
        if f"{table}.{key}" in SECTIONS | LISTED and not example:
            continue
        around = _AROUND.get(table, f"[{table}]\n{{pair}}\n")
        more = "".join(line for name, line in _MORE.items() if name in (key, table))
        text = "\n" + around.format(pair=f"{key} = {example}", more=more)
        before, header, own = text.rpartition("\n[")  # of two lines for the one key the example stays
        lines = [line for line in own.splitlines() if not line.startswith(f"{key} = ")]
        text = before + header + "\n".join([lines[0], f"{key} = {example}", *lines[1:]])
        found = load([("a.toml", _EARLIER), ("b.toml", text)], tested=False)
        assert isinstance(found, Policy), f"{table}.{key}: {found}"


if __name__ == "__main__":
    PAGE.write_text(drawn(), "utf-8")
