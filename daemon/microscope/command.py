"""``tiltd feed``: run the synthetic microscope into a folder."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from tiltd.daemon.core.units import parse_bytes
from tiltd.daemon.text import shown

from .phantom import Optics
from .plan import HOSTILE_NAMES, Action, Session, Steps, together
from .play import play
from .scenarios import SCENARIOS

INTERRUPTED = 130
_TOLD = frozenset({"open", "mdoc", "rename", "remove", "truncate", "close", "marker", "text"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``tiltd feed``."""
    parser.description = (
        "A synthetic microscope: writes tilt series into FOLDER the way SerialEM, PACEtomo and\n"
        "Tomography 5 do.  Try it on a folder that a [[feed]] of your tiltd.toml names."
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; made if need be")
    what = parser.add_argument_group("what is shot")
    what.add_argument("--scenario", choices=sorted(SCENARIOS), default="serialem")
    what.add_argument("--count", type=_whole, default=1, metavar="N", help="series, one after another")
    what.add_argument("--together", action="store_true", help="shoot all of them at the same time")
    what.add_argument("--project", default="", help="folder below FOLDER")
    what.add_argument("--session", default="", help="folder below the project's")
    what.add_argument("--name", default="TS", help="the series are NAME_01, NAME_02, ... (default: TS)")
    what.add_argument("--hostile-names", action="store_true", help="names with blanks, quotes, newlines, ...")
    what.add_argument("--seed", type=int, default=1, help="the same seed gives the same files")
    what.add_argument("--targets", type=_whole, default=3, metavar="N", help="targets of one PACE series")
    what.add_argument("--stop-after", type=_whole, metavar="N", help="tilts before an abort or restart")
    what.add_argument("--sort-by-tilt", action="store_true", help="PACE: sort each stack in place at its end")
    image = parser.add_argument_group("images")
    image.add_argument("--size", type=_size, default=(256, 256), metavar="PX[xPX]", help="default: 256")
    image.add_argument("--tilts", type=_whole, default=41, metavar="N", help="default: 41")
    image.add_argument(
        "--tilt-range",
        type=_range,
        default=(-60.0, 60.0),
        metavar="LOW:HIGH",
        help="degrees; write --tilt-range=-60:60",
    )
    image.add_argument("--pixel-size", type=float, default=13.4, metavar="ANGSTROM", help="default: 13.4")
    image.add_argument("--tilt-axis", type=float, default=85.3, metavar="DEGREES", help="default: 85.3")
    image.add_argument("--shift", type=float, default=4.0, metavar="PX", help="tracking error (default: 4)")
    files = parser.add_argument_group("files and time")
    files.add_argument("--extension", choices=(".mrc", ".st"), default=".mrc")
    files.add_argument("--rawtlt", action="store_true", help="write NAME.rawtlt at the end")
    files.add_argument("--marker", action=argparse.BooleanOptionalAction, help="write .openTS while shooting")
    files.add_argument("--interval", type=float, default=0.0, metavar="SECONDS", help="between tilts")
    files.add_argument(
        "--rate", type=_bytes, metavar="BYTES", help="at most so many bytes a second, as 200MB"
    )
    files.add_argument("--clock-step", type=float, metavar="SECONDS", help="what the mdoc's DateTime tells")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for each thing done")


def main(args: argparse.Namespace) -> int:
    """Run it: 0 when all is written, 1 with a sentence when a file cannot be, 130 after Ctrl-C."""
    tell = _tell_json if args.json else _Teller(len(sessions(args))).tell
    try:
        for action in play(steps(args)):
            tell(action)
    except KeyboardInterrupt:
        print("Stopped; the series that was being shot stays as it is.", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(f"The microscope cannot write {shown(str(error.filename))}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def sessions(args: argparse.Namespace) -> list[Session]:
    """One session for each series that the arguments ask for."""
    width, height = args.size
    optics = Optics(
        width_px=width,
        height_px=height,
        pixel_spacing_angstrom=args.pixel_size,
        tilt_axis_deg=args.tilt_axis,
        max_shift_px=args.shift,
    )
    return [
        Session(
            folder=args.folder / args.project / args.session,
            name=_name(args, index),
            seed=args.seed + index,
            optics=optics,
            tilt_count=args.tilts,
            tilt_range_deg=args.tilt_range,
            interval_seconds=args.interval,
            bytes_per_second=args.rate,
            clock_step_seconds=args.clock_step,
            started_seconds=3600.0 * index,
            extension=args.extension,
            rawtlt=args.rawtlt,
            open_marker=args.marker,
            stop_after=args.stop_after,
            targets=args.targets,
            sort_in_place=args.sort_by_tilt,
        )
        for index in range(args.count)
    ]


def steps(args: argparse.Namespace) -> Steps:
    """All steps of the command, in order and with their waits."""
    streams = [SCENARIOS[args.scenario](session) for session in sessions(args)]
    return together(streams) if args.together else _one_after_another(streams)


def _one_after_another(streams: list[Steps]) -> Steps:
    for stream in streams:
        yield from stream


def _name(args: argparse.Namespace, index: int) -> str:
    if not args.hostile_names:
        return f"{args.name}_{index + 1:02d}"
    name = HOSTILE_NAMES[index % len(HOSTILE_NAMES)]
    return name if index < len(HOSTILE_NAMES) else f"{name}{index}"


def _tell_json(action: Action) -> None:
    if action.what in _TOLD:
        record = {"event": action.what, "series": action.series, "path": str(action.path)}
        if action.section >= 0:
            record["section"] = str(action.section)
        print(json.dumps(record), flush=True)


class _Teller:
    """Progress for a person: one line that is written over on a terminal, else one line a series."""

    def __init__(self, series_count: int) -> None:
        self.series_count, self.done, self.images = series_count, 0, 0
        self.terminal = sys.stderr.isatty()
        self.shown_at = 0.0

    def tell(self, action: Action) -> None:
        self.images += action.what == "pixels"
        if self.terminal and action.what == "mdoc" and time.monotonic() - self.shown_at > 0.1:
            self.shown_at = time.monotonic()
            print(f"\r\033[K{shown(action.series)}: tilt {action.section + 1}", end="", file=sys.stderr)
        if action.what in ("open", "close", "rename", "truncate"):
            print("\r\033[K" if self.terminal else "", end="", file=sys.stderr, flush=True)
            print(f"{action.what:<8} {shown(str(action.path))}", flush=True)


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count; give a whole number of at least 1")
    return number


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return _whole(width), _whole(height or width)


def _range(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        values = float(low), float(high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no range; write LOW:HIGH, as -60:60") from None
    if not -89.0 <= values[0] < values[1] <= 89.0:
        raise argparse.ArgumentTypeError(f"{text}: low comes before high, both within -89 and 89 degrees")
    return values


def _bytes(text: str) -> float:
    try:
        return float(parse_bytes(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
