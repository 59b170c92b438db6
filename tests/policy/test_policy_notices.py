"""Rules of notices in a policy file: what they become, whom they match, and every way to write them wrong."""

from __future__ import annotations

import pytest

from tiltd.daemon.core.model import EVENTS, Features, NoticePolicy, Policy
from tiltd.policy.notices import Routes, heard
from tiltd.policy.policy import Known, load
from tiltd.policy.rules import zones

KNOWN = Known(
    zones={"UTC", "Europe/Berlin"},
    feeds={"krios1": "p"},
    pipelines={"p"},
    webhooks={"team-chat"},
    sends_mail=True,
)
LAB = """
[[notice]]
name = "lab-a"
events = ["failed", "held"]
when = { project = "lab-a*", feed = "krios1" }
to = ["anna@example.org", "team-chat"]
"""
DAILY = '[[notice]]\nname = "daily"\nhow = "digest"\nto = "pi@example.org"\n'


def loaded(*texts: str, known: Known | None = KNOWN) -> Policy:
    found = load([(f"{n}.toml", text) for n, text in enumerate(texts)], known=known)
    assert isinstance(found, Policy), found
    return found


def test_a_rule_becomes_what_it_says() -> None:
    rule, daily = loaded(LAB + DAILY).notice_rules
    assert (rule.name, rule.how, rule.events) == ("lab-a", "at once", ("failed", "held"))
    assert rule.to == ("anna@example.org", "team-chat")
    assert [(each.key, each.patterns) for each in rule.conditions] == [
        ("feed", ("krios1",)),
        ("project", ("lab-a*",)),
    ]
    assert (daily.how, daily.to, daily.events) == ("digest", ("pi@example.org",), EVENTS)


def test_a_rule_that_names_no_events_is_about_what_needs_somebody() -> None:
    (rule,) = loaded('[[notice]]\nname = "x"\nto = "a@example.org"\n').notice_rules
    assert set(EVENTS) - set(rule.events) == {"completed", "delivered"}


def test_a_later_file_replaces_a_rule_or_takes_it_away() -> None:
    other = LAB.replace("anna", "ben")
    (rule,) = loaded(LAB, other).notice_rules
    assert rule.to[0] == "ben@example.org"
    assert loaded(LAB, '[[notice]]\nname = "lab-a"\nenabled = false\n').notice_rules == ()


def test_the_shipped_policy_tells_nobody_and_names_no_zone() -> None:
    assert loaded("").notice_rules == () and loaded("").notices == NoticePolicy()
    assert zones(loaded("")) == ()
    assert zones(loaded('[notices]\ndigest_hours = [8]\nzone = "Europe/Berlin"\n')) == ("Europe/Berlin",)


def test_which_rules_speak_of_a_series() -> None:
    policy = loaded(LAB + DAILY)
    (mine, events), (daily, _) = heard(policy, Features(feed="krios1", project="lab-a1"))
    assert (mine.name, events, daily.name) == ("lab-a", ["failed", "held"], "daily")
    assert [rule.name for rule, _ in heard(policy, Features(feed="krios1", project="lab-b"))] == ["daily"]


def test_who_sees_one_project_is_not_told_of_the_facility() -> None:
    routes = Routes(
        loaded('[[notice]]\nname = "x"\nto = "a@example.org"\nwhen = { project = "*" }\n' + DAILY)
    )
    assert [rule.name for rule in routes.of_facility("breaker")] == ["daily"]
    feed = Routes(loaded('[[notice]]\nname = "f"\nto = "a@example.org"\nwhen = { feed = "krios*" }\n'))
    assert [rule.name for rule in feed.of_facility("breaker", "krios1")] == ["f"]
    assert feed.of_facility("breaker", "talos") == feed.of_facility("breaker") == []
    assert not routes.wants("nosuch") and routes.of_facility("nosuch") == []


@pytest.mark.parametrize(
    ("text", "line", "key", "told"),
    [
        ('name = "x"\n', 1, "notice[1]", "tells nobody"),
        ('name = "x"\nto = []\n', 3, "notice[1].to", ""),
        ('name = "x"\nto = "anna@"\n', 3, "notice[1].to", "no e-mail address"),
        ('name = "x"\nto = "a@b.c\\nBcc: d@e.f"\n', 3, "notice[1].to", "control characters"),
        ('name = "x"\nto = "team chat"\n', 3, "notice[1].to", "neither an e-mail address nor"),
        ('name = "x"\nto = "team-chta"\n', 3, "notice[1].to", 'did you mean "team-chat"'),
        ('name = "x"\nto = "log"\n', 3, "notice[1].to", "every notice stands in the log"),
        ('name = "x"\nto = "a@b.c"\nevents = ["fialed"]\n', 4, "notice[1].events[1]", '"failed"'),
        ('name = "x"\nto = "a@b.c"\nhow = "later"\n', 4, "notice[1].how", "digest"),
        ('name = "x"\nto = "a@b.c"\nwhen = { projct = "a" }\n', 4, "notice[1].when.projct", '"project"'),
        ('name = "x"\nto = "a@b.c"\nwhen = { feed = "krios2" }\n', 4, "notice.x.when.feed", '"krios1"'),
        ('name = "x"\nto = "a@b.c"\nevents = "breaker"\nwhen = { project = "a" }\n', 1, "notice[1]", "never"),
        ('name = "x"\nenabled = false\n', 2, "notice[1].name", "no earlier file has a notice rule"),
    ],
)  # fmt: skip
def test_a_rule_that_is_wrong_is_told_with_its_line(text: str, line: int, key: str, told: str) -> None:
    found = load([("p.toml", "[[notice]]\n" + text)], known=KNOWN)
    assert isinstance(found, list), "accepted"
    assert [(error.line, error.key) for error in found] == [(line, key)], found
    assert told in found[0].message, found[0].message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("digest_hours = [24]\n", "notices.digest_hours"),
        ("digest_hours = [8]\n", "notices.digest_hours"),
        ('gather = "15"\n', "notices.gather"),
        ('zone = "Europe/Berln"\n', "notices.zone"),
        ('session_quite = "1h"\n', "notices.session_quite"),
    ],
)
def test_a_value_that_is_wrong_is_told(text: str, key: str) -> None:
    found = load([("p.toml", "[notices]\n" + text)], known=KNOWN)
    assert isinstance(found, list) and [error.key for error in found] == [key]


def test_names_that_stand_twice_and_mail_without_a_server_are_told() -> None:
    found = load([("p.toml", DAILY + DAILY)], known=KNOWN)
    assert isinstance(found, list) and "earlier notice rule in this file" in found[0].message
    found = load([("p.toml", DAILY)], known=Known(sends_mail=False))
    assert isinstance(found, list) and "[notices.email]" in found[0].message
    assert isinstance(load([("p.toml", LAB + DAILY)], known=None), Policy), "what is not known is not checked"
