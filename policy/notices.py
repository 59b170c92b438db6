"""Who is told of what?  (event, features) -> the rules of the policy that speak of it.  Pure.

A rule that names a project, a session, a microscope or another label is about series only: what concerns the
facility (a node, a breaker) is not told to it, because that may be about other projects' series too.
"""

from __future__ import annotations

from collections.abc import Callable

from tiltd.daemon.core.model import EVENTS, OF_A_SERIES, Dataset, Features, NoticeRule, Policy

from .rules import test_of

UNASKED = frozenset({"completed", "delivered"})
"""Events that a rule has to name: nobody wants a mail for each of them without having asked for it."""
COUNTED = UNASKED
"""What every digest counts, whatever its rule names."""

Test = Callable[[Features], bool]


def default_events(how: str) -> tuple[str, ...]:
    """What a rule is about that names no events."""
    return EVENTS if how == "digest" else tuple(event for event in EVENTS if event not in UNASKED)


def features_of(dataset: Dataset) -> Features:
    """What a rule of notices can see of a dataset."""
    labels = dataset.labels
    return Features(
        feed=dataset.feed,
        microscope=labels.get("microscope", ""),
        project=dataset.project,
        session=dataset.session,
        name=dataset.tilt_series_name,
        labels=labels,
        pipeline=dataset.pipeline,
    )


class Routes:
    """The rules of one policy, made ready.  A question about an event that no rule names costs one look-up;
    else the rules that name it."""

    def __init__(self, policy: Policy) -> None:
        self._by_event: dict[str, list[tuple[NoticeRule, tuple[Test, ...]]]] = {}
        self._tests: dict[str, tuple[Test, ...]] = {}
        for rule in policy.notice_rules:
            tests = self._tests[rule.name] = tuple(test_of(condition) for condition in rule.conditions)
            for event in {*rule.events} | (COUNTED if rule.how == "digest" else set()):
                self._by_event.setdefault(event, []).append((rule, tests))

    def wants(self, event: str) -> bool:
        return event in self._by_event

    def of_series(self, event: str, features: Features) -> list[NoticeRule]:
        """The rules that speak of this event of this dataset, in the order of the policy."""
        named = self._by_event.get(event, ())
        return [rule for rule, tests in named if all(test(features) for test in tests)]

    def speaks(self, rule_name: str, features: Features) -> bool:
        """Is this rule about such a series?  Not if there is no such rule any more."""
        tests = self._tests.get(rule_name)
        return tests is not None and all(test(features) for test in tests)

    def of_facility(self, event: str, feed: str = "") -> list[NoticeRule]:
        """The rules that speak of this event of the facility, or of one feed of it."""
        features = Features(feed=feed)
        return [
            rule
            for rule, tests in self._by_event.get(event, ())
            if all(condition.key == "feed" and feed for condition in rule.conditions)
            and all(test(features) for test in tests)
        ]


def heard(policy: Policy, features: Features) -> list[tuple[NoticeRule, list[str]]]:
    """Every rule that speaks of a series like this one, with its events; for ``tiltd policy explain``."""
    routes = Routes(policy)
    found: dict[str, list[str]] = {rule.name: [] for rule in policy.notice_rules}
    for event in EVENTS:
        for rule in routes.of_series(event, features) if event in OF_A_SERIES else ():
            found[rule.name].append(event)
    return [(rule, found[rule.name]) for rule in policy.notice_rules if found[rule.name]]
