"""An MRC stack as SerialEM writes it: pixels, the whole header with the new nz, the extended header.

The extended header is reserved when the file is opened and stays as large as it is while nz grows, so the
size at rest is ``1024 + next + nx * ny * nz * 2`` (mode 1).  Sources: the MRC2014 format and the
acquisition notes.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

HEADER_BYTES = 1024
EXTENDED_BYTES_A_SECTION = 14
"""SerialEM's flags 1 + 4 + 8 + 16 + 32: tilt angle (2), stage x and y (4), magnification (2), intensity (2),
dose (4 bytes)."""
EXTENDED_FLAGS = 1 | 4 | 8 | 16 | 32


@dataclass
class Statistics:
    """Smallest, largest and mean count over all sections so far, as the header tells them."""

    minimum: float = math.inf
    maximum: float = -math.inf
    total: float = 0.0
    sections: int = 0

    def add(self, pixels: Any) -> None:
        self.minimum = min(self.minimum, float(pixels.min()))
        self.maximum = max(self.maximum, float(pixels.max()))
        self.total += float(pixels.mean())
        self.sections += 1


@dataclass
class Stack:
    """One MRC file under acquisition.

    ``close_between`` closes and opens it again for every image, as PACEtomo does; otherwise it stays open
    until ``close``.  ``reserved_sections`` fixes the size of the extended header.
    """

    path: Path
    width_px: int
    height_px: int
    pixel_spacing_angstrom: float
    titles: tuple[str, ...]
    reserved_sections: int
    close_between: bool = False
    section_count: int = 0
    statistics: Statistics = field(default_factory=Statistics)
    _file: BinaryIO | None = field(default=None, repr=False)

    @property
    def extended_bytes(self) -> int:
        """Whole kilobytes, as the program reserves them."""
        return math.ceil(self.reserved_sections * EXTENDED_BYTES_A_SECTION / 1024) * 1024

    @property
    def section_bytes(self) -> int:
        return self.width_px * self.height_px * 2

    def create(self) -> None:
        """Open the file anew: a header with nz = 0 and an empty extended header; an old file is truncated."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.close()
        self.section_count, self.statistics = 0, Statistics()
        with open(self.path, "wb") as file:
            file.write(self.header())
            file.write(bytes(self.extended_bytes))

    def write_pixels(self, pixels: Any) -> None:
        """Append one section; until ``write_header`` the file is one section ahead of its nz."""
        file = self._opened()
        start = HEADER_BYTES + self.extended_bytes + self.section_count * self.section_bytes
        file.seek(start)
        file.write(pixels.astype("<i2").tobytes())
        self.statistics.add(pixels)
        self._written()

    def write_header(self) -> None:
        """Count the section that was appended last."""
        self.section_count += 1
        file = self._opened()
        file.seek(0)
        file.write(self.header())
        self._written()

    def write_extended(self, tilt_angle_deg: float, stage_um: tuple[float, float], dose: float) -> None:
        """The extended-header bytes of the newest section."""
        file = self._opened()
        file.seek(HEADER_BYTES + (self.section_count - 1) * EXTENDED_BYTES_A_SECTION)
        stage_x, stage_y = (round(25 * position) for position in stage_um)
        values = (round(100 * tilt_angle_deg), stage_x, stage_y, 640, 3285, *float_as_shorts(dose))
        file.write(struct.pack("<7h", *values))
        self._written()

    def truncate(self, size_bytes: int) -> None:
        """Cut the file, as a full disk or a broken copy does."""
        self.close()
        os.truncate(self.path, size_bytes)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def header(self) -> bytes:
        """The 1024 bytes for the present count of sections."""
        numbers, nz = self.statistics, self.section_count
        known = numbers.sections > 0
        low, high = (numbers.minimum, numbers.maximum) if known else (0.0, 0.0)
        mean = numbers.total / numbers.sections if known else 0.0
        nx, ny, spacing = self.width_px, self.height_px, self.pixel_spacing_angstrom
        header = bytearray(HEADER_BYTES)
        struct.pack_into("<10i", header, 0, nx, ny, nz, 1, 0, 0, 0, nx, ny, nz)
        struct.pack_into("<6f", header, 40, nx * spacing, ny * spacing, nz * spacing, 90.0, 90.0, 90.0)
        struct.pack_into("<3i3f", header, 64, 1, 2, 3, low, high, mean)
        struct.pack_into("<2i", header, 88, 0, self.extended_bytes)
        struct.pack_into("<4s", header, 104, b"SERI")
        struct.pack_into("<i", header, 108, 20140)
        struct.pack_into("<2h", header, 128, EXTENDED_BYTES_A_SECTION, EXTENDED_FLAGS)
        struct.pack_into("<2i", header, 152, 1146047817, 0)  # "IMOD", no flags: signed bytes do not occur
        struct.pack_into("<4s4sfi", header, 208, b"MAP ", b"\x44\x44\x00\x00", -1.0, len(self.titles))
        for index, title in enumerate(self.titles):
            struct.pack_into("<80s", header, 224 + 80 * index, title.ljust(80).encode("ascii", "replace"))
        return bytes(header)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = open(self.path, "r+b")  # noqa: SIM115 (kept open between images on purpose)
        return self._file

    def _written(self) -> None:
        assert self._file is not None
        self._file.flush()
        if self.close_between:
            self.close()


def float_as_shorts(value: float) -> tuple[int, int]:
    """A positive number as SerialEM packs it: about 327,600 to 3,276,000 by a power of ten, in two words.

    The first word is that number by 100, the second its last two digits and 100 times the exponent, with
    the sign of the exponent.

    >>> float_as_shorts(3.0)
    (30000, -600)
    """
    if value <= 0.0:
        return 0, 0
    exponent = 0
    while value < 327_600:
        value, exponent = value * 10, exponent - 1
    while value >= 3_276_000:
        value, exponent = value / 10, exponent + 1
    high, low = divmod(round(value), 100)
    second = low + 100 * abs(exponent)
    return high, -second if exponent < 0 else second
