"""A grey PNG of one section; zlib only."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from .resample import Floats, bin_image

_SIDE_PX = 1024
_SIGMAS = 3.0


def write_png(path: Path, section: Floats) -> None:
    """The section binned to at most 1024 pixels, +-3 standard deviations from black to white, y upwards."""
    small = bin_image(section, -(-max(section.shape) // _SIDE_PX))
    spread = _SIGMAS * (float(small.std()) or 1.0)
    grey = np.clip((small - small.mean()) / spread * 127.5 + 127.5, 0, 255).astype(np.uint8)[::-1]
    height, width = grey.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each line begins with its filter: 0, none
    lines[:, 1:] = grey
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
