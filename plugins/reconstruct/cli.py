"""The program's command line.  Exit status: 0 done, 2 input, 3 no space, 4 memory, 5 arguments, 1 a bug."""

from __future__ import annotations

import argparse
import errno
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from . import budget
from .faults import EXIT_ARGUMENT, EXIT_BUG, EXIT_MEMORY, EXIT_SPACE, Fault, input_fault
from .phases import Job
from .run import Settings, run
from .stack import StackHeader, read_header

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise Fault(EXIT_ARGUMENT, f"wrong arguments: {message}")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m tiltd.plugins.reconstruct", description=__doc__, allow_abbrev=False)
    parser.add_argument("--input", type=Path, required=True, help="the stack (MRC)")
    parser.add_argument("--angles", type=Path, required=True, help="tilt angles in degrees, one a line")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--scratch", type=Path, required=True, help="folder of the working file")
    parser.add_argument("--tilt-axis-deg", type=float, default=0.0, help="from +y, counter-clockwise")
    parser.add_argument("--pixel-size-angstrom", type=float, default=0.0, help="0: as the header says")
    parser.add_argument("--binning", type=int, default=0, help="0: longer side at most 1024")
    parser.add_argument("--thickness-px", type=int, default=0, help="unbinned; 0: a quarter of the width")
    parser.add_argument("--output-mode", choices=["float32", "int16"], default="float32")
    parser.add_argument("--cutoff", type=float, default=0.35, help="cycles a binned pixel")
    parser.add_argument("--falloff", type=float, default=0.05, help="sigma of the roll-off above it")
    parser.add_argument("--align", choices=["yes", "no"], default="yes")
    parser.add_argument("--hot-pixel", choices=["yes", "no"], default="yes")
    parser.add_argument("--invert-angles", choices=["yes", "no"], default="no")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as cores")
    parser.add_argument("--memory-bytes", type=int, default=0, help="0: no limit")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; every expected failure is one sentence on stderr and an exit status of its own."""
    try:
        _reconstruct(make_parser().parse_args(arguments))
    except Fault as fault:
        return _say(fault.exit_status, str(fault))
    except MemoryError:
        return _say(EXIT_MEMORY, "memory ran out")
    except OSError as error:
        if error.errno in _NO_SPACE:
            return _say(EXIT_SPACE, f"no space left on scratch: {error.strerror}")
        return _say(EXIT_BUG, f"{error.strerror}: {error.filename!a}")
    return 0


def _say(status: int, sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    return status


def _reconstruct(arguments: argparse.Namespace) -> None:
    workers = max(1, min(arguments.cores, arguments.threads or arguments.cores))
    try:
        header = read_header(arguments.input)
    except FileNotFoundError as error:
        raise input_fault(f"there is no stack {str(arguments.input)!a}") from error
    angles = read_angles(arguments.angles, header, arguments.invert_angles == "yes")
    size = _sizes(arguments, header, angles)
    try:
        rows = budget.rows_per_slab(size, workers, arguments.memory_bytes)
    except ValueError as error:
        raise Fault(EXIT_MEMORY, str(error)) from error
    job = Job(
        stack=arguments.input,
        sections=arguments.scratch / "sections.f32",
        volume=arguments.output / "tomogram.mrc",
        header=header,
        size=size,
        angles_deg=angles,
        tilt_axis_deg=arguments.tilt_axis_deg,
        hot_pixel=arguments.hot_pixel == "yes",
        output_mode=arguments.output_mode,
        cutoff=arguments.cutoff,
        falloff=arguments.falloff,
    )
    pixel = arguments.pixel_size_angstrom or header.pixel_size_angstrom or 1.0
    run(job, Settings(arguments.output, workers, rows, arguments.align == "yes", pixel * size.binning))


def _sizes(arguments: argparse.Namespace, header: StackHeader, angles: tuple[float, ...]) -> budget.Sizes:
    try:
        return budget.sizes(
            header.nz,
            (header.nx, header.ny),
            arguments.binning,
            arguments.thickness_px,
            arguments.tilt_axis_deg,
            arguments.output_mode,
            max(abs(angle) for angle in angles),
        )
    except ValueError as error:
        raise Fault(EXIT_ARGUMENT, str(error)) from error


def read_angles(path: Path, header: StackHeader, inverted: bool) -> tuple[float, ...]:
    """One angle a section.  Raises Fault (exit 2)."""
    try:
        angles = [float(word) for word in path.read_text().split()]
    except (OSError, ValueError) as error:
        raise input_fault(f"the tilt angles in {path.name} cannot be read: {error}") from error
    if len(angles) != header.nz:
        raise input_fault(f"{path.name} has {len(angles)} tilt angles, the stack {header.nz} sections")
    for angle in angles:
        if not math.isfinite(angle) or abs(angle) > budget.LIMIT_TILT_DEG:
            raise input_fault(f"a tilt angle of {angle} degrees; the limit is {budget.LIMIT_TILT_DEG}")
    return tuple(-angle if inverted else angle for angle in angles)
