"""The file server's bandwidth, shared by all who copy at once.

A fluid model: every transfer is limited by its host's link, which the host's transfers share, and all
together by the server; what one cannot use the others get (max-min fair).
"""

from __future__ import annotations

from collections import Counter


class FileServer:
    """``links`` are bytes per second by host; a host that is not named has the default link.

    Starting or ending a transfer costs the transfers under way.
    """

    def __init__(
        self, bytes_per_second: float, link_bytes_per_second: float, links: dict[str, float] | None = None
    ) -> None:
        self.bytes_per_second = bytes_per_second
        self._link = link_bytes_per_second
        self._links = links or {}
        self._left: dict[str, float] = {}
        self._host: dict[str, str] = {}
        self._rate: dict[str, float] = {}
        self._at = 0.0
        self.moved_bytes = 0.0

    def start(self, transfer: str, host: str, size_bytes: float, now: float) -> None:
        self._flow(now)
        self._left[transfer], self._host[transfer] = float(max(1.0, size_bytes)), host
        self._share()

    def cancel(self, transfer: str, now: float) -> None:
        """Cancelling what is not there is fine."""
        self._flow(now)
        self._left.pop(transfer, None)
        self._share()

    def next_end_at(self) -> float | None:
        """When the next transfer ends, if nothing changes before."""
        if not self._left:
            return None
        return self._at + min(left / self._rate[transfer] for transfer, left in self._left.items())

    def ended(self, now: float) -> list[str]:
        """Transfers that are over by now; they are forgotten."""
        self._flow(now)
        # A hundredth of a second's bytes: rounding must not leave a transfer that never ends.
        over = [t for t, left in self._left.items() if left <= 0.01 * self._rate[t]]
        for transfer in over:
            del self._left[transfer]
        if over:
            self._share()
        return over

    def _flow(self, now: float) -> None:
        span = max(0.0, now - self._at)
        for transfer, left in self._left.items():
            moved = min(left, span * self._rate[transfer])
            self._left[transfer] = left - moved
            self.moved_bytes += moved
        self._at = max(self._at, now)

    def _share(self) -> None:
        crowd = Counter(self._host[transfer] for transfer in self._left)
        caps = sorted(
            (self._links.get(self._host[t], self._link) / crowd[self._host[t]], t) for t in self._left
        )
        pool, self._rate = self.bytes_per_second, {}
        for number, (cap, transfer) in enumerate(caps):
            self._rate[transfer] = min(cap, pool / (len(caps) - number))
            pool -= self._rate[transfer]
