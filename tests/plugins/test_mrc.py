"""The MRC header, against mrcfile as an oracle and against what a hostile or broken file holds."""

from __future__ import annotations

import struct
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.series_files import header, stack
from tiltd.daemon.core.model import Problem
from tiltd.plugins.mrc import MODE_BYTES, MrcHeader, read_header


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float32, np.uint16, np.float16])
def test_agrees_with_mrcfile_to_the_byte(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "x.mrc"
    with mrcfile.new(path) as made:
        made.set_data(np.zeros((5, 6, 8), dtype=dtype))
        made.set_extended_header(np.zeros(96, dtype="V1"))
        made.voxel_size = 2.5
        mode = int(made.header.mode)
    found = read_header(path.read_bytes()[:1024])
    assert isinstance(found, MrcHeader)
    assert (found.nx, found.ny, found.nz, found.mode) == (8, 6, 5, mode)
    assert found.size_at_rest_bytes == path.stat().st_size
    assert found.pixel_spacing_angstrom == pytest.approx(2.5)


def test_size_at_rest_counts_the_extended_header() -> None:
    found = read_header(stack(3))
    assert isinstance(found, MrcHeader)
    assert found.size_at_rest_bytes == len(stack(3)) == 1024 + 64 + 3 * 8 * 6 * 2


def test_opened_and_nothing_acquired_is_a_header() -> None:
    found = read_header(header(nz=0))
    assert isinstance(found, MrcHeader) and found.nz == 0


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "header_truncated"),
        (header()[:1023], "header_truncated"),
        (bytes(1024), "header_empty"),
        (b"\xff" * 1024, "header_garbage"),
        (header(nx=-1), "header_garbage"),
        (header(nz=-3), "header_garbage"),
        (header(extended_bytes=-4), "header_garbage"),
        (header(extended_bytes=2**31 - 1), "header_garbage"),
        (header(mode=4), "mode_unknown"),
        (header().replace(b"MAP ", b"\0\0\0\0"), "header_garbage"),
    ],
)
def test_what_is_no_header_has_a_code(data: bytes, code: str) -> None:
    found = read_header(data)
    assert isinstance(found, Problem) and found.code == code and found.detail


def test_a_byte_swapped_header_is_named_as_such() -> None:
    data = bytearray(header())
    for at in range(0, 208, 4):
        data[at : at + 4] = data[at : at + 4][::-1]
    found = read_header(bytes(data))
    assert isinstance(found, Problem) and found.code == "header_swapped"


@given(st.binary(max_size=1100))
def test_never_raises(data: bytes) -> None:
    assert isinstance(read_header(data), MrcHeader | Problem)


@given(st.integers(), st.sampled_from(sorted(MODE_BYTES)))
def test_any_section_count_is_judged(nz: int, mode: int) -> None:
    data = bytearray(header(mode=mode))
    struct.pack_into("<i", data, 8, (nz + 2**31) % 2**32 - 2**31)
    found = read_header(bytes(data))
    assert isinstance(found, Problem) or found.size_at_rest_bytes == 1088 + found.nz * 48 * MODE_BYTES[mode]
