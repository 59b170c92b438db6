"""What batchruntomo would find out late, or never say clearly, told before anything is submitted.  Pure.

Each trap is one function: (what a run is given) -> a sentence, or "".  They were all met in recorded runs of
IMOD 4.8: most end the run after minutes, some after the tomogram has been made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tiltd.daemon.core.model import Record, TiltSeries
from tiltd.plugins.api import DirectiveFault

from . import demand
from .dataset import PIXEL, ROTATION, SCAN_HEADER
from .merge import Effective

FIDUCIALLESS = "runtime.Fiducials.any.fiducialless"
TRACKING = "runtime.Fiducials.any.trackingMethod"
SEEDING = "runtime.Fiducials.any.seedingMethod"
PATCH_SIZE = "comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY"
PATCH_COUNT = "comparam.xcorr_pt.tiltxcorr.NumberOfPatchesXandY"
TARGET_COUNT = "comparam.autofidseed.autofidseed.TargetNumberOfBeads"
TARGET_DENSITY = "comparam.autofidseed.autofidseed.TargetDensityOfBeads"
MARKERS = "runtime.RAPTOR.any.numberOfMarkers"
RUNS = "runtime.BeadTracking.any.numberOfRuns"
SURFACES = "comparam.align.tiltalign.SurfacesToAnalyze"
DEFOCUS = "setupset.copyarg.defocus"
GOLD = "setupset.copyarg.gold"
REORIENT = "runtime.Trimvol.any.reorient"
TRIM = "runtime.Trimvol.any."

LEAST_TRIM_XY_PX = 40
LEAST_TRIM_Z_PX = 4
"""Sizes below are refused by batchruntomo's trimming, as are those beyond the volume's."""


class Given(Record):
    """What a run is given, and the cores of its job."""

    effective: Effective
    series: TiltSeries | None = None
    cores: int = 1

    @property
    def beads(self) -> bool:
        """Are beads tracked?"""
        e = self.effective
        return not e.flag(FIDUCIALLESS) and e.whole(TRACKING) == 0

    @property
    def patches(self) -> bool:
        return not self.effective.flag(FIDUCIALLESS) and self.effective.whole(TRACKING) == 1


Trap = Callable[[Given], str]


def traps(given: Given) -> tuple[DirectiveFault, ...]:
    """Every trap that a run would go into, each with the key that has to change."""
    return tuple(_found(given, TRAPS, "error")) + tuple(_found(given, DOUBTS, "warning"))


def _found(given: Given, known: dict[Trap, str], severity: str) -> Iterator[DirectiveFault]:
    for trap, key in known.items():
        if sentence := trap(given):
            origin = given.effective.directives[key].origin if key in given.effective.directives else None
            yield DirectiveFault(
                sentence=sentence,
                key=key,
                file="" if origin is None else origin.source if origin.line else str(origin),
                line=0 if origin is None else origin.line,
                severity="warning" if severity == "warning" else "error",
            )


def _seeding(given: Given) -> str:
    if given.beads and given.effective.whole(SEEDING) not in (1, 3):
        have = given.effective.text(SEEDING) or "not set"
        return f"is {have}; only 1 (autofidseed) finds beads by itself on one axis: set 1, or track patches"
    return ""


def _tracking(given: Given) -> str:
    have = given.effective.text(TRACKING)
    if (
        have
        and not given.effective.flag(FIDUCIALLESS)
        and given.effective.whole(TRACKING, -1) not in (0, 1, 2)
    ):
        return f"is {have}; it has to be 0 (beads), 1 (patches) or 2 (RAPTOR)"
    return ""


def _target(given: Given) -> str:
    e = given.effective
    if given.beads and e.whole(SEEDING) in (1, 3) and e.number(TARGET_COUNT) <= 0 >= e.number(TARGET_DENSITY):
        return "is not set, nor is TargetDensityOfBeads; autofidseed needs a number of beads, such as 20"
    return ""


def _gold(given: Given) -> str:
    e = given.effective
    if given.beads and GOLD in e.directives and e.number(GOLD) <= 0:
        return "is 0, but beads are to be tracked; give their diameter in nm, or track patches"
    return ""


def _runs(given: Given) -> str:
    e = given.effective
    if given.beads and RUNS in e.directives and e.whole(RUNS) < 1:
        return "has to be at least 1"
    return ""


def _patches(given: Given) -> str:
    e = given.effective
    if not given.patches or e.has(PATCH_COUNT):
        return ""
    if not e.has(PATCH_SIZE):
        return "is not set, but patches are tracked; give their size in pixels, such as 680,680"
    sides = demand.figures(e.text(PATCH_SIZE))
    binning = max(1, e.whole(demand.PREALI_BINNING, 1))
    if given.series is not None and sides and max(sides) > max(given.series.image_size) / binning:
        nx, ny = given.series.image_size
        return f"is larger than the coarsely aligned images ({nx // binning} x {ny // binning} pixels)"
    return ""


def _raptor(given: Given) -> str:
    e = given.effective
    if not e.flag(FIDUCIALLESS) and e.whole(TRACKING) == 2 and e.whole(MARKERS) < 1:
        return "is not set, but RAPTOR is to track; give the number of beads"
    return ""


def _fiducialless_gold(given: Given) -> str:
    e = given.effective
    if e.flag(FIDUCIALLESS) and e.whole(demand.ERASE_GOLD) == 1:
        return "is 1, which erases at the tracked points, but nothing is tracked (fiducialless): set 0"
    return ""


def _fiducialless_cores(given: Given) -> str:
    if given.effective.flag(FIDUCIALLESS) and given.cores > 1:
        return f"is 1, so that only one of the {given.cores} cores is used: batchruntomo fails with more"
    return ""


def _thickness(given: Given) -> str:
    e = given.effective
    if e.has(demand.THICKNESS) or e.has(demand.BINNED_THICKNESS) or e.has(demand.FALLBACK_THICKNESS):
        return ""
    if given.beads and e.whole(SURFACES, 1) == 2:
        return ""
    return (
        "is not set, and the alignment finds none without beads on two surfaces; give it in unbinned pixels"
    )


def _two_thicknesses(given: Given) -> str:
    e = given.effective
    if e.has(demand.THICKNESS) and e.has(demand.BINNED_THICKNESS):
        return "is set, and so is comparam.tilt.tilt.THICKNESS; take one of them away"
    return ""


def _no_thickness(given: Given) -> str:
    e = given.effective
    for key in (demand.THICKNESS, demand.BINNED_THICKNESS):
        if e.has(key) and e.number(key) < 1:
            return f"is {e.text(key)}; it has to be at least 1"
    return ""


def _binning(key: str) -> Trap:
    def trap(given: Given) -> str:
        e = given.effective
        return f"is {e.text(key)}; it has to be at least 1" if e.has(key) and e.number(key) < 1 else ""

    return trap


def _gold_thickness(given: Given) -> str:
    e = given.effective
    two = given.beads and e.whole(SURFACES, 1) == 2
    if e.whole(demand.ERASE_GOLD) == 2 and not e.has(demand.GOLD_THICKNESS) and not two:
        return "is not set, but gold is to be found in 3D with beads on one surface only; give it in pixels"
    return ""


def _leave(given: Given) -> str:
    e = given.effective
    if e.flag(demand.USE_SIRT) and not demand.listed(e.text(demand.LEAVE_ITERATIONS)):
        return "is not set, but SIRT is asked for; name the iterations to keep, such as 10"
    return ""


def _defocus(given: Given) -> str:
    if given.effective.flag(demand.CTF) and not given.effective.has(DEFOCUS):
        return "is not set, but the CTF is to be corrected; give the defocus in nm"
    return ""


def _reorient(given: Given) -> str:
    e = given.effective
    if e.has(REORIENT) and e.whole(REORIENT, -1) not in (0, 1, 2):
        return f"is {e.text(REORIENT)}; it has to be 0, 1 or 2"
    return ""


def _trim(which: str) -> Trap:
    def trap(given: Given) -> str:
        e = given.effective
        if not e.has(TRIM + which) or given.series is None:
            return ""
        value = e.number(TRIM + which)
        found = demand.demand_of(given.series, e)
        index = {"sizeInX": 0, "sizeInY": 1, "thickness": 2}[which]
        least = LEAST_TRIM_Z_PX if which == "thickness" else LEAST_TRIM_XY_PX
        most = found.volume_size[index] if which != "thickness" or found.thickness_known else 10**9
        if index < 2:
            most = max(found.volume_size[:2])
        pixels = value * most if 0 < value < 1 and most < 10**9 else value
        if value <= 0 or (value >= 1 and not least <= pixels <= most):
            limit = f" and at most {most}" if most < 10**9 else ""
            return f"is {e.text(TRIM + which)}; it has to be a fraction, or at least {least}{limit} pixels"
        return ""

    return trap


def _pixel(given: Given) -> str:
    e = given.effective
    if not e.has(PIXEL) and not e.flag(SCAN_HEADER):
        return "is not set, and neither mdoc nor header tell it; give the pixel size in nm"
    if e.has(PIXEL) and e.number(PIXEL) <= 0:
        return f"is {e.text(PIXEL)}; the pixel size in nm has to be above 0"
    return ""


def _rotation(given: Given) -> str:
    e = given.effective
    if not e.has(ROTATION) and not e.flag(SCAN_HEADER):
        return "is not set, and the mdoc does not tell the tilt axis; give it in degrees from the vertical"
    return ""


def _smaller_pixel(given: Given) -> str:
    """Beads of less than a few pixels are not found."""
    e = given.effective
    if not given.beads or not e.has(GOLD) or e.number(PIXEL) <= 0:
        return ""
    pixels = e.number(GOLD) / e.number(PIXEL) / max(1, e.whole(demand.PREALI_BINNING, 1))
    if pixels < 4 or pixels > 100:
        return f"makes beads of {pixels:.1f} pixels in the coarsely aligned stack; look at it again"
    return ""


def _scan_with_both(given: Given) -> str:
    e = given.effective
    if e.flag(SCAN_HEADER) and e.has(PIXEL) and e.has(ROTATION):
        return "is 1 with pixel size and tilt axis given: some versions of eTomo fail on that; set 0"
    return ""


def _axis_from_header(given: Given) -> str:
    if not given.effective.has(ROTATION) and given.effective.flag(SCAN_HEADER):
        return "is not set and the mdoc does not tell it: without one in the header, setting up will fail"
    return ""


def _pixel_differs(given: Given) -> str:
    """A template's pixel size that the series contradicts: mostly it was made for another magnification."""
    e = given.effective
    for older in e.under.get(PIXEL, ()):
        try:
            ratio = float(older.value) / e.number(PIXEL)
        except (ValueError, ZeroDivisionError):
            continue
        if abs(ratio - 1.0) > 0.02:
            return f"is {e.text(PIXEL)} nm, but {older.origin} has {older.value}; its sizes may not fit"
    return ""


TRAPS: dict[Trap, str] = {
    _tracking: TRACKING,
    _seeding: SEEDING,
    _target: TARGET_COUNT,
    _gold: GOLD,
    _runs: RUNS,
    _patches: PATCH_SIZE,
    _raptor: MARKERS,
    _fiducialless_gold: demand.ERASE_GOLD,
    _thickness: demand.THICKNESS,
    _two_thicknesses: demand.BINNED_THICKNESS,
    _no_thickness: demand.THICKNESS,
    _binning(demand.PREALI_BINNING): demand.PREALI_BINNING,
    _binning(demand.ALI_BINNING): demand.ALI_BINNING,
    _binning(demand.GOLD_BINNING): demand.GOLD_BINNING,
    _gold_thickness: demand.GOLD_THICKNESS,
    _leave: demand.LEAVE_ITERATIONS,
    _defocus: DEFOCUS,
    _reorient: REORIENT,
    _trim("sizeInX"): TRIM + "sizeInX",
    _trim("sizeInY"): TRIM + "sizeInY",
    _trim("thickness"): TRIM + "thickness",
    _pixel: PIXEL,
    _rotation: ROTATION,
}
"""Traps that end a run -> the directive to look at."""

DOUBTS: dict[Trap, str] = {
    _fiducialless_cores: FIDUCIALLESS,
    _smaller_pixel: GOLD,
    _scan_with_both: SCAN_HEADER,
    _axis_from_header: ROTATION,
    _pixel_differs: PIXEL,
}
"""What may be right."""
