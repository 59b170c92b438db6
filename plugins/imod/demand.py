"""What a run of batchruntomo takes, worked out from its directives: scratch, memory, seconds.  Pure.

Measured on IMOD 4.8 (2014) over recorded runs of synthetic series of 8, 21 and 86 MB.  With S the bytes of
the stack, P of the coarsely aligned stack (bytes by default: S/2), A of the aligned stack (S / binning^2) and
V = nx x ny x thickness x 2 bytes / binning^3 of the volume, the working folder holds

    at the archive    4 S                                    (for a moment)
    when trimming     S + P + A + 3 V                        (2.5 S + 3 V with nothing binned)
    at the end        S + P + A + 2 V
    with SIRT         (4.13 n + 1) V more, n kept iterations (one run)

plus S without the archive, A for the backup that CTF correction, gold erasing or filtering leave, and the
volume in which gold is found.  The recorded peaks were 0.82 to 1.00 of it: a peak of a second can fall
between two looks at the disk, so the formula is not bent towards the low ones.
"""

from __future__ import annotations

import re

from tiltd.daemon.core.model import Record, TiltSeries
from tiltd.plugins.api import Permanent

from .merge import Effective

ALI_BINNING = "runtime.AlignedStack.any.binByFactor"
THICKNESS = "comparam.tilt.tilt.THICKNESS"
BINNED_THICKNESS = "runtime.Reconstruction.any.binnedThickness"
FALLBACK_THICKNESS = "runtime.Reconstruction.any.fallbackThickness"
EXTRA_THICKNESS = "runtime.Reconstruction.any.extraThickness"
USE_SIRT = "runtime.Reconstruction.any.useSirt"
BACKPROJECTION_TOO = "runtime.Reconstruction.any.doBackprojAlso"
LEAVE_ITERATIONS = "comparam.sirtsetup.sirtsetup.LeaveIterations"
REMOVE_XRAYS = "runtime.Preprocessing.any.removeXrays"
ARCHIVE = "runtime.Preprocessing.any.archiveOriginal"
CTF = "runtime.AlignedStack.any.correctCTF"
ERASE_GOLD = "runtime.AlignedStack.any.eraseGold"
FILTER = "runtime.AlignedStack.any.filterStack"
ALI_SIZE = "runtime.AlignedStack.any.sizeInXandY"
GOLD_BINNING = "runtime.GoldErasing.any.binning"
GOLD_THICKNESS = "runtime.GoldErasing.any.thickness"
PREALI_BINNING = "comparam.prenewst.newstack.BinByFactor"
PREALI_MODE = "comparam.prenewst.newstack.ModeToOutput"

MARGIN = 1.01
SMALL_FILES_BYTES = 1_000_000
"""Logs, models and command files: 0.2 MB of them were recorded, and more views make longer ones."""

SIRT_VOLUMES = 4.13
"""Volumes that each kept iteration of SIRT takes (padded and trimmed, four bytes a voxel)."""

UNKNOWN_THICKNESS = 0.4
"""Of the image's smaller side, where the alignment is to find the thickness (0.36 was recorded)."""

GOLD_THICKER = 1.15
"""The volume in which gold is found was 1.12 times as thick as the tomogram."""

MOST = 1e9
"""Beyond it no value is a size in pixels."""

_BYTES_PER_PIXEL = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}
_HEADER_BYTES = 1024
_LEAST_SIDE_PX = 8


class Demand(Record):
    """Bytes, seconds and pixels.  ``volume_size`` is (x, y, thickness), binned, before it is trimmed or
    turned; ``final_bytes`` is what lies in the working folder at the end."""

    stack_bytes: int
    volume_bytes: int
    volume_size: tuple[int, int, int]
    scratch_bytes: int
    final_bytes: int
    memory_bytes: int
    walltime_seconds: float
    thickness_known: bool


class _Sizes(Record):
    nx: int
    ny: int
    views: int
    binning: int
    thickness_px: int
    stack_bytes: int
    volume_bytes: int
    gold_bytes: int
    sirt_iterations: tuple[int, ...]

    @property
    def updates(self) -> float:
        """Voxels times views: what back-projection has to add up."""
        return self.views * self.volume_bytes / 2


def demand_of(series: TiltSeries, effective: Effective, cores: int = 1) -> Demand:
    """What one run takes on ``cores`` cores of one node; the policy has the last word.

    Raises Permanent for a series of unknown or no size.
    """
    sizes = _sizes(series, effective)
    steady = _steady_bytes(sizes, effective)
    sirt = SIRT_VOLUMES * len(sizes.sirt_iterations) + 1.0 if sizes.sirt_iterations else 0.0
    if sirt and effective.flag(BACKPROJECTION_TOO):
        sirt += 2.0
    peak = max(4.0 * sizes.stack_bytes, steady + (3.0 + sirt) * sizes.volume_bytes)
    end = steady + (2.0 + max(0.0, sirt - 1.0)) * sizes.volume_bytes
    return Demand(
        stack_bytes=sizes.stack_bytes,
        volume_bytes=sizes.volume_bytes,
        volume_size=(sizes.nx // sizes.binning, sizes.ny // sizes.binning, sizes.thickness_px),
        scratch_bytes=int(peak * MARGIN) + SMALL_FILES_BYTES,
        final_bytes=int(end * MARGIN) + SMALL_FILES_BYTES,
        memory_bytes=_memory_bytes(sizes, cores),
        walltime_seconds=_seconds(sizes, cores),
        thickness_known=_thickness(effective, sizes.binning, min(sizes.nx, sizes.ny))[1],
    )


def _sizes(series: TiltSeries, effective: Effective) -> _Sizes:
    nx, ny = series.image_size
    if min(nx, ny) < _LEAST_SIDE_PX or not series.tilt_count:
        raise Permanent(f"{series.tilt_count} images of {nx} x {ny} pixels: nothing can be made of that")
    pixel_bytes = _BYTES_PER_PIXEL.get(series.mode, 4)
    stack = nx * ny * series.tilt_count * pixel_bytes + _HEADER_BYTES
    if series.kind == "stack":
        stack = max(stack, series.total_bytes)
    binning = max(1, effective.whole(ALI_BINNING, 1))
    sized = [int(figure) for figure in figures(effective.text(ALI_SIZE))]
    width, height = sized if len(sized) == 2 and min(sized) > 0 else (nx, ny)
    thickness, _ = _thickness(effective, binning, min(width, height))
    volume = (width // binning) * (height // binning) * thickness * 2 + _HEADER_BYTES
    return _Sizes(
        nx=width,
        ny=height,
        views=series.tilt_count,
        binning=binning,
        thickness_px=thickness,
        stack_bytes=stack,
        volume_bytes=volume,
        gold_bytes=_gold_bytes(effective, width * height, thickness * binning),
        sirt_iterations=kept_iterations(effective),
    )


def _thickness(effective: Effective, binning: int, side_px: int) -> tuple[int, bool]:
    """Binned pixels, and whether the directives say so."""
    if (thickness := effective.whole(THICKNESS)) > 0:
        return max(1, thickness // binning), True
    if (thickness := effective.whole(BINNED_THICKNESS)) > 0:
        return thickness, True
    extra = max(0, effective.whole(EXTRA_THICKNESS))
    guess = max(UNKNOWN_THICKNESS * side_px, effective.whole(FALLBACK_THICKNESS)) + extra
    return max(1, int(guess) // binning), False


def _gold_bytes(effective: Effective, area_px: int, thickness_px: int) -> int:
    """The volume in which beads are found, if they are to be found in one."""
    if effective.whole(ERASE_GOLD) != 2:
        return 0
    thickness = max(effective.whole(GOLD_THICKNESS), int(GOLD_THICKER * thickness_px))
    binning = max(1, effective.whole(GOLD_BINNING, 1))
    return int(2 * area_px * thickness / binning**3) + _HEADER_BYTES


def kept_iterations(effective: Effective) -> tuple[int, ...]:
    """The iterations of SIRT whose volumes stay; () without SIRT."""
    if not effective.flag(USE_SIRT):
        return ()
    return listed(effective.text(LEAVE_ITERATIONS)) or (1,)


def listed(text: str) -> tuple[int, ...]:
    """A list of IMOD: numbers and ranges, parted by commas or blanks; at most 1000 are counted.

    >>> listed("2,4"), listed("1-3 8")
    ((2, 4), (1, 2, 3, 8))
    """
    found: list[int] = []
    for first, last in re.findall(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?", text):
        found += range(int(first), min(int(last or first), int(first) + 1000) + 1)
    return tuple(found[:1000])


def numbers(text: str) -> list[str]:
    """The parts of a value of several numbers, parted by commas or blanks."""
    return [part for part in re.split(r"[,\s]+", text.strip()) if part]


def figures(text: str) -> list[float]:
    """The same as figures; none at all if one of them is no number below 10^9 (validation tells that)."""
    try:
        found = [float(part) for part in numbers(text)]
    except ValueError:
        return []
    return found if all(abs(figure) < MOST for figure in found) else []


def _steady_bytes(sizes: _Sizes, effective: Effective) -> float:
    """What lies there before the tomogram is made and stays beside it."""
    stack = sizes.stack_bytes
    bytes_by_default = not (PREALI_MODE in effective.directives and not effective.has(PREALI_MODE))
    coarse = stack * (0.5 if bytes_by_default else 1.0)
    coarse /= max(1, effective.whole(PREALI_BINNING, 1)) ** 2
    aligned = stack / sizes.binning**2
    kept = stack + coarse + aligned + sizes.gold_bytes
    if effective.flag(REMOVE_XRAYS) and not effective.flag(ARCHIVE):
        kept += stack
    if effective.flag(CTF) or effective.flag(FILTER) or effective.whole(ERASE_GOLD):
        kept += aligned
    return kept


def _memory_bytes(sizes: _Sizes, cores: int) -> int:
    """The hungriest program: clip holds 1.3 to 1.4 stacks, findbeads3d two volumes, each tilt 15 MB and
    180 bytes for each pixel of a slice (22 to 53 MB were seen; 1.7 times that with SIRT), java 60 MB (a newer
    one more); the scripts around them 20 MB each."""
    tilt = 15e6 + 180.0 * (sizes.nx // sizes.binning) * sizes.thickness_px
    programs = (
        1.45 * sizes.stack_bytes,
        2.2 * sizes.gold_bytes,
        (1.7 if sizes.sirt_iterations else 1.0) * tilt * max(1, cores),
        400e6,
    )
    return int(max(programs)) + 100_000_000


def _seconds(sizes: _Sizes, cores: int) -> float:
    """From a quiet run of 44 s on one core (21 MB, 41 views of 512 x 512, thickness 180): 40 s for some
    fifteen programs that start one after the other, 2.6 ns a voxel and view for back-projection, shared by
    the cores; and 100 s a GB for what runs through the stack (the 2015 study's 2.6 GB took 320 s in all)."""
    rounds = 1.0 + 2.0 * max(sizes.sirt_iterations, default=0)
    if sizes.gold_bytes:
        rounds += sizes.gold_bytes / sizes.volume_bytes
    alone = 40.0 + 100e-9 * sizes.stack_bytes + 30e-9 * (sizes.volume_bytes + sizes.gold_bytes)
    return alone + 2.6e-9 * sizes.updates * rounds / max(1, cores)
