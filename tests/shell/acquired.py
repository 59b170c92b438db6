"""What stands in the files of a tilt series, read without tiltd's own readers."""

from __future__ import annotations

import re
import struct
from pathlib import Path


def header(path: Path) -> dict[str, int]:
    with open(path, "rb") as file:
        raw = file.read(1024)
    nx, ny, nz, mode = struct.unpack_from("<4i", raw)
    return {"nx": nx, "ny": ny, "nz": nz, "mode": mode, "next": struct.unpack_from("<i", raw, 92)[0]}


def sections_in_file(path: Path) -> float:
    """Sections that the size has room for."""
    head = header(path)
    return (path.stat().st_size - 1024 - head["next"]) / (head["nx"] * head["ny"] * 2)


def section_numbers(mdoc_path: Path) -> list[int]:
    if not mdoc_path.exists():
        return []
    return [int(number) for number in re.findall(rb"(?m)^\[ZValue = (\d+)\]$", mdoc_path.read_bytes())]


def angles(mdoc_path: Path) -> list[float]:
    return [float(angle) for angle in re.findall(rb"(?m)^TiltAngle = (\S+)$", mdoc_path.read_bytes())]
