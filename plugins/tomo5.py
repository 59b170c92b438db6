"""Detector ``tomo5``: Tomography 5's ``Position_10_3.mdoc`` and the frames that it names.

There need not be any stack: the series is the mdoc plus one frame file a tilt, so its kind is "frames", and
the core holds it until a pipeline takes frames.  From the acquisition notes: the mdoc named ``_override``
beside the real one is never read; SubFramePath is a path on the camera's computer, of which only the last
part counts; frames can arrive later than the mdoc.

Settings: ``frame_folders`` (["frames", "Frames"]: folders beside the mdoc where frames may lie as well).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiltd.daemon.core.model import FileEntry, FilePrint, Fingerprint, Problem, Sighting, TiltSeries

from . import mdoc as mdocs
from .api import Context, Look
from .prints import (
    last_name,
    no_series_by_angles,
    print_of,
    print_of_text,
    stat_signature,
    unreadable,
)

_FRAME = re.compile(
    r"(?P<position>.+?)_\d{3,}_\[?-?\d+(?:\.\d+)?\]?_\d{8}_\d{6}_?(?:EER|Fractions|fractions)?"
    r"\.(?:eer|mrc|tif|tiff)\Z",
    re.DOTALL,
)
"""``Position_10_3_001_0.00_20241001_204903_Fractions.mrc`` or ``..._EER.eer``."""

_FRAME_EXTENSIONS = (".eer", ".mrc", ".tif", ".tiff")


class Tomo5Detector:
    """Made by ``factory(settings, context)``; cost grows with the number of names, and by 128 KiB a frame
    for every series that may be opened."""

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
            if name.endswith(_FRAME_EXTENSIONS):
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
    return not name.removesuffix(".mdoc").endswith(_FRAME_EXTENSIONS)


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
        facts = _open(name, mdoc, by_name, look)
    return Sighting(
        series_key=mdoc.relative_path,
        tilt_series_name=name,
        kind="frames",
        size_bytes=sum(entry.size_bytes for entry in members),
        mtime_ns=max(entry.mtime_ns for entry in members),
        stat_signature=stat_signature(members),
        **facts,
    )


def _open(name: str, entry: FileEntry, by_name: Mapping[str, FileEntry], look: Look) -> dict[str, Any]:
    try:
        text = look.text(entry.relative_path, mdocs.MAX_BYTES + 1)
    except OSError as error:
        return {"problems": (unreadable(entry.relative_path, error),)}
    mdoc = mdocs.parse(text)
    problems = list(mdoc.problems)
    if not mdoc.whole and not problems:
        problems.append(Problem(code="mdoc_half_written", detail="the last line of the mdoc has no end"))
    if mdoc.is_frame_set or mdoc.is_montage:
        code = "montage" if mdoc.is_montage else "frame_set"
        return {"not_series": Problem(code=code, detail="the mdoc is not one of a tilt series")}
    images = sorted(mdoc.images, key=lambda image: -1 if image.number is None else image.number)
    angles = [angle for image in images if (angle := image.figure("TiltAngle")) is not None]
    facts: dict[str, Any] = {
        "section_count": len(images),
        "largest_gap_seconds": mdocs.largest_recent_gap_seconds(images),
        "not_series": no_series_by_angles(angles, len(images)),
    }
    if len(angles) < len(images):
        problems.append(
            Problem(code="angle_missing", detail=f"{len(images) - len(angles)} sections have no TiltAngle")
        )
    found = _frames(images, by_name, problems)
    if found and not problems:
        facts["series"] = _series(name, entry, mdoc, tuple(angles), found, text, look, problems)
    return facts | {"problems": tuple(problems)}


def _frames(
    images: Sequence[mdocs.Section], by_name: Mapping[str, FileEntry], problems: list[Problem]
) -> list[FileEntry]:
    names = [mdocs.last_part(image.entries.get("SubFramePath", "")) for image in images]
    unnamed = names.count("")
    missing = [name for name in names if name and name not in by_name]
    if unnamed:
        problems.append(Problem(code="frames_unnamed", detail=f"{unnamed} sections have no SubFramePath"))
    if missing:
        problems.append(
            Problem(
                code="frames_missing", detail=f"{len(missing)} of {len(names)} frame files are not there yet"
            )
        )
    empty = sum(1 for name in names if name in by_name and by_name[name].size_bytes == 0)
    if empty:
        problems.append(Problem(code="frames_empty", detail=f"{empty} frame files have no bytes yet"))
    return [by_name[name] for name in names if name in by_name]


def _series(
    name: str,
    entry: FileEntry,
    mdoc: mdocs.Mdoc,
    angles_deg: tuple[float, ...],
    frames: Sequence[FileEntry],
    text: bytes,
    look: Look,
    problems: list[Problem],
) -> TiltSeries | None:
    prints: list[FilePrint] = [print_of_text(entry, text)]
    for frame in frames:
        try:
            prints.append(print_of(frame, look))
        except OSError as error:
            problems.append(unreadable(frame.relative_path, error))
            return None
    return TiltSeries(
        tilt_series_name=name,
        kind="frames",
        fingerprint=Fingerprint(files=tuple(prints)),
        mdoc_path=entry.relative_path,
        frame_paths=tuple(frame.relative_path for frame in frames),
        tilt_angles_deg=angles_deg,
        image_size=mdocs.image_size(mdoc.entries) or (0, 0),
        pixel_spacing_angstrom=mdocs.global_or_common(mdoc, "PixelSpacing"),
        voltage_kv=mdocs.global_or_common(mdoc, "Voltage"),
        tilt_axis_deg=mdocs.tilt_axis_deg(mdoc),
        binning=mdocs.binning(mdoc),
        exposure_dose_e_per_a2=mdocs.total_dose_e_per_a2(mdoc.images),
        first_acquired=mdocs.first_acquired(mdoc.images),
    )
