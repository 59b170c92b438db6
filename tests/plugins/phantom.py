"""A specimen of known truth and the tilt series a microscope would make of it.

The specimen is a sum of round Gaussian blobs in a slab that is wider than the field of view.  Projections
are analytic (a projected Gaussian is a Gaussian), so they share no code and no rounding with the
reconstruction that they are to judge.  Geometry as in the reconstruction: the point (x, y, z), counted from
the centre, appears in the view of tilt ``a`` at (x cos a + z sin a, y), and the picture is then turned
counter-clockwise by the tilt axis angle and moved by the view's shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Phantom:
    """Blobs: centres (n, 3) in pixels from the middle, sigmas in pixels and heights."""

    nx: int
    ny: int
    nz: int
    centres: Array
    sigmas: Array
    heights: Array

    def volume(self, moved: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> npt.NDArray[np.float32]:
        """The truth as (nz, ny, nx), the whole specimen moved by (x, y, z) pixels."""
        volume = np.zeros((self.nz, self.ny, self.nx), np.float32)
        centres = self.centres + np.array(moved)
        for centre, sigma, height in zip(centres, self.sigmas, self.heights, strict=True):
            spans = [
                _profile(position, sigma, length)
                for position, length in zip(centre[::-1], volume.shape, strict=True)
            ]
            if any(len(profile) == 0 for _, profile in spans):
                continue
            where = tuple(slice(first, first + len(profile)) for first, profile in spans)
            z, y, x = (profile for _, profile in spans)
            volume[where] += height * z[:, None, None] * y[:, None] * x
        return volume

    def view(self, angle_deg: float, axis_deg: float, shift: tuple[float, float]) -> npt.NDArray[np.float32]:
        """One noiseless projection (ny, nx).  ``shift`` is in the frame of the upright axis."""
        picture = np.zeros((self.ny, self.nx), np.float32)
        angle, axis = math.radians(angle_deg), math.radians(axis_deg)
        u = self.centres[:, 0] * math.cos(angle) + self.centres[:, 2] * math.sin(angle) + shift[0]
        v = self.centres[:, 1] + shift[1]
        xs, ys = u * math.cos(axis) - v * math.sin(axis), u * math.sin(axis) + v * math.cos(axis)
        weights = self.heights * self.sigmas * math.sqrt(2 * math.pi)
        for x, y, sigma, weight in zip(xs, ys, self.sigmas, weights, strict=True):
            first_x, across = _profile(x, sigma, self.nx)
            first_y, along = _profile(y, sigma, self.ny)
            where = np.s_[first_y : first_y + len(along), first_x : first_x + len(across)]
            picture[where] += weight * along[:, None] * across
        return picture


def _profile(position: float, sigma: float, length: int) -> tuple[int, Array]:
    """The pixels within 4 sigma of ``position`` (from the middle) and the Gaussian there."""
    middle = position + (length - 1) / 2
    first = min(length, max(0, math.ceil(middle - 4 * sigma)))
    last = max(first, min(length, math.floor(middle + 4 * sigma) + 1))
    return first, np.exp(-0.5 * ((np.arange(first, last) - middle) / sigma) ** 2)


def make_phantom(nx: int, ny: int, nz: int, seed: int = 7, density: float = 4e-5) -> Phantom:
    """Blobs of sigma 1.5 to 5 pixels in the inner 70% of the thickness, over 2.2 widths and heights."""
    random = np.random.default_rng(seed)
    count = int(density * (2.2 * nx) * (2.2 * ny) * (0.7 * nz))
    spread = np.array([1.1 * nx, 1.1 * ny, 0.35 * nz])
    centres = random.uniform(-spread, spread, (count, 3))
    sigmas = random.uniform(1.5, 5.0, count)
    return Phantom(nx, ny, nz, centres, sigmas, random.uniform(0.5, 1.5, count))


@dataclass(frozen=True)
class Series:
    """A tilt series with its truth; shifts (views, 2) in the frame of the upright axis, in pixels."""

    images: npt.NDArray[np.int16]
    angles_deg: Array
    shifts: Array
    axis_deg: float


def make_series(
    phantom: Phantom,
    angles_deg: Array,
    axis_deg: float = 85.3,
    shift_px: float = 3.3,
    noise: float = 1.0,
    seed: int = 11,
) -> Series:
    """Views with random shifts (``shift_px`` each way, standard deviation) and white noise.

    ``noise`` is the noise's deviation over that of the untilted projection.  The view nearest zero tilt is
    not shifted: an alignment knows no better origin.
    """
    random = np.random.default_rng(seed)
    shifts = random.normal(0.0, shift_px, (len(angles_deg), 2))
    shifts[np.argmin(np.abs(angles_deg))] = 0.0
    contrast = 60.0 / float(phantom.view(0.0, axis_deg, (0.0, 0.0)).std())
    views = [
        1000.0
        + contrast * phantom.view(float(angle), axis_deg, (float(shift[0]), float(shift[1])))
        + random.normal(0.0, 60.0 * noise, (phantom.ny, phantom.nx))
        for angle, shift in zip(angles_deg, shifts, strict=True)
    ]
    return Series(np.rint(np.stack(views)).astype(np.int16), angles_deg, shifts, axis_deg)


def write_series(series: Series, folder: Path, pixel_angstrom: float = 2.0) -> tuple[Path, Path]:
    """``stack.mrc`` and ``angles.tlt`` in ``folder``."""
    stack, angles = folder / "stack.mrc", folder / "angles.tlt"
    with mrcfile.new(stack, overwrite=True) as file:
        file.set_data(series.images)
        file.voxel_size = pixel_angstrom
    angles.write_text("".join(f"{angle:.2f}\n" for angle in series.angles_deg))
    return stack, angles


@dataclass(frozen=True)
class Residual:
    """Shifts before and after an alignment (rms; mean), less the part that only moves the specimen."""

    before_px: float
    after_px: float
    mean_px: float
    moved: tuple[float, float, float]


def score_shifts(series: Series, found: Array) -> Residual:
    """Compare ``found`` with the true shifts; moving the specimen is no error.

    A specimen moved by (dx, dy, dz) looks like shifts of dx cos a + dz sin a in x and dy in y.
    """
    angles = np.radians(series.angles_deg)
    wrong = series.shifts - found
    basis = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    (dx, dz), *_ = np.linalg.lstsq(basis, wrong[:, 0], rcond=None)
    dy = float(wrong[:, 1].mean())
    left = np.hypot(wrong[:, 0] - basis @ np.array([dx, dz]), wrong[:, 1] - dy)
    before = float(np.sqrt(np.square(series.shifts).sum(axis=1).mean()))
    after = float(np.sqrt(np.square(left).mean()))
    return Residual(before, after, float(left.mean()), (float(dx), dy, float(dz)))


def correlation(volume: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> float:
    """Pearson correlation of all voxels."""
    return float(np.corrcoef(volume.ravel(), truth.ravel())[0, 1])
