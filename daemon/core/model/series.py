"""What the microscope tells: files, their prints, and the tilt series read from them.

Names are ``str`` as ``os.fsdecode`` gives them: bytes that are no UTF-8 stand in them as lone
surrogates (PEP 383).  They are data: never an id, a metric label, a shell word or a format string.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal, dataclass_transform

import msgspec

SeriesKind = Literal["stack", "frames"]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class RecordType(msgspec.StructMeta):
    """Makes every record frozen and keyword-only, so that no class has to say so again.

    What is frozen holds no cycles, so the collector need not look at it.
    """

    def __new__(
        mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any
    ) -> RecordType:
        config = {"frozen": True, "kw_only": True, "gc": False} | config
        return super().__new__(mcls, name, bases, namespace, **config)


class Record(msgspec.Struct, metaclass=RecordType):
    """Base of every small immutable record.  Change one with ``msgspec.structs.replace``."""


class FileEntry(Record):
    """One file below a feed, as a folder scan and a ``stat`` show it."""

    relative_path: str
    size_bytes: int
    mtime_ns: int


class FilePrint(Record):
    """What identifies a file's content without reading all of it.

    ``head_sha256`` covers the first ``piece_bytes``, ``tail_sha256`` the last ``piece_bytes``; a file of
    at most ``piece_bytes`` is covered whole by the head and has an empty tail.  An mdoc is always covered
    whole (``piece_bytes >= size_bytes``).  The runner recomputes it on the node, so the rule stands twice:
    here in words, and in :mod:`tiltd.daemon.runner` in code.
    """

    relative_path: str
    size_bytes: int
    piece_bytes: int
    head_sha256: str
    tail_sha256: str = ""


class Fingerprint(Record):
    """The prints of all files that make up a tilt series; equal fingerprints mean the same input."""

    files: tuple[FilePrint, ...]

    @property
    def total_bytes(self) -> int:
        total = 0
        for file in self.files:  # a sum over a generator takes twice as long, and this is asked for often
            total += file.size_bytes
        return total

    @property
    def digest(self) -> str:
        """Hex SHA-256 over all prints; cost grows with the number of files (2 for a stack)."""
        sha = hashlib.sha256()
        for file in self.files:
            name = file.relative_path.encode("utf-8", "surrogateescape")
            sha.update(b"%d:%s:%d:" % (len(name), name, file.size_bytes))
            sha.update(f"{file.head_sha256}:{file.tail_sha256};".encode())
        return sha.hexdigest()


class TiltSeries(Record):
    """A tilt series as the header and the mdoc describe it.  Unknown figures are ``None``, never 0.

    Paths are relative to the feed.  Angles are in degrees and in the order of the sections in the stack.
    """

    tilt_series_name: str
    kind: SeriesKind
    fingerprint: Fingerprint
    stack_path: str = ""
    mdoc_path: str = ""
    rawtlt_path: str = ""
    frame_paths: tuple[str, ...] = ()
    tilt_angles_deg: tuple[float, ...] = ()
    image_size: tuple[int, int] = (0, 0)
    mode: int = 1
    pixel_spacing_angstrom: float | None = None
    voltage_kv: float | None = None
    tilt_axis_deg: float | None = None
    binning: int | None = None
    exposure_dose_e_per_a2: float | None = None
    first_acquired: str = ""

    @property
    def tilt_count(self) -> int:
        return len(self.tilt_angles_deg)

    @property
    def total_bytes(self) -> int:
        return self.fingerprint.total_bytes

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Every file a job needs, relative to the feed."""
        return tuple([file.relative_path for file in self.fingerprint.files])

    def local_names(self) -> dict[str, str]:
        """Relative path in the feed -> plain ASCII name in the job's input folder.

        Programs on the node never see a hostile name: the stack is ``stack.mrc`` (or ``.st``), with
        ``stack.mrc.mdoc`` and ``stack.rawtlt`` beside it; frames are ``frames/0001.eer`` and so on.
        """
        names: dict[str, str] = {}
        suffix = ".st" if self.stack_path.endswith(".st") else ".mrc"
        for path in self.input_paths:
            if path == self.stack_path:
                names[path] = f"stack{suffix}"
            elif path == self.mdoc_path:
                names[path] = f"stack{suffix}.mdoc"
            elif path == self.rawtlt_path:
                names[path] = "stack.rawtlt"
            else:
                extension = re.search(r"\.[A-Za-z0-9]{1,8}$", path)
                names[path] = f"frames/{len(names):04d}{extension.group() if extension else ''}"
        return names


class Problem(Record):
    """Why something is not (yet) as it should be: ``code`` can be counted, ``detail`` can be read."""

    code: str
    detail: str


class Sighting(Record):
    """What a detector saw of one possible series in one look.

    ``series_key`` is the identity inside the feed: the relative path of the stack (of the mdoc for
    frames).  While files grow only ``stat`` was done: ``series`` is then ``None`` and ``stat_signature``
    alone tells change.  Once quiet the files were opened: ``series`` is set when everything could be read,
    and ``problems`` lists what contradicts completeness (size against header, sections against mdoc,
    gaps in ZValue, unreadable header, missing frames, ...).

    ``not_series`` (a countable code such as ``montage``) means this is no tilt series at all.
    ``blockers`` are signs that the acquisition program still works on it (``.openTS``, ``-unsorted``,
    ``-half1``).  ``positive_signs`` are signs that it has ended (``openTS_gone``, ``sentinel``,
    ``planned_count``).
    ``largest_gap_seconds`` is the largest recent gap between sections by the mdoc's DateTime.
    ``known_*`` come from the journal's ``seen`` table: what became of this series key before.
    """

    series_key: str
    tilt_series_name: str
    kind: SeriesKind
    size_bytes: int
    mtime_ns: int
    stat_signature: str
    labels: dict[str, str] = {}
    series: TiltSeries | None = None
    section_count: int = 0
    not_series: Problem | None = None
    problems: tuple[Problem, ...] = ()
    blockers: tuple[str, ...] = ()
    positive_signs: tuple[str, ...] = ()
    planned_tilt_count: int | None = None
    largest_gap_seconds: float = 0.0
    known_dataset_id: str = ""
    known_revision: int = 0
    known_digest: str = ""


class Evidence(Record):
    """One line of the case for or against "complete", as ``tiltd why SERIES`` prints it."""

    check: str
    holds: bool
    detail: str
