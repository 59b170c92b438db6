"""Moving images by parts of a pixel: turning the tilt axis upright, stretching, binning."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .budget import BAND_BYTES
from .stack import Image

Floats = npt.NDArray[np.float32]


Weights = dict[int, Floats]
"""Tap -> weight; tap 1 is the pixel at or before the position."""

Kernel = Callable[[Floats], Weights]


def keys(f: Floats) -> Weights:
    """Cubic convolution for the fraction ``f`` (Keys 1981, a = -1/2)."""
    before = ((-0.5 * f + 1) * f - 0.5) * f
    here = (1.5 * f - 2.5) * f * f + 1
    after = (0.5 * f - 0.5) * f * f
    return {0: before, 1: here, 2: 1 - before - here - after, 3: after}


def linear(f: Floats) -> Weights:
    return {1: 1 - f, 2: f}


def turn(
    image: Image,
    shape: tuple[int, int],
    tilt_axis_deg: float,
    shift: tuple[float, float],
    kernel: Kernel = keys,
) -> Image:
    """The image with its tilt axis upright and moved back by ``shift`` (x, y in pixels of the result).

    result(u, v) = image(R (u + shift_x, v + shift_y)), R the rotation by the tilt axis angle, both about
    the centres; beyond the edge the edge pixel is repeated.
    Cost: 16 taps a pixel with the cubic kernel, 4 with the linear one; in bands of rows.
    """
    ny, nx = image.shape
    padded = np.pad(image, 2, mode="edge").ravel()
    width = nx + 4
    cosine, sine = math.cos(math.radians(tilt_axis_deg)), math.sin(math.radians(tilt_axis_deg))
    u = np.arange(shape[1]) - (shape[1] - 1) / 2 + shift[0]
    result = np.empty(shape, np.float32)
    rows = max(1, BAND_BYTES // (80 * shape[1]))
    for first in range(0, shape[0], rows):
        v = (np.arange(first, min(shape[0], first + rows)) - (shape[0] - 1) / 2 + shift[1])[:, None]
        x, fx = _cell(cosine * u - sine * v + (nx - 1) / 2, nx)
        y, fy = _cell(sine * u + cosine * v + (ny - 1) / 2, ny)
        result[first : first + rows] = _taps(padded, width, (y + 1) * width + (x + 1), kernel(fx), kernel(fy))
    return result


def _cell(position: npt.NDArray[np.float64], length: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """Whole and fractional part of positions, kept inside the image."""
    inside = np.clip(position, 0, length - 1)
    whole = np.floor(inside)
    return whole.astype(np.int32), (inside - whole).astype(np.float32)


def _taps(flat: Floats, width: int, corner: npt.NDArray[np.int32], across: Weights, along: Weights) -> Floats:
    total = np.zeros(corner.shape, np.float32)
    for j, row_weight in along.items():
        line = np.zeros(corner.shape, np.float32)
        for i, column_weight in across.items():
            line += column_weight * flat.take(corner + (j * width + i))
        total += row_weight * line
    return total


def stretch(image: Image, scale: float, shift: tuple[float, float]) -> Image:
    """result(u, v) = image(scale u + shift_x, v + shift_y) about the centre; zero outside.  Linear."""
    nx = image.shape[1]
    below = math.floor(shift[1])
    part = np.float32(shift[1] - below)
    rows = (1 - part) * move(image, (0, below)) + part * move(image, (0, below + 1))
    whole, here, after = _line((np.arange(nx) - (nx - 1) / 2) * scale + (nx - 1) / 2 + shift[0], nx)
    stretched: Image = rows.take(whole, axis=1) * here
    stretched += rows.take(whole + 1, axis=1) * after
    return stretched


def move(image: Image, shift: tuple[int, int]) -> Image:
    """result(u, v) = image(u + shift_x, v + shift_y) for whole pixels; zero outside."""
    ny, nx = image.shape
    x, y = shift
    result = np.zeros_like(image)
    result[max(0, -y) : max(0, ny - max(0, y)), max(0, -x) : max(0, nx - max(0, x))] = image[
        max(0, y) : max(0, ny + min(0, y)), max(0, x) : max(0, nx + min(0, x))
    ]
    return result


def _line(position: npt.NDArray[np.floating], length: int) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Index of the pixel before each position and the weights of it and the next; no weight outside."""
    inside = (position >= 0) & (position <= length - 1)
    whole = np.clip(np.floor(position), 0, length - 2).astype(np.int64)
    after = np.clip(position - whole, 0, 1).astype(np.float32)
    before = 1 - after
    return (
        whole,
        np.where(inside, before, 0).astype(np.float32),
        np.where(inside, after, 0).astype(np.float32),
    )


def bin_image(image: Image, factor: int) -> Image:
    """Averages of ``factor`` x ``factor`` pixels; a rest at the edge is left out."""
    if factor == 1:
        return image
    ny, nx = image.shape[0] // factor, image.shape[1] // factor
    cut = image[: ny * factor, : nx * factor]
    result: Image = cut.reshape(ny, factor, nx, factor).mean(axis=(1, 3), dtype=np.float32)
    return result
