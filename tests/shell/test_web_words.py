"""What the page says in words: every fact about a dataset, every class of failure, a policy's rules."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from msgspec.structs import replace

from core.test_transitions import EXAMPLES
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.model import FailureClass, Policy, RetryPolicy
from tiltd.daemon.web.catalogue import CLASSES, follows
from tiltd.daemon.web.forms import directive_options
from tiltd.daemon.web.refusal import Refusal
from tiltd.daemon.web.story import WORDS, told
from tiltd.daemon.web.words import in_words, rule_in_words


def test_every_fact_about_a_dataset_has_its_words() -> None:
    assert set(f.DATASET_FACTS.values()) | {f.OperatorActed} == set(WORDS)
    for fact in EXAMPLES:
        line = told(fact)
        assert line.at == fact.at and line.what and line.mark in ("good", "bad", "wait", "act", "plain")


def test_a_fact_of_tomorrow_does_not_break_the_page() -> None:
    assert told(f.PolicyAdopted(at=1.0, version="x", reason="start")).what == "PolicyAdopted"


def test_every_class_of_failure_is_in_the_catalogue_once() -> None:
    assert sorted(each.name for each in CLASSES) == sorted(get_args(FailureClass))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("input", "not tried again"),
        ("memory", "at most 5 attempts, with 1.5 times the memory"),
        ("node", "at most 5 attempts, on another node"),
        ("program", "at most 5 attempts, then held for a person"),
    ],
)
def test_what_follows_is_the_policys_word(name: str, words: str) -> None:
    policy = Policy(version="v", retry=replace(RetryPolicy(), attempts_max=5, hold=("program",)))
    assert follows(name, policy) == words


STEPS = {"base": 8.0, "per_gb": 0.0, "min": None, "max": None, "table": ()}
SIZE = {"key": "size", "patterns": (), "numbers": (), "least": 4e9, "most": None, "zone": ""}
HOURS = {"key": "hours", "patterns": (), "numbers": (22, 23), "least": None, "most": None, "zone": "UTC"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (STEPS, "8"),
        ({**STEPS, "per_gb": 1.5}, "base = 8, per_gb = 1.5"),
        (["a", 1.0, None], "a, 1, (none)"),
        ([], "(none)"),
        ("", "(none)"),
        (True, "True"),
        (
            {"conditions": [SIZE, HOURS], "sets": {"cores": STEPS}, "name": "r", "stop": False},
            "when size: at least 4GB; hours: 22 or 23 (UTC): cores = 8",
        ),
    ],
)
def test_values_in_words(value: Any, words: str) -> None:
    assert in_words(value) == words


def test_a_rule_in_words() -> None:
    rule = {"name": "r", "conditions": [SIZE], "sets": {"cores": STEPS}, "stop": True}
    assert rule_in_words(rule, {"rule.r": "site.toml:3"}) == {
        "name": "r",
        "origin": "site.toml:3",
        "when": ["size: at least 4GB"],
        "sets": [("cores", "8")],
        "stop": True,
    }


def test_directives_of_a_form_are_lines() -> None:
    text = "\r\n a.b.c = 1 = 2 \r\n\r\nsetupset.copyarg.gold=10\r\n"
    assert directive_options(text) == {"a.b.c": "1 = 2", "setupset.copyarg.gold": "10"}
    assert directive_options(" \r\n") == {}
    assert directive_options("# from cryo.adoc\na.b.c=1\n #a.b.d=2\n") == {"a.b.c": "1"}


@pytest.mark.parametrize(
    ("text", "words"), [("a.b", "KEY = VALUE"), ("binning = 4", "KEY = VALUE"), ("x" * 20_001, "20000")]
)
def test_what_is_no_directive_is_refused(text: str, words: str) -> None:
    with pytest.raises(Refusal, match=words):
        directive_options(text)
