"""Tilt series of camera frames: an mdoc, and a file of frames for each of its sections.

From the acquisition notes: SubFramePath is a path on the camera's computer, of which only the last part
counts; frames can arrive later than the mdoc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tiltd.daemon.core.model import FileEntry, FilePrint, Fingerprint, Problem, TiltSeries

from . import mdoc as mdocs
from .api import Look
from .prints import no_series_by_angles, print_of, print_of_text, unreadable

EXTENSIONS = (".eer", ".mrc", ".tif", ".tiff")


def open_frames(name: str, entry: FileEntry, by_name: Mapping[str, FileEntry], look: Look) -> dict[str, Any]:
    """The fields of a sighting that need open files: the mdoc ``entry``, and the frames that it names among
    ``by_name`` (last part of a path -> file).  Reads the mdoc and at most 128 KiB of every frame file.
    """
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
