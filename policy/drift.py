"""What figures of one kind are likely to be next: robust to outliers, drift and runs that were cut off.

All figures are natural logarithms, because run times spread by factors: a spread of 0.2 means that two runs
out of three are within 20 % of the middle.

* Outliers: what lies beyond three robust spreads counts as three (winsorized); one wild run among fewer than
  a hundred is left out of the tail.
* Drift: two CUSUM sums (Page 1954) of the deviations, in spreads, less an allowance of half a spread; one
  that passes ``ALARM`` says that the figures moved, and since which sample.  A shift of 30 % at a spread of
  0.2 (1.3 spreads) is told after about ten runs; a false alarm comes once in a thousand and costs samples.
* Runs that were cut off (killed by their walltime) are known to be *longer*: they count as the mean of the
  normal distribution beyond that bound, worked out three times over; so many kills push the figure up, and
  never without bound.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import compress, repeat
from math import ceil, erfc, exp, pi, sqrt
from operator import mul, not_, sub

from tiltd.daemon.core.model import Record

ALLOWANCE = 0.5
ALARM = 7.0
CLIP = 3.0
"""Deviations count as at most so many spreads, so that a single wild run raises no alarm."""
KEPT_MIN = 3
"""So many of the newest samples stay after an alarm: three clipped deviations can raise one."""
USUAL_WEIGHT = 4.0
"""The spread known before counts as much as so many samples."""
SPREAD_MIN = 0.02
WILD = 8.0
FAR = 4.0
"""One normal figure in thirty thousand lies so many spreads above the middle."""
Z99 = 2.326
"""The 99th percentile of a normal distribution lies so many spreads above its middle."""


class Watch(Record):
    """The middle and spread that new figures are held against, and what they have added up to since.

    ``rising`` and ``falling`` count the samples since each sum was last zero.  ``spread`` of 0: not fitted.
    """

    middle: float = 0.0
    spread: float = 0.0
    rise: float = 0.0
    fall: float = 0.0
    rising: int = 0
    falling: int = 0

    def after(self, figure: float, *, cut_off: bool = False) -> Watch:
        """Hold one more figure against the middle.  Constant cost."""
        if self.spread <= 0:
            return self
        if cut_off:
            figure = beyond(figure, self.middle, self.spread)
        deviation = max(-CLIP, min(CLIP, (figure - self.middle) / self.spread))
        rise = max(0.0, self.rise + deviation - ALLOWANCE)
        fall = max(0.0, self.fall - deviation - ALLOWANCE)
        return Watch(
            middle=self.middle,
            spread=self.spread,
            rise=rise,
            fall=fall,
            rising=self.rising + 1 if rise else 0,
            falling=self.falling + 1 if fall else 0,
        )

    @property
    def moved_since(self) -> int:
        """How many of the newest samples belong to the new level; 0 when nothing moved."""
        if self.rise > ALARM:
            return max(KEPT_MIN, self.rising)
        if self.fall > ALARM:
            return max(KEPT_MIN, self.falling)
        return 0


class Fit(Record):
    """``middle`` and ``spread`` of the bulk, ``median``, ``p99``, the ``largest`` that is not wild, and
    ``far``, beyond which hardly any lies; all but ``spread`` are logarithms."""

    middle: float
    spread: float
    median: float
    p99: float
    largest: float
    far: float


def fit(figures: Sequence[float], cut_off: Sequence[bool], usual_spread: float, believed: float = 0.0) -> Fit:
    """Fit at least one figure.  Costs a few sorts of them.  None that lies less than ``believed`` beyond the
    middle counts as wild.  ``cut_off`` is a flag a figure, or empty for figures that are all whole.

    ``p99`` is a bound for the next figure, not only the percentile of those seen: it allows for how little
    so many samples know of middle and spread, and is at least the observed 99th percentile.
    """
    ordered = sorted(figures)
    middle, spread = _bulk(ordered, usual_spread)
    if any(cut_off):
        cut = [*compress(figures, cut_off)]
        whole = sorted(compress(figures, map(not_, cut_off)))
        for _ in range(3):
            ordered = sorted([*whole, *[beyond(figure, middle, spread) for figure in cut]])
            middle, spread = _bulk(ordered, usual_spread)
    count = len(ordered)
    caution = sqrt(1 + 1 / count) * (1 + 1.3 / sqrt(2 * (count + 4 * USUAL_WEIGHT)))
    bound, wild = middle + Z99 * caution * spread, middle + max(believed, WILD * spread)
    return Fit(
        middle=middle,
        spread=spread,
        median=ordered[ceil(count / 2) - 1],
        p99=max(bound, _observed(ordered, wild)),
        largest=ordered[max(0, bisect_right(ordered, wild) - 1)],
        far=middle + FAR * _seen_spread(spread, count, usual_spread),
    )


def beyond(bound: float, middle: float, spread: float) -> float:
    """The mean of what lies beyond ``bound`` in a normal distribution.

    >>> round(beyond(0.0, 0.0, 1.0), 3), round(beyond(40.0, 0.0, 1.0), 3)
    (0.798, 40.025)
    """
    at = (bound - middle) / spread
    if at > 30.0:
        return middle + spread * (at + 1 / at)
    density = exp(-at * at / 2) / sqrt(2 * pi)
    return max(bound, middle + spread * density / (0.5 * erfc(at / sqrt(2))))


def _bulk(ordered: Sequence[float], usual_spread: float) -> tuple[float, float]:
    """The winsorized middle and spread of ascending figures."""
    count = len(ordered)
    median = ordered[(count - 1) // 2]
    deviation = _deviation(ordered, median)
    fence = CLIP * max(1.4826 * deviation, usual_spread / 2, SPREAD_MIN)
    low, high = bisect_left(ordered, median - fence), bisect_right(ordered, median + fence)
    tame = [*map(sub, ordered[low:high], repeat(median))]
    beyond_it = count - high - low  # those above the fence less those below it
    off = (sum(tame) + beyond_it * fence) / count
    squares = sum(map(mul, tame, tame)) + (count - len(tame)) * fence**2 - count * off**2
    spread = sqrt((max(0.0, squares) + USUAL_WEIGHT * usual_spread**2) / (count + USUAL_WEIGHT))
    return median + off, max(SPREAD_MIN, spread)


def _deviation(ordered: Sequence[float], median: float) -> float:
    """The median of the distances from the median.  The nearest half of ascending figures lies side by side:
    where it begins is found by halving, without sorting the distances."""
    nearest = (len(ordered) - 1) // 2
    low, high = 0, len(ordered) - 1 - nearest
    while low < high:
        middle = (low + high) // 2
        if median - ordered[middle] > ordered[middle + nearest + 1] - median:
            low = middle + 1
        else:
            high = middle
    return max(median - ordered[low], ordered[low + nearest] - median)


def _seen_spread(spread: float, count: int, usual_spread: float) -> float:
    """The spread without what was known before any figure: 0 for figures that are all the same."""
    known = USUAL_WEIGHT * usual_spread**2
    return sqrt(max(0.0, spread**2 * (count + USUAL_WEIGHT) - known) / count)


def _observed(ordered: Sequence[float], wild: float) -> float:
    """The observed 99th percentile; of fewer than a hundred figures the largest, unless it is wild."""
    count = len(ordered)
    highest = ordered[max(0, ceil(0.99 * count) - 1)]
    return ordered[-2] if highest > wild and 8 <= count < 100 and ordered[-1] == highest else highest
