"""Camera frames -> a stack: the step that some pipelines put before their own.  Pure.

Tomography 5 writes one file of frames a tilt and no stack; SerialEM can do so too.  Which program aligns and
sums frames is the site's choice (``alignframes`` of IMOD, or another), given by the option ``frames`` as a
template of its arguments.  It is split into words the way a shell does *before* the fields are filled in, and
no shell ever sees it.  The frames are listed by tilt angle, which is the order that a stack should have.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from tiltd.daemon.core.model import JobFile, Record, Step, TiltSeries
from tiltd.plugins.api import Permanent
from tiltd.plugins.mrc import HEADER_BYTES, MODE_BYTES
from tiltd.plugins.options import Option, Value

OPTIONS = (
    Option(
        name="frames",
        default="",
        meaning="the program that makes a stack of frames, and its arguments, with {fields}; empty: none",
    ),
    Option(name="frames_binning", default=1, low=1, high=16, meaning="frame pixels a pixel of that stack"),
    Option(name="frames_mode", default=2, low=0, high=12, meaning="MRC mode of that stack, 2 is float32"),
)
"""Options that a pipeline which takes frames lists among its own."""

STEP = "frames"
STACK = "stack.mrc"
LIST, ANGLES = "frames.txt", "frames.tlt"
RUNNER_FIELDS = ("input", "output", "scratch", "cores", "threads", "python")
_FIELD = re.compile(r"\{([^{}]*)\}")


class FramesStep(Record):
    """What comes before a pipeline's own steps.

    ``series`` is what the others then work on: a stack ``{input}/stack.mrc`` (``local_names`` does not know
    it), its angles rising, its size and pixels after binning.  ``stack_bytes`` lie on scratch beside the
    input.
    """

    step: Step
    files: tuple[JobFile, ...]
    series: TiltSeries
    stack_bytes: int


def takes_frames(*layers: Mapping[str, Any]) -> bool:
    """Is a program for frames set in any layer of options?"""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
    return bool(str(merged.get("frames", "")).strip())


def frames_step(pipeline: str, series: TiltSeries, values: Mapping[str, Value | None]) -> FramesStep:
    """The step for a series of frames; ``values`` are all options, as ``read_options`` gives them.

    The template's fields: ``{frames_list}`` (a file with the path of each tilt's frames a line, by rising
    angle), ``{angles}`` (a file of the angles in that order), ``{frames_folder}``, ``{stack}`` (to be
    made), ``{binning}``, ``{pixel_size_angstrom}`` (of the frames), ``{tilt_axis_deg}``, ``{tilt_count}``,
    and the runner's own.  Raises Permanent.  Cost grows with the tilts.
    """
    binning, mode = int(values["frames_binning"] or 1), int(values["frames_mode"] or 0)
    argv = _argv(pipeline, series, str(values["frames"] or ""), binning)
    order = _by_angle(pipeline, series)
    stacked = _stacked(pipeline, series, order, binning, mode)
    stack_bytes = HEADER_BYTES + len(order) * stacked.image_size[0] * stacked.image_size[1] * MODE_BYTES[mode]
    names = series.local_names()
    frames = "".join(f"input/{names[path]}\n" for _, path in order)  # seen from scratch, where steps start
    angles = "".join(f"{angle!r}\n" for angle, _ in order)
    return FramesStep(
        step=Step(name=STEP, argv=argv),
        files=(JobFile(name=LIST, text=frames), JobFile(name=ANGLES, text=angles)),
        series=stacked,
        stack_bytes=stack_bytes,
    )


def _by_angle(pipeline: str, series: TiltSeries) -> list[tuple[float, str]]:
    """(angle, path) by rising angle; tilts that were shot again stay in the order of acquisition."""
    if len(series.frame_paths) != series.tilt_count:
        raise Permanent(
            f"pipeline {pipeline}: this series has {series.tilt_count} tilt angles and "
            f"{len(series.frame_paths)} files of frames; one file a tilt is needed"
        )
    pairs = zip(series.tilt_angles_deg, series.frame_paths, strict=True)
    return sorted(pairs, key=lambda pair: pair[0])


def _stacked(
    pipeline: str, series: TiltSeries, order: list[tuple[float, str]], binning: int, mode: int
) -> TiltSeries:
    if mode not in MODE_BYTES:
        known = ", ".join(map(str, sorted(MODE_BYTES)))
        raise Permanent(f"pipeline {pipeline}: option frames_mode is {mode}; MRC modes of stacks are {known}")
    if min(series.image_size) < binning:
        raise Permanent(
            f"pipeline {pipeline}: the size of the images is not known: the mdoc of this series of frames "
            "has no ImageSize"
        )
    nx, ny = series.image_size
    spacing = series.pixel_spacing_angstrom
    return replace(
        series,
        kind="stack",
        frame_paths=(),
        tilt_angles_deg=tuple(angle for angle, _ in order),
        image_size=(nx // binning, ny // binning),
        mode=mode,
        pixel_spacing_angstrom=None if spacing is None else spacing * binning,
    )


def _argv(pipeline: str, series: TiltSeries, template: str, binning: int) -> tuple[str, ...]:
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise Permanent(f"pipeline {pipeline}: option frames cannot be split into words: {error}") from error
    if not words:
        raise Permanent(
            f"pipeline {pipeline}: this series consists of frames, and the option frames is empty: "
            "give the program that makes a stack of them, and its arguments"
        )
    spacing, axis = series.pixel_spacing_angstrom, series.tilt_axis_deg
    values = {
        "frames_list": f"{{input}}/{LIST}",
        "angles": f"{{input}}/{ANGLES}",
        "frames_folder": "{input}/frames",
        "stack": f"{{input}}/{STACK}",
        "binning": str(binning),
        "pixel_size_angstrom": None if spacing is None else f"{spacing:.10g}",
        "tilt_axis_deg": None if axis is None else f"{axis:.10g}",
        "tilt_count": str(series.tilt_count),
    }
    return tuple(_FIELD.sub(lambda found: _value(pipeline, found.group(1), values), word) for word in words)


def _value(pipeline: str, field: str, values: Mapping[str, str | None]) -> str:
    if field in RUNNER_FIELDS:
        return f"{{{field}}}"
    if field not in values:
        known = ", ".join([*values, *RUNNER_FIELDS])
        raise Permanent(
            f"pipeline {pipeline}: option frames has the unknown field {{{ascii(field)[1:-1]}}}; "
            f"known are {known}"
        )
    value = values[field]
    if value is None:
        raise Permanent(f"pipeline {pipeline}: this series has no {field}, which the option frames needs")
    return value
