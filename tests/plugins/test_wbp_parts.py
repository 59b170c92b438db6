"""The parts of the reconstruction against independent ways to do the same."""

from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from plugins.phantom import make_phantom, make_series, score_shifts
from tiltd.plugins.reconstruct import budget
from tiltd.plugins.reconstruct.align import align
from tiltd.plugins.reconstruct.backproject import (
    angular_weights,
    back_project,
    make_plan,
    ramp_filter,
)
from tiltd.plugins.reconstruct.crew import crew
from tiltd.plugins.reconstruct.faults import Fault
from tiltd.plugins.reconstruct.resample import Floats, stretch, turn
from tiltd.plugins.reconstruct.stack import cool, prepare_section, read_header


def plain_back_projection(sections: Floats, angles_deg: Floats, nz: int) -> Floats:
    """The textbook: filter, then for every voxel the linear interpolation in every view."""
    views, rows, nx = sections.shape
    weights = angular_weights(angles_deg)
    volume = np.zeros((nz, rows, nx))
    x, z = np.meshgrid(np.arange(nx) - (nx - 1) / 2, np.arange(nz) - (nz - 1) / 2)
    for view in range(views):
        spectrum = np.fft.rfft(np.pad(sections[view], ((0, 0), (0, nx))), axis=1)
        filtered = np.fft.irfft(spectrum * ramp_filter(2 * nx, 0.35, 0.05), axis=1)[:, :nx]
        angle = np.radians(angles_deg[view])
        place = x * np.cos(angle) + z * np.sin(angle) + (nx - 1) / 2
        for row in range(rows):
            line = np.interp(place.ravel(), np.arange(nx), filtered[row], left=0, right=0)
            volume[:, row] += weights[view] * line.reshape(nz, nx)
    return volume.astype(np.float32)


def test_back_projection_agrees_with_the_textbook() -> None:
    angles = np.linspace(-70, 65, 23)
    places = np.arange(96) - 47.5
    sections = np.stack([np.exp(-0.5 * ((places - 20 * np.sin(np.radians(a))) / 3) ** 2) for a in angles])
    slab = np.repeat(sections[:, None, :], 2, axis=1).astype(np.float32)
    ours = back_project(make_plan(96, 64, angles, 0.35, 0.05), slab)
    truth = plain_back_projection(slab, angles, 64)
    assert np.corrcoef(ours.ravel(), truth.ravel())[0, 1] > 0.995
    assert abs(ours.max() / truth.max() - 1) < 0.05
    assert np.unravel_index(ours[:, 0].argmax(), (64, 96))[0] in (51, 52), "the blob lies at z = 20"


def test_views_weigh_what_they_add() -> None:
    weights = np.degrees(angular_weights(np.array([0.0, 3.0, -3.0, 3.0, 9.0])))
    assert weights == pytest.approx([3.0, 1.5, 3.0, 3.0, 6.0])
    assert weights[1] + weights[3] == pytest.approx(4.5), "an angle shot twice counts once"


@pytest.mark.parametrize("axis_deg", [0.0, 90.0, -90.0, 180.0])
def test_turning_by_right_angles_is_exact(axis_deg: float) -> None:
    image = np.random.default_rng(1).normal(size=(20, 20)).astype(np.float32)
    turned = turn(image, (20, 20), axis_deg, (0.0, 0.0))
    # rows count upwards, so counter-clockwise in the picture is clockwise for rot90
    assert np.allclose(turned, np.rot90(image, k=round(axis_deg / 90)), atol=1e-5)


def test_turning_moves_back_by_the_shift() -> None:
    y, x = np.mgrid[:64, :64] - 31.5

    def blob(u: float, v: float) -> Floats:
        spot: Floats = np.exp(-((x - u) ** 2 + (y - v) ** 2) / 18).astype(np.float32)
        return spot

    assert np.abs(turn(blob(5.3, -2.6), (64, 64), 0.0, (5.3, -2.6)) - blob(0, 0)).max() < 0.005
    # the axis at 30 degrees: the point at (0, 10) on the upright axis lies at (-5, 8.66)
    assert np.abs(turn(blob(-5.0, 8.66), (64, 64), 30.0, (0.0, 0.0)) - blob(0, 10)).max() < 0.005


def test_stretching() -> None:
    image = np.tile(np.arange(32, dtype=np.float32), (8, 1))
    stretched = stretch(image, 0.5, (1.0, 0.0))
    assert stretched[3] == pytest.approx(15.5 + (np.arange(32) - 15.5) / 2 + 1)
    assert stretch(image, 2.0, (0.0, 0.0))[3, :7].max() == 0.0


def test_alignment_holds_in_noise_three_times_the_signal() -> None:
    series = make_series(
        make_phantom(192, 192, 48), np.arange(-60.0, 60.1, 3.0), axis_deg=0.0, noise=3.0, shift_px=3.9
    )
    told: list[tuple[int, int]] = []
    found = align(
        [image.astype(np.float32) for image in series.images],
        series.angles_deg,
        lambda done, total: told.append((done, total)),
    )
    score = score_shifts(series, found.shifts)
    assert score.after_px < 0.6, f"{score.after_px:.3f} px left of {score.before_px:.3f} px"
    assert told[-1] == (82, 82) and told == sorted(told)
    assert (found.correlations > 0.1).all() and found.residuals.mean() < 1.0


def test_hot_pixels_go_and_beads_stay() -> None:
    random = np.random.default_rng(3)
    image = random.normal(100, 5, (64, 64)).astype(np.float32)
    image[30:36, 30:36] = 300.0
    image[10, 10], image[0, 63], image[40, 5] = 5000.0, -4000.0, 900.0
    assert cool(image, 100.0, 40.0) == 3
    assert abs(image[10, 10] - 100) < 20 and abs(image[0, 63] - 100) < 20
    assert (image[31:35, 31:35] == 300).all()


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "<u2", "<f4", ">f4", "<i1", "<f2"])
@pytest.mark.parametrize("extended", [0, 512])
def test_sections_are_read_as_mrcfile_reads_them(tmp_path: Path, dtype: str, extended: int) -> None:
    data = (np.random.default_rng(5).uniform(-100, 100, (3, 34, 50)) // 1).astype(dtype)
    if dtype == "<u2":
        data = np.abs(np.random.default_rng(5).uniform(0, 60000, (3, 34, 50)) // 1).astype(dtype)
    path = tmp_path / "x.mrc"
    with mrcfile.new(path) as file:
        file.set_data(data)
        file.set_extended_header(np.zeros(extended, "V1"))
        file.voxel_size = 3.5
    header = read_header(path)
    assert (header.nx, header.ny, header.nz) == (50, 34, 3)
    assert header.pixel_size_angstrom == pytest.approx(3.5)
    got = prepare_section(path, header, 1, 1, hot_pixel=False).image
    assert np.array_equal(got, data[1].astype(np.float32))
    binned = prepare_section(path, header, 1, 4, hot_pixel=False).image
    expected = data[1, :32, :48].astype(np.float32).reshape(8, 4, 12, 4).mean(axis=(1, 3))
    assert np.allclose(binned, expected, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
def test_values_that_are_no_numbers_are_an_input_fault(tmp_path: Path) -> None:
    data = np.zeros((2, 32, 32), np.float32)
    data[1, 3, 3] = np.nan
    with mrcfile.new(tmp_path / "x.mrc") as file:
        file.set_data(data)
    path = tmp_path / "x.mrc"
    with pytest.raises(Fault, match=r"section 1 of x\.mrc holds values that are no numbers") as caught:
        prepare_section(path, read_header(path), 1, 1, hot_pixel=True)
    assert caught.value.exit_status == 2


def test_slabs_shrink_until_they_fit() -> None:
    size = budget.sizes(41, (1024, 1024), 1, 0, 0.0, "float32", 60.0)
    roomy = budget.rows_per_slab(size, 4, 0)
    tight = budget.rows_per_slab(size, 4, budget.least_memory_bytes(size, 4))
    assert roomy == budget.ROWS_PER_SLAB
    assert 1 <= tight <= roomy
    thick = budget.sizes(81, (4096, 4096), 1, 1024, 0.0, "int16", 60.0)
    given = (budget.memory_bytes(thick, 4, rows=3) + budget.memory_bytes(thick, 4, rows=16)) // 2
    rows = budget.rows_per_slab(thick, 4, given)
    assert rows < budget.ROWS_PER_SLAB
    assert budget.memory_bytes(thick, 4, rows) <= given < budget.memory_bytes(thick, 4, rows + 1)
    with pytest.raises(ValueError, match="too few"):
        budget.rows_per_slab(size, 4, 100_000_000)


def _vanish(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number


def test_a_killed_worker_is_a_want_of_memory() -> None:
    with pytest.raises(Fault) as caught, crew(2) as workers:
        list(workers.run(_vanish, list(range(8))))
    assert caught.value.exit_status == 4
    assert isinstance(caught.value.__cause__, BrokenProcessPool)
