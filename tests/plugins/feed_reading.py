"""Reads a folder for a detector's test the way the watcher does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tiltd.daemon.core.model import FileEntry, Sighting
from tiltd.daemon.feed_look import FeedLook
from tiltd.plugins.api import Context, Detector

CONTEXT = Context(state_folder="/s", spool_folder="/p", journal_id="j", owner="o")


def entries_of(root: Path) -> list[FileEntry]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            status = os.stat(path)  # noqa: PTH116
            relative = os.path.relpath(path, root)
            found.append(
                FileEntry(relative_path=relative, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns)
            )
    return sorted(found, key=lambda entry: entry.relative_path)


def sightings_of(
    detector: Detector, root: Path, opened: Callable[[str], bool] = lambda key: True
) -> Sequence[Sighting]:
    return detector.read(entries_of(root), opened, FeedLook(str(root)))


def codes(sighting: Sighting) -> set[str]:
    return {problem.code for problem in sighting.problems}
