"""The demo's own parts: its site, what it asks, what it checks, what it prints; then, slowly, all of it."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiltd.daemon.config import Settings
from tiltd.daemon.core.model import Policy
from tiltd.daemon.demo import checks, command, follow, screen, site
from tiltd.daemon.demo.checks import Check
from tiltd.daemon.demo.follow import Seen
from tiltd.daemon.demo.shooting import EXPECTED, Expected, Microscope
from tiltd.policy import policy as policies

DELIVERED, PARTIAL, IGNORED = EXPECTED[0], EXPECTED[4], EXPECTED[5]


@pytest.fixture
def laid_out(tmp_path: Path) -> site.Site:
    return site.lay_out(site.fresh_folder(tmp_path / "demo"), 41, 50_000_000)


def test_the_site_is_one_that_tiltd_takes(laid_out: site.Site) -> None:
    settings = Settings.load(laid_out.config)
    assert settings.feeds[0].path == laid_out.incoming
    assert settings.socket == laid_out.socket
    assert [node["name"] for node in settings.local["node"]] == list(site.NODES)
    policy = policies.load([("policy.toml", laid_out.policy.read_text())])
    assert isinstance(policy, Policy), policy
    assert policy.completeness.planned_tilts == 41
    assert policy.completeness.stale_seconds == 6.0
    assert policy.placement.scratch_margin_bytes == 1_000_000


@pytest.mark.parametrize("name", ['a "quoted" \\ name', "new\nline", "試料", "x" * 90])
def test_the_site_may_stand_in_an_odd_folder(name: str, tmp_path: Path) -> None:
    odd = site.lay_out(site.fresh_folder(tmp_path / name), 41, 50_000_000)
    settings = Settings.load(odd.config)
    assert settings.feeds[0].path == tmp_path / name / "incoming"
    assert len(os.fsencode(settings.socket)) <= site.SOCKET_PATH_MAX


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(FileExistsError, match="is not empty"):
        site.fresh_folder(tmp_path)


def test_the_microscope_shoots_what_is_expected(tmp_path: Path) -> None:
    microscope = Microscope(tmp_path, 32, 9, 0.0)
    microscope.start()
    microscope._thread.join(30)
    assert microscope.error is None and not microscope.shooting
    assert {name: microscope.tilts[name] for name in (e.name for e in EXPECTED)} == {
        "TS_01": 9, "TS_02": 9, "PACE_ts_001": 9, "PACE_ts_002": 9, "TS_03": 3, "GRID_LMM": 9,
    }  # fmt: skip
    for expected in EXPECTED:
        assert (tmp_path / expected.stack).is_file()
    assert set(microscope.last_tilt_at) >= {e.name for e in EXPECTED}


def test_the_microscope_tells_what_stopped_it(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("a file where a folder should be")
    microscope = Microscope(tmp_path, 32, 9, 0.0)
    microscope.start()
    microscope._thread.join(30)
    assert isinstance(microscope.error, OSError)


class FakeClient:
    def __init__(
        self, rows: list[dict[str, Any]], ignored: list[dict[str, str]], record: dict[str, Any]
    ) -> None:
        self.rows, self.ignored, self.record = rows, ignored, record

    def get(self, *parts: str) -> Any:
        match parts:
            case ("datasets",):
                return {"datasets": self.rows}
            case ("datasets", _):
                return {"dataset": self.record, "why": []}
            case ("ignored",):
                return {"ignored": self.ignored}
            case ("why", _):
                return {"lines": ["It was opened and is no tilt series."]}
        raise AssertionError(parts)


def row(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"dataset_id": "TS_01-00000000.1.1", "name": "TS_01", "state": "running"}
    base |= {"held": [], "why": "", "nodes": ["alpha"], "since_at": 100.0}
    return base | changes


def looked(expected: Expected, **parts: Any) -> Seen:
    client = FakeClient(parts.get("rows", []), parts.get("ignored", []), parts.get("record", {}))
    return follow.look(client, (expected,))[expected.name]  # type: ignore[arg-type]


def test_what_the_daemon_says_is_read() -> None:
    assert looked(DELIVERED) == Seen()
    running = looked(DELIVERED, rows=[row()])
    assert (running.state, running.nodes, running.settled(DELIVERED)) == ("running", ("alpha",), False)
    done = looked(DELIVERED, rows=[row(state="delivered")], record={"state": "delivered", "verdict": "good"})
    assert done.as_expected(DELIVERED) and done.record == {"state": "delivered", "verdict": "good"}
    hold = {"holds": [{"cause": "partial", "detail": "13 of 41 tilts"}], "state": "arriving"}
    held = looked(PARTIAL, rows=[row(name="TS_03", state="arriving", held=["partial"])], record=hold)
    assert held.as_expected(PARTIAL) and held.reason == "partial: 13 of 41 tilts"
    entry = {"series_key": IGNORED.stack, "reason": "montage"}
    ignored = looked(IGNORED, ignored=[entry])
    assert ignored.as_expected(IGNORED) and ignored.reason.startswith("montage: ")
    met = looked(IGNORED, ignored=[entry], rows=[row(name="GRID_LMM", state="cancelled")])
    assert met == ignored
    assert not looked(IGNORED, ignored=[entry], rows=[row(name="GRID_LMM")]).as_expected(IGNORED)


def test_an_unexpected_end_is_an_end_and_is_told() -> None:
    failure = {"failure_class": "input", "reason": "changed", "detail": ""}
    failed = looked(DELIVERED, rows=[row(state="failed")], record={"state": "failed", "failure": failure})
    assert failed.settled(DELIVERED) and not failed.as_expected(DELIVERED)
    assert failed.reason == "input: changed"
    assert not Seen(state="delivered").as_expected(PARTIAL)
    assert not Seen(state="delivered", dataset_ids=("a",)).as_expected(IGNORED)
    twice = {e.name: Seen(state="delivered", dataset_ids=("a", "b")) for e in (DELIVERED,)}
    assert [check.kept for check in checks.series_checks((DELIVERED,), twice, site.NODES)] == [False, True]
    elsewhere = {DELIVERED.name: Seen(state="delivered", nodes=("gamma",), dataset_ids=("a",))}
    assert [check.kept for check in checks.series_checks((DELIVERED,), elsewhere, site.NODES)] == [
        True,
        False,
    ]


def published(folder: Path, **faults: Any) -> dict[str, Seen]:
    """A result as the daemon leaves it, or with a fault in it."""
    folder.mkdir(parents=True)
    header = bytearray(1024)
    struct.pack_into("<10i", header, 0, 8, 8, 4, 2, 0, 0, 0, 8, 8, 4)
    struct.pack_into("<3f", header, 40, *(faults.get("pixel", 13.4) * n for n in (8, 8, 4)))
    header[208:212] = faults.get("stamp", b"MAP ")
    content = bytes(header) + bytes(8 * 8 * 4 * 4 + faults.get("more", 0))
    (folder / "tomogram.mrc").write_bytes(content)
    entry = {
        "name": "tomogram.mrc",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    entry |= faults.get("entry", {})
    manifest = {
        "tilt_series_name": "TS_01",
        "input": {"tilt_count": faults.get("tilts", 41)},
        "files": [entry],
    }
    (folder / "manifest.json").write_text(faults.get("text") or json.dumps(manifest))
    if faults.get("report", True):
        (folder / "report.html").write_text("<!DOCTYPE html>")
    if faults.get("stray"):
        (folder / "stray").write_text("")
    return {"TS_01": Seen(state="delivered", record={"result_path": str(folder)})}


def test_a_right_result_passes(tmp_path: Path) -> None:
    (check,) = checks.result_checks((DELIVERED,), published(tmp_path / "r"), 41, 13.4)
    assert check.kept, check
    (check,) = checks.result_checks((DELIVERED,), published(tmp_path / "binned", pixel=26.8), 41, 13.4)
    assert check.kept, check


@pytest.mark.parametrize(
    "fault",
    [
        {"pixel": 10.0},
        {"stamp": b"NONE"},
        {"more": 1},
        {"entry": {"sha256": "0" * 64}},
        {"entry": {"name": "other.mrc"}},
        {"tilts": 40},
        {"text": "{"},
        {"stray": True},
        {"report": False},
    ],
)
def test_a_wrong_result_is_found(fault: dict[str, Any], tmp_path: Path) -> None:
    (check,) = checks.result_checks((DELIVERED,), published(tmp_path / "r", **fault), 41, 13.4)
    assert not check.kept and check.detail


METRICS = """# HELP tiltd_datasets_ended_total x
tiltd_datasets_ended_total{feed="krios1",state="delivered"} 4.0
tiltd_datasets_ended_total{feed="krios1",state="failed"} 1.0
tiltd_last_tilt_to_tomogram_seconds_count{feed="krios1"} 4.0
tiltd_datasets_held{cause="partial"} 1.0
tiltd_sightings_ignored_total{reason="montage"} 1.0
tiltd_node_scratch_reserved_bytes{node="alpha"} 0.0
tiltd_node_scratch_reserved_bytes{node="beta"} 0.0
tiltd_policy_last_reload_successful 1.0
"""


def test_metrics_are_read_and_compared() -> None:
    assert [check.kept for check in checks.metric_checks(METRICS, 4)] == [True]
    for line in METRICS.splitlines()[1:]:
        if 'state="failed"' not in line and "beta" not in line:
            wrong = METRICS.replace(line, line.rpartition(" ")[0] + " 7.0")
            (check,) = checks.metric_checks(wrong, 4)
            assert not check.kept and "7.0" in check.detail
    assert not next(checks.metric_checks("", 4)).kept


def test_left_scratch_and_half_done_results_are_found(laid_out: site.Site) -> None:
    published(laid_out.results / "demo" / "grid1" / "TS_01")
    assert [check.kept for check in checks.site_checks(laid_out, 1)] == [True, True]
    (laid_out.scratch("beta") / "TS_01.1.1.a1").mkdir()
    (laid_out.results / "demo" / "grid1" / ".tiltd-TS_01.1.1.a1").mkdir()
    assert [check.kept for check in checks.site_checks(laid_out, 1)] == [False, False]


def test_a_touched_feed_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    before = checks.snapshot(tmp_path)
    assert checks.feed_check(before, checks.snapshot(tmp_path)).kept
    os.utime(tmp_path / "a", (1, 1))
    assert not checks.feed_check(before, checks.snapshot(tmp_path)).kept
    (tmp_path / "b").write_text("")
    assert "a, b" in checks.feed_check(before, checks.snapshot(tmp_path)).detail


def test_the_table_tells_seconds_and_reasons() -> None:
    microscope = Microscope(Path("/nowhere"), 32, 9, 0.0)
    microscope.last_tilt_at["TS_01"] = 90.0
    record = {
        "state": "delivered",
        "attempts": [{"placement": {"cores": 2}}],
        "quality": {"residual_mean_px": 0.21},
        "verdict": "good",
        "result_path": "/x/demo/tomograms/TS_01",
    }
    delivered = Seen(state="delivered", nodes=("alpha",), changed_at=97.25, record=record)
    first = screen.row(DELIVERED, delivered, microscope, "/x/demo")
    assert (first["seconds"], first["cores"], first["node"]) == (7.2, 2, "alpha")
    assert first["result"] == "tomograms/TS_01" and first["quality"] == "good, 0.21 px"
    held = screen.row(PARTIAL, Seen(held=("partial",), reason="13 of\n41"), microscope, "/x")
    text = screen.table([first, held])
    assert "held: partial" in text and "13 of\\n41" in text and text.count("\n") == 4


def test_broken_promises_are_printed_with_what_was_found() -> None:
    text = screen.verdict([Check("a", True, "unused"), Check("b", False, "found c")])
    assert text == "  ok  a\n  NO  b\n        found c"


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(argv))


def test_what_it_cannot_use_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("")
    assert command.main(parsed("--folder", str(tmp_path))) == 2
    assert "is not empty" in capsys.readouterr().err
    assert command.main(parsed("--tilts", "3")) == 2


def test_a_daemon_that_does_not_start_is_told_with_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such luck\nexit 9\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    assert command.main(parsed("--folder", str(tmp_path / "demo"))) == 1
    err = capsys.readouterr().err
    assert "exit code 9" in err and "no such luck" in err


def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str) -> None:
    """Lets the demo start :mod:`stub_daemon` where it would start tiltd."""
    program = tmp_path / "python"
    script = Path(__file__).with_name("stub_daemon.py")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "{spoil}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


QUICK = ("--size", "32", "--tilts", "9", "--interval", "0")


def test_the_story_from_ready_to_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, spoil="")
    assert command.main(parsed("--folder", str(tmp_path / "demo"), *QUICK)) == 0
    out = capsys.readouterr().out
    assert "All came out as expected" in out and "NO " not in out
    assert "held: partial" in out and "3 of 9 tilts" in out and "montage: a map" in out
    assert "tomograms/demo/grid1/TS_01" in out and "accept TS_03" in out


@pytest.mark.parametrize("spoil", ["tomogram", "exit"])
def test_one_broken_promise_is_exit_1(
    spoil: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, spoil=spoil)
    assert command.main(parsed("--folder", str(tmp_path / "demo"), *QUICK, "--json")) == 1
    report = json.loads(capsys.readouterr().out)
    wrong = [check["promise"] for check in report["checks"] if not check["kept"]]
    assert not report["ok"] and len(wrong) == (4 if spoil == "tomogram" else 1)


def test_what_never_settles_ends_at_the_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(tmp_path, monkeypatch, spoil="ignored")
    assert command.main(parsed("--folder", str(tmp_path / "demo"), *QUICK, "--limit", "2")) == 1
    out = capsys.readouterr().out
    assert "NO  GRID_LMM" in out and "never seen" in out


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("tiltd.daemon.app") is None, reason="the daemon is not there yet"
)
def test_the_whole_demo_comes_out_as_expected(tmp_path: Path) -> None:
    arguments = [
        "--folder",
        str(tmp_path / "demo"),
        "--size",
        "96",
        "--tilts",
        "15",
        "--interval",
        "0.05",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tiltd.daemon", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
    )
    report = json.loads(done.stdout)
    assert [check for check in report["checks"] if not check["kept"]] == []
    assert done.returncode == 0 and report["ok"]
    assert sum(series["seconds"] is not None for series in report["series"]) == 4
