"""Pictures of a result and logs of an attempt, read with bounds.  No part of a path comes from a request: a
result's folder stands in the journal, an attempt's in the spool, and a picture is asked for by its number."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

from tiltd.daemon import manifest

PICTURES_MAX = 12
PICTURE_BYTES_MAX = 16 << 20
LOG_BYTES_MAX = 256 << 10
MANIFEST_BYTES_MAX = 1 << 20
FILES_MAX = 200
REPORT_BYTES_MAX = 32 << 20
NAME = re.compile(r"[A-Za-z0-9_+=@%][A-Za-z0-9._+=@%-]{0,200}\.(png|jpg|jpeg)")
LOG_NAME = re.compile(r"[A-Za-z0-9_+=@%][A-Za-z0-9._+=@%-]{0,200}\.log")
LOGS, LOGS_MAX = "logs", 100
"""What the programs of a run have said is delivered with its result, in this folder of it."""
FIRST = "central.png"
THUMBNAILS = "thumbnails"
"""Pipelines leave the pictures of a result in its folder, or in this one below it."""
KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"))


def pictures(result_path: str) -> list[str]:
    """Names of the pictures in the folder itself, then in ``thumbnails/``; none of a folder that cannot be
    read, or that is a link."""
    own = sorted(_named(NAME, result_path), key=lambda name: (name != FIRST, name))
    below = sorted(_named(NAME, Path(result_path, THUMBNAILS), os.O_NOFOLLOW))
    return [*own, *(f"{THUMBNAILS}/{name}" for name in below)][:PICTURES_MAX]


def _named(pattern: re.Pattern[str], folder: str | Path, flags: int = 0) -> list[str]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | flags)
    except (OSError, ValueError):
        return []
    try:
        with os.scandir(descriptor) as entries:
            return [e.name for e in entries if pattern.fullmatch(e.name) and e.is_file(follow_symlinks=False)]
    except OSError:
        return []
    finally:
        os.close(descriptor)


def picture(result_path: str, number: int) -> tuple[str, bytes] | None:
    """Media type and bytes; ``None`` for what is not there, too large, or no picture by its first bytes."""
    names = pictures(result_path)
    if not 0 <= number < len(names):
        return None
    content = _read(Path(result_path) / names[number], PICTURE_BYTES_MAX + 1, tail=False) or b""
    kind = next((kind for magic, kind in KINDS if content.startswith(magic)), "")
    return (kind, content) if kind and len(content) <= PICTURE_BYTES_MAX else None


def has_report(result_path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(Path(result_path) / manifest.REPORT).st_mode)
    except (OSError, ValueError):
        return False


def report(result_path: str) -> bytes | None:
    """The page for people beside the result; ``None`` for none, and for one that is too large."""
    content = _read(Path(result_path) / manifest.REPORT, REPORT_BYTES_MAX + 1, tail=False)
    return content if content is not None and len(content) <= REPORT_BYTES_MAX else None


def listed(result_path: str) -> list[tuple[str, int]]:
    """Name and size of the result's files, as its manifest has them; the first ``FILES_MAX``."""
    content = _read(Path(result_path) / manifest.NAME, MANIFEST_BYTES_MAX, tail=False)
    try:
        entries = json.loads(content or b"{}").get("files", [])
        return [(str(entry["name"]), int(entry["size_bytes"])) for entry in entries[:FILES_MAX]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


def log_tail(spool: Path, attempt_id: str) -> str | None:
    """The end of the attempt's log as text; ``None`` when there is none (any more)."""
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", attempt_id):
        return None
    content = _read(spool / "attempts" / attempt_id / "runner.log", LOG_BYTES_MAX, tail=True)
    return content.decode("utf-8", "replace") if content is not None else None


def result_logs(result_path: str) -> list[str]:
    """Names of the programs' logs beside a result; none of a folder that cannot be read or is a link."""
    return sorted(_named(LOG_NAME, Path(result_path, LOGS), os.O_NOFOLLOW))[:LOGS_MAX]


def result_log(result_path: str, number: int) -> str | None:
    """The end of one of them; ``None`` for what is not there."""
    names = result_logs(result_path)
    if not 0 <= number < len(names):
        return None
    content = _read(Path(result_path, LOGS, names[number]), LOG_BYTES_MAX, tail=True)
    return content.decode("utf-8", "replace") if content is not None else None


def _read(path: Path, most: int, *, tail: bool) -> bytes | None:
    """Of a plain file, never through a link; ``None`` for what cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                return None
            if tail and facts.st_size > most:
                file.seek(facts.st_size - most)
            return file.read(most)
        except OSError:
            return None
