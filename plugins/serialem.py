"""Detector ``serialem``: a stack (``.st`` or ``.mrc``) with its mdoc, as SerialEM and PACEtomo write them;
``serialem_frames``: the mdoc with the frames that it names, whether a stack is beside them or not.

File names, header bytes and mdoc text become sightings; whether a series is *complete* is not said here
but in ``policy/completeness.py``.  The rules and traps are those of the acquisition notes.

Settings: ``sentinel_suffix`` (".done": a file ``x.mrc.done`` says that ``x.mrc`` has ended; "" for none),
``skip_folders`` (["frames"]: folders of camera frames, which hold no series); of ``serialem_frames``
``sentinel_suffix`` and ``frame_folders`` (["frames", "Frames"]: where frames lie beside the mdoc, besides its
own folder).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiltd.daemon.core.model import (
    FileEntry,
    FilePrint,
    Fingerprint,
    Problem,
    SeriesKind,
    Sighting,
    TiltSeries,
)

from . import mdoc as mdocs
from .api import Context, Look
from .frame_series import EXTENSIONS, open_frames
from .mrc import HEADER_BYTES, MrcHeader, read_header
from .prints import (
    PIECE_BYTES,
    last_name,
    no_series_by_angles,
    print_of,
    print_of_text,
    stat_signature,
    unreadable,
)
from .serialem_names import Group, groups_of, no_series_by_name


class SerialEmDetector:
    """Made by ``factory(settings, context)``; ``read`` costs one regular expression a file name, plus at
    most 128 KiB and the mdoc for every series that may be opened."""

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self.sentinel_suffix = str(settings.get("sentinel_suffix", ".done"))
        self.skip_folders = frozenset(settings.get("skip_folders", ("frames",)))

    def read(
        self, entries: Sequence[FileEntry], opened: Callable[[str], bool], look: Look
    ) -> Sequence[Sighting]:
        """All series of one folder.  Never raises for what a file holds."""
        wanted = [entry for entry in entries if not self._skipped(entry.relative_path)]
        return [self._sighting(group, opened, look) for group in groups_of(wanted, self.sentinel_suffix)]

    def _skipped(self, path: str) -> bool:
        folder = path.rpartition("/")[0]
        return bool(folder) and not self.skip_folders.isdisjoint(folder.split("/"))

    def _sighting(self, group: Group, opened: Callable[[str], bool], look: Look) -> Sighting:
        stem, members = group.stem, group.members
        other = no_series_by_name(stem)
        facts: dict[str, Any] = {"not_series": other}
        if other is None:
            facts["problems"] = _missing(group)
            if opened(group.stack_path):
                facts = _open(group, look)
        return Sighting(
            series_key=group.stack_path,
            tilt_series_name=stem,
            kind="stack",
            size_bytes=sum([entry.size_bytes for entry in members]),
            mtime_ns=max([entry.mtime_ns for entry in members], default=0),
            stat_signature=stat_signature(members),
            blockers=tuple(sorted(group.blockers)),
            positive_signs=("sentinel",) if group.sentinel else (),
            **facts,
        )


class SerialEmFramesDetector:
    """Made by ``factory(settings, context)``.  The series keeps the name of the stack, which is not copied:
    the pipeline makes one of the frames.  Costs as ``serialem``, and 128 KiB a frame file of a series that
    may be opened."""

    kind: SeriesKind = "frames"

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self.sentinel_suffix = str(settings.get("sentinel_suffix", ".done"))
        self.beside = tuple(settings.get("frame_folders", ("frames", "Frames")))

    def read(
        self, entries: Sequence[FileEntry], opened: Callable[[str], bool], look: Look
    ) -> Sequence[Sighting]:
        """All series of one folder and the frame folders in it.  Never raises for what a file holds."""
        frames = Frames(entries)
        own = [entry for entry in entries if not self._is_frames(entry.relative_path)]
        groups = [group for group in groups_of(own, self.sentinel_suffix) if group.mdoc]
        return [_frames_sighting(group, frames, opened, look) for group in groups]

    def _is_frames(self, path: str) -> bool:
        return path.rpartition("/")[0].rpartition("/")[2] in self.beside


class Frames:
    """The frame files among those of a folder; found by name, and by the beginning of it."""

    def __init__(self, entries: Sequence[FileEntry]) -> None:
        found = {last_name(entry.relative_path): entry for entry in entries}
        self.by_name = {name: entry for name, entry in found.items() if name.endswith(EXTENSIONS)}
        self._names = sorted(self.by_name)

    def of(self, stem: str) -> list[FileEntry]:
        """Those that a series of that name would have; costs as many as there are."""
        first = bisect.bisect_left(self._names, f"{stem}_")
        names = itertools.takewhile(lambda name: name.startswith(f"{stem}_"), self._names[first:])
        return [self.by_name[name] for name in names]


def _frames_sighting(group: Group, frames: Frames, opened: Callable[[str], bool], look: Look) -> Sighting:
    """A series of frames keeps the name of the stack that stands, or could stand, beside it."""
    assert group.mdoc is not None
    facts: dict[str, Any] = {"not_series": no_series_by_name(group.stem)}
    if facts["not_series"] is None and opened(group.stack_path):
        facts = open_frames(group.stem, group.mdoc, frames.by_name, look)
    members = [*group.members, *frames.of(group.stem)]
    return Sighting(
        series_key=group.stack_path,
        tilt_series_name=group.stem,
        kind="frames",
        size_bytes=sum(entry.size_bytes for entry in members),
        mtime_ns=max(entry.mtime_ns for entry in members),
        stat_signature=stat_signature(members),
        blockers=tuple(sorted(group.blockers)),
        positive_signs=("sentinel",) if group.sentinel else (),
        **facts,
    )


def _missing(group: Group) -> tuple[Problem, ...]:
    if group.stack is not None and group.mdoc is not None:
        return ()
    name = last_name(group.stack_path)
    problems = []
    if group.stack is None:
        problems.append(Problem(code="stack_missing", detail=f"{name} is not there, only files beside it"))
    if group.mdoc is None:
        problems.append(
            Problem(code="mdoc_missing", detail=f"{name}.mdoc is not there: without it nothing is complete")
        )
    return tuple(problems)


def _open(group: Group, look: Look) -> dict[str, Any]:
    """Header, mdoc and prints: the fields of the sighting that need open files."""
    problems = list(_missing(group))
    look = _HeadOnce(look)
    header = _header(group, look, problems)
    mdoc, mdoc_print = _mdoc(group, look, problems)
    facts: dict[str, Any] = {}
    sections = mdoc.images if mdoc is not None else ()
    if mdoc is not None:
        facts["section_count"] = len(sections)
        facts["largest_gap_seconds"] = mdocs.largest_recent_gap_seconds(sections)
        facts["not_series"] = _no_series(mdoc)
    if header is not None and mdoc is not None and mdoc_print is not None and not facts["not_series"]:
        images = sorted(sections, key=lambda image: -1 if (number := image.number) is None else number)
        angles = [angle for image in images if (angle := image.figure("TiltAngle")) is not None]
        problems += _contradictions(header, group.stack, mdoc, len(angles))
        facts["not_series"] = no_series_by_angles(angles, max(header.nz, len(images)))
        if len(angles) == len(images):
            facts["series"] = _series(group, header, mdoc, tuple(angles), mdoc_print, look, problems)
    return facts | {"problems": tuple(problems)}


class _HeadOnce:
    """A look at one series that reads the head of its stack once, for the header and for the print."""

    def __init__(self, look: Look) -> None:
        self.tail, self.text = look.tail, look.text
        self._head, self._heads = look.head, dict[str, bytes]()

    def head(self, relative_path: str, size_bytes: int) -> bytes:
        if relative_path not in self._heads:
            self._heads[relative_path] = self._head(relative_path, PIECE_BYTES)
        return self._heads[relative_path][:size_bytes]


def _header(group: Group, look: Look, problems: list[Problem]) -> MrcHeader | None:
    if group.stack is None:
        return None
    try:
        found = read_header(look.head(group.stack.relative_path, HEADER_BYTES))
    except OSError as error:
        found = unreadable(group.stack.relative_path, error)
    if isinstance(found, Problem):
        problems.append(found)
        return None
    return found


def _mdoc(group: Group, look: Look, problems: list[Problem]) -> tuple[mdocs.Mdoc | None, FilePrint | None]:
    if group.mdoc is None:
        return None, None
    try:
        text = look.text(group.mdoc.relative_path, mdocs.MAX_BYTES + 1)
    except OSError as error:
        problems.append(unreadable(group.mdoc.relative_path, error))
        return None, None
    mdoc = mdocs.parse(text)
    problems += mdoc.problems
    if not mdoc.whole and not mdoc.problems:
        problems.append(Problem(code="mdoc_half_written", detail="the last line of the mdoc has no end"))
    return mdoc, print_of_text(group.mdoc, text)


def _no_series(mdoc: mdocs.Mdoc) -> Problem | None:
    if mdoc.is_montage:
        return Problem(code="montage", detail="Montage = 1: a map of pieces, no tilt series")
    if mdoc.is_frame_set:
        return Problem(code="frame_set", detail="[FrameSet] sections: the frames of one image")
    return None


def _contradictions(
    header: MrcHeader, stack: FileEntry | None, mdoc: mdocs.Mdoc, angle_count: int
) -> list[Problem]:
    found = []
    size, expected = stack.size_bytes if stack else 0, header.size_at_rest_bytes
    if size != expected:
        found.append(
            Problem(
                code="size_short" if size < expected else "size_long",
                detail=f"{size} bytes, the header ({header.nz} sections) says {expected}",
            )
        )
    sections = len(mdoc.images)
    if sections != header.nz:
        found.append(
            Problem(code="sections_mismatch", detail=f"header says {header.nz} sections, mdoc has {sections}")
        )
    if angle_count != sections:
        found.append(
            Problem(code="angle_missing", detail=f"{sections - angle_count} sections have no TiltAngle")
        )
    if (image := mdocs.image_size(mdoc.entries)) and image != (header.nx, header.ny):
        found.append(
            Problem(
                code="image_size_mismatch",
                detail=f"header says {header.nx} x {header.ny}, mdoc {image[0]} x {image[1]}",
            )
        )
    return found


def _series(
    group: Group,
    header: MrcHeader,
    mdoc: mdocs.Mdoc,
    angles_deg: tuple[float, ...],
    mdoc_print: FilePrint,
    look: Look,
    problems: list[Problem],
) -> TiltSeries | None:
    others = [entry for entry in (group.stack, group.rawtlt) if entry is not None]
    try:
        prints = [print_of(entry, look) for entry in others]
    except OSError as error:
        problems.append(unreadable(group.stack_path, error))
        return None
    spacing = mdocs.global_or_common(mdoc, "PixelSpacing") or header.pixel_spacing_angstrom
    return TiltSeries(
        tilt_series_name=group.stem,
        kind="stack",
        fingerprint=Fingerprint(files=(prints[0], mdoc_print, *prints[1:])),
        stack_path=group.stack_path,
        mdoc_path=mdoc_print.relative_path,
        rawtlt_path=group.rawtlt.relative_path if group.rawtlt else "",
        tilt_angles_deg=angles_deg,
        image_size=(header.nx, header.ny),
        mode=header.mode,
        pixel_spacing_angstrom=spacing,
        voltage_kv=mdocs.global_or_common(mdoc, "Voltage"),
        tilt_axis_deg=mdocs.tilt_axis_deg(mdoc),
        binning=mdocs.binning(mdoc),
        exposure_dose_e_per_a2=mdocs.total_dose_e_per_a2(mdoc.images),
        first_acquired=mdocs.first_acquired(mdoc.images),
    )
