"""The pipeline ``wbp`` as the daemon sees it: options, requests, arguments, judgement."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plugins.conformance_pipelines import CONTEXT, PLACEMENT, PipelineConformance, make_end, make_series
from tiltd.daemon.core.model import Options, Outcome, TiltSeries
from tiltd.plugins.api import Permanent
from tiltd.plugins.wbp import WbpPipeline

PIPELINE = WbpPipeline({}, CONTEXT)
GOOD = {"view_count": 41.0, "aligned": 1.0, "residual_mean_px": 0.03, "correlation_mean": 0.6}


class TestConformance(PipelineConformance):
    @pytest.fixture
    def pipeline(self) -> WbpPipeline:
        return PIPELINE

    @pytest.fixture
    def options(self) -> Options:
        return {}


def test_the_daemon_loads_neither_numpy_nor_mrcfile(project: Path) -> None:
    code = "import sys, tiltd.plugins.wbp; print([m for m in ('numpy', 'mrcfile') if m in sys.modules])"
    environment = {"PYTHONPATH": str(project / "tests" / "_path")}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_arguments_of_a_plain_series() -> None:
    answer = PIPELINE.steps(make_series(), {}, PLACEMENT)
    argv = answer.steps[0].argv
    assert argv[:5] == ("{python}", "-m", "tiltd.plugins.reconstruct", "--input", "{input}/stack.mrc")
    assert "--tilt-axis-deg=-12.5" in argv and "--binning=1" in argv and "--memory-bytes=8000000000" in argv
    assert answer.files[0].name == "angles.tlt"
    assert answer.files[0].text.split()[:2] == ["-60.0", "-57.0"]
    volume = answer.results[0]
    assert (volume.name, volume.image_size, volume.mode) == ("tomogram.mrc", (1024, 1024, 256), 2)
    assert volume.min_bytes == 1024 + 1024 * 1024 * 256 * 4


@pytest.mark.parametrize(
    ("options", "size", "mode"),
    [
        ({"tilt_axis_deg": 85.3}, (256, 384, 64), 2),
        ({"tilt_axis_deg": -85.3, "thickness_px": 100, "binning": 2}, (128, 192, 50), 2),
        ({"binning": 3, "output_mode": "int16"}, (128, 85, 32), 1),
    ],
)
def test_the_size_of_the_result_follows_the_options(
    options: Options, size: tuple[int, int, int], mode: int
) -> None:
    answer = PIPELINE.steps(make_series(image_size=(384, 256)), options, PLACEMENT)
    assert (answer.results[0].image_size, answer.results[0].mode) == (size, mode)


def test_large_images_are_binned_by_themselves() -> None:
    answer = PIPELINE.steps(make_series(image_size=(5760, 4092)), {}, PLACEMENT)
    assert "--binning=8" in answer.steps[0].argv
    assert answer.results[0].image_size == (720, 511, 180)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"binnning": 2}, "unknown option 'binnning'; did you mean 'binning'"),
        ({"binning": 64}, "between 0 and 32"),
        ({"binning": 2.5}, "whole number"),
        ({"binning": True}, "whole number"),
        ({"align": "yes"}, "true or false"),
        ({"output_mode": "float64"}, "float32 or int16"),
        ({"tilt_axis_deg": float("nan")}, "between -360 and 360"),
        ({"binning": 32, "thickness_px": 10}, None),
    ],
)
def test_options_are_checked(options: Options, words: str | None) -> None:
    if words is None:
        PIPELINE.request(make_series(), options)
        return
    with pytest.raises(Permanent, match=words):
        PIPELINE.request(make_series(), options)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tilt_axis_deg": None}, "set the option tilt_axis_deg"),
        ({"kind": "frames", "stack_path": ""}, "consists of frames"),
        ({"mode": 4}, "MRC mode 4"),
        ({"tilt_angles_deg": (0.0, 1.0)}, "at least 3 tilt angles"),
        ({"tilt_angles_deg": (0.0, 1.0, 89.0)}, "89.0 degrees"),
        ({"tilt_angles_deg": (0.0, 1.0, float("nan"))}, "nan degrees"),
        ({"image_size": (10, 4096)}, "too small"),
    ],
)
def test_series_that_cannot_be_reconstructed(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Permanent, match=words):
        PIPELINE.request(make_series(**changes), {})


def test_the_axis_of_the_option_wins_over_the_mdoc() -> None:
    argv = PIPELINE.steps(make_series(), {"tilt_axis_deg": 84}, PLACEMENT).steps[0].argv
    assert "--tilt-axis-deg=84.0" in argv


def test_requests_grow_with_the_work() -> None:
    def request(options: Options, series: TiltSeries | None = None) -> tuple[float, ...]:
        asked = PIPELINE.request(series or make_series(), options)
        return asked.memory_bytes, asked.scratch_bytes, asked.result_bytes, asked.walltime_seconds

    plain = request({})
    assert all(map(float.__lt__, map(float, request({"binning": 2})), map(float, plain)))
    thick = request({"thickness_px": 512})
    assert all(map(float.__lt__, map(float, plain), map(float, thick)))
    assert request({"output_mode": "int16"})[2] < 0.51 * plain[2]


@pytest.mark.parametrize(
    ("changes", "verdict", "code"),
    [
        ({}, "good", None),
        ({"residual_mean_px": 1.5}, "doubtful", "alignment_residual"),
        ({"residual_mean_px": 9.0}, "bad", "alignment_residual"),
        ({"residual_mean_px": float("nan")}, "bad", "alignment_residual"),
        ({"correlation_mean": 0.01}, "doubtful", "low_correlation"),
    ],
)
def test_a_success_is_judged_by_its_figures(
    changes: dict[str, float], verdict: str, code: str | None
) -> None:
    found = PIPELINE.judge(Outcome(end=make_end("success", figures=GOOD | changes)))
    assert found.verdict == verdict
    assert [problem.code for problem in found.problems] == ([code] if code else [])


def test_a_success_without_alignment_or_without_figures() -> None:
    plain = make_end("success", figures={"view_count": 41.0, "aligned": 0.0})
    assert PIPELINE.judge(Outcome(end=plain)).verdict == "good"
    assert PIPELINE.judge(Outcome(end=make_end("success"))).verdict == "doubtful"


@pytest.mark.parametrize(
    ("exit_status", "reason", "failure_class"),
    [
        (2, "exit 2", "input"),
        (3, "exit 3", "scratch"),
        (4, "exit 4", "memory"),
        (5, "exit 5", "config"),
        (1, "exit 1", "program"),
        (3, "no space", "scratch"),
        (137, "signal 9 (SIGKILL)", "memory"),
    ],
)
def test_exit_statuses_of_the_program(exit_status: int, reason: str, failure_class: str) -> None:
    tail = ("step prepare", "error: stack.mrc is truncated", "")
    end = make_end("failed", exit_status=exit_status, reason=reason, detail="", log_tail=tail)
    failure = PIPELINE.judge(Outcome(end=end)).failure
    assert failure is not None
    assert failure.failure_class == failure_class
    assert failure.detail == "error: stack.mrc is truncated"
