"""Writing the tomogram: an MRC file made at its full size first, then filled slab by slab.

Workers write their rows by offset, so nobody holds the volume.  The origin is such that (0, 0, 0) Angstrom
is the middle of the volume, on the tilt axis: tomograms of one series lie on top of each other in a viewer
whatever their binning and thickness.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np

from .resample import Floats

HEADER_BYTES = 1024
_INT16_SIGMAS = 30.0


@dataclass(frozen=True)
class Statistics:
    """Of the values written; they add up over slabs."""

    count: int
    smallest: float
    largest: float
    total: float
    squares: float

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.count + other.count,
            min(self.smallest, other.smallest),
            max(self.largest, other.largest),
            self.total + other.total,
            self.squares + other.squares,
        )

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def deviation(self) -> float:
        return float(np.sqrt(max(0.0, self.squares / self.count - self.mean**2)))


def statistics(values: Floats) -> Statistics:
    return Statistics(
        values.size,
        float(values.min()),
        float(values.max()),
        float(values.sum(dtype=np.float64)),
        float(np.einsum("zyx,zyx->", values, values, dtype=np.float64)),
    )


def create(path: Path, shape: tuple[int, int, int], mode: str, voxel_angstrom: float) -> None:
    """The header, and room for ``shape`` (nz, ny, nx) voxels that still are a hole."""
    mrc_mode = {"float32": 2, "int16": 1}[mode]
    with mrcfile.new_mmap(path, shape=shape, mrc_mode=mrc_mode, overwrite=True) as file:
        file.set_volume()
        file.voxel_size = voxel_angstrom
        for axis, length in zip("xyz", shape[::-1], strict=True):
            file.header.origin[axis] = (0.5 - length / 2) * voxel_angstrom
        file.add_label("tiltd wbp: weighted back-projection")


def finish(path: Path, found: Statistics, mode: str, scale: float) -> None:
    """Density statistics into the header.  ``found`` is in the volume's units before ``scale``."""
    extremes = np.array([found.smallest, found.largest]) * scale
    if mode == "int16":
        extremes = np.clip(np.rint(extremes), -32768, 32767)
    with path.open("r+b") as file:
        header = np.fromfile(file, mrcfile.dtypes.HEADER_DTYPE, count=1)
        header["dmin"], header["dmax"] = extremes
        header["dmean"], header["rms"] = found.mean * scale, found.deviation * scale
        file.seek(0)
        file.write(header.tobytes())
        file.flush()
        os.fsync(file.fileno())


def int16_scale(deviation: float) -> float:
    """Factor that maps 30 standard deviations to the end of the range: 0.1% of sigma a step."""
    return 32767.0 / (_INT16_SIGMAS * deviation) if deviation > 0 else 1.0


def write_slab(
    fd: int, slab: Floats, first_row: int, shape: tuple[int, int, int], mode: str, scale: float
) -> None:
    """Write rows ``first_row`` on of every section.  ``slab`` is (nz, rows, nx).  Raises OSError."""
    dtype = np.dtype("<f4" if mode == "float32" else "<i2")
    _, ny, nx = shape
    for z, layer in enumerate(slab):
        if mode == "int16":
            layer = np.clip(np.rint(layer * scale), -32768, 32767)
        data = memoryview(layer.astype(dtype).tobytes())
        offset = HEADER_BYTES + (z * ny + first_row) * nx * dtype.itemsize
        while data:
            written = os.pwrite(fd, data, offset)
            data, offset = data[written:], offset + written


def read_section(path: Path, z: int, shape: tuple[int, int, int], mode: str) -> Floats:
    """Section ``z`` as float32."""
    dtype = np.dtype("<f4" if mode == "float32" else "<i2")
    _, ny, nx = shape
    values = np.fromfile(path, dtype, count=ny * nx, offset=HEADER_BYTES + z * ny * nx * dtype.itemsize)
    return values.reshape(ny, nx).astype(np.float32)
