"""Detector ``tomo5``: Tomography 5's ``Position_10_3.mdoc`` and the frames that it names.

There need not be any stack: the series is the mdoc plus one frame file a tilt, so its kind is "frames"
(:mod:`.frame_series` reads them), and it is held until its pipeline has a program that makes a stack of
them.  From the acquisition notes: the mdoc named ``_override`` beside the real one is never read.

Settings: ``frame_folders`` (["frames", "Frames"]: folders beside the mdoc where frames may lie as well).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiltd.daemon.core.model import FileEntry, Problem, SeriesKind, Sighting

from .api import Context, Look
from .frame_series import EXTENSIONS, open_frames
from .prints import last_name, stat_signature

_FRAME = re.compile(
    r"(?P<position>.+?)_\d{3,}_\[?-?\d+(?:\.\d+)?\]?_\d{8}_\d{6}_?(?:EER|Fractions|fractions)?"
    r"\.(?:eer|mrc|tif|tiff)\Z",
    re.DOTALL,
)
"""``Position_10_3_001_0.00_20241001_204903_Fractions.mrc`` or ``..._EER.eer``."""


class Tomo5Detector:
    """Made by ``factory(settings, context)``; cost grows with the number of names, and by 128 KiB a frame
    for every series that may be opened."""

    kind: SeriesKind = "frames"

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self.beside = tuple(settings.get("frame_folders", ("frames", "Frames")))

    def read(
        self, entries: Sequence[FileEntry], opened: Callable[[str], bool], look: Look
    ) -> Sequence[Sighting]:
        """All series of one folder and the frame folders in it.  Never raises for what a file holds."""
        frames: dict[str, list[FileEntry]] = {}
        by_name: dict[str, FileEntry] = {}
        for entry in entries:
            name = last_name(entry.relative_path)
            if name.endswith(EXTENSIONS):
                by_name[name] = entry
                if match := _FRAME.match(name):
                    frames.setdefault(match["position"], []).append(entry)
        return [
            _sighting(entry, frames, by_name, opened, look)
            for entry in entries
            if _is_series_mdoc(last_name(entry.relative_path))
        ]


def _is_series_mdoc(name: str) -> bool:
    if not name.endswith(".mdoc"):
        return False
    return not name.removesuffix(".mdoc").endswith(EXTENSIONS)


def _sighting(
    mdoc: FileEntry,
    frames: Mapping[str, list[FileEntry]],
    by_name: Mapping[str, FileEntry],
    opened: Callable[[str], bool],
    look: Look,
) -> Sighting:
    name = last_name(mdoc.relative_path).removesuffix(".mdoc")
    members = [mdoc, *frames.get(name, [])]
    facts: dict[str, Any] = {}
    if name.endswith("_override"):
        facts["not_series"] = Problem(
            code="override_copy", detail="an _override beside the real mdoc: never read as a series"
        )
    elif opened(mdoc.relative_path):
        facts = open_frames(name, mdoc, by_name, look)
    return Sighting(
        series_key=mdoc.relative_path,
        tilt_series_name=name,
        kind="frames",
        size_bytes=sum(entry.size_bytes for entry in members),
        mtime_ns=max(entry.mtime_ns for entry in members),
        stat_signature=stat_signature(members),
        **facts,
    )
