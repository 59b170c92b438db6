"""Coarse alignment without fiducials: shifts by cosine-stretched cross-correlation.

From the view nearest zero tilt outwards each view is compared with the sum of its three nearest aligned
neighbours, each stretched by the ratio of the cosines so that a flat specimen looks alike.  A second round
compares every view with neighbours on both sides; what it still moves is the residual that is reported.
The tilt axis must be upright already.  Figures to meet: ecosystem notes (0.2 px left of 4.7 px).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .resample import Floats, move, stretch
from .stack import Image

Floats64 = npt.NDArray[np.float64]

NEIGHBOURS = 3
_LOW, _HIGH = 0.04, 0.12
"""Band-pass, cycles a pixel: what noise three times as strong as the specimen leaves usable."""
_TAPER = 0.15
_MAX_SHIFT = 0.35


@dataclass(frozen=True)
class Alignment:
    """Shifts (views, 2) in pixels of the images given, x then y; per-view residuals and correlations."""

    shifts: Floats64
    residuals: Floats64
    correlations: Floats64


def order_outwards(angles_deg: Floats64) -> list[int]:
    """Views from the one nearest zero tilt outwards."""
    return [int(view) for view in np.argsort(np.abs(angles_deg), kind="stable")]


def align(images: list[Image], angles_deg: Floats64, progress: Callable[[int, int], None]) -> Alignment:
    """Align views whose tilt axis is upright.  All images have one shape.

    Cost: five transforms and five stretched images a view.  ``progress(done, total)`` is called for
    every view of both rounds.
    """
    count = len(images)
    work = _Correlator(images, angles_deg)
    order = order_outwards(angles_deg)
    shifts = np.zeros((count, 2))
    aligned = [order[0]]
    for done, view in enumerate(order[1:], start=1):
        near = sorted(aligned, key=lambda other: abs(angles_deg[other] - angles_deg[view]))[:NEIGHBOURS]
        shifts[view] = work.locate(view, near, shifts, np.zeros(2), rounds=2).shift
        aligned.append(view)
        progress(done, 2 * count)
    return _refine(work, angles_deg, order, shifts, progress)


def _refine(
    work: _Correlator,
    angles_deg: Floats64,
    order: list[int],
    shifts: Floats64,
    progress: Callable[[int, int], None],
) -> Alignment:
    """The second round; the view nearest zero stays where it is."""
    count = len(order)
    residuals, correlations = np.zeros(count), np.ones(count)
    for done, view in enumerate(order):
        found = work.locate(view, _around(angles_deg, view), shifts, shifts[view], rounds=1)
        residuals[view] = float(np.hypot(*(found.shift - shifts[view])))
        correlations[view] = found.correlation
        if done:
            shifts[view] += 0.5 * (found.shift - shifts[view])
        progress(count + done + 1, 2 * count)
    return Alignment(shifts, residuals, correlations)


def _around(angles_deg: Floats64, view: int) -> list[int]:
    """The next view on either side by angle."""
    ranked = [int(other) for other in np.argsort(angles_deg, kind="stable")]
    place = ranked.index(view)
    return ranked[max(0, place - 1) : place] + ranked[place + 1 : place + 2]


@dataclass(frozen=True)
class Found:
    shift: Floats64
    correlation: float


class _Correlator:
    """Views, band-pass and taper of one size."""

    def __init__(self, images: list[Image], angles_deg: Floats64) -> None:
        self.images = [_normalised(image) for image in images]
        self.cosines = np.cos(np.radians(angles_deg))
        ny, nx = images[0].shape
        self.shape = (ny, nx)
        fy, fx = np.fft.fftfreq(ny)[:, None], np.fft.rfftfreq(nx)[None, :]
        frequency2 = fx * fx + fy * fy
        band = np.exp(-frequency2 / (2 * _HIGH**2)) * (1 - np.exp(-frequency2 / (2 * _LOW**2)))
        self.band = band.astype(np.float32)

    def locate(self, view: int, near: list[int], shifts: Floats64, start: Floats64, rounds: int) -> Found:
        """Where ``view`` lies against its neighbours, beginning at the shift ``start``.

        The second and later rounds compare the view already moved, so that both show the same area.
        """
        total = np.zeros(self.shape, np.float32)
        for other in near:
            scale = float(self.cosines[other] / self.cosines[view])
            total += stretch(self.images[other], scale, (shifts[other, 0], shifts[other, 1]))
        widest = max(float(self.cosines[other] / self.cosines[view]) for other in near)
        window = self._window(widest)
        reference = np.conj(np.fft.rfft2(total * window)) * self.band
        shift, correlation = start, 0.0
        for _ in range(rounds):
            whole = np.rint(shift)
            moved = move(self.images[view], (int(whole[0]), int(whole[1]))) * window
            step, correlation = _peak(np.fft.rfft2(moved) * self.band, reference, self.shape)
            shift = whole + step
        return Found(shift, correlation)

    def _window(self, scale: float) -> Floats:
        """Soft edges; narrower where the neighbours, seen at this tilt, do not fill the width."""
        ny, nx = self.shape
        return np.outer(_soft(ny, 1.0), _soft(nx, max(scale, 1.0))).astype(np.float32)


def _soft(length: int, scale: float) -> Floats:
    place = np.abs(np.arange(length) - (length - 1) / 2) / (length / 2) * scale
    ramp = np.clip((1.0 - place) / _TAPER, 0.0, 1.0)
    window: Floats = (0.5 - 0.5 * np.cos(np.pi * ramp)).astype(np.float32)
    return window


def _normalised(image: Image) -> Image:
    """Zero mean, unit deviation, the brightest and darkest cut at 5 sigma."""
    centred = image - image.mean()
    deviation = float(centred.std()) or 1.0
    result: Image = np.clip(centred / deviation, -5.0, 5.0).astype(np.float32)
    return result


def _peak(
    moved: npt.NDArray[np.complexfloating], reference: npt.NDArray[np.complexfloating], shape: tuple[int, int]
) -> tuple[Floats64, float]:
    """Shift of the highest correlation, by parabolas through it, and its coefficient."""
    ny, nx = shape
    correlation = np.fft.irfft2(moved * reference, s=shape)
    limit_y, limit_x = int(ny * _MAX_SHIFT), int(nx * _MAX_SHIFT)
    correlation[limit_y + 1 : ny - limit_y] = -np.inf
    correlation[:, limit_x + 1 : nx - limit_x] = -np.inf
    y, x = (int(part) for part in np.unravel_index(int(np.argmax(correlation)), shape))
    height = float(correlation[y, x])
    dy = _vertex(correlation[(y - 1) % ny, x], height, correlation[(y + 1) % ny, x])
    dx = _vertex(correlation[y, (x - 1) % nx], height, correlation[y, (x + 1) % nx])
    shift = np.array([(x + dx + nx // 2) % nx - nx // 2, (y + dy + ny // 2) % ny - ny // 2])
    power = _energy(moved, nx) * _energy(reference, nx)
    return shift, float(height * nx * ny / np.sqrt(power)) if power > 0 else 0.0


def _energy(spectrum: npt.NDArray[np.complexfloating], nx: int) -> float:
    """Sum of squares over the whole plane of which ``spectrum`` is half."""
    power = np.square(np.abs(spectrum)).sum(axis=0, dtype=np.float64)
    twice = 2.0 * power.sum() - power[0]
    return float(twice - power[-1] if nx % 2 == 0 else twice)


def _vertex(before: float, here: float, after: float) -> float:
    curvature = before - 2 * here + after
    if not np.isfinite(curvature) or curvature >= 0:
        return 0.0
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5))
