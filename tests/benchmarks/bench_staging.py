"""Staging with a checksum against ``cp`` and ``sync`` of the same file: ``bench_staging.py [--bytes N]``.

Five pairs, in alternating order, in one run, source in the page cache for both; the figure is the median of
the pairs' ratios (throughput of ours over theirs), so a machine that is slow does not matter.  ``cp`` is
followed by ``sync FILE`` of its copy, as our copy out ends with an fsync.  Two ways of ours are measured:

* stage out: copied to the destination, hashed beside it, fsync-ed, mode set (what results go through);
* stage in: copied to scratch, hashed beside it, prints checked before and after.  It needs no sync, because
  scratch is forgotten after a power cut, so ``cp`` and ``sync`` is a generous bar for it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "_path"))

from tiltd.daemon import runner

LEAST_RATIO = 0.85
PIECE_BYTES = 1 << 20


def make_source(path: Path, size: int) -> None:
    block = os.urandom(8 << 20)
    with open(path, "wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
        file.write(block[: size % len(block)])
        os.fsync(file.fileno())


def warm(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(8 << 20):
            pass


def print_of(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(PIECE_BYTES)
        file.seek(max(0, size - PIECE_BYTES))
        tail = file.read(PIECE_BYTES)
    return {
        "source": path.name,
        "name": "stack.mrc",
        "size_bytes": size,
        "piece_bytes": PIECE_BYTES,
        "head_sha256": hashlib.sha256(head).hexdigest(),
        "tail_sha256": hashlib.sha256(tail).hexdigest(),
    }


def make_run(root: Path, source: Path) -> runner.Run:
    folder = root / "attempt"
    folder.mkdir()
    (folder / "progress").touch()
    job = {
        "attempt_id": "bench",
        "nonce": "n",
        "scratch": {"path": str(root), "bytes": 0},
        "output": {"staging": str(root / ".tiltd-bench"), "dir_mode": "0755", "file_mode": "0644"},
        "input": {"root": str(source.parent), "files": [print_of(source)]},
    }
    (root / "bench" / "input").mkdir(parents=True)
    return runner.Run(str(folder), "1", job)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def by_cp(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--reflink=never", "--", str(source), str(target)], check=True)
    subprocess.run(["sync", "--", str(target)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bytes", type=int, default=2_700_000_000, help="size of the file (default 2.7 GB)")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", default=None, help="where to work (default: the temporary folder)")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-staging-", dir=options.folder))
    try:
        return measure(root, options.bytes, options.pairs)
    finally:
        shutil.rmtree(root)


def measure(root: Path, size: int, pairs: int) -> int:
    source, copy = root / "source.mrc", root / "copy.mrc"
    make_source(source, size)
    run = make_run(root, source)

    def stage_out() -> None:
        _, sha256 = run.copy_out_file(str(source), str(copy), 0, size)
        assert len(sha256) == 64

    staged = root / "bench" / "input" / "stack.mrc"
    ways = {"stage out": (stage_out, copy), "stage in": (run.stage_in, staged)}
    good = True
    for name, (work, target) in ways.items():
        ratios = [pair(source, root / "theirs.mrc", target, work, number) for number in range(pairs)]
        median = statistics.median(ratios)
        good = good and median >= LEAST_RATIO
        shown = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{name}: {median:.2f} of cp + sync (pairs {shown}; at least {LEAST_RATIO})", flush=True)
    return 0 if good else 1


def pair(source: Path, theirs: Path, ours: Path, work: Callable[[], object], number: int) -> float:
    """Throughput of ours over that of cp + sync; which goes first alternates."""
    seconds: dict[str, float] = {}
    for who in ("cp", "ours") if number % 2 == 0 else ("ours", "cp"):
        for path in (theirs, ours):
            path.unlink(missing_ok=True)
        os.sync()
        warm(source)
        seconds[who] = timed((lambda: by_cp(source, theirs)) if who == "cp" else work)
    print(f"  cp + sync {seconds['cp']:.2f} s, ours {seconds['ours']:.2f} s", flush=True)
    return seconds["cp"] / seconds["ours"]


if __name__ == "__main__":
    sys.exit(main())
