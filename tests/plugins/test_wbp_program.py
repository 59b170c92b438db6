"""The program of ``wbp`` on a specimen of known truth: what comes out, what it took, how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import psutil
import pytest

from plugins.conformance_pipelines import CONTEXT, PLACEMENT
from plugins.phantom import (
    Phantom,
    Series,
    correlation,
    make_phantom,
    make_series,
    score_shifts,
    write_series,
)
from tiltd.daemon.core.model import FilePrint, Fingerprint, Options, TiltSeries
from tiltd.plugins.reconstruct import cli
from tiltd.plugins.wbp import WbpPipeline

SIDE, DEPTH, PIXEL_ANGSTROM = 192, 48, 2.5
PIPELINE = WbpPipeline({}, CONTEXT)


@dataclass(frozen=True)
class Specimen:
    """A phantom, its series, and the folder it was written to."""

    phantom: Phantom
    series: Series
    folder: Path

    def described(self) -> TiltSeries:
        """As a detector would."""
        stack = self.folder / "stack.mrc"
        prints = FilePrint(
            relative_path="stack.mrc", size_bytes=stack.stat().st_size, piece_bytes=1, head_sha256="a"
        )
        count, ny, nx = self.series.images.shape
        return TiltSeries(
            tilt_series_name="phantom",
            kind="stack",
            fingerprint=Fingerprint(files=(prints,)),
            stack_path="stack.mrc",
            tilt_angles_deg=tuple(float(angle) for angle in self.series.angles_deg[:count]),
            image_size=(nx, ny),
            pixel_spacing_angstrom=PIXEL_ANGSTROM,
            tilt_axis_deg=self.series.axis_deg,
        )


@dataclass(frozen=True)
class Run:
    """One run of the program as the runner would start it."""

    output: Path
    lines: list[str]
    peak_memory_bytes: int
    peak_scratch_bytes: int

    @property
    def figures(self) -> dict[str, float]:
        figures: dict[str, float] = json.loads((self.output / "figures.json").read_text())
        return figures

    @property
    def shifts(self) -> Any:
        views = json.loads((self.output / "alignment.json").read_text())["views"]
        return np.array([[view["shift_x_px"], view["shift_y_px"]] for view in views])

    @property
    def volume(self) -> Any:
        with mrcfile.open(self.output / "tomogram.mrc") as file:
            return file.data.astype(np.float32)


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    folder = tmp_path_factory.mktemp("specimen")
    phantom = make_phantom(SIDE, SIDE, DEPTH)
    series = make_series(phantom, np.arange(-60.0, 60.1, 3.0), noise=0.3, shift_px=3.9)
    write_series(series, folder, PIXEL_ANGSTROM)
    return Specimen(phantom, series, folder)


@pytest.fixture(scope="module")
def run(specimen: Specimen, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    def start(cores: int = 2, **options: Any) -> Run:
        return run_steps(specimen, tmp_path_factory.mktemp("run"), cores, options)

    return start


@pytest.fixture(scope="module")
def plain(run: Callable[..., Run]) -> Run:
    return run()


def argv_of(specimen: Specimen, folder: Path, cores: int, options: Options) -> list[str]:
    fields = {
        "python": sys.executable,
        "input": str(specimen.folder),
        "output": str(folder / "output"),
        "scratch": str(folder),
        "cores": str(cores),
        "threads": str(cores),
    }
    argv = PIPELINE.steps(specimen.described(), options, PLACEMENT).steps[0].argv
    return [re.sub(r"\{([a-z]+)\}", lambda found: fields[found[1]], word) for word in argv]


def run_steps(specimen: Specimen, folder: Path, cores: int, options: Options) -> Run:
    """Run the pipeline's steps, watching memory and scratch every few milliseconds."""
    (folder / "output").mkdir()
    process = subprocess.Popen(
        argv_of(specimen, folder, cores, options),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "_path")},
        stdout=subprocess.PIPE,
        text=True,
    )
    memory = scratch = 0
    while process.poll() is None:
        memory = max(memory, resident_bytes(process.pid))
        scratch = max(scratch, size_of(folder))
        time.sleep(0.005)
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    assert process.returncode == 0
    return Run(folder / "output", lines, memory, scratch + size_of(specimen.folder))


def resident_bytes(pid: int) -> int:
    try:
        top = psutil.Process(pid)
        return sum(each.memory_info().rss for each in [top, *top.children(recursive=True)])
    except psutil.Error:
        return 0


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def test_it_finds_the_truth_and_only_with_alignment(
    specimen: Specimen, plain: Run, run: Callable[..., Run]
) -> None:
    score = score_shifts(specimen.series, plain.shifts)
    aligned = correlation(plain.volume, specimen.phantom.volume(score.moved))
    unaligned = correlation(run(align=False).volume, specimen.phantom.volume())
    told = f"correlation with the phantom: aligned {aligned:.3f}, not aligned {unaligned:.3f}"
    assert aligned >= 0.62, told
    assert unaligned <= aligned - 0.15, told


def test_the_shifts_are_found(specimen: Specimen, plain: Run) -> None:
    score = score_shifts(specimen.series, plain.shifts)
    assert score.before_px > 4.0
    assert score.after_px < 0.3, f"{score.after_px:.3f} px left of {score.before_px:.3f} px"
    untouched = score_shifts(specimen.series, np.zeros_like(plain.shifts))
    assert untouched.after_px > 3.0, "the score itself must see shifts that were not found"


def test_the_volume_is_a_right_mrc_file(plain: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = plain.output / "tomogram.mrc"
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as file:
        assert file.data.shape == (DEPTH, SIDE, SIDE)
        assert file.is_volume()
        assert [float(file.voxel_size[axis]) for axis in "xyz"] == [PIXEL_ANGSTROM] * 3
        middle = [float(file.header.origin[axis]) for axis in "xyz"]
    assert middle == [(0.5 - n / 2) * PIXEL_ANGSTROM for n in (SIDE, SIDE, DEPTH)]


def test_the_picture_is_a_png_of_the_central_section(plain: Run) -> None:
    data = (plain.output / "central.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20]) == int.from_bytes(data[20:24]) == SIDE
    length = int.from_bytes(data[33:37])
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(SIDE, SIDE + 1)
    assert not lines[:, 0].any()
    central = plain.volume[DEPTH // 2][::-1]
    assert np.corrcoef(lines[:, 1:].ravel(), central.ravel())[0, 1] > 0.95


def test_figures_are_flat_numbers(plain: Run) -> None:
    figures = plain.figures
    assert all(isinstance(value, int | float) for value in figures.values())
    assert figures["view_count"] == 41 and figures["aligned"] == 1
    assert 0 < figures["residual_mean_px"] <= figures["residual_max_px"] < 1
    assert 3 < figures["shift_rms_px"] < 8
    phases = ("prepare", "align", "turn", "backproject", "finish")
    assert all(figures[f"{phase}_seconds"] >= 0 for phase in phases)


def test_progress_lines_match_the_patterns(specimen: Specimen, plain: Run) -> None:
    step = PIPELINE.steps(specimen.described(), {}, PLACEMENT).steps[0]
    patterns = [re.compile(pattern.pattern) for pattern in step.patterns]
    found = [next((m for p in patterns if (m := p.search(line))), None) for line in plain.lines]
    assert all(found), plain.lines
    names = [match["step"] for match in found if match and "step" in match.groupdict()]
    assert names == ["prepare", "align", "turn", "backproject", "finish"]
    assert "done 41/41" in plain.lines


def test_it_takes_what_was_asked_for(specimen: Specimen, plain: Run) -> None:
    request = PIPELINE.request(specimen.described(), {})
    assert request.threads == 4, "two workers run here, four are asked for"
    assert 0.2 * request.memory_bytes <= plain.peak_memory_bytes <= request.memory_bytes
    assert 0.5 * request.scratch_bytes <= plain.peak_scratch_bytes <= request.scratch_bytes
    delivered = sum((plain.output / name).stat().st_size for name in ("tomogram.mrc", "central.png"))
    assert 0.5 * request.result_bytes <= delivered <= request.result_bytes


def test_workers_slabs_and_modes_change_nothing(plain: Run, run: Callable[..., Run]) -> None:
    other = run(cores=1, output_mode="int16").volume
    difference = other / other.std() - plain.volume / plain.volume.std()
    assert float(np.abs(difference).max()) < 0.002, "int16 steps are 0.001 standard deviations"


def test_binning_keeps_the_specimen_in_place(specimen: Specimen, plain: Run, run: Callable[..., Run]) -> None:
    binned = run(binning=2)
    with mrcfile.open(binned.output / "tomogram.mrc") as file:
        assert file.data.shape == (DEPTH // 2, SIDE // 2, SIDE // 2)
        assert float(file.voxel_size.x) == 2 * PIXEL_ANGSTROM
        small = file.data.astype(np.float32)
    full = plain.volume.reshape(DEPTH // 2, 2, SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3, 5))
    assert correlation(small, full) > 0.8
    assert np.abs(2 * binned.shifts - plain.shifts).max() < 1.0


# How it fails.  These run in this process; the fixture of the good input is the same.


def arguments(specimen: Specimen, folder: Path) -> list[str]:
    (folder / "output").mkdir()
    return argv_of(specimen, folder, 1, {})[3:]


def test_a_truncated_stack(specimen: Specimen, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = arguments(specimen, tmp_path)
    stack = tmp_path / "short.mrc"
    stack.write_bytes((specimen.folder / "stack.mrc").read_bytes()[:-1])
    words[words.index("--input") + 1] = str(stack)
    assert cli.main(words) == 2
    assert "short.mrc is truncated" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\xff" * 2048, b"\0" * 2048])
def test_no_stack_at_all(
    specimen: Specimen, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(specimen, tmp_path)
    words[words.index("--input") + 1] = str(tmp_path / "bad.mrc")
    assert cli.main(words) == 2
    (tmp_path / "bad.mrc").write_bytes(content)
    assert cli.main(words) == 2
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.parametrize(
    ("text", "words"), [("1\n2\n", "2 tilt angles"), ("x", "cannot be read"), ("", "0 ")]
)
def test_wrong_angles(
    specimen: Specimen, tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(specimen, tmp_path)
    (tmp_path / "angles.tlt").write_text(text)
    given[given.index("--angles") + 1] = str(tmp_path / "angles.tlt")
    assert cli.main(given) == 2
    assert words in capsys.readouterr().err


def test_too_little_memory_is_said_before_work_begins(
    specimen: Specimen, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments(specimen, tmp_path), "--memory-bytes=1000000"]) == 4
    assert re.search(r"1000000 bytes of memory are too few: 1 processes need \d{8}", capsys.readouterr().err)


def test_a_full_disk(specimen: Specimen, tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000));"
        "from tiltd.plugins.reconstruct.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "_path")}
    words = [sys.executable, "-c", code, *arguments(specimen, tmp_path)]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, "no space left" in ended.stderr) == (3, True), ended.stderr


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--inputt", "x"]) == 5
    assert "wrong arguments" in capsys.readouterr().err
