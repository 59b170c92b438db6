"""A specimen that can be projected exactly: dark Gaussian blobs and gold beads in a slab of ice.

The projection of an isotropic Gaussian is a Gaussian of the same width at every tilt, and separable, so a
whole image is one matrix product: ``blobs x width x height`` multiply-adds, about 1 ms at 256 x 256.

Geometry (the field's usual one, pixels, origin at the middle of the image, y upwards as MRC rows run):
a point (X, Y, Z) at tilt t stands at u = X cos t + Z sin t, v = Y, and the camera sees (u, v) turned
counterclockwise by the tilt-axis angle, so that the axis, v, is that angle from the image's y axis.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import Any

Pixels = Any
"""A two-dimensional numpy array; numpy is imported only when pixels are made."""

BACKGROUND_COUNTS = 1000.0
"""Mean counts of the untilted ice."""


@dataclass(frozen=True)
class Optics:
    """What the microscope is set to.  ``max_shift_px`` bounds the tracking error of one image."""

    width_px: int = 256
    height_px: int = 256
    pixel_spacing_angstrom: float = 13.4
    tilt_axis_deg: float = 85.3
    voltage_kv: float = 300.0
    dose_e_per_a2: float = 3.0
    max_shift_px: float = 4.0
    noise_counts: float = 15.0


@dataclass(frozen=True)
class Phantom:
    """One specimen, a pure function of its seed.

    ``points`` has a row (X, Y, Z, sigma, amplitude) for each blob: pixels, and counts at its darkest
    point in projection.
    """

    seed: int
    optics: Optics = field(default_factory=Optics)
    blob_count: int = 48
    bead_count: int = 16

    @functools.cached_property
    def points(self) -> Pixels:
        """The blobs, then the beads: an array of shape (blob_count + bead_count, 5)."""
        import numpy as np

        random = np.random.default_rng([self.seed, 1])
        size = min(self.optics.width_px, self.optics.height_px)
        count = self.blob_count + self.bead_count
        table = np.empty((count, 5))
        table[:, :2] = random.uniform(-0.55, 0.55, (count, 2)) * size
        table[:, 2] = random.uniform(-0.10, 0.10, count) * size
        blobs, beads = slice(0, self.blob_count), slice(self.blob_count, None)
        table[blobs, 3] = random.uniform(0.012, 0.035, self.blob_count) * size
        table[blobs, 4] = random.uniform(25.0, 60.0, self.blob_count)
        table[beads, 3] = max(1.2, 0.006 * size)
        table[beads, 4] = random.uniform(180.0, 260.0, self.bead_count)
        return table

    def shift_px(self, angle_deg: float, shot: int = 0) -> tuple[float, float]:
        """How far (x, y, pixels) the image at this angle is off: the truth that an alignment has to find."""
        import numpy as np

        if abs(angle_deg) < 1e-6:
            return 0.0, 0.0
        random = np.random.default_rng([self.seed, 2, _key(angle_deg), shot])
        x, y = random.uniform(-self.optics.max_shift_px, self.optics.max_shift_px, 2)
        return float(x), float(y)

    def projection(self, angle_deg: float, shot: int = 0) -> Pixels:
        """Counts without noise at a tilt: float32, (height, width), shifted as ``shift_px`` says."""
        import numpy as np

        optics, table, tilt = self.optics, self.points, math.radians(angle_deg)
        axis = math.radians(optics.tilt_axis_deg)
        across = table[:, 0] * math.cos(tilt) + table[:, 2] * math.sin(tilt)
        along = table[:, 1]
        shift_x, shift_y = self.shift_px(angle_deg, shot)
        x = across * math.cos(axis) - along * math.sin(axis) + shift_x
        y = across * math.sin(axis) + along * math.cos(axis) + shift_y
        profile_x = _profiles(x, table[:, 3], optics.width_px)
        profile_y = _profiles(y, table[:, 3], optics.height_px) * table[:, 4:5].astype(np.float32)
        ice = np.float32(BACKGROUND_COUNTS * math.exp(-0.25 * (1.0 / math.cos(tilt) - 1.0)))
        return np.asarray(ice - profile_y.T @ profile_x, dtype=np.float32)

    def image(self, angle_deg: float, shot: int = 0) -> Pixels:
        """One exposure: int16, (height, width), with noise and a few hot pixels."""
        import numpy as np

        optics = self.optics
        random = np.random.default_rng([self.seed, 3, _key(angle_deg), shot])
        counts = self.projection(angle_deg, shot)
        noise = random.standard_normal(counts.shape, dtype=np.float32)
        counts += noise * np.float32(optics.noise_counts)
        hot = random.integers(0, counts.size, max(1, counts.size // 50_000))
        counts.reshape(-1)[hot] = 12_000.0
        return np.clip(np.rint(counts), 0, 32_767).astype(np.int16)

    def volume(self, depth_px: int) -> Pixels:
        """The truth to score a reconstruction by: float32 (depth, height, width), dark blobs on zero.

        Its third axis is the beam at zero tilt, its second runs along the tilt axis and its first two
        image axes are those of the untilted specimen (u, v), not of the camera.  Cost grows with
        blobs x voxels.
        """
        import numpy as np

        optics, table = self.optics, self.points
        profile_x = _profiles(table[:, 0], table[:, 3], optics.width_px)
        profile_y = _profiles(table[:, 1], table[:, 3], optics.height_px)
        thickness = np.sqrt(2 * np.pi) * table[:, 3]
        profile_z = _profiles(table[:, 2], table[:, 3], depth_px)
        profile_z *= (table[:, 4] / thickness).astype(np.float32)[:, None]
        return np.asarray(-np.einsum("nz,ny,nx->zyx", profile_z, profile_y, profile_x, optimize=True))


def _profiles(centres: Pixels, sigmas: Pixels, length_px: int) -> Pixels:
    """One row of a Gaussian of height 1 for each centre, over the pixels of one image axis."""
    import numpy as np

    pixels = np.arange(length_px, dtype=np.float32) - np.float32((length_px - 1) / 2)
    distance = (pixels[None, :] - centres.astype(np.float32)[:, None]) / sigmas.astype(np.float32)[:, None]
    return np.exp(np.float32(-0.5) * distance * distance)


def _key(angle_deg: float) -> int:
    """An angle as a whole, non-negative number, so that it can seed a generator."""
    return round(angle_deg * 100) + 36_000
