"""What a scan costs: CPU of steady passes, and of passes over live flat folders.

``python tests/benchmarks/bench_scan.py [--quick]`` makes its trees in a temporary folder, prints the
figures and ends with 1 if one is exceeded.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "_path"), str(Path(__file__).parents[1])]

from plugins.series_files import mdoc, stack  # noqa: E402
from shell.watching import Feed  # noqa: E402

STEADY_LIMIT_MS = 20.0
LIVE_LIMIT_PERCENT = 2.0
SCAN_SECONDS = 15.0


def write(path: Path, data: bytes = b"") -> None:
    with open(path, "wb") as out:
        out.write(data)


def make_finished(root: Path, folders: int, files_each: int) -> None:
    """Finished series: a stack and its mdoc, two files each."""
    for number in range(folders):
        folder = root / f"p{number % 20:02d}" / f"s{number:04d}"
        folder.mkdir(parents=True)
        for file in range(files_each // 2):
            write(folder / f"g_ts_{file:03d}.mrc")
            write(folder / f"g_ts_{file:03d}.mrc.mdoc")
        os.utime(folder, (time.time() - 7200, time.time() - 7200))


def make_flat(root: Path, folders: int, files_each: int) -> list[Path]:
    """A grid in the making: frames and finished series in one flat folder."""
    made = []
    for number in range(folders):
        folder = root / f"live{number}"
        folder.mkdir(parents=True)
        for file in range(files_each * 9 // 10):
            write(folder / f"fr_{file:05d}.eer")
        for file in range(files_each // 20):
            write(folder / f"g_ts_{file:03d}.mrc")
            write(folder / f"g_ts_{file:03d}.mrc.mdoc")
        made.append(folder)
    return made


def steady(root: Path, passes: int) -> list[float]:
    """CPU milliseconds of each pass when nothing moves."""
    feed = Feed(root, options={"first": True})
    feed.now = time.time()
    started = time.process_time()
    for sighting in feed.look().sightings:
        feed.finish(sighting)
    print(f"  first pass: {1000 * (time.process_time() - started):.0f} ms CPU, {len(feed.seen.rows)} series")
    costs = []
    for _ in range(passes):
        started = time.process_time()
        observed = feed.look(SCAN_SECONDS)
        costs.append(1000 * (time.process_time() - started))
        assert not observed.sightings, "nothing moved"
    return costs


def live(root: Path, folders: list[Path], passes: int) -> float:
    """Percent of one core, over passes in which every folder gets frames and one growing series each."""
    feed = Feed(root, options={"first": True})
    feed.now = time.time()
    for sighting in feed.look().sightings:
        feed.finish(sighting)
    spent, told = 0.0, 0
    for number in range(passes):
        for folder in folders:
            write(folder / f"fr_new_{number:05d}.eer")
            path = folder / f"new_ts_{number // 40:03d}.mrc"
            write(path, stack(1 + number % 40))
            write(Path(f"{path}.mdoc"), mdoc(tuple(3.0 * n for n in range(1 + number % 40))))
        started = time.process_time()
        told += len(feed.look(SCAN_SECONDS).sightings)
        spent += time.process_time() - started
    assert told >= passes, "the growing series were seen"
    return 100 * spent / (passes * SCAN_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files (no verdict worth having)")
    small = 10 if parser.parse_args().quick else 1
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_finished(root, 1000 // small, 100)
        print(f"{1000 // small} folders, {100_000 // small} files")
        costs = steady(root, 240)
        mean_ms, worst_ms = statistics.mean(costs), max(costs)
        print(
            f"  steady pass: mean {mean_ms:.1f} ms, median {statistics.median(costs):.1f} ms,"
            f" worst {worst_ms:.1f} ms CPU of {STEADY_LIMIT_MS:.0f}"
        )
        flat = make_flat(root, 4, 10_000 // small)
        percent = live(root, flat, 120)
        print(
            f"  4 live flat folders of {10_000 // small} files: {percent:.2f} % of {LIVE_LIMIT_PERCENT:.0f} %"
        )
        memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"  peak memory of this process: {memory_mib:.0f} MiB")
    return int(mean_ms > STEADY_LIMIT_MS or percent > LIVE_LIMIT_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
