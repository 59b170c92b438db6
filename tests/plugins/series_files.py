"""Tiny tilt series for the tests of detectors and watchers, byte by byte as the acquisition notes say."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

ANGLES = (-6.0, -3.0, 0.0, 3.0, 6.0)


def header(nx: int = 8, ny: int = 6, nz: int = 5, mode: int = 1, extended_bytes: int = 64) -> bytes:
    data = bytearray(1024)
    struct.pack_into("<4i", data, 0, nx, ny, nz, mode)
    struct.pack_into("<3i", data, 28, nx, ny, max(nz, 1))
    struct.pack_into("<3f", data, 40, nx * 2.5, ny * 2.5, max(nz, 1) * 2.5)
    struct.pack_into("<i", data, 92, extended_bytes)
    data[208:212] = b"MAP "
    return bytes(data)


def stack(nz: int = 5, nx: int = 8, ny: int = 6, fill: int = 7) -> bytes:
    return header(nx, ny, nz) + bytes(64) + bytes([fill]) * (nx * ny * 2 * nz)


def date_time(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    return f"12-Oct-2024  {10 + minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"


def section(number: int, angle: float, seconds: float) -> str:
    return (
        f"[ZValue = {number}]\nTiltAngle = {angle}\nStagePosition = 1.5 -2.25\nExposureDose = 3\n"
        f"PixelSpacing = 2.5\nRotationAngle = 175.3\nSubFramePath = X:\\frames\\f_{number}.eer\n"
        f"DateTime = {date_time(seconds)}\n\n"
    )


def mdoc(angles: Sequence[float] = ANGLES, gap_seconds: float = 60.0, montage: bool = False) -> bytes:
    extra = "Montage = 1\n" if montage else ""
    text = (
        "PixelSpacing = 2.5\nVoltage = 300\nImageFile = x.mrc\nImageSize = 8 6\n"
        f"{extra}DataMode = 1\n\n[T = SerialEM: Acquired somewhere]\n\n"
        "[T =     Tilt axis angle = 85.3, binning = 1  spot = 8  camera = 0]\n\n"
    )
    return (text + "".join(section(n, a, n * gap_seconds) for n, a in enumerate(angles))).encode()


def write_series(
    folder: Path | str, name: str | bytes = "g1_ts_001.mrc", angles: Sequence[float] = ANGLES, fill: int = 7
) -> Path:
    """A whole and consistent series; returns the stack's path."""
    base = Path(folder)
    base.mkdir(parents=True, exist_ok=True)
    path = base / os.fsdecode(name)
    path.write_bytes(stack(len(angles), fill=fill))
    Path(f"{path}.mdoc").write_bytes(mdoc(angles))
    return path
