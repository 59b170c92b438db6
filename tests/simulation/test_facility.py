"""The modelled facility: its parts by hand-worked figures; a small day and a small backlog."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from tiltd.daemon.core.model import Policy
from tiltd.daemon.facility.bound import backlog_bound
from tiltd.daemon.facility.cluster import Hardware, study
from tiltd.daemon.facility.drive import Facility, Told
from tiltd.daemon.facility.figures import Figures, figures
from tiltd.daemon.facility.server import FileServer
from tiltd.daemon.facility.shooting import PIPELINE, backlog, busy_day, site
from tiltd.daemon.facility.study_pipeline import StudyPipeline
from tiltd.daemon.facility.work import Arrival, pace_of, run_seconds
from tiltd.daemon.policy_files import shipped
from tiltd.policy.policy import load

SMALL = replace(study(), nodes=(*study().nodes[:3], *study().nodes[-2:]), server_bytes_per_second=0.26e9)
"""Three nodes of 4 cores and two of 8; a fifth of the nodes has a fifth of the server."""

FAST = replace(SMALL, server_bytes_per_second=1.04e9, link_bytes_per_second=0.26e9)
"""The same nodes behind a server that is fast enough to leave it to their cores and memory."""

RECIPE = """
[resources]
cores_min = 1
[limits]
stage_ins_max = {copies}
"""


def policy(text: str = "") -> Policy:
    found = load([("default.toml", shipped()), ("candidate.toml", text)])
    assert isinstance(found, Policy), found
    return found


def run(hardware: Hardware, arrivals: list[Arrival], text: str = "") -> tuple[Told, Figures]:
    told = Facility(hardware, site(), policy(text), {PIPELINE: StudyPipeline()}).day(arrivals)
    return told, figures(told.runs)


def test_the_study_is_met() -> None:
    seconds = [run_seconds(2_600_000_000, nodes, 4, 4) for nodes in (1, 2, 4, 8)]
    assert [round(each) for each in seconds] == [250, 270, 290, 290]
    assert round(run_seconds(2_600_000_000, 1, 1, 1)) == 320
    assert pace_of(500.0, 2_600_000_000, 1, 4, 4) == pytest.approx(2.0, rel=0.01)
    nodes = study().nodes
    assert (len(nodes), sum(node.cores for node in nodes)) == (24, 15 * 4 + 9 * 8)


def test_a_transfer_alone_has_its_link_and_two_hosts_share_the_server() -> None:
    server = FileServer(150.0, 100.0)
    server.start("a", "n1", 1000.0, 0.0)
    assert server.next_end_at() == pytest.approx(10.0)
    server.start("b", "n2", 1000.0, 4.0)  # 75 each from here on
    assert server.next_end_at() == pytest.approx(4.0 + 600.0 / 75.0)
    assert server.ended(12.0) == ["a"]
    assert server.next_end_at() == pytest.approx(12.0 + 400.0 / 100.0)
    assert server.ended(16.0) == ["b"]
    assert server.next_end_at() is None
    assert server.moved_bytes == pytest.approx(2000.0)


def test_transfers_of_one_host_share_its_link_and_leave_the_rest_to_others() -> None:
    server = FileServer(150.0, 100.0)
    for name, host in (("a", "n1"), ("b", "n1"), ("c", "n2")):
        server.start(name, host, 1000.0, 0.0)
    server.ended(10.0)  # 50, 50 and 50 of the server
    assert server.moved_bytes == pytest.approx(1500.0)
    server.cancel("b", 10.0)
    server.cancel("never there", 10.0)
    server.ended(12.0)  # 75 and 75
    assert server.moved_bytes == pytest.approx(1800.0)


def test_a_day_is_delivered_and_nothing_is_killed() -> None:
    told, found = run(study(), busy_day(series=100, burst=25))
    assert (found.series, found.delivered, told.killed, told.unfinished) == (100, 100, 0, ())
    # Five minutes of quiet, staging at the speed of a link, the study's 250 s, staging out, verifying.
    assert 300 + 21 + 250 + 21 < found.tomogram_p50 < 300 + 21 + 250 + 21 + 60
    assert found.wait_p95 < 10
    # 100 runs of a little under five minutes each.
    assert found.node_hours == pytest.approx(100 * 295 / 3600, rel=0.05)
    assert found.scratch_peak_bytes > found.node_scratch_peak_bytes > 50e9


def test_the_same_day_twice_is_the_same() -> None:
    assert run(SMALL, busy_day(series=20, burst=10)) == run(SMALL, busy_day(series=20, burst=10))


@pytest.mark.parametrize(
    ("hardware", "copies", "by"), [(SMALL, 5, "file server"), (FAST, 5, "cores, memory and scratch")]
)
def test_a_backlog_is_done_near_the_bound_by_the_recipe_only(
    hardware: Hardware, copies: int, by: str
) -> None:
    coming = backlog(400)
    least = backlog_bound(coming, hardware, policy(), StudyPipeline())
    assert least.binding == by
    over = {}
    for name, text in {
        "recipe": RECIPE.format(copies=copies),
        "shipped": "",
        "8 cores": '[[rule]]\nname = "all"\nset = { cores = 8, threads = 8 }\n',
        "1 core": '[[rule]]\nname = "all"\nset = { cores = 1, threads = 1 }\n',
        "2 nodes": '[[rule]]\nname = "all"\nset = { nodes = 2 }\n',
    }.items():
        told, found = run(hardware, coming, text)
        assert (found.delivered, told.killed) == (400, 0), name
        assert told.evaluations <= 2 * found.attempts or name != "recipe"
        over[name] = found.makespan / least.seconds
    assert 1.0 <= over["recipe"] < 1.10, over
    assert over["recipe"] < over["1 core"] < over["shipped"] < over["8 cores"] < over["2 nodes"], over


@pytest.mark.parametrize(("server", "link"), [(1.25e9, 125e6), (1.25e9, 1.25e9), (5e9, 1.25e9)])
def test_the_recipe_of_the_docs_is_within_a_tenth_of_the_bound_on_the_studys_cluster(
    server: float, link: float
) -> None:
    page = Path(__file__).parents[2] / "docs" / "policy-recipes.md"
    (recipe,) = re.findall(r"```toml\n(# 20-long-queue\.toml\n.*?)```", page.read_text("utf-8"), re.DOTALL)
    hardware = replace(study(), server_bytes_per_second=server, link_bytes_per_second=link)
    coming = backlog(1200)
    least = backlog_bound(coming, hardware, policy(), StudyPipeline())
    told, found = run(hardware, coming, recipe)
    assert (found.delivered, told.killed) == (1200, 0)
    assert 1.0 <= found.makespan / least.seconds <= 1.10
    assert told.evaluations <= 2 * found.attempts
    # All are ready at once and ask for the same, so the queue is in the order of their names.
    placed = [run.placed_at or 0.0 for run in sorted(told.runs, key=lambda run: run.dataset_id)]
    assert placed == sorted(placed)


def test_the_bound_is_the_larger_of_nodes_and_server() -> None:
    coming = backlog(10)
    fast = backlog_bound(coming, replace(SMALL, server_bytes_per_second=5e9), policy(), StudyPipeline())
    assert fast.binding == "cores, memory and scratch"
    # Four of one core on the small nodes; 16 GB hold four, so on the large nodes two cores each.
    assert (fast.sets["core-001"], fast.sets["core-024"]) == ((1, 1, 1, 1), (2, 2, 2, 2))
    staging = 2 * coming[0].size_bytes / 125e6
    rate = 3 * 4 / (320 + staging) + 2 * 4 / (run_seconds(coming[0].size_bytes, 1, 2, 2) + staging)
    assert fast.seconds == pytest.approx(10 / rate, rel=0.001)
    slow = backlog_bound(coming, replace(SMALL, server_bytes_per_second=1e8), policy(), StudyPipeline())
    assert slow.binding == "file server"
    assert slow.seconds == pytest.approx(10 * 3 * coming[0].size_bytes / 1e8)
    with pytest.raises(ValueError, match="equal"):
        backlog_bound([*coming, replace(coming[0], pace=2.0)], SMALL, policy(), StudyPipeline())


def test_what_exceeds_its_walltime_is_killed_and_tried_again() -> None:
    text = '[resources]\nwalltime_min = "1min"\nwalltime_factor = 1.0\n'
    told, found = run(SMALL, [replace(each, pace=1.5) for each in backlog(3)], text)
    assert told.killed > 0
    assert found.attempts > 3
    assert found.delivered + found.failed == 3


def test_rules_on_hours_hold_in_the_model_when_it_is_that_hour() -> None:
    """Held by day, the series of the day run when the night begins."""
    text = """
[[rule]]
name = "by-day"
when = { hours = "8-20", zone = "UTC" }
set = { hold = "only by night" }
"""
    midnight = 1_767_225_600.0  # 2026-01-01
    told, found = run(SMALL, busy_day(series=12, burst=1, pace_sigma=0.0, start_at=midnight), text)
    assert (found.delivered, told.unfinished) == (12, ())
    hours = [(each.started_at or 0.0) % 86400 / 3600 for each in told.runs]
    assert all(hour < 8 or hour >= 20 for hour in hours)
    assert sum(20 <= hour < 20.5 for hour in hours) >= 6


def test_no_figures_of_nothing() -> None:
    found = figures(())
    assert (found.series, found.tomogram_p95, found.scratch_peak_bytes) == (0, 0.0, 0)
