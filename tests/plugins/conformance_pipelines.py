"""What every pipeline must do, as tests to inherit.

    class TestMine(PipelineConformance):
        @pytest.fixture
        def pipeline(self): return MyPipeline({}, CONTEXT)
        @pytest.fixture
        def options(self): return {}           # options with which `make_series()` can be run

A pipeline is pure: the same answers to the same questions, no file opened, no process started, no clock.
"""

from __future__ import annotations

import re
import sys
from itertools import product
from pathlib import PurePosixPath
from typing import Any, get_args

import pytest

from tiltd.daemon.core.model import (
    FilePrint,
    Fingerprint,
    JobSteps,
    Options,
    Outcome,
    Placement,
    ResourceRequest,
    RunEnd,
    TiltSeries,
    Verdict,
)
from tiltd.daemon.core.model.job import FailureClass, RunOutcome
from tiltd.plugins.api import Context, Permanent, Pipeline

CONTEXT = Context(state_folder="/nowhere", spool_folder="/nowhere/spool", journal_id="j1", owner="tiltd")
HOSTILE = '-rf $(touch x); \'a "b"\n\udcff'
PROGRESS_GROUPS = {"step", "done", "total", "minutes", "seconds", "tenths"}
KNOWN_FIELDS = {"input", "output", "scratch", "cores", "threads", "python"}
EXIT_STATUSES = (None, 0, 1, 2, 3, 4, 5, 75, 126, 127, 137, 143, -9)
REASONS = (
    "",
    "memory",
    "walltime",
    "no space",
    "input",
    "missing result",
    "wrong result",
    "exit 1",
    "killed",
)
_FORBIDDEN = ("open", "os.", "subprocess.", "socket.", "shutil.", "time.")

PLACEMENT = Placement(
    nodes=("n1",),
    cores=4,
    threads=4,
    memory_bytes=8_000_000_000,
    scratch_bytes=20_000_000_000,
    walltime_seconds=3600.0,
    queue="",
    rule="default",
    policy_version="v1",
)


def make_series(name: str = "TS_01", folder: str = "grid 1", **changes: Any) -> TiltSeries:
    """A complete series of 41 tilts as a detector would report it; 2.7 MB a section."""
    stack = f"{folder}/{name}.mrc"
    prints = tuple(
        FilePrint(relative_path=path, size_bytes=size, piece_bytes=65536, head_sha256="a" * 64)
        for path, size in ((stack, 1024 + 41 * 1024 * 1024 * 2), (stack + ".mdoc", 20_000))
    )
    known: dict[str, Any] = {
        "tilt_series_name": name,
        "kind": "stack",
        "fingerprint": Fingerprint(files=prints),
        "stack_path": stack,
        "mdoc_path": stack + ".mdoc",
        "tilt_angles_deg": tuple(float(angle) for angle in range(-60, 61, 3)),
        "image_size": (1024, 1024),
        "mode": 1,
        "pixel_spacing_angstrom": 2.0,
        "tilt_axis_deg": -12.5,
    }
    return TiltSeries(**(known | changes))


def make_end(outcome: str, **changes: Any) -> RunEnd:
    known: dict[str, Any] = {"job_id": "1", "nonce": "n", "outcome": outcome, "ended_at": 1.0, "node": "n1"}
    return RunEnd(**(known | changes))


class PipelineConformance:
    """Inherit, give ``pipeline`` and ``options``; ``series`` may be replaced too."""

    @pytest.fixture
    def series(self) -> TiltSeries:
        return make_series()

    def test_request_is_positive(self, pipeline: Pipeline, series: TiltSeries, options: Options) -> None:
        request = pipeline.request(series, options)
        assert isinstance(request, ResourceRequest)
        assert request.nodes >= 1 and request.cores >= 1 and request.threads >= 1
        assert request.memory_bytes > 0 and request.walltime_seconds > 0 and request.result_bytes > 0
        assert request.scratch_bytes >= series.total_bytes, "the input's copy is on scratch too"
        assert request.scratch_bytes >= series.total_bytes + request.result_bytes * 0.1

    def test_same_question_same_answer(
        self, pipeline: Pipeline, series: TiltSeries, options: Options
    ) -> None:
        asked = dict(options)
        assert pipeline.request(series, options) == pipeline.request(series, dict(options))
        assert pipeline.steps(series, options, PLACEMENT) == pipeline.steps(series, options, PLACEMENT)
        assert options == asked, "the options are the caller's"

    def test_touches_nothing(self, pipeline: Pipeline, series: TiltSeries, options: Options) -> None:
        met: list[str] = []
        watching = True

        def hook(event: str, _: tuple[Any, ...]) -> None:
            if watching and event.startswith(_FORBIDDEN):
                met.append(event)

        sys.addaudithook(hook)
        try:
            pipeline.request(series, options)
            pipeline.steps(series, options, PLACEMENT)
            pipeline.judge(Outcome(end=make_end("success")))
        finally:
            watching = False
        assert met == []

    def test_steps_can_be_run(self, pipeline: Pipeline, series: TiltSeries, options: Options) -> None:
        check_steps(pipeline.steps(series, options, PLACEMENT))

    def test_a_hostile_name_changes_no_argument_count(self, pipeline: Pipeline, options: Options) -> None:
        plain = pipeline.steps(make_series(), options, PLACEMENT)
        try:
            hostile = pipeline.steps(make_series(name=HOSTILE, folder=HOSTILE), options, PLACEMENT)
        except Permanent as error:
            assert str(error).isprintable()
            return
        check_steps(hostile)
        assert [len(step.argv) for step in hostile.steps] == [len(step.argv) for step in plain.steps]

    def test_unknown_option_is_refused_with_a_sentence(
        self, pipeline: Pipeline, series: TiltSeries, options: Options
    ) -> None:
        with pytest.raises(Permanent, match="no_such_option"):
            pipeline.request(series, options | {"no_such_option": 1})

    @pytest.mark.parametrize("outcome", get_args(RunOutcome))
    def test_judges_every_end(self, pipeline: Pipeline, outcome: str) -> None:
        for exit_status, reason in product(EXIT_STATUSES, REASONS):
            end = make_end(outcome, exit_status=exit_status, reason=reason, log_tail=("last words", ""))
            check_verdict(outcome, pipeline.judge(Outcome(end=end)))


def check_verdict(outcome: str, verdict: Verdict) -> None:
    """A success is delivered or held; anything else has a failure with class, reason and remedy."""
    if outcome == "success":
        assert verdict.verdict in ("good", "doubtful", "bad") and verdict.failure is None
        return
    assert verdict.verdict == "failed"
    assert verdict.failure is not None
    assert verdict.failure.failure_class in get_args(FailureClass)
    assert verdict.failure.reason and verdict.failure.remedy
    unspent = {"scratch_short", "input_changed", "lost_claim", "stranded"}
    assert verdict.failure.spent is (outcome not in unspent)


def check_steps(answer: JobSteps) -> None:
    """Steps with programs and known fields, result names that stay inside, patterns that compile."""
    assert answer.steps and answer.results
    for step in answer.steps:
        assert step.argv and step.argv[0] and "\0" not in "".join(step.argv)
        for text in [*step.argv, *step.environment.values()]:
            assert set(re.findall(r"\{([a-z_]+)\}", text)) <= KNOWN_FIELDS, text
        for pattern in step.patterns:
            groups = re.compile(pattern.pattern).groupindex
            figures = {group for group in groups if group.startswith("figure_")}
            assert (groups or pattern.step) and set(groups) - figures <= PROGRESS_GROUPS
        if step.success_pattern:
            re.compile(step.success_pattern)
        for text in step.witness.patterns if step.witness else ():
            re.compile(text)
    assert len({step.name for step in answer.steps}) == len(answer.steps)
    names = [file.name for file in answer.files] + [result.name for result in answer.results]
    for name in names:
        path = PurePosixPath(name)
        assert not path.is_absolute() and ".." not in path.parts and name.isprintable()
