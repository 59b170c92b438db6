"""What a further attempt changes by itself, by the name of a repair in the catalogue.  Pure.

The policy says which repairs may be made (``[retry] repair``).  A repair is a set of options, so it is
recorded with the attempt and shown like any other; an option that an operator set stays as it is.
"""

from __future__ import annotations

from tiltd.daemon.core.model import TiltSeries

TRACKING = "runtime.Fiducials.any.trackingMethod"
PATCH_SIZE = "comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY"
RAWTLT = "setupset.copyarg.userawtlt"
OPTION = "option."
"""A change of a retry whose name begins so is an option of the pipeline for the next attempt."""

PATCHES_ACROSS = 3.4
"""Patches a side of the image, before they overlap: the recorded run had 96 pixels of 320."""
LEAST_PATCH_PX = 64


def changes(repair: str, series: TiltSeries | None) -> dict[str, float | str]:
    """The changes of a retry for a repair; empty for an unknown one, or where the series does not allow it.

    >>> changes("rawtlt", None)
    {'option.setupset.copyarg.userawtlt': '1'}
    """
    if repair == "rawtlt":
        return {OPTION + RAWTLT: "1"}
    if repair == "patch_tracking" and series is not None and min(series.image_size) >= 2 * LEAST_PATCH_PX:
        sides = [max(LEAST_PATCH_PX, int(side / PATCHES_ACROSS)) for side in series.image_size]
        return {OPTION + TRACKING: "1", OPTION + PATCH_SIZE: f"{sides[0]},{sides[1]}"}
    return {}
