"""How large everything is: sizes, memory, scratch and seconds of a reconstruction.  Pure, no numpy.

The pipeline asks for resources by these formulas and the program keeps to them, so they stand once.
Sizes are pixels of the binned images unless they say ``raw``; memory and scratch are bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OVERSAMPLING = 4
"""Filtered rows are interpolated to quarter pixels before they are smeared back (see backproject.py)."""

ALIGN_SIDE_PX = 512
"""Alignment works on images binned further until their longer side is at most this."""

BAND_BYTES = 16_000_000
"""Working arrays of the phases that go through a section by bands of rows."""

BASE_BYTES = 60_000_000
"""A Python process with numpy and mrcfile (35 to 60 MB measured); each worker counts as one."""

ROWS_PER_SLAB = 16
"""More rows make longer additions and fewer calls; beyond 16 a slab leaves the processor's cache."""

SMALL_FILES_BYTES = 4_000_000
"""Picture, alignment and figures beside the volume."""

LIMIT_TILT_DEG = 85.0
"""Beyond this a view shows the specimen edge on, and 1 / cos(tilt) explodes."""

_BYTES_PER_VOXEL = {"float32": 4, "int16": 2}


@dataclass(frozen=True)
class Sizes:
    """Every size that follows from a stack and its options."""

    views: int
    raw_nx: int
    raw_ny: int
    binning: int
    nx: int
    ny: int
    out_nx: int
    out_ny: int
    out_nz: int
    voxel_bytes: int
    steepest_deg: float

    @property
    def sections_bytes(self) -> int:
        """The prepared sections on scratch, float32."""
        return self.views * self.nx * self.ny * 4

    @property
    def volume_bytes(self) -> int:
        return 1024 + self.out_nx * self.out_ny * self.out_nz * self.voxel_bytes


def lies_down(tilt_axis_deg: float) -> bool:
    """Whether the tilt axis is nearer to x than to y, so that the result's sides change places."""
    return 45.0 < abs(tilt_axis_deg) % 180.0 < 135.0


def automatic_binning(raw_nx: int, raw_ny: int) -> int:
    """The smallest power of two that brings the longer side to at most 1024."""
    binning = 1
    while max(raw_nx, raw_ny) // binning > 1024:
        binning *= 2
    return binning


def sizes(
    views: int,
    raw_size: tuple[int, int],
    binning: int,
    thickness_raw_px: int,
    tilt_axis_deg: float,
    output_mode: str,
    steepest_deg: float,
) -> Sizes:
    """Sizes of one run; ``binning`` 0 is automatic, ``thickness_raw_px`` 0 a quarter of the width.

    Raises ValueError when nothing would be left of the images.
    """
    raw_nx, raw_ny = raw_size
    binning = binning or automatic_binning(raw_nx, raw_ny)
    nx, ny = raw_nx // binning, raw_ny // binning
    if min(nx, ny) < 16:
        raise ValueError(f"images of {raw_nx} x {raw_ny} pixels are too small for binning {binning}")
    out_nx, out_ny = (ny, nx) if lies_down(tilt_axis_deg) else (nx, ny)
    out_nz = max(1, round(thickness_raw_px / binning)) if thickness_raw_px else max(1, out_nx // 4)
    voxel_bytes = _BYTES_PER_VOXEL[output_mode]
    return Sizes(
        views, raw_nx, raw_ny, binning, nx, ny, out_nx, out_ny, out_nz, voxel_bytes, abs(steepest_deg)
    )


def padded_length(nx: int) -> int:
    """Length of a row for the ramp filter: a quarter longer, with small prime factors only."""
    length = nx + nx // 4
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1 and length % 2 == 0:
            return length
        length += 1


def reach(size: Sizes) -> int:
    """Pixels by which the rays of the steepest view leave the width, over the whole thickness."""
    return math.ceil(size.out_nz * math.tan(math.radians(size.steepest_deg))) + 3


def row_bytes(size: Sizes) -> int:
    """Memory of one row of y in a slab.

    views x nx sections, nz x nx volume and as much again for the conversion of one section, and for one
    view at a time: spectrum, filtered row at four times the length (input, output and work array of the
    transform, which numpy may hold in double precision) and the stretched row.
    """
    length = padded_length(size.out_nx)
    stored = 4 * size.out_nx * (size.views + size.out_nz + 2)
    one_view = length * (8 + 16 + OVERSAMPLING * (4 + 8 + 8)) + OVERSAMPLING * (size.out_nx + reach(size)) * 4
    return stored + one_view


def section_bytes(size: Sizes) -> int:
    """Memory of a worker in the phases that hold whole sections: before, padded, and after turning."""
    return 3 * 4 * (size.nx + 4) * (size.ny + 4) + BAND_BYTES


def align_bytes(size: Sizes) -> int:
    """Memory of the alignment, in the first process: every small image once and about 24 in work."""
    factor = align_binning(size)
    pixels = (size.nx // factor + 4) * (size.ny // factor + 4)
    return 4 * pixels * (size.views + 24) + 3 * 4 * size.nx * size.ny


def align_binning(size: Sizes) -> int:
    return math.ceil(max(size.nx, size.ny) / ALIGN_SIDE_PX)


def least_memory_bytes(size: Sizes, workers: int) -> int:
    """The least that the program can run with: slabs of one row."""
    return memory_bytes(size, workers, rows=1)


def memory_bytes(size: Sizes, workers: int, rows: int = ROWS_PER_SLAB) -> int:
    """Peak memory of the program and its workers together, for slabs of ``rows`` rows.

    The workers are idle while the first process aligns, and it is idle while they work, but what either
    has touched may stay resident: so the sum is asked for.
    """
    worker = BASE_BYTES + max(section_bytes(size), rows * row_bytes(size))
    return BASE_BYTES + align_bytes(size) + workers * worker


def rows_per_slab(size: Sizes, workers: int, allowed_bytes: int) -> int:
    """As many rows as ``allowed_bytes`` (0: no limit) permits, at most 16 and never more than a share.

    Raises ValueError with the least memory when not even one row fits.
    """
    fair = max(1, math.ceil(size.out_ny / workers))
    for rows in range(min(ROWS_PER_SLAB, fair), 0, -1):
        if not allowed_bytes or memory_bytes(size, workers, rows) <= allowed_bytes:
            return rows
    least = least_memory_bytes(size, workers)
    raise ValueError(f"{allowed_bytes} bytes of memory are too few: {workers} processes need {least}")


def scratch_bytes(size: Sizes, input_bytes: int) -> int:
    """Peak on scratch: input copy + prepared sections (turned in place) + volume + small files."""
    return input_bytes + size.sections_bytes + size.volume_bytes + SMALL_FILES_BYTES


def seconds(size: Sizes, workers: int, align: bool) -> float:
    """Expected run time without staging, from CPU seconds measured on one core of 2026's 2-core machines.

    Per raw pixel 8 ns (read, hot pixels, bin), per binned pixel 90 ns (turn) and per voxel and view
    0.7 ns (filter and sum), all shared by the workers; alignment 60 ms a view of 512 x 512, not shared.
    """
    raw_pixels = size.views * size.raw_nx * size.raw_ny
    pixels = size.views * size.nx * size.ny
    updates = size.views * size.out_nx * size.out_ny * size.out_nz
    shared = raw_pixels * 8e-9 + pixels * 90e-9 + updates * 0.7e-9
    factor = align_binning(size)
    alone = 230e-9 * pixels / factor**2 if align else 0.0
    return 2.0 + shared / workers + alone
