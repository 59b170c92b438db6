"""Seeded chance that does not depend on the order in which things happen.

Every thing (an attempt, a series, a poll) draws from a hash of the seed and its own name, so two drivers
that interleave differently still meet the same fates.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

GRID = 2.0**-20
"""Seconds.  Instants lie on a binary grid, so that sums of them are exact."""
_UNPACK = struct.Struct("<16I").unpack
_SCALE = 2.0**-32


class Draws:
    """Sixteen numbers in [0, 1), by index.  Costs one hash, about a microsecond."""

    __slots__ = ("_numbers",)

    def __init__(self, seed: int, *name: object) -> None:
        key = "\0".join(map(str, (seed, *name)))
        self._numbers: tuple[int, ...] = _UNPACK(blake2b(key.encode()).digest())

    def __getitem__(self, index: int) -> float:
        return self._numbers[index] * _SCALE

    def between(self, index: int, low: float, high: float) -> float:
        """A span on the grid, evenly spread."""
        return on_grid(low + (high - low) * self[index])

    def latency(self, index: int, usual_seconds: float) -> float:
        """Mostly about ``usual_seconds``, now and then fifty times that."""
        share = self[index]
        factor = 50.0 if share > 0.995 else 0.5 + share
        return on_grid(usual_seconds * factor)

    def choose(self, index: int, names: tuple[str, ...]) -> str:
        return names[int(self[index] * len(names))]


def on_grid(seconds: float) -> float:
    """Rounded to the grid."""
    return round(seconds / GRID) * GRID
