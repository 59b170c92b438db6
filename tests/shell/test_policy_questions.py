"""``tiltd policy check | test | explain | diff | replay | reload``: what they print, and their exit codes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from shell.policy_asking import asked, at_home, nowhere, written
from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.cli.policy_explain import _lines
from tiltd.daemon.core.model import Decision, Features, Measured, Placement, Policy, ResourceRequest
from tiltd.daemon.facility.cluster import study
from tiltd.daemon.facility.drive import Facility
from tiltd.daemon.facility.shooting import PIPELINE, busy_day, site
from tiltd.daemon.facility.study_pipeline import StudyPipeline
from tiltd.daemon.journal import Journal
from tiltd.daemon.policies import ACCEPTED
from tiltd.daemon.policy_files import shipped
from tiltd.daemon.questions import explain as explaining
from tiltd.daemon.questions.dataset import civil_of, series_like
from tiltd.daemon.questions.files import policy_of
from tiltd.daemon.questions.history import arrivals, recorded, staging_rate, used_nodes
from tiltd.policy.needs import asked_of
from tiltd.policy.place import place
from tiltd.policy.policy import load
from tiltd.policy.predict import Samples, learn
from tiltd.policy.rules import decide
from tiltd.policy.shape import shape

__all__ = ["at_home", "nowhere"]

KEYS = (
    "nodes", "cores", "threads", "memory_bytes", "scratch_bytes", "walltime_seconds",
    "rule", "policy_version",
)  # fmt: skip

NODES = """
[[node]]
name = "small"
count = 2
cores = 4
memory = "16GB"
scratch = "40GB"
[[node]]
name = "busy"
cores = 8
free_cores = 2
memory = "16GB"
scratch = "655GB"
[[node]]
name = "wide"
cores = 8
memory = "16GB"
scratch = "655GB"
"""

RULES = """
[[rule]]
name = "weekend"
when = { weekdays = ["sat", "sun"], zone = "Europe/Amsterdam" }
set = { priority = 5 }

[[rule]]
name = "large"
when = { size = { min = "4GB" } }
set = { cores = 8 }

[[rule]]
name = "krios"
when = { feed = "krios1", project = "covid-*" }
set = { memory_factor = 1.5, queue = "express" }

[[test]]
name = "large ones get eight"
dataset = { size = "5GB" }
expect = { cores = 8 }
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return written(tmp_path / "rules.toml", RULES)


# -- explain -------------------------------------------------------------------------------------------------


def test_explain_gives_the_shipped_shape_for_the_study_s_series(capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "explain", "--size", "2.6GB", "--json")
    assert (found["nodes"], found["cores"], found["threads"]) == (1, 4, 4)
    assert all(key in found for key in KEYS)
    assert found["rule"] == "default" and found["policy_version"] == policy_of([]).version
    assert found["explanation"]["origins"]["cores"].startswith("default.toml:")


def test_explain_tells_rules_tried_and_matched_and_the_line_of_each_value(
    capsys: pytest.CaptureFixture[str], rules: Path
) -> None:
    words = ("--size", "5GB", "--policy", str(rules), "--at", "Sat 03:00", "--feed", "krios1")
    found = asked(capsys, "explain", *words, "--json")
    tried = {rule["name"]: rule for rule in found["explanation"]["rules"]}
    assert [name for name, rule in tried.items() if rule["matched"]] == ["weekend", "large"]
    assert tried["krios"]["failed"] == 'project (not known) is none of "covid-*"'
    head = RULES[: RULES.index("large")].count("\n")  # [[rule]] stands a line above its name
    assert tried["large"]["origin"] == f"{rules}:{head}"
    line = RULES[: RULES.index("set = { cores = 8 }")].count("\n") + 1
    assert found["explanation"]["origins"]["cores"] == f"{rules}:{line}"
    assert (found["cores"], found["rule"]) == (8, "large")
    text = asked(capsys, "explain", *words)
    assert f"cores     8            cores {rules}:{line}" in text
    assert "tried    krios" in text and "matched  large" in text


def test_a_weekday_rule_holds_on_its_day_only(capsys: pytest.CaptureFixture[str], rules: Path) -> None:
    def matched(when: str) -> list[str]:
        words = ("explain", "--size", "1GB", "--policy", str(rules), "--at", when, "--json")
        return [rule["name"] for rule in asked(capsys, *words)["explanation"]["rules"] if rule["matched"]]

    assert matched("Sat 03:00") == matched("sunday") == ["weekend"]
    assert matched("Mon 03:00") == matched("03:00") == []


@pytest.mark.parametrize("when", ["", "noon", "Sat 24:00", "Sat 3:75", "Xyz 03:00"])
def test_an_odd_time_is_refused(when: str) -> None:
    with pytest.raises(ValueError, match="no time of a week"):
        civil_of(when)


def test_explain_tells_who_would_hear_of_such_a_series(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "p.toml"
    path.write_text(
        '[[notice]]\nname = "lab"\nwhen = { project = "a*" }\nevents = ["failed"]\nto = "x@example.org"\n'
    )
    for project, told in (("apo", True), ("ribo", False)):
        words = ["policy", "explain", "--size", "2GB", "--project", project, "--policy", str(path)]
        assert dispatch(words) == 0
        text = capsys.readouterr().out
        assert ("tells x@example.org at once of failed" in text) is told and (":1)" in text) is told


def test_explain_tells_which_nodes_refuse_and_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    nodes = written(tmp_path / "nodes.toml", NODES)
    found = asked(capsys, "explain", "--size", "2.6GB", "--nodes", str(nodes), "--json")["explanation"]
    assert found["placement"]["nodes"] == ["wide"]
    assert {each["node"]: each["reason"] for each in found["refused"]} == {
        "small1": "scratch", "small2": "scratch", "busy": "cores",
    }  # fmt: skip
    assert found["refused"][-1]["detail"] == "4 cores are needed, 2 of 8 are free"
    text = asked(capsys, "explain", "--size", "2.6GB", "--nodes", str(nodes))
    assert "placed    on wide" in text and "small1 refuses: scratch" in text


def test_explain_takes_what_nodes_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    node = {
        "name": "n1", "state": "free", "cores": 8, "cores_free": 8, "memory_bytes": 16 * 10**9,
        "scratch_total_bytes": 10**12, "scratch_free_bytes": 10**12, "scratch_path": "/s", "observed_at": 1.0,
        "cores_reserved": 6, "scratch_reserved_bytes": 0, "attempts": ["x"],
    }  # fmt: skip
    path = written(tmp_path / "nodes.json", json.dumps({"nodes": [node], "now_at": 2.0}))
    found = asked(capsys, "explain", "--size", "2.6GB", "--nodes", str(path), "--json")["explanation"]
    assert found["refused"][0]["reason"] == "cores"


def test_explain_asks_the_pipeline_that_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    by_size = asked(capsys, "explain", "--size", "2.6GB", "--json")
    by_wbp = asked(capsys, "explain", "--size", "2.6GB", "--tilts", "41", "--pipeline", "wbp", "--json")
    assert by_wbp["source"]["asked"].startswith("by pipeline wbp")
    assert by_wbp["memory_bytes"] < by_size["memory_bytes"]


def test_explain_refuses_what_is_wrong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.toml", "[resources]\ncorse = 4\n")
    assert dispatch(["policy", "explain", "--size", "1GB", "--policy", str(bad)]) == 1
    assert f"{bad}:2: resources.corse" in capsys.readouterr().err
    none = tmp_path / "none.toml"
    assert dispatch(["policy", "explain", "--size", "1GB", "--nodes", str(none)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    empty = written(tmp_path / "empty.toml", "")
    assert dispatch(["policy", "explain", "--size", "1GB", "--nodes", str(empty)]) == 2
    assert "there is no [[node]] table" in capsys.readouterr().err
    assert dispatch(["policy", "explain", "--size", "1GB", "--pipeline", "wpb"]) == 2
    assert '--pipeline "wpb" is no pipeline: allowed are' in (err := capsys.readouterr().err)
    assert 'did you mean "wbp"?' in err


def test_explain_is_the_daemon_s_own_decision() -> None:
    """Step by step what the core does: nothing is decided a second time."""
    policy = load([("default.toml", shipped()), ("rules.toml", RULES)])
    assert isinstance(policy, Policy)
    features = Features(feed="krios1", project="covid-1", size_bytes=5 * 10**9, pipeline=PIPELINE)
    asks = ResourceRequest(memory_bytes=4 * 10**9, scratch_bytes=80 * 10**9, walltime_seconds=600.0)
    found = explaining.explain(features, policy, asked=asks, nodes=study().nodes)
    decision = decide(features, policy)
    request = shape(asks, features.size_bytes, policy, decision=decision, pipeline=PIPELINE)
    assert (found.decision, found.request) == (decision, request)
    assert found.placement == place(request, study().nodes, explaining.free_of(policy), policy)
    assert isinstance(found.placement, Placement) and isinstance(decision, Decision)
    assert found.request.memory_bytes >= 6 * 10**9


def test_explain_tells_on_how_many_runs_memory_and_scratch_rest() -> None:
    samples, asks = Samples(), ResourceRequest(memory_bytes=4 * 10**9, scratch_bytes=60 * 10**9)
    for _ in range(64):
        samples = learn(
            samples,
            pipeline="p",
            cores=4,
            threads=4,
            size_bytes=2_600_000_000,
            measured=Measured(run_seconds=250.0, peak_memory_bytes=4 * 10**9, peak_scratch_bytes=31 * 10**9),
            asked=asked_of(asks),
        )
    policy = load([("default.toml", shipped())])
    assert isinstance(policy, Policy)
    features = Features(size_bytes=2_600_000_000, pipeline="p")
    found = explaining.explain(features, policy, asked=asks, samples=samples)
    assert (found.needs.memory_runs, found.needs.scratch_runs) == (0, 64)
    assert 1.25 * 31e9 < found.request.scratch_bytes < 60e9
    assert found.prediction.scratch_bytes_p99 < 40e9
    lines = list(_lines(found, {"policy": "x", "asked": "y", "history": "j", "nodes": "none"}))
    (scratch,) = (line for line in lines if line.startswith("scratch"))
    assert scratch.endswith("history of 64 runs")
    assert not any("history of" in line for line in lines if line.startswith("memory"))


def test_a_series_like_the_asked_one_has_its_size() -> None:
    series = series_like(Features(size_bytes=2_600_000_000, tilt_count=41))
    assert (series.total_bytes, series.tilt_count) == (2_600_000_000, 41)
    assert 41 * 2 * series.image_size[0] * series.image_size[1] == pytest.approx(2.6e9, rel=0.01)


# -- check, test, reload -----------------------------------------------------------------------------------


def test_check_tells_good_and_bad(capsys: pytest.CaptureFixture[str], rules: Path, tmp_path: Path) -> None:
    assert "good: version" in asked(capsys, "check", str(rules))
    bad = written(tmp_path / "bad.toml", '[resources]\ncorse = 4\n[limits]\nrunning_max = "x"\n')
    found = asked(capsys, "check", str(bad), "--json", code=1)
    assert found["ok"] is False
    assert [(fault["line"], fault["key"]) for fault in found["faults"]] == [
        (2, "resources.corse"), (4, "limits.running_max"),
    ]  # fmt: skip
    assert dispatch(["policy", "check", str(bad)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert asked(capsys, "check", str(tmp_path / "gone.toml"), "--json", code=1)["faults"][0]["line"] == 1


def test_check_judges_as_the_site_s_daemon_would(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No result may go into a feed, and only the site's settings tell what is one."""
    mine = written(
        tmp_path / "mine.toml",
        f'[[rule]]\nname = "x"\nset = {{ destination = "{tmp_path}/in/{{series}}" }}\n',
    )
    asked(capsys, "check", str(mine))
    written(
        tmp_path / "tiltd.toml",
        f'state_dir = "{tmp_path}/state"\n[[feed]]\nname = "k"\npath = "{tmp_path}/in"\n'
        f'destination = "{tmp_path}/out/{{series}}"\n',
    )
    found = asked(capsys, "check", str(mine), "--json", code=1)
    assert [fault["line"] for fault in found["faults"]] == [3]


def test_test_runs_the_tests_in_the_files(capsys: pytest.CaptureFixture[str], rules: Path) -> None:
    assert "all 1 tests passed" in asked(capsys, "test", str(rules))
    rules.write_text(RULES.replace("expect = { cores = 8 }", "expect = { cores = 9 }"))
    found = asked(capsys, "test", str(rules), "--json", code=1)
    assert [(test["name"], test["ok"]) for test in found["tests"]] == [("large ones get eight", False)]
    assert "expected 9, found 8" in found["tests"][0]["faults"][0]["message"]
    assert "1 of 1 tests failed" in asked(capsys, "test", str(rules), code=1)
    assert dispatch(["policy", "check", str(rules)]) == 1  # its tests are part of a policy


def test_reload_without_a_daemon_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert dispatch(["policy", "reload", "--socket", str(tmp_path / "no.sock")]) == 3
    assert "not running" in capsys.readouterr().err


# -- diff ----------------------------------------------------------------------------------------------------


def test_diff_tells_values_and_placements_that_change(
    capsys: pytest.CaptureFixture[str], rules: Path, tmp_path: Path
) -> None:
    old = written(tmp_path / "old.toml", "")
    found = asked(capsys, "diff", str(old), str(rules), "--json", code=1)
    assert "rule.large" in {change["title"] for change in found["values"]}
    by_title = {change["title"]: change["fields"] for change in found["examples"]}
    assert by_title["any feed, 4.5GB, attempt 1, 0 waiting"]["cores"] == [6, 8]
    assert by_title["test large ones get eight"]["rule"] == ["default", "large"]
    assert "any feed, 2.6GB, attempt 1, 0 waiting" not in by_title
    text = asked(capsys, "diff", str(old), str(rules), code=1)
    assert "cores 6 -> 8" in text and "history: 0 of 0" in text
    assert asked(capsys, "diff", str(old), str(old), "--json")["values"] == []


# -- history -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of a day at the modelled facility, as its journal tells it."""
    path = tmp_path_factory.mktemp("history") / "journal.sqlite"
    writer = Journal.open(path)
    policy = load([("default.toml", shipped())])
    assert isinstance(policy, Policy)
    steps: list[Any] = []
    facility = Facility(study(), site(), policy, {PIPELINE: StudyPipeline()}, steps.append)
    facility.day(busy_day(series=40, burst=20, start_at=time.time() - 2 * 86400))
    writer.append_now(steps)
    return path


def test_replay_of_what_was_simulated_gives_what_was_simulated(
    capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path
) -> None:
    one = written(tmp_path / "one.toml", "[resources]\ncores = 1\nthreads = 1\n")
    nodes = written(
        tmp_path / "nodes.toml",
        '[[node]]\nname = "n"\ncount = 24\ncores = 4\nmemory = "16GB"\nscratch = "655GB"\n',
    )
    words = ("--policy", str(one), "--journal", str(journal), "--nodes", str(nodes), "--link", "125MB")
    found = asked(capsys, "replay", *words, "--json")
    really, same, other = found["really"], found["simulated"]["in force"], found["simulated"]["candidate"]
    assert found["series"] == really["delivered"] == same["delivered"] == other["delivered"] == 40
    assert same["tomogram_p50"] == pytest.approx(really["tomogram_p50"], rel=0.02)
    assert same["node_hours"] == pytest.approx(really["node_hours"], rel=0.02)
    # 320 s on one core instead of 250 s on four, and a quarter of the core hours.
    assert other["tomogram_p50"] == pytest.approx(same["tomogram_p50"] + 70, rel=0.1)
    assert other["core_hours"] < 0.4 * same["core_hours"]
    text = asked(capsys, "replay", *words)
    assert "last tilt to tomogram p95" in text and "SIMULATED, CANDIDATE" in text


def test_replay_says_which_files_of_the_site_the_candidate_goes_without(
    capsys: pytest.CaptureFixture[str], journal: Path, at_home: Path, tmp_path: Path
) -> None:
    new = written(tmp_path / "new.toml", "[limits]\nqueued_max = 9\n")
    capsys.readouterr()
    words = ("replay", "--policy", str(new), "--journal", str(journal))
    assert f"goes without {at_home}: --site lays it over them" in asked(capsys, *words)
    assert "goes without" not in asked(capsys, *words, "--site")
    assert "goes without" not in asked(capsys, *words, "--policy", str(at_home.parent))


def test_diff_over_the_history(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    old = written(tmp_path / "old.toml", "")
    new = written(
        tmp_path / "new.toml", '[[rule]]\nname = "k"\nwhen = { feed = "krios1" }\nset = { cores = 2 }\n'
    )
    found = asked(capsys, "diff", str(old), str(new), "--journal", str(journal), "--json", code=1)
    datasets = recorded(journal, 0.0)
    assert found["history_count"] == len(datasets) == 40
    expected = {dataset.dataset_id for dataset in datasets if dataset.feed == "krios1"}
    assert {change["title"] for change in found["history"]} == expected
    assert all(change["fields"]["cores"] == [4, 2] for change in found["history"])


def test_what_is_old_is_no_history(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    one = written(tmp_path / "one.toml", "")
    words = ("--policy", str(one), "--journal", str(journal), "--since", "1h")
    assert dispatch(["policy", "replay", *words]) == 1
    assert "no complete series" in capsys.readouterr().err
    assert dispatch(["policy", "replay", "--policy", str(one)]) == 2
    assert "no journal is known" in capsys.readouterr().err


def test_a_later_revision_is_an_arrival_of_its_own(journal: Path) -> None:
    one = recorded(journal, 0.0)[0]
    two = replace(one, dataset_id="again", revision=2)
    keys = [each.sighting.series_key for each in arrivals([one, two, replace(one, run=2)])]
    assert keys == [one.series_key, f"{one.series_key}#2"]


def test_the_history_tells_nodes_costs_and_speed(journal: Path) -> None:
    datasets = recorded(journal, 0.0)
    nodes = used_nodes(datasets)
    assert nodes and all(node.cores in (4, 8) for node in nodes)
    paces = [arrival.pace for arrival in arrivals(datasets)]
    truth = sorted(arrival.pace for arrival in busy_day(series=40, burst=20))
    assert sorted(paces) == pytest.approx(truth, rel=0.001)
    assert staging_rate(datasets) == pytest.approx(125e6, rel=0.05)


def test_explain_tells_the_policy_in_force_while_the_files_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As the daemon does it: what it accepted last stays in force."""
    (tmp_path / "state").mkdir()
    mine = written(tmp_path / "mine.toml", "[resources]\ncores = 3\n")
    written(tmp_path / "tiltd.toml", f'state_dir = "{tmp_path}/state"\npolicy_file = "{mine}"\n')
    assert asked(capsys, "explain", "--size", "1GB", "--json")["cores"] == 3
    texts = [["default.toml", shipped()], [str(mine), mine.read_text()]]
    written(tmp_path / "state" / ACCEPTED, json.dumps({"format": 1, "files": texts}))
    mine.write_text("[resources]\ncores = 'three'\n")
    found = asked(capsys, "explain", "--size", "1GB", "--json")
    assert found["cores"] == 3
    assert found["source"]["policy"].startswith(
        f"as accepted last; the files as they are now are refused: {mine}:2"
    )
    assert dispatch(["policy", "test"]) == 1  # the files themselves are judged
