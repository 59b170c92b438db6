"""The job file: what is written can be read again, and what could not be run is refused."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from tiltd.daemon import jobfile
from tiltd.daemon.core.model import (
    Attempt,
    Dataset,
    ExpectedResult,
    FilePrint,
    Fingerprint,
    JobFile,
    JobSteps,
    Placement,
    ResourceRequest,
    State,
    Step,
    TiltSeries,
)
from tiltd.plugins.api import Permanent

STACK = os.fsdecode(b"sess 1/TS\xff '\n$(x).st")


def series() -> TiltSeries:
    files = (
        FilePrint(relative_path=STACK, size_bytes=10, piece_bytes=4, head_sha256="h", tail_sha256="t"),
        FilePrint(relative_path=STACK + ".mdoc", size_bytes=3, piece_bytes=4, head_sha256="m"),
    )
    return TiltSeries(
        tilt_series_name="TS",
        kind="stack",
        fingerprint=Fingerprint(files=files),
        stack_path=STACK,
        mdoc_path=STACK + ".mdoc",
    )


def attempt(number: int = 1, **changes: Any) -> Attempt:
    placement = Placement(
        nodes=("here",),
        cores=4,
        threads=2,
        memory_bytes=5,
        scratch_bytes=6,
        walltime_seconds=7.0,
        queue="",
        rule="r",
        policy_version="p",
    )
    made = Attempt(
        attempt_id=f"TS-0.1.1.a{number}",
        number=number,
        kind="run",
        placement=placement,
        request=ResourceRequest(),
        placed_at=1.0,
    )
    return msgspec.structs.replace(made, **changes)


def dataset(*attempts: Attempt) -> Dataset:
    return Dataset(
        dataset_id="TS-0.1.1",
        feed="krios1",
        series_key=STACK,
        tilt_series_name="TS",
        kind="stack",
        revision=1,
        run=1,
        found_at=0.0,
        state=State.RESERVED,
        state_since_at=1.0,
        series=series(),
        attempts=attempts,
    )


STEPS = JobSteps(
    steps=(Step(name="align", argv=("{python}", "\udcff"), environment={"A": "b"}),),
    files=(JobFile(name="sub/a.txt", text="x"),),
    results=(ExpectedResult(name="v.mrc", image_size=(1, 2, 3), mode=2),),
)


def document(steps: JobSteps = STEPS, made: Attempt | None = None, **changes: Any) -> dict[str, Any]:
    made = made or attempt()
    options = {
        "feed_root": "/data",
        "scratch_path": "/scratch/tiltd",
        "staging": "/out/.tiltd-a",
        "dir_mode": "0755",
        "file_mode": "0644",
        "group": "em",
        "nonce": "n",
    }
    return jobfile.job_document(dataset(made), made, steps, **(options | changes))


def test_all_that_varies_is_in_it_and_survives() -> None:
    read = jobfile.decode(jobfile.encode(document()))
    assert read["format"] == 1 and read["kind"] == "run" and read["nonce"] == "n"
    assert (read["cores"], read["threads"], read["memory_bytes"], read["walltime_seconds"]) == (4, 2, 5, 7.0)
    assert read["scratch"] == {"path": "/scratch/tiltd", "bytes": 6, "ballast": True}
    assert [file["name"] for file in read["input"]["files"]] == ["stack.st", "stack.st.mdoc"]
    assert read["input"]["files"][0]["source"] == STACK
    assert read["steps"][0]["argv"] == ["{python}", "\udcff"]
    assert read["output"]["results"][0]["image_size"] == [1, 2, 3]
    assert read["output"] | {"results": []} == {
        "staging": "/out/.tiltd-a",
        "dir_mode": "0755",
        "file_mode": "0644",
        "group": "em",
        "results": [],
    }


def test_the_story_is_the_dataset_with_this_attempt() -> None:
    first, second = attempt(1), attempt(2)
    told = jobfile.story(jobfile.decode(jobfile.encode(document(made=second))))
    assert told == dataset(second)
    assert jobfile.with_attempt(dataset(first), second).attempts == (first, second)
    newer = attempt(2, job_id="9")
    assert jobfile.with_attempt(dataset(first, second), newer).attempts == (first, newer)


def test_a_rescue_names_what_it_moves() -> None:
    made = attempt(2, kind="rescue", rescue_path="/scratch/tiltd/TS-0.1.1.a1")
    read = document(JobSteps(steps=()), made)
    assert (read["kind"], read["rescue"]) == ("rescue", {"path": "/scratch/tiltd/TS-0.1.1.a1"})


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (JobSteps(steps=(Step(name="../x", argv=("a",)),)), "step name"),
        (JobSteps(steps=(Step(name="a", argv=("a",)), Step(name="a", argv=("b",)))), "unique"),
        (JobSteps(steps=(Step(name="a", argv=()),)), "no program"),
        (JobSteps(steps=(Step(name="a", argv=("x", "y\0")),)), "NUL"),
        (JobSteps(steps=(Step(name="a", argv=("x",), environment={"A=": "b"}),)), "'='"),
        (JobSteps(steps=(Step(name="a", argv=("x",), environment={"A": "\0"}),)), "NUL"),
        (JobSteps(steps=(), files=(JobFile(name="../x", text=""),)), "stays in"),
        (JobSteps(steps=(), files=(JobFile(name="/x", text=""),)), "stays in"),
        (JobSteps(steps=(), results=(ExpectedResult(name="a\0"),)), "NUL"),
    ],
)
def test_what_could_not_be_run_is_refused(steps: JobSteps, words: str) -> None:
    with pytest.raises(Permanent, match=words):
        document(steps)


@pytest.mark.parametrize(
    "changes",
    [
        {"feed_root": "data"},
        {"scratch_path": ""},
        {"staging": "/a\0"},
        {"dir_mode": "rwx"},
        {"file_mode": "0999"},
    ],
)
def test_paths_and_modes_must_be_usable(changes: dict[str, str]) -> None:
    with pytest.raises(Permanent):
        document(**changes)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 2}', b"{}", b"[" * 100_000, b"\xff"])
def test_other_formats_are_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(ValueError, match="job file"):
        jobfile.decode(content)


def test_a_story_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="story"):
        jobfile.story({"story": {"dataset_id": 3}})


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"attempts": ()}, id="no attempt"),
        pytest.param({"attempts": (attempt(2),)}, id="another attempt"),
        pytest.param({"dataset_id": "other.1.1"}, id="another dataset's"),
        pytest.param({"series_key": "\ud800"}, id="half a character, which no file name holds"),
        pytest.param({"labels": {"project": "\ud800"}}, id="the same in a label"),
    ],
)
def test_a_story_that_cannot_be_true_is_refused(changes: dict[str, Any]) -> None:
    made = document()
    made["story"] = msgspec.to_builtins(made["story"]) | msgspec.to_builtins(changes)
    with pytest.raises(ValueError, match="The job file's story"):
        jobfile.story(made)
