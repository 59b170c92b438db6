"""The four phases, as functions of one task each, so that workers can take them.

Between the phases the sections lie on scratch in one float32 file, (views, y, x), turned in place; what a
worker needs of a phase is in the task, nothing is shared in memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from . import volume
from .backproject import Plan, back_project, make_plan
from .budget import Sizes, align_binning
from .resample import bin_image, linear, turn
from .stack import Image, StackHeader, prepare_section


@dataclass(frozen=True)
class Job:
    """One run: where things are and what was asked."""

    stack: Path
    sections: Path
    volume: Path
    header: StackHeader
    size: Sizes
    angles_deg: tuple[float, ...]
    tilt_axis_deg: float
    hot_pixel: bool
    output_mode: str
    cutoff: float
    falloff: float

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size.out_nz, self.size.out_ny, self.size.out_nx


def make_sections_file(job: Job) -> None:
    with job.sections.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, job.size.sections_bytes)


def _load(job: Job, view: int) -> Image:
    pixels = job.size.nx * job.size.ny
    values = np.fromfile(job.sections, np.float32, count=pixels, offset=view * pixels * 4)
    return values.reshape(job.size.ny, job.size.nx)


def _store(job: Job, view: int, image: Image) -> None:
    with job.sections.open("r+b") as file:
        file.seek(view * image.nbytes)
        file.write(np.ascontiguousarray(image).data)


def prepare(task: tuple[Job, int]) -> int:
    """Write section ``view``, clean and binned; the number of hot pixels in it."""
    job, view = task
    prepared = prepare_section(job.stack, job.header, view, job.size.binning, job.hot_pixel)
    _store(job, view, prepared.image)
    return prepared.hot_pixels


def small_upright(job: Job, view: int) -> Image:
    """The section for the alignment: its longer side at most 512 pixels, the tilt axis upright.

    Linear interpolation is enough for the low frequencies that are correlated.
    """
    small = bin_image(_load(job, view), align_binning(job.size))
    shape = small.shape if job.size.out_nx == job.size.nx else small.shape[::-1]
    return turn(small, (shape[0], shape[1]), job.tilt_axis_deg, (0.0, 0.0), linear)


@dataclass(frozen=True)
class TurnTask:
    job: Job
    view: int
    shift: tuple[float, float]


def turn_section(task: TurnTask) -> None:
    """Turn one section upright and move it back by its shift, in place; mean 0, deviation 1.

    Views get equal deviations because noise dominates them, whatever was left of the beam.
    """
    job = task.job
    image = _load(job, task.view)
    image -= image.mean(dtype=np.float64)
    image /= float(image.std(dtype=np.float64)) or 1.0
    shape = (job.size.out_ny, job.size.out_nx)
    _store(job, task.view, turn(image, shape, job.tilt_axis_deg, task.shift))


@dataclass(frozen=True)
class SlabTask:
    """Rows ``first`` to ``last`` of y; ``scale`` 0: only the statistics are wanted, nothing is written."""

    job: Job
    first: int
    last: int
    scale: float


def reconstruct_slab(task: SlabTask) -> volume.Statistics:
    """Back-project one slab and write it where it belongs."""
    job = task.job
    slab = back_project(_plan(job), _rows(job, task.first, task.last))
    if task.scale:
        fd = os.open(job.volume, os.O_WRONLY)
        try:
            volume.write_slab(fd, slab, task.first, job.shape, job.output_mode, task.scale)
        finally:
            os.close(fd)
    return volume.statistics(slab)


@lru_cache(maxsize=1)
def _plan(job: Job) -> Plan:
    """The same for all slabs, so each worker makes it once."""
    angles = np.array(job.angles_deg)
    return make_plan(job.size.out_nx, job.size.out_nz, angles, job.cutoff, job.falloff)


def _rows(job: Job, first: int, last: int) -> Image:
    """Rows of all turned sections, (views, rows, nx)."""
    width, height = job.size.out_nx, job.size.out_ny
    rows = np.empty((job.size.views, last - first, width), np.float32)
    with job.sections.open("rb") as file:
        for view in range(job.size.views):
            os.preadv(file.fileno(), [rows[view]], (view * height + first) * width * 4)
    return rows
