"""Pipeline ``wbp``: coarse alignment and weighted back-projection where no IMOD is installed.

Pure: it asks for resources, writes down the program's arguments and judges the end.  The program is
:mod:`tiltd.plugins.reconstruct`; it needs numpy and mrcfile on the node, the daemon does not import them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tiltd.daemon.core.model import (
    ExpectedResult,
    Failure,
    FailureClass,
    JobFile,
    JobSteps,
    Options,
    Outcome,
    Placement,
    Problem,
    ProgressPattern,
    Record,
    ResourceRequest,
    RunEnd,
    Step,
    TiltSeries,
    Verdict,
)
from tiltd.plugins import frames
from tiltd.plugins.api import Context, Permanent
from tiltd.plugins.endings import failure_of, last_words
from tiltd.plugins.options import Option, read_options
from tiltd.plugins.reconstruct import budget, faults

OPTIONS = (
    Option(name="binning", default=0, low=0, high=32, meaning="pixels averaged; 0: longer side at most 1024"),
    Option(
        name="thickness_px",
        default=0,
        low=0,
        high=100_000,
        meaning="thickness in pixels of the stack; 0: a quarter of the width",
    ),
    Option(name="align", default=True, meaning="align by cross-correlation; false: trust the stack"),
    Option(name="hot_pixel", default=True, meaning="replace hot pixels"),
    Option(
        name="output_mode",
        default="float32",
        choices=("float32", "int16"),
        meaning="voxels of the tomogram; int16 is 30 standard deviations at full scale",
    ),
    Option(
        name="tilt_axis_deg",
        default=None,
        low=-360.0,
        high=360.0,
        meaning="tilt axis, degrees from +y, over what the mdoc says",
    ),
    Option(name="invert_angles", default=False, meaning="tilt angles count the other way"),
    Option(name="cutoff", default=0.35, low=0.01, high=0.5, meaning="end of the ramp, cycles a binned pixel"),
    Option(name="falloff", default=0.05, low=0.001, high=0.5, meaning="sigma of the roll-off above it"),
    *frames.OPTIONS,
)

DOUBTFUL_RESIDUAL_PX = 1.0
BAD_RESIDUAL_PX = 8.0
DOUBTFUL_CORRELATION = 0.05
"""Of the last round of alignment, in binned pixels; see :meth:`WbpPipeline.judge`."""

MODES = (0, 1, 2, 6, 12)
_MRC_MODE = {"float32": 2, "int16": 1}
_CORES = 4

_PATTERNS = (
    ProgressPattern(pattern=r"^step (?P<step>[a-z]+)$"),
    ProgressPattern(pattern=r"^done (?P<done>[0-9]+)/(?P<total>[0-9]+)$"),
)

_EXITS: dict[int, tuple[FailureClass, str, str]] = {
    faults.EXIT_INPUT: ("input", "unusable input", "look at the stack: it cannot be reconstructed as it is"),
    faults.EXIT_SPACE: ("scratch", "no space", "give more scratch: raise scratch_factor in the policy"),
    faults.EXIT_MEMORY: ("memory", "memory", "give more memory: raise memory_factor in the policy"),
    faults.EXIT_ARGUMENT: ("config", "wrong arguments", "change the options of the pipeline, then retry"),
}


class _Work(Record):
    """Options and series, checked against each other.  ``series`` is the stack; ``made``: of frames."""

    series: TiltSeries
    made: frames.FramesStep | None
    binning: int
    thickness_px: int
    align: bool
    hot_pixel: bool
    output_mode: str
    tilt_axis_deg: float
    invert_angles: bool
    cutoff: float
    falloff: float


class WbpPipeline:
    """``settings`` (the table ``[wbp]``) gives options of all feeds; a feed's and an operator's win."""

    options = OPTIONS

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self._settings = dict(settings)
        read_options("wbp", OPTIONS, self._settings)

    def takes_frames(self, options: Options) -> bool:
        """Is there a program that makes a stack of them?"""
        return frames.takes_frames(self._settings, options)

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        """What a series takes.

        Scratch: the input's copy (and the stack, if it is made of frames), the prepared sections (float32,
        turned in place), the volume, 4 MB of small files: ``budget.scratch_bytes``.  Memory: the alignment's
        small images, and for each worker a process and the larger of three sections and 16 rows of a slab:
        ``budget.memory_bytes``.  Seconds: costs a pixel and a voxel measured on one core:
        ``budget.seconds``.
        Raises Permanent for a series or options that cannot be reconstructed.
        """
        work = self._work(series, options)
        size = _sizes(work)
        stack_bytes = work.made.stack_bytes if work.made is not None else 0
        return ResourceRequest(
            cores=_CORES,
            threads=_CORES,
            memory_bytes=budget.memory_bytes(size, _CORES),
            memory_bytes_least=budget.least_memory_bytes(size, _CORES),
            scratch_bytes=budget.scratch_bytes(size, series.total_bytes + stack_bytes),
            result_bytes=size.volume_bytes + budget.SMALL_FILES_BYTES,
            walltime_seconds=budget.seconds(size, _CORES, work.align),
        )

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps:
        """One step, after that which makes a stack of frames; the angles travel in a file of their own, so
        that no rawtlt need be there."""
        work = self._work(series, options)
        size = _sizes(work)
        angles = "".join(f"{angle!r}\n" for angle in work.series.tilt_angles_deg)
        own = Step(name="reconstruct", argv=_argv(work, size, placement), patterns=_PATTERNS)
        first, files = ((work.made.step,), work.made.files) if work.made is not None else ((), ())
        return JobSteps(
            steps=(*first, own),
            files=(*files, JobFile(name="angles.tlt", text=angles)),
            results=(
                ExpectedResult(
                    name="tomogram.mrc",
                    min_bytes=size.volume_bytes,
                    image_size=(size.out_nx, size.out_ny, size.out_nz),
                    mode=_MRC_MODE[work.output_mode],
                ),
                ExpectedResult(name="central.png", min_bytes=60),
                ExpectedResult(name="alignment.json", min_bytes=20),
            ),
        )

    def judge(self, outcome: Outcome) -> Verdict:
        """A success is doubtful when views still moved by more than a pixel on average in the last round of
        the alignment, or hardly correlate with their neighbours, and bad beyond eight pixels.

        The residual is how far the views contradict each other, not how far they are from the truth: on
        synthetic series it is about a tenth of the true error.
        """
        end = outcome.end
        if end.outcome == "success":
            return _quality(dict(end.figures))
        return Verdict(verdict="failed", failure=_failure(end))

    def _work(self, series: TiltSeries, options: Options) -> _Work:
        values = read_options("wbp", OPTIONS, self._settings, options)
        made = frames.frames_step("wbp", series, values) if series.kind == "frames" else None
        if made is not None:
            series = made.series
        elif not series.stack_path:
            raise Permanent("pipeline wbp reconstructs stacks; this series has none")
        if series.mode not in MODES:
            raise Permanent(f"pipeline wbp cannot read MRC mode {series.mode}; it reads {MODES}")
        if series.tilt_count < 3:
            raise Permanent(f"pipeline wbp needs at least 3 tilt angles; this series has {series.tilt_count}")
        for angle in series.tilt_angles_deg:
            if not abs(angle) <= budget.LIMIT_TILT_DEG:
                raise Permanent(f"a tilt of {angle} degrees cannot be back-projected; at most 85 can")
        if values["tilt_axis_deg"] is None:
            values["tilt_axis_deg"] = series.tilt_axis_deg
        if values["tilt_axis_deg"] is None:
            raise Permanent("no tilt axis is known: the mdoc has none, so set the option tilt_axis_deg")
        own = {name: value for name, value in values.items() if name in _Work.__struct_fields__}
        return _Work(series=series, made=made, **own)  # type: ignore[arg-type]


def _sizes(work: _Work) -> budget.Sizes:
    series = work.series
    try:
        return budget.sizes(
            series.tilt_count,
            series.image_size,
            work.binning,
            work.thickness_px,
            work.tilt_axis_deg,
            work.output_mode,
            max(abs(angle) for angle in series.tilt_angles_deg),
        )
    except ValueError as error:
        raise Permanent(f"pipeline wbp: {error}; choose another option binning") from error


def _argv(work: _Work, size: budget.Sizes, placement: Placement) -> tuple[str, ...]:
    series = work.series
    stack = series.local_names().get(series.stack_path, frames.STACK)
    return (
        *("{python}", "-m", "tiltd.plugins.reconstruct"),
        *("--input", f"{{input}}/{stack}", "--angles", "{input}/angles.tlt"),
        *("--output", "{output}", "--scratch", "{scratch}"),
        f"--tilt-axis-deg={work.tilt_axis_deg!r}",
        f"--pixel-size-angstrom={series.pixel_spacing_angstrom or 0.0!r}",
        f"--binning={size.binning}",
        f"--thickness-px={work.thickness_px}",
        f"--output-mode={work.output_mode}",
        f"--cutoff={work.cutoff!r}",
        f"--falloff={work.falloff!r}",
        f"--align={_yes(work.align)}",
        f"--hot-pixel={_yes(work.hot_pixel)}",
        f"--invert-angles={_yes(work.invert_angles)}",
        *("--cores", "{cores}", "--threads", "{threads}"),
        f"--memory-bytes={placement.memory_bytes}",
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _quality(figures: dict[str, float]) -> Verdict:
    residual = figures.get("residual_mean_px")
    if "view_count" not in figures or (figures.get("aligned", 1.0) and residual is None):
        problem = Problem(code="no_figures", detail="the program left no figures.json to judge by")
        return Verdict(verdict="doubtful", quality=figures, problems=(problem,))
    if residual is None:
        return Verdict(verdict="good", quality=figures)
    if not residual <= BAD_RESIDUAL_PX:
        return Verdict(verdict="bad", quality=figures, problems=(_residual(residual),))
    problems = [] if residual <= DOUBTFUL_RESIDUAL_PX else [_residual(residual)]
    alike = figures.get("correlation_mean", 1.0)
    if not alike >= DOUBTFUL_CORRELATION:
        detail = f"neighbouring views hardly correlate ({alike:.3f}): little specimen or much noise"
        problems.append(Problem(code="low_correlation", detail=detail))
    verdict = "doubtful" if problems else "good"
    return Verdict(verdict=verdict, quality=figures, problems=tuple(problems))  # type: ignore[arg-type]


def _residual(residual: float) -> Problem:
    detail = f"views still move by {residual:.2f} pixels on average: the alignment did not settle"
    return Problem(code="alignment_residual", detail=detail)


def _failure(end: RunEnd) -> Failure:
    """The program's own exit statuses first, where the runner saw no deeper cause."""
    found = failure_of(end)
    if end.outcome != "failed" or found.failure_class != "program" or end.exit_status not in _EXITS:
        return found
    failure_class, reason, remedy = _EXITS[end.exit_status]
    return msgspec.structs.replace(
        found,
        failure_class=failure_class,
        reason=reason,
        detail=last_words(end) or found.detail,
        remedy=remedy,
    )
