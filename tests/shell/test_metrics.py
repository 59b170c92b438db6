from __future__ import annotations

import re
import tracemalloc
from types import SimpleNamespace
from typing import Any, get_args

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.digests import Board
from tiltd.daemon.core.ledger import Ledger
from tiltd.daemon.core.model import (
    Attempt,
    Dataset,
    Failure,
    FailureClass,
    Hold,
    Measured,
    NodeInfo,
    Placement,
    Policy,
    Reservation,
    ResourceRequest,
    RunEnd,
    State,
    TiltSeries,
    Unplaceable,
)
from tiltd.daemon.core.model.series import Fingerprint, Problem
from tiltd.daemon.metrics import METRICS, Metrics
from tiltd.daemon.metrics.labels import BoundedLabels
from tiltd.daemon.metrics.shapes import BoundedShapes
from tiltd.plugins.api import CommandCount
from tiltd.policy.breaker import Breakers, opened

NOW = 10_000.0
ID = "TS_01-3fa2c1d0.1.1"
PLACEMENT = Placement(
    nodes=("n1",),
    cores=4,
    threads=4,
    memory_bytes=0,
    scratch_bytes=10,
    walltime_seconds=60,
    queue="",
    rule="default",
    policy_version="v",
)
SERIES = TiltSeries(tilt_series_name="TS_01", kind="stack", fingerprint=Fingerprint(files=()))


def dataset(dataset_id: str = ID, **changes: Any) -> Dataset:
    values: dict[str, Any] = {
        "dataset_id": dataset_id,
        "feed": "krios1",
        "series_key": "TS_01.mrc",
        "tilt_series_name": "TS_01",
        "kind": "stack",
        "revision": 1,
        "run": 1,
        "found_at": 0.0,
        "state": State.READY,
        "state_since_at": 0.0,
        "pipeline": "wbp",
    }
    return Dataset(**(values | changes))


def core(*datasets: Dataset, **changes: Any) -> Any:
    ledger = Ledger()
    ledger.book(
        Reservation(attempt_id="a", node="n1", reserved_bytes=10, cores=4, memory_bytes=0, reserved_at=0.0)
    )
    state = SimpleNamespace(
        board=Board(),
        datasets={d.dataset_id: d for d in datasets},
        ledger=ledger,
        breakers=opened(Breakers(), "node:n1", "node", 5.0),
        current={},
    )
    node = NodeInfo(
        name="n1",
        state="free",
        cores=16,
        cores_free=12,
        memory_bytes=1,
        scratch_total_bytes=1000,
        scratch_free_bytes=400,
        scratch_path="/s",
        observed_at=0.0,
    )
    values = {"state": state, "nodes": {"n1": node}, "arrivals": {("krios1", "x"): 1}, "blocked_by": {}.get}
    values |= {"refusals": {"scratch": 7}, "shares": lambda now: []}
    values |= {"jobs_forgotten": 2, "foreign_counts": {"running": 9}, "listed_states": lambda: {"held": 1}}
    return SimpleNamespace(**(values | changes))


def samples(metrics: Metrics) -> dict[str, float]:
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def attempt(number: int = 1) -> Attempt:
    return Attempt(
        attempt_id=f"{ID}.a{number}",
        number=number,
        kind="run",
        placement=PLACEMENT,
        request=ResourceRequest(),
        placed_at=0.0,
    )


def life() -> list[f.Fact]:
    """Found, completed, fails once, is tried again and delivered."""
    end = RunEnd(
        job_id="1", nonce="n", outcome="failed", ended_at=1.0, node="n1", measured=Measured(run_seconds=7)
    )
    failure = Failure(failure_class="memory", reason="oom", detail="")
    steps = {"xcorr": 5.0, "tilt": 80.0, "$(x) TS_01.com": 1.0}
    measured = Measured(stage_in_seconds=2.0, run_seconds=100.0, stage_out_seconds=3.0, step_seconds=steps)
    doubt = Problem(code="few_points", detail="only 3 beads of TS_01")
    first, second = f"{ID}.a1", f"{ID}.a2"
    return [
        f.DatasetFound(
            at=50.0,
            dataset_id=ID,
            feed="krios1",
            series_key="TS_01.mrc",
            tilt_series_name="TS_01",
            series_kind="stack",
            revision=1,
            run=1,
            labels={},
            pipeline="wbp",
            options={},
        ),
        f.DatasetCompleted(at=100.0, dataset_id=ID, series=SERIES, evidence=(), last_change_at=60.0),
        f.Placed(at=101.0, dataset_id=ID, attempt=attempt()),
        f.JobAccepted(at=103.0, dataset_id=ID, attempt_id=first, job_id="1"),
        f.JobStarted(at=108.0, dataset_id=ID, attempt_id=first, nodes=("n1",), started_at=107.0),
        f.AttemptFailed(at=120.0, dataset_id=ID, attempt_id=first, failure=failure, retry_at=130.0, end=end),
        f.Placed(at=131.0, dataset_id=ID, attempt=attempt(2)),
        f.JobAccepted(at=132.0, dataset_id=ID, attempt_id=second, job_id="2"),
        f.JobStarted(at=133.0, dataset_id=ID, attempt_id=second, nodes=("n1",), started_at=133.0),
        f.ResultCollected(
            at=260.0,
            dataset_id=ID,
            attempt_id=second,
            result_path="/r",
            result_bytes=1,
            verdict="good",
            quality={},
            measured=measured,
            problems=(doubt,),
        ),
        f.DatasetFinalized(at=261.0, dataset_id=ID),
        f.SeriesIgnored(
            at=1.0, feed="krios1", series_key="k", reason="montage", detail="", stat_signature="s"
        ),
    ]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(now=lambda: NOW, journal_bytes=lambda: 4096)


def full(metrics: Metrics) -> Metrics:
    """Every metric of the table has at least one sample."""
    waiting = dataset("a.1.1", completed_at=NOW - 500)
    held = dataset(
        "b.1.1",
        completed_at=NOW - 900,
        holds=(Hold(cause="operator", origin="me", detail="", since_at=0.0),),
    )
    refused = {"a.1.1": Unplaceable(rejected={"scratch": 3, "cores": 1}, unblocked_by=("node",))}
    metrics.attach(core(waiting, held, blocked_by=refused.get), lambda: True, [("krios1", State.FAILED, 4)])
    metrics.saw(o.FilesObserved(at=NOW - 3, feed="krios1", up=False))
    free = {"krios1": 5000, "gone": None, "/data/{project}/{series}": 7}
    metrics.saw(o.DestinationsObserved(at=NOW, free_bytes=free))
    metrics.saw(o.JobsObserved(at=NOW - 30, jobs=(), complete=True, asked_at=NOW - 31))
    metrics.saw(o.ServerUnreachable(at=NOW - 20, detail="no"))
    metrics.saw(o.PolicyLoaded(at=77.0, policy=Policy(version="abc123")))
    metrics.observe(life())
    stranded = RunEnd(job_id="1", nonce="n", outcome="stranded", ended_at=1.0, node="n1")
    metrics.observe(
        [f.ResultStranded(at=1.0, dataset_id="a.1.1", attempt_id="a.1.1.a1", end=stranded, retry_at=2.0)]
    )
    metrics.appended(0.004)
    metrics.measure("tiltd_event_loop_lag_seconds", 0.001)
    return metrics


def test_a_bad_result_is_counted_when_it_is_held(metrics: Metrics) -> None:
    metrics.observe(life()[:3])
    for cause in ("quality", "operator"):
        hold = f.HoldPlaced(at=200.0, dataset_id=ID, cause=cause, origin="x", detail="")  # type: ignore[arg-type]
        metrics.observe([hold])
    assert samples(metrics)["tiltd_verdicts_total{pipeline=wbp,verdict=bad}"] == 1.0


def test_few_names_of_steps_become_labels() -> None:
    labels = BoundedLabels()
    found = {labels.value("step", f"s{number}") for number in range(300)}
    assert len(found) == 41 and "other" in found
    assert len({labels.value("node", f"n{number}") for number in range(300)}) == 300


def test_odd_values_share_one_metric_and_leave_nothing_behind() -> None:
    metrics = Metrics(now=lambda: NOW)

    def remembered() -> int:
        before = tracemalloc.take_snapshot()
        for number in range(3000):
            name = f"no word: {number}"
            metrics.measure("tiltd_step_seconds", 1.0, pipeline="wbp", step=name)
        after = tracemalloc.take_snapshot()
        return sum(
            each.size_diff
            for each in after.compare_to(before, "filename")
            if "tiltd" in each.traceback[0].filename
        )

    metrics.measure("tiltd_step_seconds", 1.0, pipeline="wbp", step="first odd one")
    tracemalloc.start()
    try:
        assert remembered() < 10_000
    finally:
        tracemalloc.stop()
    assert samples(metrics)["tiltd_step_seconds_count{pipeline=wbp,step=other}"] == 3001.0


def test_what_the_resource_manager_lists_and_its_commands_are_told() -> None:
    metrics = Metrics(lambda: NOW)
    ran = [
        CommandCount(command="qstat", outcome="ok", count=3, seconds=0.5),
        CommandCount(command="qstat", outcome="timeout", count=1, seconds=45.0),
    ]
    metrics.attach(core(), commands=lambda: ran)
    seen = samples(metrics)
    assert seen["tiltd_jobs{state=held}"] == 1.0
    assert seen["tiltd_foreign_jobs{state=running}"] == 9.0
    assert seen["tiltd_jobs_forgotten_total{}"] == 2.0
    assert seen["tiltd_resource_manager_commands_total{command=qstat,outcome=timeout}"] == 1.0
    assert seen["tiltd_resource_manager_command_seconds_total{command=qstat}"] == 45.5


def test_scratch_of_attempts_that_are_over_is_told_as_leaked() -> None:
    metrics = Metrics(lambda: NOW)
    metrics.attach(core())
    assert samples(metrics)["tiltd_node_scratch_leaked_bytes{node=n1}"] == 10.0


def test_the_times_of_one_life(metrics: Metrics) -> None:
    seen = samples(full(metrics))
    assert seen["tiltd_completion_to_submit_seconds_sum{feed=krios1}"] == 3.0
    assert seen["tiltd_completion_to_submit_seconds_count{feed=krios1}"] == 1.0
    assert seen["tiltd_last_tilt_to_tomogram_seconds_sum{feed=krios1}"] == 200.0
    assert seen["tiltd_queue_wait_seconds_sum{pipeline=wbp}"] == 5.0
    assert seen["tiltd_run_seconds_sum{cores=4,nodes=1,outcome=good,pipeline=wbp,threads=4}"] == 100.0
    assert seen["tiltd_run_seconds_sum{cores=4,nodes=1,outcome=memory,pipeline=wbp,threads=4}"] == 7.0
    assert seen["tiltd_stage_in_seconds_sum{pipeline=wbp}"] == 2.0
    assert seen["tiltd_step_seconds_sum{pipeline=wbp,step=tilt}"] == 80.0
    assert seen["tiltd_step_seconds_sum{pipeline=wbp,step=other}"] == 1.0, "no name of a series is a label"
    assert seen["tiltd_verdicts_total{pipeline=wbp,verdict=good}"] == 1.0
    assert seen["tiltd_problems_total{code=few_points,pipeline=wbp}"] == 1.0
    assert seen["tiltd_failures_total{failure_class=memory,pipeline=wbp}"] == 1.0
    assert seen["tiltd_failure_reasons_total{code=oom,pipeline=wbp}"] == 1.0
    assert seen["tiltd_retries_total{failure_class=memory}"] == 1.0
    assert seen["tiltd_datasets_ended_total{feed=krios1,state=delivered}"] == 1.0
    assert seen["tiltd_sightings_ignored_total{reason=montage}"] == 1.0


def test_what_a_scrape_reads_from_the_core(metrics: Metrics) -> None:
    seen = samples(full(metrics))
    assert seen["tiltd_datasets{feed=krios1,state=ready}"] == 2.0
    assert seen["tiltd_datasets{feed=krios1,state=delivered}"] == 1.0
    assert seen["tiltd_datasets{feed=krios1,state=failed}"] == 4.0
    assert seen["tiltd_queue_depth{feed=krios1}"] == 1.0
    assert seen["tiltd_oldest_waiting_seconds{reason=scratch}"] == 500.0
    assert seen["tiltd_oldest_waiting_seconds{reason=held}"] == 900.0
    assert seen["tiltd_placement_refusals{reason=scratch}"] == 1.0
    assert seen["tiltd_refusals_total{reason=scratch}"] == 7.0
    assert seen["tiltd_node_scratch_reserved_bytes{node=n1}"] == 10.0
    assert seen["tiltd_breakers_open{scope=node}"] == 1.0
    assert seen["tiltd_feed_up{feed=krios1}"] == 0.0
    assert seen["tiltd_destination_free_bytes{feed=krios1}"] == 5000.0
    assert not [name for name in seen if name.startswith("tiltd_destination") and "krios1" not in name]
    assert seen["tiltd_resource_manager_up{}"] == 0.0
    assert seen["tiltd_resource_manager_answer_age_seconds{}"] == 30.0
    assert seen["tiltd_policy_info{version=abc123}"] == 1.0
    assert seen["tiltd_journal_size_bytes{}"] == 4096.0


def test_a_recalled_dataset_is_counted_once(metrics: Metrics) -> None:
    old = dataset(state=State.FAILED)
    metrics.attach(core(old), finished=[("krios1", State.FAILED, 1)])
    metrics.observe([f.DatasetRecalled(at=1.0, dataset_id=ID, record=old, by="me")])
    assert samples(metrics)["tiltd_datasets{feed=krios1,state=failed}"] == 1.0


def test_a_microscope_that_falls_silent_in_the_middle_of_a_series(metrics: Metrics) -> None:
    held = (Hold(cause="partial", origin="policy", detail="", since_at=0.0),)
    shots = {"a.1.1": 700.0, "b.1.1": 90.0, "c.1.1": 5000.0, "d.1.1": 9000.0}
    states = {"c.1.1": {"holds": held}, "d.1.1": {"state": State.READY}}
    series = [dataset(key, **({"state": State.ARRIVING} | states.get(key, {}))) for key in shots]
    view = core(*series)
    view.arrivals = {
        ("krios1", key): SimpleNamespace(stable_since_at=NOW - quiet) for key, quiet in shots.items()
    }
    view.state.current = {("krios1", key): key for key in shots}
    metrics.attach(view)
    for feed in ("krios1", "krios2"):
        metrics.saw(o.FilesObserved(at=NOW, feed=feed, up=True))
    seen = samples(metrics)
    assert seen["tiltd_arriving_quiet_seconds{feed=krios1}"] == 700.0
    assert seen["tiltd_arriving_quiet_seconds{feed=krios2}"] == 0.0


def test_a_feed_of_which_nothing_is_there_counts_nought(metrics: Metrics) -> None:
    """A gauge that is absent says nothing, and hides its feed from every sum."""
    metrics.attach(core(arrivals={}))
    metrics.saw(o.FilesObserved(at=NOW, feed="krios1", up=True))
    seen = samples(metrics)
    assert seen["tiltd_queue_depth{feed=krios1}"] == 0.0
    assert seen["tiltd_series_arriving{feed=krios1}"] == 0.0
    assert seen["tiltd_datasets{feed=krios1,state=running}"] == 0.0


def test_counters_begin_at_nought(metrics: Metrics) -> None:
    """A counter that begins with its first event hides it from every rate."""
    metrics.attach(core())
    metrics.saw(o.FilesObserved(at=NOW, feed="krios1", up=True))
    metrics.observe(life()[:1])
    seen = samples(metrics)
    for state in ("delivered", "failed", "cancelled"):
        assert seen[f"tiltd_datasets_ended_total{{feed=krios1,state={state}}}"] == 0.0
    assert seen["tiltd_failures_total{failure_class=lost,pipeline=wbp}"] == 0.0
    assert seen["tiltd_retries_total{failure_class=lost}"] == 0.0
    metrics.observe(life()[1:])
    metrics.saw(o.FilesObserved(at=NOW, feed="krios1", up=True))
    assert samples(metrics)["tiltd_datasets_ended_total{feed=krios1,state=delivered}"] == 1.0


def test_shapes_of_runs_are_bounded() -> None:
    shapes = BoundedShapes(max_runs=3)
    labels = [shapes.labels("wbp", "good", (str(cores), "1", "1")) for cores in range(5)]
    assert [each["cores"] for each in labels] == ["0", "1", "2", "other", "other"]
    assert shapes.labels("wbp", "good", ("1", "1", "1"))["cores"] == "1"
    assert shapes.labels("wbp", "memory", ("1", "1", "1"))["nodes"] == "other"


def test_failures_leave_room_for_results() -> None:
    shapes = BoundedShapes(max_runs=4)
    failed = [shapes.labels("wbp", kind, ("1", "1", "1"))["cores"] for kind in ("memory", "node", "lost")]
    assert failed == ["1", "1", "other"]
    assert shapes.labels("wbp", "good", ("1", "1", "1"))["cores"] == "1"


def test_after_a_restart_the_notes_come_from_the_core(metrics: Metrics) -> None:
    running = attempt()
    metrics.attach(core(dataset(completed_at=100.0, last_change_at=60.0, attempts=(running,))))
    metrics.observe(life()[3:])
    seen = samples(metrics)
    assert seen["tiltd_last_tilt_to_tomogram_seconds_sum{feed=krios1}"] == 200.0
    assert seen["tiltd_completion_to_submit_seconds_sum{feed=krios1}"] == 3.0


def test_a_rerun_is_no_new_tilt_series(metrics: Metrics) -> None:
    metrics.attach(core())
    found, *rest = life()
    metrics.observe([msgspec.structs.replace(found, run=2), *rest])
    seen = samples(metrics)
    assert seen["tiltd_last_tilt_to_tomogram_seconds_count{feed=krios1}"] == 0.0
    assert seen["tiltd_run_seconds_sum{cores=4,nodes=1,outcome=good,pipeline=wbp,threads=4}"] == 100.0


def test_a_refused_policy_leaves_the_old_one(metrics: Metrics) -> None:
    full(metrics).policy_refused()
    seen = samples(metrics)
    assert seen["tiltd_policy_last_reload_successful{}"] == 0.0
    assert seen["tiltd_policy_last_reload_success_timestamp_seconds{}"] == 77.0


@pytest.mark.parametrize("name", ["a b", 'x"y', "n\n1", "\udcff", "$(reboot)", "", "x" * 200])
def test_a_hostile_name_is_no_label(metrics: Metrics, name: str) -> None:
    metrics.attach(core(dataset(feed=name)))
    assert samples(metrics)["tiltd_datasets{feed=other,state=ready}"] == 1.0


def test_labels_are_bounded(metrics: Metrics) -> None:
    metrics.attach(core(*(dataset(f"d{i}.1.1", feed=f"f{i}") for i in range(3000))))
    text = metrics.render().decode()
    assert len(re.findall(r"^tiltd_datasets\{", text, re.M)) == 2001


FEEDS, PIPELINES, STEPS = 10, 3, 12


def lives(metrics: Metrics) -> None:
    """Of each feed and pipeline a series that failed first; every class of failure; runs of several sizes."""
    for feed in range(FEEDS):
        metrics.saw(o.FilesObserved(at=1.0, feed=f"feed{feed}", up=True))
        for pipeline in range(PIPELINES):
            metrics.observe(one_life(f"feed{feed}", f"pipe{pipeline}"))
    for number, failure_class in enumerate(get_args(FailureClass)):
        for cores in (1, 2, 4, 8, 16):
            metrics.observe(one_life("feed0", f"pipe{number % PIPELINES}", failure_class, cores))
    metrics.saw(o.DestinationsObserved(at=1.0, free_bytes={f"feed{n}": 10**12 for n in range(FEEDS)}))


def one_life(
    feed: str, pipeline: str, failure_class: FailureClass = "memory", cores: int = 4
) -> list[f.Fact]:
    replace, found = msgspec.structs.replace, []
    for fact in life():
        if isinstance(fact, f.DatasetFound):
            fact = replace(fact, feed=feed, pipeline=pipeline)
        elif isinstance(fact, f.Placed):
            placement = replace(fact.attempt.placement, cores=cores, threads=cores)
            fact = replace(fact, attempt=replace(fact.attempt, placement=placement))
        elif isinstance(fact, f.AttemptFailed):
            fact = replace(fact, failure=Failure(failure_class=failure_class, reason="r", detail=""))
        elif isinstance(fact, f.ResultCollected):
            steps = {f"{pipeline}-{number}": 60.0 for number in range(STEPS)}
            fact = replace(fact, measured=replace(fact.measured, step_seconds=steps))
        found.append(fact)
    return found


def test_beside_those_of_nodes_there_are_two_thousand_series_at_most(metrics: Metrics) -> None:
    """However few the nodes: with ten microscopes, three pipelines of twelve steps, and all that can fail."""
    commands = [
        CommandCount(command=command, outcome=outcome, count=1, seconds=1.0)
        for command in ("qsub", "qstat", "qdel", "pbsnodes")
        for outcome in ("ok", "timeout", "refused", "unreachable", "garbled")
    ]
    metrics.attach(core(dataset(), refusals=dict.fromkeys("abcdef", 1)), commands=lambda: commands)
    lives(metrics)
    series = [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]
    of_nodes = sum('node="' in line for line in series)
    assert of_nodes == 6
    assert 1500 < len(series) - of_nodes <= 2000


def test_every_metric_is_documented_and_every_documented_one_exposed(metrics: Metrics) -> None:
    families = {family.name for family in text_string_to_metric_families(full(metrics).render().decode())}
    table = {metric.name.removesuffix("_total") for metric in METRICS.values()}
    assert families == table


def test_conventions(metrics: Metrics) -> None:
    for family in text_string_to_metric_families(full(metrics).render().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        metric = METRICS[name]
        assert family.type == metric.kind
        assert family.documentation == metric.meaning or name.startswith("process_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not metric.unit or metric.name.endswith(f"_{metric.unit}")
        assert re.fullmatch(r"(tiltd|process)(_[a-z]+)+", metric.name)
        assert not re.search(r"_(ms|millis|minutes|hours|days|kb|mb|gb|count|sum|bucket)(_|$)", metric.name)
        assert metric.meaning.endswith(".")
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
            assert not {"project", "session", "series", "dataset"} & set(sample.labels)


def test_before_the_core_is_there_a_scrape_says_not_ready(metrics: Metrics) -> None:
    assert samples(metrics)["tiltd_ready{}"] == 0.0
