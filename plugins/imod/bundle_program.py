#!/usr/bin/env python3
# ruff: noqa: UP006, UP031, UP035, UP045, PTH103, PTH113, PTH114, SIM115
"""What makes a result of a finished dataset folder, on the node: standard library, Python 3.6+.

It travels as text in the job file, so nothing has to be installed.  The tomogram and the files that are kept
are moved into the output folder (on scratch: a rename), thumbnails of the tomogram's central slices are
written as PNG, and the curves of the alignment as ``curves.json``.  Without a tomogram it fails; without a
thumbnail or a curve it only says so.
"""

import argparse
import array
import contextlib
import fnmatch
import json
import math
import operator
import os
import shutil
import struct
import sys
import zlib
from typing import Any, Dict, Iterator, List, Optional, Tuple

SIDE_PX = 512  # longer side of a thumbnail
SIGMAS = 3.0
TYPES = {0: "b", 1: "h", 2: "f", 6: "H"}  # MRC modes that trimvol writes
IMOD_STAMP = 1146047817
CURVES_FORMAT = 1
KEPT_FOLDER = "imod"
Rows = List[List[float]]


class Volume:
    """An MRC volume, read a piece at a time.  Raises ValueError for what is none, and OSError."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "rb")
        header = self.file.read(1024)
        if len(header) < 1024:
            raise ValueError("too short for an MRC header")
        order = ">" if header[212:214] == b"\x11\x11" else "<"
        self.nx, self.ny, self.nz, mode = struct.unpack(order + "4i", header[:16])
        (extended,) = struct.unpack(order + "i", header[92:96])
        stamp, flags = struct.unpack(order + "2i", header[152:160])
        if mode not in TYPES or min(self.nx, self.ny, self.nz) < 1:
            raise ValueError("%dx%dx%d, mode %d" % (self.nx, self.ny, self.nz, mode))
        unsigned_bytes = mode == 0 and stamp == IMOD_STAMP and not flags & 1
        self.type = "B" if unsigned_bytes else TYPES[mode]
        self.swap = (order == ">") == (sys.byteorder == "little")
        self.start = 1024 + extended

    def values(self, x: int, y: int, z: int, count: int) -> Any:
        """``count`` voxels along x."""
        found = array.array(self.type)
        offset = self.start + ((z * self.ny + y) * self.nx + x) * found.itemsize
        self.file.seek(offset)
        found.frombytes(self.file.read(count * found.itemsize))
        if len(found) < count:
            raise ValueError("the file is cut short")
        if self.swap:
            found.byteswap()
        return found


def mean_row(rows: List[Any], factor: int) -> List[float]:
    """Rows averaged with each other and then ``factor`` by ``factor`` along them; the odd end is left out."""
    total = rows[0]
    for row in rows[1:]:
        total = list(map(operator.add, total, row))
    scale = 1.0 / (factor * len(rows))
    count = len(total) // factor
    return [sum(total[i * factor : (i + 1) * factor]) * scale for i in range(count)]


def slice_xy(volume: Volume, factor: int) -> Rows:
    """The central section along z; reads it whole."""
    z = volume.nz // 2
    return [
        mean_row([volume.values(0, y * factor + i, z, volume.nx) for i in range(factor)], factor)
        for y in range(volume.ny // factor)
    ]


def slice_xz(volume: Volume, factor: int) -> Rows:
    """The central section along y: x to the right, z upwards; reads a few rows of every section."""
    first = max(0, volume.ny // 2 - factor // 2)
    ys = [y for y in range(first, first + factor) if y < volume.ny][:4]
    return [
        mean_row([volume.values(0, y, z * factor, volume.nx) for y in ys], factor)
        for z in range(volume.nz // factor)
    ]


def slice_zy(volume: Volume, factor: int) -> Rows:
    """The central section along x: z to the right, y upwards; reads ``factor`` voxels a pixel."""
    first = max(0, min(volume.nx // 2, volume.nx - factor))
    count = min(factor, volume.nx)
    return [
        [sum(volume.values(first, y * factor, z * factor, count)) / count for z in range(volume.nz // factor)]
        for y in range(volume.ny // factor)
    ]


def grey(rows: Rows) -> List[bytes]:
    """Mean +- 3 standard deviations from black to white; the first row is the lowest."""
    values = [value for row in rows for value in row if math.isfinite(value)]
    count = max(1, len(values))
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / count)
    scale = 127.5 / (SIGMAS * (deviation or 1.0))

    def shade(value: float) -> int:
        return int(max(0.0, min(255.0, (value - mean) * scale + 127.5))) if math.isfinite(value) else 0

    return [bytes(map(shade, row)) for row in reversed(rows)]


def png(lines: List[bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", len(lines[0]), len(lines), 8, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + line for line in lines), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def write_thumbnails(tomogram: str, folder: str) -> None:
    volume = Volume(tomogram)
    factor = max(1, -(-max(volume.nx, volume.ny, volume.nz) // SIDE_PX))
    os.makedirs(folder, exist_ok=True)
    for name, way in (("xy", slice_xy), ("xz", slice_xz), ("zy", slice_zy)):
        rows = way(volume, min(factor, volume.nx, volume.ny, volume.nz))
        with open(os.path.join(folder, name + ".png"), "wb") as file:
            file.write(png(grey(rows)))


# -- curves ------------------------------------------------------------------------------------------


def text_of(path: str) -> str:
    """What it says, at most 16 MiB; nothing where it is not there."""
    try:
        with open(path, "rb") as file:
            return file.read(16 << 20).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def residuals_by_view(text: str) -> List[Tuple[float, float]]:
    """(tilt in degrees, mean residual in pixels) of each view, from the global table of ``align.log``.

    The table's columns differ between versions and kinds of alignment; its head names them.
    """
    lines = iter(text.splitlines())
    for line in lines:
        words = line.replace("mean resid", "mean_resid").split()
        if words[:1] == ["view"] and "tilt" in words and "mean_resid" in words:
            tilt, residual = words.index("tilt"), words.index("mean_resid")
            return list(table_of(lines, tilt, residual, len(words)))
    return []


def table_of(lines: Any, x: int, y: int, width: int) -> Any:
    for line in lines:
        words = line.split()
        if len(words) < width or not words[0].isdigit():
            return
        with contextlib.suppress(ValueError):
            yield float(words[x]), float(words[y])


def shifts_by_view(text: str) -> List[Tuple[float, float]]:
    """(view from 1, length of its shift in pixels) of an ``.xf`` file: six numbers a line, the last two."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        with contextlib.suppress(ValueError):
            words = [float(word) for word in line.split()]
            if len(words) == 6:
                found.append((float(number), math.hypot(words[4], words[5])))
    return found


def curves_of(folder: str, root: str) -> List[Dict[str, Any]]:
    residuals = residuals_by_view(text_of(os.path.join(folder, "align.log")))
    shifts = shifts_by_view(text_of(os.path.join(folder, root + ".prexg")))
    found = [
        ("Residual of the alignment", "tilt, degrees", "mean residual, pixels", residuals),
        ("Shift found by correlation", "view", "shift, pixels", shifts),
    ]
    return [
        {"title": title, "x": x, "y": y, "points": points[:2000]} for title, x, y, points in found if points
    ]


# -- files -------------------------------------------------------------------------------------------


def find_tomogram(folder: str, root: str) -> Optional[str]:
    """``ROOT.rec``, or ``ROOT_rec.mrc`` where IMOD names its files the newer way."""
    for name in (root + ".rec", root + "_rec.mrc"):
        path = os.path.join(folder, name)
        if os.path.isfile(path) and not os.path.islink(path):
            return path
    return None


def keep(folder: str, target: str, patterns: List[str]) -> int:
    """Move what matches into ``target``, below the same relative path; returns how many.

    A pattern without a slash matches files at the top only.  Links and backups (``~``) are left.
    """
    count = 0
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder)
            near = [pattern for pattern in patterns if ("/" in pattern) == ("/" in relative)]
            wanted = any(fnmatch.fnmatchcase(relative, pattern) for pattern in near)
            if wanted and os.path.isfile(path) and not os.path.islink(path) and not name.endswith("~"):
                place = os.path.join(target, relative)
                os.makedirs(os.path.dirname(place), exist_ok=True)
                shutil.move(path, place)
                count += 1
    return count


def parse(arguments: List[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bundle", description=__doc__)
    parser.add_argument("--folder", required=True, help="the dataset's folder, as it was left")
    parser.add_argument("--root", required=True, help="root name of its files")
    parser.add_argument("--output", required=True, help="the job's output folder")
    parser.add_argument("--tomogram", required=True, help="name of the tomogram there")
    parser.add_argument("--keep", action="append", default=[], help="pattern of files that are kept")
    return parser.parse_args(arguments)


def main(arguments: List[str]) -> int:
    asked = parse(arguments)
    found = find_tomogram(asked.folder, asked.root)
    if found is None:
        print("ERROR: bundle - there is no tomogram %s.rec in the dataset's folder" % asked.root)
        return 1
    with telling("thumbnails"):
        write_thumbnails(found, os.path.join(asked.output, "thumbnails"))
    with telling("curves"):
        write_curves(asked.folder, asked.root, asked.output)
        write_figures(asked.folder, asked.output)
    print("bundling: files", flush=True)
    shutil.move(found, os.path.join(asked.output, asked.tomogram))
    count = keep(asked.folder, os.path.join(asked.output, KEPT_FOLDER), asked.keep)
    print("kept the tomogram and %d files" % count)
    return 0


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """A picture that cannot be made is no reason to lose a tomogram."""
    print("bundling: %s" % what, flush=True)
    try:
        yield
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        print("WARNING: bundle - no %s: %s" % (what, error))


def write_figures(folder: str, output: str) -> None:
    """For the judgement: views that the alignment has."""
    views = residuals_by_view(text_of(os.path.join(folder, "align.log")))
    if views:
        with open(os.path.join(output, "figures.json"), "w") as file:
            json.dump({"views_aligned": len(views)}, file)


def write_curves(folder: str, root: str, output: str) -> None:
    curves = curves_of(folder, root)
    if curves:
        with open(os.path.join(output, "curves.json"), "w") as file:
            json.dump({"format": CURVES_FORMAT, "curves": curves}, file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
