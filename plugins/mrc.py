"""The header of an MRC stack, read by ``struct`` alone.  Pure: bytes in, record or problem out.

The layout is that of the MRC2014 format; which parts SerialEM fills in, and how it extends them, is from
the acquisition notes: the size of the extended header is reserved when the file is made and stays, ``nz``
grows by one for every image, and at rest the file's size follows from the header to the byte.
"""

from __future__ import annotations

import struct

from tiltd.daemon.core.model import Problem, Record

HEADER_BYTES = 1024
MODE_BYTES: dict[int, int] = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2, 16: 3}
"""Bytes a pixel of each mode that a tilt series can have: int8, int16, float32, uint16, float16, RGB."""

MAX_SIDE_PIXELS = 100_000
MAX_SECTIONS = 100_000
MAX_EXTENDED_BYTES = 1 << 30
STAMP = b"MAP "


class MrcHeader(Record):
    """``nx`` and ``ny`` in pixels, ``nz`` in sections; ``extended_bytes`` between header and pixels.

    ``pixel_spacing_angstrom`` is ``None`` where the header does not tell.
    """

    nx: int
    ny: int
    nz: int
    mode: int
    extended_bytes: int
    pixel_spacing_angstrom: float | None = None

    @property
    def section_bytes(self) -> int:
        return self.nx * self.ny * MODE_BYTES[self.mode]

    @property
    def size_at_rest_bytes(self) -> int:
        """What the file's size is when nobody writes to it."""
        return HEADER_BYTES + self.extended_bytes + self.nz * self.section_bytes


def read_header(data: bytes) -> MrcHeader | Problem:
    """The header from a file's first bytes, or why it is none (``header_*`` codes)."""
    if len(data) < HEADER_BYTES:
        return Problem(
            code="header_truncated", detail=f"{len(data)} bytes are there, a header has {HEADER_BYTES}"
        )
    if not any(data[:HEADER_BYTES]):
        return Problem(code="header_empty", detail="the header is all zeros: nothing was written yet")
    nx, ny, nz, mode = struct.unpack_from("<4i", data)
    problem = _sane(nx, ny, nz, mode, struct.unpack_from("<i", data, 92)[0])
    if problem:
        return _swapped(data) or problem
    if data[208:212] != STAMP:
        return Problem(code="header_garbage", detail="no 'MAP ' stamp at byte 208: this is no MRC file")
    return MrcHeader(
        nx=nx,
        ny=ny,
        nz=nz,
        mode=mode,
        extended_bytes=struct.unpack_from("<i", data, 92)[0],
        pixel_spacing_angstrom=_spacing(data),
    )


def _sane(nx: int, ny: int, nz: int, mode: int, extended_bytes: int) -> Problem | None:
    sides = 0 < nx <= MAX_SIDE_PIXELS and 0 < ny <= MAX_SIDE_PIXELS and 0 <= nz <= MAX_SECTIONS
    if not sides or not 0 <= extended_bytes <= MAX_EXTENDED_BYTES:
        return Problem(
            code="header_garbage",
            detail=f"no image has {nx} x {ny} x {nz} pixels and {extended_bytes} bytes of extended header",
        )
    if mode not in MODE_BYTES:
        known = ", ".join(str(number) for number in MODE_BYTES)
        return Problem(code="mode_unknown", detail=f"mode {mode} is not one of {known}")
    return None


def _swapped(data: bytes) -> Problem | None:
    nx, ny, nz, mode = struct.unpack_from(">4i", data)
    if _sane(nx, ny, nz, mode, struct.unpack_from(">i", data, 92)[0]):
        return None
    return Problem(
        code="header_swapped",
        detail=f"big-endian header ({nx} x {ny} x {nz}, mode {mode}): convert the stack to little-endian",
    )


def _spacing(data: bytes) -> float | None:
    (mx,) = struct.unpack_from("<i", data, 28)
    (xlen,) = struct.unpack_from("<f", data, 40)
    if mx <= 0 or not 0 < xlen < 1e9:
        return None
    spacing: float = xlen / mx
    return spacing
