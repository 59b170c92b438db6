"""Scratch, memory and time worked out from directives, against what recorded runs took.

Every full run that was recorded is in it: begun at step 0 with an empty folder, ended with a tomogram.
"""

from __future__ import annotations

import pytest

from plugins.imod_scene import GOLDEN, book_of, recorded, series_of
from tiltd.plugins.api import Permanent
from tiltd.plugins.imod.demand import listed
from tiltd.plugins.imod.settings import ImodSettings

FULL_RUNS = {
    "full_1cpu_quiet": 512,
    "full_2cpu": 512,
    "full_2cpu_quiet": 512,
    "full_S_2cpu": 320,
    "full_S_localhost2": 320,
    "full_S_nocpus": 320,
    "full_big_2cpu": 1024,
    "p_ctf_simple": 320,
    "p_gold3d_filter": 320,
    "p_noarchive": 320,
}
"""Case -> side of its images."""


def peak_of(case):
    """The most that lay in the working folders, from the recording."""
    lines = (GOLDEN / case / "disk-use").read_text().splitlines()
    return max(int(line.split("max=")[1].split()[0]) for line in lines)


def demand(case, side, cores=2):
    return recorded(case).ready(series_of(side), {}, cores=cores).demand


@pytest.mark.parametrize(("case", "side"), FULL_RUNS.items())
def test_scratch_is_never_below_the_measured_peak_and_hardly_above(case, side):
    ratio = demand(case, side).scratch_bytes / peak_of(case)
    assert 1.00 <= ratio <= 1.25, f"{case}: {ratio:.3f}"


def test_no_full_run_is_left_out():
    """Those that began with nothing but the input (and so at step 0) and made a tomogram."""
    found = set()
    for use in GOLDEN.glob("*/disk-use"):
        folder = use.parent
        sizes = [line.split(None, 1) for line in (folder / "files").read_text().splitlines()]
        stacks = [int(size) for size, name in sizes if name.endswith(("TS_S.st", "TS_001.st", "TS_big.st"))]
        made = (folder / "exit_code").read_text().strip() == "0"
        made = made and any(name.endswith("_full.rec") for _, name in sizes)
        began = int(use.read_text().split("start=")[1].split()[0])
        if made and stacks and began <= 1.01 * stacks[0]:
            found.add(folder.name)
    assert found == set(FULL_RUNS)


@pytest.mark.parametrize(("case", "side"), FULL_RUNS.items())
def test_the_volume_is_that_of_the_recording(case, side):
    sizes = dict(reversed(line.split(None, 1)) for line in (GOLDEN / case / "files").read_text().splitlines())
    recs = [int(size) for name, size in sizes.items() if name.endswith("_full.rec")]
    assert recs == [demand(case, side).volume_bytes]


def test_what_is_left_at_the_end_is_told_too():
    for case, side in FULL_RUNS.items():
        last = (GOLDEN / case / "disk-use").read_text().splitlines()[-1]
        end = int(last.split("max=")[1].split()[0])
        assert 1.00 <= demand(case, side).final_bytes / end <= 1.10, case


def test_sirt_needs_what_it_took():
    found = demand("p_sirt", 320)
    assert 1.00 <= found.scratch_bytes / peak_of("p_sirt") <= 1.05


def test_memory_is_above_that_of_the_hungriest_program():
    """clip held 119 MB on the series of 86 MB, 28 MB on that of 21 MB; each tilt 53 and 23 MB."""
    assert demand("full_big_2cpu", 1024).memory_bytes >= 119_332_000 + 59_088_000
    large = book_with({}).ready(series_of(4096), {}, cores=4).demand
    assert 1.4 * large.stack_bytes < large.memory_bytes < 3 * large.stack_bytes


def test_time_grows_with_the_volume_and_shrinks_with_cores():
    one, four = (demand("full_big_2cpu", 1024, cores).walltime_seconds for cores in (1, 4))
    assert four < one < 4 * four
    assert 44.0 <= demand("full_1cpu_quiet", 512, 1).walltime_seconds <= 2 * 44.0
    sirt = demand("p_sirt", 320).walltime_seconds
    assert sirt > demand("full_S_2cpu", 320).walltime_seconds


def book_with(changes):
    text = (GOLDEN / "full_big_2cpu" / "batch.adoc").read_text()
    text += "".join(f"{key} = {value}\n" for key, value in changes.items())
    return book_of({"b.adoc": text}, settings=ImodSettings(directive_file="b.adoc"))


BIN = "runtime.AlignedStack.any.binByFactor"
THICKNESS = "comparam.tilt.tilt.THICKNESS"


def of(changes, **series):
    return book_with(changes).ready(series_of(1024, **series), {}).demand


def test_binning_makes_the_volume_smaller_by_its_cube():
    plain, binned = of({}), of({BIN: "2"})
    assert binned.volume_size == (512, 512, 110)
    assert 7.9 < plain.volume_bytes / binned.volume_bytes < 8.1
    assert binned.scratch_bytes >= 4 * plain.stack_bytes  # the archive is made of the unbinned stack


@pytest.mark.parametrize(
    ("changes", "stacks", "volumes"),
    [
        ({"runtime.Preprocessing.any.archiveOriginal": "0"}, 1.0, 0.0),
        ({"comparam.prenewst.newstack.ModeToOutput": ""}, 0.5, 0.0),
        ({"runtime.AlignedStack.any.filterStack": "1"}, 1.0, 0.0),
        ({"runtime.AlignedStack.any.eraseGold": "2"}, 1.0, 1.15),
        (
            {"runtime.Reconstruction.any.useSirt": "1", "comparam.sirtsetup.sirtsetup.LeaveIterations": "5"},
            0,
            5.13,
        ),
        ({THICKNESS: "440"}, 0.0, 3.0),
    ],
)
def test_what_each_wish_costs(changes, stacks, volumes):
    plain, more = of({}), of(changes)
    extra = more.scratch_bytes - plain.scratch_bytes
    assert extra == pytest.approx(
        1.01 * (stacks * plain.stack_bytes + volumes * plain.volume_bytes), rel=0.01
    )


def test_an_unknown_thickness_is_guessed_and_said_to_be():
    """Recorded: 116 of 320 pixels were found by the alignment."""
    book = recorded("p_nothick_local")
    found = book.ready(series_of(320), {}).demand
    assert not found.thickness_known and found.volume_size[2] >= 116
    assert demand("full_S_2cpu", 320).thickness_known


def test_a_series_without_a_size_is_refused():
    with pytest.raises(Permanent, match="41 images of 0 x 0 pixels"):
        recorded("full_big_2cpu").ready(series_of(320, image_size=(0, 0)), {})


def test_a_list_never_becomes_endless():
    assert listed("1-999999") == tuple(range(1, 1001))
    assert listed("nothing") == ()
