"""How long a start takes with many finished datasets in the journal, until the daemon says it is ready.

``python tests/benchmarks/bench_start.py [--datasets N]`` has the real daemon run one series, makes N of
its facts and rows, and starts the daemon on that journal; prints the figures, ends with 1 if one is
exceeded.  The last snapshot is as old as it can become, so as many facts as possible are replayed.
"""

from __future__ import annotations

import argparse
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "_path"), str(Path(__file__).parents[1])]

import psutil  # noqa: E402

from shell.daemon_process import DaemonProcess, Site, running  # noqa: E402
from tiltd.daemon.journal import SNAPSHOT_EVERY  # noqa: E402

START_LIMIT_SECONDS = 2.0
STARTS = 5
ATTEMPTS = 5000
"""Folders of finished attempts that nobody pruned."""

Row = tuple[object, ...]


def copies(rows: list[Row], known: str, number: int, first: int) -> Iterator[Row]:
    """The rows of one dataset as those of another; ``first`` is the number of its first fact, if they are."""
    fresh = f"{known[:4]}{number:08d}"
    for position, row in enumerate(rows):
        changed = [
            value.replace(known, fresh) if isinstance(value, str)
            else value.replace(known.encode(), fresh.encode()) if isinstance(value, bytes)
            else value
            for value in row
        ]  # fmt: skip
        yield tuple([first + position, *changed[1:]] if first else changed)


def multiply(journal: Path, name: str, datasets: int) -> None:
    """Fill the journal with ``datasets`` finished ones like the one called ``name``."""
    with sqlite3.connect(journal) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        series = "SELECT * FROM {} WHERE dataset_id = (SELECT dataset_id FROM datasets) ORDER BY 1"
        tables = {
            table: connection.execute(series.format(table)).fetchall() for table in ("datasets", "seen")
        }
        facts = connection.execute(series.format("facts")).fetchall()
        last = connection.execute("SELECT max(seq) FROM facts").fetchone()[0]
        for number in range(datasets):
            rows = copies(facts, name, number, last + 1 + number * len(facts))
            connection.executemany("INSERT INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)
            for table, found in tables.items():
                marks = ", ".join("?" * len(found[0]))
                connection.executemany(
                    f"INSERT INTO {table} VALUES ({marks})", copies(found, name, number, 0)
                )
        replayed = SNAPSHOT_EVERY // len(facts)
        connection.execute("UPDATE snapshot SET seq = ?", (last + (datasets - replayed) * len(facts),))
        connection.execute("UPDATE snapshot SET body = json_set(CAST(body AS TEXT), '$.sequence', seq)")


def leave_attempts(spool: Path, datasets: list[str]) -> None:
    """Folders of finished attempts."""
    for dataset_id in datasets:
        (spool / "attempts" / f"{dataset_id}.a1").mkdir()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--datasets", type=int, default=100_000)
    datasets = arguments.parse_args().datasets
    with tempfile.TemporaryDirectory(prefix="tiltd-bench-") as folder:
        site = Site(Path(folder), step_seconds=0)
        with running(site) as daemon:
            site.feed("ts_template.mrc")
            daemon.delivered("ts_template")
            daemon.settled()
            daemon.stop()
        multiply(site.state / "journal.sqlite", "ts_template", datasets)
        with sqlite3.connect(site.state / "journal.sqlite") as journal:
            known = journal.execute(
                "SELECT dataset_id FROM datasets WHERE dataset_id NOT LIKE 'ts_template%'"
            )
            leave_attempts(site.spool, [dataset_id for (dataset_id,) in known][:ATTEMPTS])
        size = (site.state / "journal.sqlite").stat().st_size
        site.socket.parent.mkdir(exist_ok=True)
        seconds, mebibytes = [], []
        for _ in range(STARTS):
            began = time.monotonic()
            daemon = DaemonProcess(site).start(wait=False)
            daemon.wait(daemon.ready, 60)
            seconds.append(time.monotonic() - began)
            mebibytes.append(psutil.Process(daemon.pid).memory_info().rss / 2**20)
            daemon.kill()
    print(
        f"start with {datasets} finished datasets ({size / 1e6:.0f} MB): {min(seconds):.2f} s at best, "
        f"{statistics.median(seconds):.2f} s in the median (at best at most {START_LIMIT_SECONDS} s)"
    )
    print(f"after the start: {max(mebibytes):.1f} MiB resident")
    return int(min(seconds) > START_LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
