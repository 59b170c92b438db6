"""Reading a stack of images: header, bands of rows, hot pixels and binning.

Sections are read by offset, a band of rows at a time, not through a mapping: mapped pages count as the
process's own memory and a file truncated underneath would kill it.  Memory stays at one band and one
binned section whatever the size of the stack.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .budget import BAND_BYTES
from .faults import input_fault

Image = npt.NDArray[np.float32]

HEADER_BYTES = 1024
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_IMOD_STAMP = 1146047817
_HOT_SIGMAS = 8.0
_HOT_COMPANY = 2
_SAMPLE_STEP = 8


@dataclass(frozen=True)
class StackHeader:
    """What the 1024 bytes say: sizes in pixels, where the pixels begin, Angstrom per pixel (0: unknown)."""

    nx: int
    ny: int
    nz: int
    dtype: str
    offset: int
    pixel_size_angstrom: float


def read_header(path: Path) -> StackHeader:
    """The header of an MRC stack whose file is as long as it says.

    Layout: MRC2014.  Bytes of mode 0 are signed there; a file with IMOD's stamp whose flags say otherwise,
    or old bytes without it, are read as IMOD reads them.  Raises Fault (exit 2) with a sentence.
    """
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        actual = os.fstat(file.fileno()).st_size
    if len(head) < HEADER_BYTES:
        raise input_fault(f"{path.name} has {len(head)} bytes: no MRC header of 1024 bytes")
    order = _byte_order(head)
    nx, ny, nz, mode = struct.unpack_from(order + "4i", head, 0)
    (extended,) = struct.unpack_from(order + "i", head, 92)
    if mode not in _DTYPES:
        raise input_fault(f"{path.name} has MRC mode {mode}; modes 0, 1, 2, 6 and 12 can be reconstructed")
    if min(nx, ny, nz) < 1 or max(nx, ny, nz) > 1_000_000 or extended < 0:
        raise input_fault(f"{path.name} has an impossible header: {nx} x {ny} x {nz}, next {extended}")
    dtype = np.dtype(order + _kind(order, mode, head))
    expected = HEADER_BYTES + extended + nx * ny * nz * dtype.itemsize
    if actual < expected:
        raise input_fault(f"{path.name} is truncated: {actual} bytes, but its header promises {expected}")
    return StackHeader(nx, ny, nz, dtype.str, HEADER_BYTES + extended, _pixel_size(order, head))


def _byte_order(head: bytes) -> str:
    stamp = head[212:214]
    if stamp in (b"\x11\x11", b"\x11\x00"):
        return ">"
    return "<"


def _kind(order: str, mode: int, head: bytes) -> str:
    stamp, flags = struct.unpack_from(order + "2i", head, 152)
    if mode == 0 and stamp == _IMOD_STAMP and not flags & 1:
        return "u1"
    return _DTYPES[mode]


def _pixel_size(order: str, head: bytes) -> float:
    (mx,) = struct.unpack_from(order + "i", head, 28)
    (length,) = struct.unpack_from(order + "f", head, 40)
    size = length / mx if mx > 0 else 0.0
    return float(size) if np.isfinite(size) and 0.0 < size < 1e6 else 0.0


@dataclass(frozen=True)
class Prepared:
    """One binned section and how many hot pixels were replaced in it."""

    image: Image
    hot_pixels: int


def prepare_section(path: Path, header: StackHeader, index: int, binning: int, hot_pixel: bool) -> Prepared:
    """Section ``index``, hot pixels replaced by the median of their neighbours, averaged over binning^2.

    Rows and columns that do not fill a whole bin are left out.  Cost: two passes over the raw pixels.
    Raises Fault (exit 2) when the section holds values that are no numbers.
    """
    nx, ny = header.nx // binning, header.ny // binning
    image = np.empty((ny, nx), np.float32)
    with path.open("rb") as file:
        bounds = _hot_bounds(file.fileno(), header, index) if hot_pixel else None
        rows = max(1, BAND_BYTES // (20 * header.nx * binning))
        hot = 0
        for first in range(0, ny, rows):
            last = min(ny, first + rows)
            band, above = _band(file.fileno(), header, index, first * binning, last * binning)
            if bounds is not None:
                hot += cool(band, *bounds)
            band = band[above : above + (last - first) * binning, : nx * binning]
            image[first:last] = band.reshape(last - first, binning, nx, binning).mean(axis=(1, 3))
    if not np.isfinite(image).all():
        raise input_fault(f"section {index} of {path.name} holds values that are no numbers")
    return Prepared(image, hot)


def _read_rows(fd: int, header: StackHeader, index: int, first: int, last: int) -> Image:
    dtype = np.dtype(header.dtype)
    offset = header.offset + (index * header.ny + first) * header.nx * dtype.itemsize
    wanted = (last - first) * header.nx * dtype.itemsize
    data = bytearray(wanted)
    got = os.preadv(fd, [data], offset)
    if got != wanted:
        raise input_fault(f"section {index} ends after {got} of {wanted} bytes of rows {first} to {last}")
    return np.frombuffer(data, dtype).reshape(last - first, header.nx).astype(np.float32)


def _band(fd: int, header: StackHeader, index: int, first: int, last: int) -> tuple[Image, int]:
    """Rows ``first`` to ``last`` with one more on either side, so that edge pixels have neighbours."""
    start, end = max(0, first - 1), min(header.ny, last + 1)
    return _read_rows(fd, header, index, start, end), first - start


def _hot_bounds(fd: int, header: StackHeader, index: int) -> tuple[float, float]:
    """Median and the deviation beyond which a pixel is suspect: 8 sigma, by the median deviation.

    From a sample of every eighth row and column.
    """
    sample = np.concatenate(
        [
            _read_rows(fd, header, index, row, row + 1)[0, ::_SAMPLE_STEP]
            for row in range(0, header.ny, _SAMPLE_STEP)
        ]
    )
    median = float(np.median(sample))
    sigma = 1.4826 * float(np.median(np.abs(sample - median)))
    return median, _HOT_SIGMAS * max(sigma, 1e-6, float(sample.std()) * 0.1)


def cool(image: Image, median: float, deviation: float) -> int:
    """Replace, in place, pixels that stand out from the section and from their neighbours; their number.

    Only the few that stand out from the whole section are compared with the median of the eight around
    them: a gold bead stands out, but so do its neighbours.
    """
    rows, columns = np.nonzero(np.abs(image - median) > deviation)
    if len(rows) == 0 or min(image.shape) < 3:
        return 0
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    height, width = image.shape
    neighbours = np.stack(
        [image[_mirrored(rows + dy, height), _mirrored(columns + dx, width)] for dy, dx in around]
    )
    local = np.median(neighbours, axis=0)
    company = (np.abs(neighbours - median) > deviation).sum(axis=0)
    hot = (np.abs(image[rows, columns] - local) > deviation) & (company <= _HOT_COMPANY)
    image[rows[hot], columns[hot]] = local[hot]
    return int(hot.sum())


def _mirrored(index: npt.NDArray[np.intp], length: int) -> npt.NDArray[np.intp]:
    """Indices one step outside are taken from inside, so that no pixel is its own neighbour."""
    return np.where(index < 0, 1, np.where(index >= length, length - 2, index))
