"""What a runner told: the lines of an attempt's progress and end, and what is the news in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from tiltd.daemon.core.model import Progress, RunEnd, RunSeen

PIECE_BYTES = 256 << 10
"""Of a progress or end file only this much of either end is ever read."""

_decode = json.JSONDecoder().decode
"""What ``json.loads`` comes to after it has looked at its arguments."""


def lines(path: str) -> list[dict[str, Any]]:
    """JSON objects from the first and the last 256 KiB, in order; anything else is passed over."""
    return [record for line in _raw(path) if (record := _object(line)) is not None]


def read_progress(path: str) -> tuple[list[dict[str, Any]], Progress | None]:
    """Those of a progress file that tell of a claim or a cleaning, in order, and the newest progress.  The
    others, hundreds of a long run and more with each look, are not parsed."""
    told: list[dict[str, Any]] = []
    newest: Progress | None = None
    for line in reversed(_raw(path)):
        telling = b"claimed" in line or b"cleaned" in line
        if (telling or newest is None) and (record := _object(line)) is not None:
            newest = newest or _progress(record)
            if telling:
                told.append(record)
    told.reverse()
    return told, newest


def _raw(path: str) -> list[bytes]:
    """The lines of its first and last 256 KiB."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a buffered file would cost as much again
    except FileNotFoundError:
        return []
    try:
        if not (size := os.fstat(fd).st_size):
            return []
        content = os.read(fd, min(size, PIECE_BYTES))
        if size > PIECE_BYTES:
            more = os.pread(fd, PIECE_BYTES, max(PIECE_BYTES, size - PIECE_BYTES))
            content += (b"\n" if size > 2 * PIECE_BYTES else b"") + more
    finally:
        os.close(fd)
    return [line for line in content.split(b"\n") if line]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = _decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def newest_claim(told: list[dict[str, Any]], job_id: str) -> dict[str, Any]:
    claims = [line for line in told if line.get("phase") == "claimed" and line.get("job_id") == job_id]
    return claims[-1] if job_id and claims else {}


def runs_of(told: list[dict[str, Any]]) -> tuple[RunSeen, ...]:
    """In order; a run is clean once a later line of the same node says so."""
    runs: list[RunSeen] = []
    for line in told:
        node = text_of(line, "node")
        if line.get("phase") == "claimed":
            runs.append(RunSeen(node=node, cleaned=False))
        elif line.get("phase") == "cleaned":
            runs = [RunSeen(node=run.node, cleaned=run.cleaned or run.node == node) for run in runs]
    return tuple(runs)


def _progress(line: dict[str, Any]) -> Progress | None:
    try:
        return msgspec.convert(line, Progress)
    except msgspec.ValidationError:
        return None


def newest_end(told: Iterable[dict[str, Any]], nonce: str) -> RunEnd | None:
    """The success, if there is one; else the last other end of this very run (by its nonce)."""
    newest: RunEnd | None = None
    for line in told:
        try:
            end = msgspec.convert(line, RunEnd)
        except msgspec.ValidationError:
            continue
        if end.nonce == nonce and end.outcome != "lost_claim" and not succeeded(newest):
            newest = end
    return newest


def succeeded(end: RunEnd | None) -> bool:
    return end is not None and end.outcome == "success"


def text_of(line: dict[str, Any], key: str) -> str:
    value = line.get(key, "")
    return value if isinstance(value, str) else ""


def number_of(line: dict[str, Any], key: str) -> float | None:
    value = line.get(key)
    return value if isinstance(value, int | float) else None
