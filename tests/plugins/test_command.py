"""The pipeline ``command``: fields, hostile values, results."""

from __future__ import annotations

import pytest

from plugins.conformance_pipelines import (
    CONTEXT,
    HOSTILE,
    PLACEMENT,
    PipelineConformance,
    make_end,
    make_series,
)
from tiltd.daemon.core.model import Options, Outcome, TiltSeries
from tiltd.plugins.api import Permanent
from tiltd.plugins.command import CommandPipeline

COMMAND = "prog --in {stack} --name={name} -a {tilt_axis_deg} -p '{pixel_size_nm} nm' -n {cores} {output}/x"


def pipeline_of(**settings: str) -> CommandPipeline:
    return CommandPipeline(settings, CONTEXT)


def argv(command: str, series: TiltSeries | None = None) -> tuple[str, ...]:
    options: Options = {"command": command, "results": "x"}
    return pipeline_of().steps(series or make_series(), options, PLACEMENT).steps[0].argv


class TestConformance(PipelineConformance):
    @pytest.fixture
    def pipeline(self) -> CommandPipeline:
        return pipeline_of()

    @pytest.fixture
    def options(self) -> Options:
        return {"command": COMMAND, "results": "x, y.mrc"}


def test_fields_are_filled_in_word_by_word() -> None:
    words = ["prog", "--in", "{input}/stack.mrc", "--name=TS_01", "-a", "-12.5", "-p", "0.2 nm", "-n"]
    assert argv(COMMAND) == (*words, "{cores}", "{output}/x")
    assert argv("prog -cpus {hosts}") == ("prog", "-cpus", "{hosts}")


def test_every_field_is_known() -> None:
    fields = "stack mdoc angles name pixel_size_nm pixel_size_angstrom tilt_axis_deg tilt_count size_bytes"
    found = argv("p " + " ".join(f"{field}={{{field}}}" for field in fields.split()))
    assert found[1:] == (
        "stack={input}/stack.mrc",
        "mdoc={input}/stack.mrc.mdoc",
        "angles={input}/angles.tlt",
        "name=TS_01",
        "pixel_size_nm=0.2",
        "pixel_size_angstrom=2",
        "tilt_axis_deg=-12.5",
        "tilt_count=41",
        f"size_bytes={make_series().total_bytes}",
    )


def test_a_hostile_name_adds_no_word_and_no_option() -> None:
    series = make_series(name=HOSTILE)
    assert argv("prog --name={name} {stack}", series) == ("prog", f"--name={HOSTILE}", "{input}/stack.mrc")
    with pytest.raises(Permanent, match="taken for an option"):
        argv("prog {name}", series)
    with pytest.raises(Permanent, match="looks like a field"):
        argv("prog x{name}", make_series(name="a{output}b"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("prog {pixel_size}", "unknown field {pixel_size}; known are stack, mdoc"),
        ("prog {}", "unknown field"),
        ("prog {rawtlt}", "has no rawtlt"),
        ("prog 'open", "cannot be split"),
        ("  ", "is empty"),
    ],
)
def test_a_wrong_template_is_refused(command: str, words: str) -> None:
    with pytest.raises(Permanent, match=words):
        argv(command)


def test_a_value_that_the_series_lacks_is_named() -> None:
    with pytest.raises(Permanent, match="has no tilt_axis_deg"):
        argv("prog {tilt_axis_deg}", make_series(tilt_axis_deg=None))


@pytest.mark.parametrize("results", ["", "../x", "a/b", ".hidden", "-x", "x,x", "a\nb", "/etc/passwd", "a b"])
def test_result_names_stay_in_the_folder(results: str) -> None:
    with pytest.raises(Permanent, match="option results"):
        pipeline_of().request(make_series(), {"command": "prog", "results": results})


def test_numbers_scale_the_request() -> None:
    base: Options = {"command": "prog", "results": "x"}
    pipeline = pipeline_of()
    small = pipeline.request(make_series(), base)
    large = pipeline.request(make_series(), base | {"scratch_factor": 6, "memory": 9e9, "walltime": 60})
    assert large.scratch_bytes - small.scratch_bytes == 3 * make_series().total_bytes
    assert (large.memory_bytes, large.walltime_seconds) == (9_000_000_000, 60.0)


def test_settings_lie_below_options_and_are_checked_at_once() -> None:
    pipeline = pipeline_of(command="below", results="x")
    assert pipeline.steps(make_series(), {"command": "above"}, PLACEMENT).steps[0].argv == ("above",)
    with pytest.raises(Permanent, match="did you mean 'command'"):
        pipeline_of(comand="x")


def test_a_missing_program_is_the_nodes_fault() -> None:
    end = make_end("failed", exit_status=127, reason="exit 127", step="command")
    failure = pipeline_of().judge(Outcome(end=end)).failure
    assert failure is not None and failure.failure_class == "environment"
    assert "n1" in failure.remedy
