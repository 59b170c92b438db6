"""What a further attempt changes by itself, by the name of a repair in the catalogue.  Pure.

The policy says which repairs may be made (``[retry] repair``).  A repair is a set of options, so it is
recorded with the attempt and shown like any other; an option that an operator set stays as it is.
"""

from __future__ import annotations

from tiltd.daemon.core.model import TiltSeries

from .demand import PREALI_BINNING
from .merge import Effective

TRACKING = "runtime.Fiducials.any.trackingMethod"
PATCH_SIZE = "comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY"
RAWTLT = "setupset.copyarg.userawtlt"
OPTION = "option."
"""A change of a retry whose name begins so is an option of the pipeline for the next attempt."""

PATCHES_ACROSS = 3.4
"""Patches a side of the image, before they overlap: the recorded run had 96 pixels of 320."""
LEAST_PATCH_PX = 64
UNKNOWN = Effective()


def changes(repair: str, series: TiltSeries | None, ran_with: Effective = UNKNOWN) -> dict[str, float | str]:
    """The changes of a retry for a repair; empty for an unknown one, where the series does not allow it, and
    where the attempt ran so already (``ran_with``): then it would only fail again.

    >>> changes("rawtlt", None)
    {'option.setupset.copyarg.userawtlt': '1'}
    """
    if repair == "rawtlt" and not ran_with.flag(RAWTLT):
        return {OPTION + RAWTLT: "1"}
    if repair == "patch_tracking" and series is not None and ran_with.whole(TRACKING) != 1:
        binning = max(1, ran_with.whole(PREALI_BINNING, 1))
        sides = [side // binning for side in series.image_size]  # of the coarsely aligned stack
        if min(sides) >= 2 * LEAST_PATCH_PX:
            patch = [max(LEAST_PATCH_PX, int(side / PATCHES_ACROSS)) for side in sides]
            return {OPTION + TRACKING: "1", OPTION + PATCH_SIZE: f"{patch[0]},{patch[1]}"}
    return {}
