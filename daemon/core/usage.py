"""What projects have used: core seconds that fade, a fold of the facts; :mod:`.sharing` makes an order of it.

A placement books what its run is expected to take, at once, so that a burst cannot take every node before
anything was counted; its proved end replaces that by what it took.
"""

from __future__ import annotations

from msgspec.structs import replace

from .model import Attempt, Record

PROJECTS_MAX = 1000
"""Projects remembered; the one that has used least is forgotten first."""
HALF_LIFE_SECONDS = 86400.0


class Used(Record, array_like=True):
    """Core seconds, decayed up to ``at``."""

    core_seconds: float
    at: float


class Usage(Record):
    half_life_seconds: float = HALF_LIFE_SECONDS
    by_project: dict[str, Used] = {}

    def of(self, project: str, at: float) -> float:
        """Decayed core seconds of a project; never negative."""
        used = self.by_project.get(project)
        return used.core_seconds * self._faded(at - used.at) if used is not None else 0.0

    def _faded(self, seconds: float) -> float:
        return float(2.0 ** (-max(0.0, seconds) / self.half_life_seconds))

    def with_half_life(self, half_life_seconds: float, at: float) -> Usage:
        """All usage is decayed up to now at the old pace, and goes on at the new."""
        if half_life_seconds <= 0 or half_life_seconds == self.half_life_seconds:
            return self
        now = {name: Used(core_seconds=self.of(name, at), at=at) for name in self.by_project}
        return Usage(half_life_seconds=half_life_seconds, by_project=now)

    def booked(self, project: str, attempt: Attempt) -> Usage:
        """A placement: what it is expected to take."""
        charged = attempt.decided.charged_core_seconds if attempt.decided is not None else 0.0
        return self._add(project, charged, attempt.placed_at)

    def ended(self, project: str, attempt: Attempt, at: float) -> Usage:
        """Its end: what it took, instead of what is left of the booking."""
        if attempt.decided is None:
            return self
        began_at = attempt.started_at if attempt.started_at is not None else at
        took = cores_of(attempt) * max(0.0, at - began_at)
        left = attempt.decided.charged_core_seconds * self._faded(at - attempt.placed_at)
        return self._add(project, took - left, at)

    def _add(self, project: str, core_seconds: float, at: float) -> Usage:
        if not core_seconds:
            return self
        total = max(0.0, self.of(project, at) + core_seconds)
        by_project = {**self.by_project, project: Used(core_seconds=total, at=at)}
        while len(by_project) > PROJECTS_MAX:
            least = min(by_project, key=lambda name: (self.of(name, at), name))
            del by_project[least]
        return replace(self, by_project=by_project)


def cores_of(attempt: Attempt) -> int:
    return attempt.placement.cores * max(1, len(attempt.placement.nodes))
