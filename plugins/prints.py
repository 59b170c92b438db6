"""Fingerprints of a series' files, and the records that every detector makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from tiltd.daemon.core.model import FileEntry, FilePrint, Problem

from .api import Look

PIECE_BYTES = 64 * 1024
"""How much of a file's head and tail its print covers (see ``FilePrint``)."""

FLAT_DEG = 1.0
LEAST_SECTIONS = 3


def stat_signature(entries: Iterable[FileEntry]) -> str:
    """One short text that changes when any name, size or mtime among the files does."""
    told = []
    for entry in sorted(entries, key=lambda entry: entry.relative_path):
        name = entry.relative_path.encode("utf-8", "surrogateescape")
        told.append(b"%d:%s:%d:%d;" % (len(name), name, entry.size_bytes, entry.mtime_ns))
    return hashlib.sha256(b"".join(told)).hexdigest()[:32]


def print_of(entry: FileEntry, look: Look) -> FilePrint:
    """The print of a file from its first and last piece; reads at most 128 KiB.  Raises OSError."""
    head = look.head(entry.relative_path, PIECE_BYTES)
    tail = look.tail(entry.relative_path, PIECE_BYTES) if entry.size_bytes > PIECE_BYTES else b""
    return FilePrint(
        relative_path=entry.relative_path,
        size_bytes=entry.size_bytes,
        piece_bytes=PIECE_BYTES,
        head_sha256=hashlib.sha256(head).hexdigest(),
        tail_sha256=hashlib.sha256(tail).hexdigest() if tail else "",
    )


def print_of_text(entry: FileEntry, text: bytes) -> FilePrint:
    """The print of a small file that was read whole."""
    return FilePrint(
        relative_path=entry.relative_path,
        size_bytes=entry.size_bytes,
        piece_bytes=max(PIECE_BYTES, entry.size_bytes),
        head_sha256=hashlib.sha256(text).hexdigest(),
    )


def unreadable(path: str, error: OSError) -> Problem:
    """A file that could not be read: a problem of the series, never an end of the look."""
    return Problem(code="unreadable", detail=f"{last_name(path)}: {error.strerror or error}")


def last_name(path: str) -> str:
    return path.rpartition("/")[2]


def no_series_by_angles(angles_deg: Sequence[float], section_count: int) -> Problem | None:
    """Acquisition notes: fewer than 3 sections, or all angles within 1 degree, are no tilt series.

    True of every series when it starts, so the rule of completeness holds it back until all is quiet.
    """
    if section_count < LEAST_SECTIONS:
        return Problem(code="few_sections", detail=f"{section_count} sections, a tilt series has 3 or more")
    if len(angles_deg) >= LEAST_SECTIONS and max(angles_deg) - min(angles_deg) <= FLAT_DEG:
        return Problem(
            code="flat_angles", detail=f"all {len(angles_deg)} angles lie within {FLAT_DEG:g} degree"
        )
    return None
