"""Fair sharing between projects: who has used least of its share goes first.

What a project used (core seconds, :mod:`.usage`) counts half after the policy's half life.  Among projects
that wait, the one with the least used/share is served first; so over a half life each gets its share of the
cores, whatever the sizes and numbers of its series, and what one does not use the others get.
"""

from __future__ import annotations

from tiltd.policy.rules import matches

from .desk import Desk
from .model import Policy, Record


class Share(Record):
    """How a project stands: ``ratio`` is used/weight; the least is served first.  ``named``: the policy's
    ``[shares]`` names it in full, not by a pattern."""

    project: str
    weight: float
    used_core_seconds: float
    ratio: float
    named: bool


class Sharing:
    """The order between projects under the policy in force; weights are remembered while it stays."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._policy: Policy | None = None
        self._weights: dict[str, float] = {}

    def ratio(self, project: str) -> float:
        """Used/weight; 0 for all while no shares are set, so that the oldest goes first."""
        if not self._desk.policy.shares:
            return 0.0
        return self._desk.state.usage.of(project, self._desk.now) / self.weight(project)

    def weight(self, project: str) -> float:
        """Its share by the first pattern that matches its name, else the default.  A share of 0 is served
        when nobody else waits."""
        policy = self._desk.policy
        if policy is not self._policy:
            self._policy, self._weights = policy, {}
        weight = self._weights.get(project)
        if weight is None:
            named = (share for pattern, share in policy.shares.items() if matches((pattern,), project))
            weight = self._weights[project] = max(1e-9, next(named, policy.sharing.default))
        return weight

    def shares(self, now: float) -> list[Share]:
        """Every project that used something or is named by the policy, the least served first."""
        usage, policy = self._desk.state.usage, self._desk.policy
        found = []
        for project in {**usage.by_project, **dict.fromkeys(p for p in policy.shares if _plain(p))}:
            used, weight = usage.of(project, now), self.weight(project)
            found.append(
                Share(
                    project=project,
                    weight=weight,
                    used_core_seconds=used,
                    ratio=used / weight,
                    named=project in policy.shares,
                )
            )
        return sorted(found, key=lambda share: (share.ratio, share.project))


def _plain(pattern: str) -> bool:
    return "*" not in pattern and "?" not in pattern
