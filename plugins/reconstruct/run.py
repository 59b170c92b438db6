"""One reconstruction from beginning to end: the order of the phases, and what is told of them."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import phases, volume
from .align import Alignment, align
from .budget import align_binning
from .crew import Crew, crew, say_done, say_step
from .phases import Job, SlabTask, TurnTask
from .picture import write_png

CURVES_FORMAT = 1


@dataclass(frozen=True)
class Settings:
    """How to go about a job, as opposed to what it makes."""

    output: Path
    workers: int
    rows: int
    align: bool
    voxel_angstrom: float


class Stopwatch:
    """Seconds of each phase, under the names of the figures."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        say_step(name)
        started_at, cpu = time.monotonic(), _cpu_seconds()
        yield
        self.figures[f"{name}_seconds"] = round(time.monotonic() - started_at, 3)
        self.figures[f"{name}_cpu_seconds"] = round(_cpu_seconds() - cpu, 3)


def _cpu_seconds() -> float:
    """Of this process and of those that have ended; workers still running are not in it."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run(job: Job, settings: Settings) -> dict[str, float]:
    """Make ``tomogram.mrc``, ``central.png``, ``alignment.json`` and ``figures.json``; the figures.

    Raises Fault, OSError and MemoryError.
    """
    watch = Stopwatch()
    figures: dict[str, float] = {"view_count": job.size.views, "aligned": float(settings.align)}
    with watch.phase("prepare"), crew(settings.workers) as workers:
        phases.make_sections_file(job)
        tasks = [(job, view) for view in range(job.size.views)]
        figures["hot_pixels"] = sum(workers.run(phases.prepare, tasks))
    with watch.phase("align"):
        alignment = _align(job) if settings.align else _unaligned(job)
    figures |= _alignment_figures(alignment, settings.align)
    _write_alignment(job, settings, alignment)
    with watch.phase("turn"), crew(settings.workers) as workers:
        turns = [TurnTask(job, view, (float(x), float(y))) for view, (x, y) in enumerate(alignment.shifts)]
        list(workers.run(phases.turn_section, turns))
    with watch.phase("backproject"), crew(settings.workers) as workers:
        found, scale = _back_project(job, settings, workers)
    with watch.phase("finish"):
        volume.finish(job.volume, found, job.output_mode, scale)
        write_png(
            settings.output / "central.png",
            volume.read_section(job.volume, job.size.out_nz // 2, job.shape, job.output_mode),
        )
        job.sections.unlink()
    figures |= {"volume_mean": found.mean, "volume_rms": found.deviation} | watch.figures
    (settings.output / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _align(job: Job) -> Alignment:
    """Shifts and residuals in pixels of the binned sections."""
    factor = align_binning(job.size)
    images = [phases.small_upright(job, view) for view in range(job.size.views)]
    found = align(images, np.array(job.angles_deg), say_done)
    return replace(found, shifts=found.shifts * factor, residuals=found.residuals * factor)


def _unaligned(job: Job) -> Alignment:
    count = job.size.views
    return Alignment(np.zeros((count, 2)), np.zeros(count), np.zeros(count))


def _alignment_figures(found: Alignment, done: bool) -> dict[str, float]:
    if not done:
        return {}
    return {
        "residual_mean_px": float(found.residuals.mean()),
        "residual_max_px": float(found.residuals.max()),
        "shift_rms_px": float(np.sqrt(np.square(found.shifts).sum(axis=1).mean())),
        "shift_max_px": float(np.hypot(*found.shifts.T).max()),
        "correlation_mean": float(found.correlations.mean()),
        "correlation_min": float(found.correlations.min()),
    }


def _write_alignment(job: Job, settings: Settings, found: Alignment) -> None:
    """What was applied, for people and for other programs; pixels are binned ones, axis upright."""
    views = [
        {
            "view": view,
            "tilt_deg": angle,
            "shift_x_px": round(float(shift[0]), 3),
            "shift_y_px": round(float(shift[1]), 3),
            "residual_px": round(float(residual), 3),
            "correlation": round(float(correlation), 4),
        }
        for view, (angle, shift, residual, correlation) in enumerate(
            zip(job.angles_deg, found.shifts, found.residuals, found.correlations, strict=True)
        )
    ]
    if settings.align:
        _write_curves(settings.output, views)
    document = {
        "aligned": settings.align,
        "tilt_axis_deg": job.tilt_axis_deg,
        "binning": job.size.binning,
        "pixel_angstrom": settings.voxel_angstrom,
        "views": views,
    }
    (settings.output / "alignment.json").write_text(json.dumps(document, indent=1) + "\n")


def _write_curves(output: Path, views: list[dict[str, float]]) -> None:
    """For the report: how far each view contradicts its neighbours, and how far it was moved."""
    curves = [
        {
            "title": "Residual of the alignment",
            "x": "tilt, degrees",
            "y": "residual, binned pixels",
            "points": [(view["tilt_deg"], view["residual_px"]) for view in views],
        },
        {
            "title": "Correlation with the neighbours",
            "x": "tilt, degrees",
            "y": "correlation",
            "points": [(view["tilt_deg"], view["correlation"]) for view in views],
        },
    ]
    document = {"format": CURVES_FORMAT, "curves": curves}
    (output / "curves.json").write_text(json.dumps(document) + "\n")


def _back_project(job: Job, settings: Settings, workers: Crew) -> tuple[volume.Statistics, float]:
    """The volume's statistics, and the factor between them and what was written."""
    height, rows = job.size.out_ny, settings.rows
    volume.create(job.volume, job.shape, job.output_mode, settings.voxel_angstrom)
    scale = 1.0
    if job.output_mode == "int16":
        samples = [min(height - rows, height * part // 4) for part in (1, 2, 3)]
        scale = volume.int16_scale(
            _sum(workers, [SlabTask(job, first, first + rows, 0.0) for first in samples]).deviation
        )
    tasks = [SlabTask(job, first, min(height, first + rows), scale) for first in range(0, height, rows)]
    return _sum(workers, tasks), scale


def _sum(workers: Crew, tasks: list[SlabTask]) -> volume.Statistics:
    answers = workers.run(phases.reconstruct_slab, tasks)
    total = next(answers)
    for answer in answers:
        total = total + answer
    return total
