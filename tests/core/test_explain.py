"""``tiltd why``: a line for every state, every hold and everything that is waited for."""

from __future__ import annotations

import re
import typing
from typing import Any

import pytest
from msgspec.structs import replace

from core.scene import SITE, Bench, node, sighting
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.explain import _ago, explain_arrival
from tiltd.daemon.core.model import (
    HoldCause,
    JobState,
    Policy,
    Problem,
    Progress,
    State,
)
from tiltd.daemon.core.site import Site
from tiltd.daemon.simulate.scene import SimulatedPipeline

ID = "TS-c46098f8.1.1"
ATTEMPT = f"{ID}.a1"


def why(bench: Bench) -> list[str]:
    return bench.core.why(ID, bench.now)


def said(bench: Bench, pattern: str) -> str:
    """The one line that matches."""
    lines = [line for line in why(bench) if re.search(pattern, line)]
    assert len(lines) == 1, why(bench)
    return lines[0]


def arriving(**changes: Any) -> Bench:
    bench = Bench()
    bench.see(sighting("TS", **changes))
    return bench


def reserved() -> Bench:
    bench = Bench()
    bench.arrive()
    return bench


def queued() -> Bench:
    bench = Bench()
    bench.submitted()
    return bench


def running() -> Bench:
    bench = Bench()
    bench.running()
    return bench


def collecting() -> Bench:
    bench = running()
    bench.end(ATTEMPT)
    return bench


def test_of_what_is_not_in_the_working_set_nothing_is_said() -> None:
    assert Bench().core.why("nosuch.1.1", 0.0) == []


# -- every state and hold ------------------------------------------------------------------------


def delivered() -> Bench:
    bench = collecting()
    bench.tell(o.CollectAnswered, attempt_id=ATTEMPT, result_path="/results/TS", verdict="good")
    return bench


def failed() -> Bench:
    bench = running()
    bench.end(ATTEMPT, "failed", "input")
    bench.jobs()
    bench.jobs()
    return bench


def cancelled() -> Bench:
    """It stays in the working set until its scratch is released."""
    bench = running()
    bench.ask("cancel", ID)
    bench.end(ATTEMPT, "terminated", "TERM")
    bench.jobs()
    bench.jobs()
    return bench


def ready() -> Bench:
    bench = Bench(node(state="offline"))
    bench.arrive()
    return bench


STATES = {
    State.ARRIVING: (arriving, "It waits (quiet) for 5 min without a change."),
    State.READY: (ready, "It waits for a place: "),
    State.RESERVED: (reserved, "Attempt 1 (run) on n1 with 4 cores, 4 threads; job not accepted yet."),
    State.QUEUED: (queued, "Attempt 1 (run) on n1 with 4 cores, 4 threads; job job."),
    State.RUNNING: (running, "Attempt 1 (run) on n1 with 4 cores, 4 threads; job job."),
    State.COLLECTING: (collecting, "Its result is being verified and published."),
    State.DELIVERED: (delivered, "It was taken as complete because:"),
    State.FAILED: (failed, "Its last attempt failed (input, input): simulated: input"),
    State.CANCELLED: (cancelled, "Cancelled: cancel by op."),
}


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_explained(state: State) -> None:
    make, line = STATES[state]
    bench = make()
    bench.now += 90.0
    assert bench.of(ID).state is state
    assert why(bench)[0].startswith(f"It is {state} since ")
    bench.now -= 90.0
    assert any(told.startswith(line) for told in why(bench)), why(bench)


@pytest.mark.parametrize("cause", typing.get_args(HoldCause))
@pytest.mark.parametrize("make", [arriving, ready, running])
def test_every_hold_is_told_with_its_origin_and_detail(make: Any, cause: HoldCause) -> None:
    bench = make()
    bench.core.desk.begin(bench.now)
    bench.core.desk.hold(bench.of(ID), cause, "the reason for it", origin="someone")
    if make is ready and cause == "policy":
        assert not bench.of(ID).holds, "what waits is held by the policy while a rule says so, and no longer"
    else:
        assert why(bench)[1] == f"It is held ({cause}, by someone): the reason for it."


def test_all_the_holds_are_told() -> None:
    bench = ready()
    bench.see(gone=("TS.mrc",))
    bench.ask("hold", ID, reason="look first")
    assert why(bench)[1:3] == [
        "It is held (input_gone, by tiltd): its files are no longer in the feed.",
        "It is held (operator, by op): look first.",
    ]
    assert not any("waits for a place" in line for line in why(bench))


# -- arriving ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"series": None}, "It waits (not_opened) for a change of its files."),
        ({"blockers": (".openTS",)}, "It waits (.openTS) for 2.0 h without a change."),
        (
            {"problems": (Problem(code="size_short", detail="3 bytes short"),)},
            "It waits (size_short) for 2.0 h without a change.",
        ),
    ],
)
def test_an_arriving_series_says_what_it_waits_for(changes: dict[str, Any], line: str) -> None:
    lines = why(arriving(**changes))
    assert line in lines
    assert any(told.startswith("  - ") for told in lines), "the evidence against it"


def test_a_partial_series_says_what_is_missing() -> None:
    bench = arriving(planned_tilt_count=61)
    bench.wait(8000.0)
    assert said(bench, "partial:") == "It is partial: fewer_than_planned."
    assert said(bench, r"  - planned") == "  - planned number of tilts: 41 of 61"
    assert said(bench, r"  \+ enough") == "  + enough tilts: 41, at least 3"


def test_a_series_whose_files_are_gone_says_since_when() -> None:
    bench = arriving()
    bench.see(gone=("TS.mrc",))
    bench.now += 60.0
    assert why(bench)[-1] == "Its files are gone from the feed since 60 s."


def test_after_a_restart_nothing_is_said_that_was_not_seen_again() -> None:
    bench = arriving()
    core = Core(SITE, Policy(version="test"), {"simulated": SimulatedPipeline()}, bench.core.state)
    core.recover(1.0)
    assert core.why(ID, 1.0)[-1] == "Its files were not looked at yet since tiltd started."


def test_what_has_no_dataset_yet_is_explained_too() -> None:
    bench = Bench()
    few = Problem(code="few_sections", detail="it has 2 sections")
    bench.see(sighting("TS", series=None, not_series=few))
    (arrival,) = bench.core.arrivals.values()
    lines = explain_arrival(arrival, bench.now)
    assert lines[0] == "It waits (few_sections) for 5 min without a change."
    assert "  - is a tilt series: it has 2 sections" in lines
    assert explain_arrival(replace(arrival, judgement=None), 0.0) == ["It was not judged yet."]


# -- ready ---------------------------------------------------------------------------------------


def test_a_ready_series_says_what_it_asks_for_and_why_not_here() -> None:
    bench = ready()
    assert re.fullmatch(r"It waits for a place: .*offline.*\.", said(bench, "waits for a place"))
    assert re.fullmatch(r"It asks for 4 cores, \S+ of memory and \S+ of scratch\.", said(bench, "It asks"))


def test_a_series_that_will_be_tried_again_says_when_and_what_failed() -> None:
    bench = running()
    bench.end(ATTEMPT, "failed", "program", detail="exit 1")
    bench.jobs()
    bench.jobs()
    assert not any("computed" in line for line in why(bench))
    assert said(bench, "tried again") == "It will be tried again in 59 s."
    assert said(bench, "last attempt") == "Its last attempt failed (program, program): simulated: program"


def test_a_series_of_a_feed_that_is_gone_from_the_settings_says_so() -> None:
    bench = ready()
    core = Core(Site(feeds={}), Policy(version="test"), {"simulated": SimulatedPipeline()}, bench.core.state)
    core.recover(bench.now)
    assert "Its feed a is not configured any more." in core.why(ID, bench.now)


def test_a_series_that_is_being_imported_says_so() -> None:
    bench = ready()
    site = Site(feeds={"a": replace(SITE.feeds["a"], imports=True)})
    core = Core(site, Policy(version="test"), {"simulated": SimulatedPipeline()}, bench.core.state)
    core.recover(bench.now)
    assert "It is being copied to storage that nodes see." in core.why(ID, bench.now)
    core.handle(
        o.OperatorAsked(at=bench.now, action="hold", dataset_id=ID, by="op", request_id="1", reason="wait")
    )
    assert core.why(ID, bench.now)[1:3] == [
        "It is held (operator, by op): wait.",
        "It was taken as complete because:",
    ]


# -- with an attempt -----------------------------------------------------------------------------


def test_a_stop_says_who_asked_for_it() -> None:
    bench = running()
    bench.ask("cancel", ID)
    assert said(bench, "to stop") == "It is to stop (cancel, by op)."


@pytest.mark.parametrize(("total", "done"), [(41.0, ", 12 of 41"), (0.0, "")])
def test_the_runners_progress_is_told(total: float, done: str) -> None:
    bench = running()
    progress = Progress(phase="run", at=bench.now, step="align", done=12.0, total=total)
    bench.tell(o.SpoolObserved, attempt_id=ATTEMPT, progress=progress)
    bench.now += 30.0
    assert said(bench, "runner was") == f"Its runner was in run align{done} 30 s ago."


def test_the_resource_managers_word_and_its_silence_are_told() -> None:
    bench = queued()
    bench.jobs(JobState.QUEUED, comment="not enough nodes of this kind")
    assert said(bench, "manager says") == "The resource manager says: not enough nodes of this kind"
    bench.tell(o.ServerUnreachable, detail="connection refused")
    assert said(bench, "not answer") == "The resource manager does not answer: connection refused"
    bench.see_nodes()
    assert not any("does not answer" in line for line in why(bench))


def test_a_stranded_result_is_said_to_be_computed() -> None:
    bench = running()
    bench.end(ATTEMPT, "stranded", "quota", detail="the destination is full", stranded_path="/scratch/x")
    bench.jobs()
    bench.jobs()
    assert said(bench, "is computed") == (
        "Its result is computed and waits to be delivered: the destination is full."
    )


def test_what_can_be_done_is_told_where_it_is_known() -> None:
    bench = failed()
    dataset = bench.of(ID)
    assert dataset.failure is not None
    advised = replace(dataset, failure=replace(dataset.failure, remedy="renew the licence"))
    bench.core.state.datasets[ID] = advised
    assert said(bench, "What to do") == "What to do: renew the licence"


def test_a_result_that_is_not_published_is_not_said_to_be() -> None:
    bench = collecting()
    bench.ask("cancel", ID)
    assert said(bench, "to stop") == "It is to stop (cancel, by op)."
    bench.ask("hold", ID)
    assert not any("published" in line for line in why(bench))


# -- spans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5.0, "0 s"), (0.4, "0 s"), (119.0, "119 s"), (120.0, "2 min"), (7199.0, "120 min"), (7200.0, "2.0 h")],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert _ago(seconds) == text
