"""What was measured: one record a run, kept as a line of JSON; medians and spread of each shape."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median

import msgspec

from tiltd.daemon.core.model import Record
from tiltd.daemon.core.units import show_bytes

from .plan import Planned, Shape


class Measurement(Record):
    """One run.  Seconds; ``trouble`` is why there is none."""

    planned: Planned
    run_seconds: float = 0.0
    stage_in_seconds: float = 0.0
    stage_out_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_scratch_bytes: int = 0
    on: tuple[str, ...] = ()
    trouble: str = ""


class Summary(Record):
    """Of one shape: seconds of the run itself, staging apart (the study's main figure)."""

    shape: Shape
    runs: int
    failed: int
    median: float
    least: float
    most: float
    staging: float
    cpu: float
    peak_memory_bytes: int
    peak_scratch_bytes: int

    @property
    def spread(self) -> float:
        """Half the range as a share of the median."""
        return (self.most - self.least) / 2 / self.median if self.median else 0.0


def append(path: Path, measured: Measurement) -> None:
    with path.open("a", encoding="ascii") as file:
        file.write(json.dumps(msgspec.to_builtins(measured)) + "\n")


def read(path: Path) -> list[Measurement]:
    """What is known already; a last line that was cut off by a crash is left out."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="ascii").splitlines():
        try:
            found.append(msgspec.convert(json.loads(line), Measurement))
        except (ValueError, msgspec.ValidationError):
            continue
    return found


def summaries(measured: Iterable[Measurement]) -> list[Summary]:
    """In the order of nodes, cores and threads."""
    by_shape: dict[Shape, list[Measurement]] = {}
    for each in measured:
        by_shape.setdefault(each.planned.shape, []).append(each)
    return [_summary(shape, by_shape[shape]) for shape in sorted(by_shape)]


def _summary(shape: Shape, runs: Sequence[Measurement]) -> Summary:
    good = [run for run in runs if not run.trouble]
    seconds = [run.run_seconds for run in good] or [0.0]
    return Summary(
        shape=shape,
        runs=len(good),
        failed=len(runs) - len(good),
        median=median(seconds),
        least=min(seconds),
        most=max(seconds),
        staging=median([run.stage_in_seconds + run.stage_out_seconds for run in good] or [0.0]),
        cpu=median([run.cpu_seconds for run in good] or [0.0]),
        peak_memory_bytes=max((run.peak_memory_bytes for run in good), default=0),
        peak_scratch_bytes=max((run.peak_scratch_bytes for run in good), default=0),
    )


HEAD = (
    "NODES",
    "CORES",
    "THREADS",
    "RUNS",
    "MEDIAN",
    "FROM",
    "TO",
    "SPREAD",
    "STAGING",
    "CPU",
    "MEMORY",
    "SCRATCH",
)


def rows(found: Sequence[Summary]) -> list[tuple[str, ...]]:
    """Seconds with a tenth; failed runs are told beside the others."""
    return [
        (
            *(str(part) for part in (s.shape.nodes, s.shape.cores, s.shape.threads)),
            f"{s.runs}{f' ({s.failed} failed)' if s.failed else ''}",
            f"{s.median:.1f}s",
            f"{s.least:.1f}s",
            f"{s.most:.1f}s",
            f"{100 * s.spread:.0f}%",
            f"{s.staging:.1f}s",
            f"{s.cpu:.1f}s",
            show_bytes(s.peak_memory_bytes),
            show_bytes(s.peak_scratch_bytes),
        )
        for s in found
    ]
