"""``tiltd simulate``: the production core against a synthetic facility, far faster than real time."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from .check import Broken, checked
from .heap import HeapClock, Stuck
from .report import Report
from .scene import GB, Scene

CHECK_EVERY = 50
GC_THRESHOLDS = (100_000, 20, 20)
"""Records hold no cycles; the collector would look at the live ones again and again for nothing."""
PROGRESS_SECONDS = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--datasets", type=_count, default=10_000, metavar="N", help="tilt series to arrive")
    parser.add_argument("--nodes", type=_count, default=64, metavar="N", help="nodes of the cluster")
    parser.add_argument("--cores", type=_count, default=16, metavar="N", help="cores of each node")
    parser.add_argument(
        "--scratch-gb", type=_count, default=2000, metavar="N", help="scratch of each node, in GB"
    )
    parser.add_argument(
        "--load", type=float, default=0.85, help="share of the cluster that the series ask for (%(default)s)"
    )
    parser.add_argument(
        "--failures", type=_share, default=0.01, metavar="RATE", help="share that goes wrong (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed is another history (%(default)s)")
    parser.add_argument("--check", action="store_true", help="check the invariants on the way (slower)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def main(args: argparse.Namespace) -> int:
    scene = Scene(
        datasets=args.datasets,
        seed=args.seed,
        failures=args.failures,
        nodes=args.nodes,
        cores=args.cores,
        scratch_bytes=args.scratch_gb * GB,
        load=args.load,
    )
    clock, report = HeapClock(scene), Report()
    try:
        run(clock, report, check=args.check, progress=sys.stderr.isatty())
    except (Broken, Stuck) as trouble:
        print(f"tiltd simulate: seed {scene.seed}: {trouble}", file=sys.stderr)
        return 1
    figures = report.figures(clock)
    print(json.dumps(figures) if args.json else told(figures))
    return 1 if figures["published_twice"] else 0


def run(clock: HeapClock, report: Report, *, check: bool = False, progress: bool = False) -> None:
    """To the end.  Raises :class:`Stuck`, and with ``check`` :class:`Broken`."""
    gc.set_threshold(*GC_THRESHOLDS)
    steps: Any = clock.steps()
    if check:
        steps = checked(steps, clock.core, CHECK_EVERY)
    if progress:
        steps = _watched(steps, clock, report)
    for _, step in steps:
        report.step(step)


def _watched(steps: Any, clock: HeapClock, report: Report) -> Iterator[Any]:
    """Pass the steps on, and tell now and then on the terminal how far it is."""
    told_at = time.monotonic()
    for number, step in enumerate(steps):
        yield step
        if number % 1000 == 0 and time.monotonic() - told_at > PROGRESS_SECONDS:
            told_at = time.monotonic()
            live = len(clock.core.state.datasets)
            text = f"\r{report.finished} of {clock.scene.datasets} series ended, {live} live "
            print(text, end="", file=sys.stderr, flush=True)
    print("\r\x1b[K", end="", file=sys.stderr)


def told(figures: dict[str, Any]) -> str:
    """A table for a person."""
    width = max(map(len, figures))
    return "\n".join(f"{name.replace('_', ' '):{width}}  {_value(value)}" for name, value in figures.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return str(value)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return value
