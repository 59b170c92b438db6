"""How often: a bucket of requests for each who asks, refilled with time.  The clock is handed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

KEYS_MAX = 4096


class Buckets:
    """``burst`` at once, then ``per_second``.  Remembers ``KEYS_MAX`` keys; of more, the longest unseen go,
    which only ever gives someone a full bucket again.  A question costs one look-up."""

    def __init__(self, burst: float, per_second: float, now: Callable[[], float]) -> None:
        self.burst, self.per_second = burst, per_second
        self._now = now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, amount: float = 1.0) -> float:
        """Take from this key's bucket: 0 when there was enough, else the seconds until there is (and nothing
        is taken)."""
        left, now = self._level(key)
        if left < amount:
            return (min(amount, self.burst) - left) / self.per_second
        self._left[key] = (left - amount, now)
        self._left.move_to_end(key)
        if len(self._left) > KEYS_MAX:
            self._left.popitem(last=False)
        return 0.0

    def empty_for(self, key: str) -> float:
        """Seconds until something can be taken again; 0 now.  Takes nothing."""
        left, _ = self._level(key)
        return 0.0 if left >= 1.0 else (1.0 - left) / self.per_second

    def _level(self, key: str) -> tuple[float, float]:
        now = self._now()
        left, at = self._left.get(key, (self.burst, now))
        return min(self.burst, left + max(0.0, now - at) * self.per_second), now
