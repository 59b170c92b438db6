"""What rules say of things that stand in the settings: names of feeds, and options of pipelines."""

from __future__ import annotations

from collections.abc import Collection

from tiltd.daemon.core.model import NoticeRule, Policy, Rule
from tiltd.daemon.core.units import shown_value

from .known import Known, did_you_mean
from .rules import matches

Fault = tuple[str, str]
"""A dotted key of ``Policy.origins``, and the sentence."""


def outside_faults(policy: Policy, known: Known | None) -> list[Fault]:
    """Feeds that no settings name, and options that no pipeline takes which the rule may be about.  What
    ``known`` does not tell is not checked.  Cost: for each option of a rule one question to each pipeline."""
    found: list[Fault] = []
    for rule in policy.rules if known is not None else ():
        assert known is not None
        found += _feeds(f"rule.{rule.name}", rule, known)
        found += _options(rule, policy, known)
    for notice in policy.notice_rules if known is not None else ():
        assert known is not None
        found += _feeds(f"notice.{notice.name}", notice, known)
    return found


def _feeds(key: str, rule: Rule | NoticeRule, known: Known) -> list[Fault]:
    """A pattern may match a feed that is yet to come; a plain name has to be there."""
    if known.feeds is None:
        return []
    wrong = [name for name in _patterns(rule, "feed") if _plain(name) and name not in known.feeds]
    listed = ", ".join(sorted(known.feeds)) or "none"
    sentence = "{} is no feed of the settings: there are {}{}"
    return [
        (
            f"{key}.when.feed",
            sentence.format(shown_value(name), listed, did_you_mean(name, known.feeds)),
        )
        for name in wrong
    ]


def _options(rule: Rule, policy: Policy, known: Known) -> list[Fault]:
    """An option is faulty if every pipeline refuses it that the rule may be about."""
    options = rule.sets.get("options", {})
    if known.option_fault is None or not options:
        return []
    found: list[Fault] = []
    pipelines = sorted(_pipelines(rule, policy, known))
    for name, value in options.items():
        told = [known.option_fault(pipeline, name, value) for pipeline in pipelines]
        if told and all(told):
            found.append((f"rule.{rule.name}.set.options.{name}", told[0]))
    return found


def _pipelines(rule: Rule, policy: Policy, known: Known) -> Collection[str]:
    """Its own; else those of the feeds that it may match and those that other rules choose; else any."""
    own = rule.sets.get("pipeline")
    if own:
        return {own}
    chosen = {str(other.sets["pipeline"]) for other in policy.rules if other.sets.get("pipeline")}
    wanted = _patterns(rule, "pipeline")
    if known.feeds is None:
        found = set(known.pipelines or ())
    else:
        feeds = _patterns(rule, "feed")
        meant = [pipeline for feed, pipeline in known.feeds.items() if not feeds or matches(feeds, feed)]
        found = set(meant or known.feeds.values()) | chosen
    return {name for name in found if not wanted or matches(wanted, name)} or chosen


def _patterns(rule: Rule | NoticeRule, key: str) -> tuple[str, ...]:
    return next((each.patterns for each in rule.conditions if each.key == key), ())


def _plain(pattern: str) -> bool:
    return "*" not in pattern and "?" not in pattern
