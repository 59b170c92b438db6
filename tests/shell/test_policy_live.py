"""The running daemon's policy: noticed on change, SIGHUP and command; what is refused changes nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from shell.daemon_process import POLICY, DaemonProcess, Site, running
from tiltd.daemon import policies, poll
from tiltd.daemon.clock import Clock
from tiltd.daemon.config import Settings
from tiltd.daemon.core import observations as o

HOLD = '[[rule]]\nname = "wait"\nwhen = { name = "ts_held*" }\nset = { hold = "wait for the grant" }\n'
BROKEN = '[limits]\nrunning_max = "many"\n'
FAILING = '[[test]]\nname = "t"\ndataset = { size = "1GB" }\nexpect = { cores = 7 }\n'


def status(daemon: DaemonProcess) -> dict[str, Any]:
    answer: dict[str, Any] = daemon.site.client.get("status")
    return answer


def metric(daemon: DaemonProcess, name: str) -> str:
    _, text = daemon.site.client.text("/metrics")
    return next(line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(f"{name} "))


def test_a_change_is_noticed_and_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "policy.d"
    folder.mkdir()
    site = Site(tmp_path)
    site.config.write_text(
        site.config.read_text().replace("[listen]", f'policy_dir = "{folder}"\n[listen]', 1)
    )
    with running(site) as daemon:
        first = status(daemon)["policy_version"]
        (folder / "10-hold.toml").write_text(HOLD)
        daemon.wait(lambda: status(daemon)["policy_version"] != first)
        second = status(daemon)["policy_version"]
        site.feed("ts_held_1.mrc")
        daemon.wait(lambda: daemon.held("ts_held_1") == ["policy"])
        assert "wait for the grant" in daemon.why("ts_held_1")

        (folder / "20-broken.toml").write_text(BROKEN)
        daemon.wait(lambda: metric(daemon, "tiltd_policy_last_reload_successful") == "0.0")
        told = status(daemon)
        assert told["policy_version"] == second and not told["policy"]["last_reload_accepted"]
        assert "20-broken.toml:2: limits.running_max" in told["policy_refused"][0]
        assert "20-broken.toml:2" in site.log_text()
        daemon.wait(lambda: "the policy was refused, version" in site.log_text())  # the notice
        assert daemon.held("ts_held_1") == ["policy"]

        (folder / "20-broken.toml").unlink()
        (folder / "10-hold.toml").unlink()
        daemon.delivered("ts_held_1")
        after = status(daemon)
        assert after["policy_version"] == first and after["policy_refused"] == []
        assert metric(daemon, "tiltd_policy_last_reload_successful") == "1.0"
        decided = daemon.site.client.get("datasets", "ts_held_1")["dataset"]["attempts"][0]["decided"]
        assert decided["rules"] == [] and decided["predicted"]["seconds_p50"] > 0
        shown = subprocess.run(
            [sys.executable, "-m", "tiltd.daemon", "show", "ts_held_1", "--socket", str(site.socket)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert f"policy {first}, rules matched: none but the defaults" in shown
        assert "(by the 2015 study and its pipeline)" in shown and "  took     " in shown
        assert float(metric(daemon, 'tiltd_walltime_used_ratio_count{pipeline="command"}')) == 1
        (manifest,) = site.results.rglob("manifest.json")
        assert json.loads(manifest.read_text())["policy"]["decided"] == decided


def test_sighup_and_the_command_read_it_at_once_and_the_command_tells_all(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with running(site) as daemon:
        first = status(daemon)["policy_version"]
        site.policy.write_text(POLICY + BROKEN)
        answer = site.client.post("policy/reload", {})
        assert not answer["ok"] and answer["policy_version"] == first
        assert any("limits.running_max" in fault for fault in answer["faults"])
        site.policy.write_text(POLICY + FAILING)
        answer = site.client.post("policy/reload", {})
        assert not answer["ok"] and "the test" in answer["faults"][0], "its own tests fail"
        site.policy.write_text(POLICY + HOLD)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait(lambda: status(daemon)["policy_version"] not in ("", first), 5)
        answer = site.client.post("policy/reload", {})
        assert answer == {"ok": True, "policy_version": status(daemon)["policy_version"], "faults": []}


def test_a_start_with_refused_files_goes_on_with_those_accepted_last(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with running(site) as daemon:
        first = status(daemon)["policy_version"]
        assert daemon.stop() == 0
        site.policy.write_text(BROKEN)
        daemon.start()
        told = status(daemon)
        assert told["policy_version"] == first and "limits.running_max" in told["policy_refused"][0]
        site.feed("ts_1.mrc")
        daemon.delivered("ts_1")


# -- in one process ----------------------------------------------------------------------------------------


class Told:
    """Policies over files in a folder, and what they told the core."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "site.toml"
        self.file.write_text("")
        (folder / "tiltd.toml").write_text(
            f'state_dir = "{folder}"\npolicy_file = "{self.file}"\n'
            '[[feed]]\nname = "f"\npath = "/data"\ndestination = "/tomo/{series}"\n'
        )
        self.now = 1_700_000_000.0
        self.seen: list[o.Observation] = []
        self.told = asyncio.Event()
        self.policies = policies.Policies(Settings.load(folder / "tiltd.toml"), lambda: self.now, self._put)
        self.first = self.policies.begin()

    async def _put(self, observation: o.Observation) -> None:
        self.seen.append(observation)
        self.told.set()

    def kinds(self) -> list[str]:
        return [type(seen).__name__ for seen in self.seen]


async def test_a_file_that_is_still_being_written_is_not_read_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every prefix of it up to the last line is a valid policy, and a wrong one."""
    monkeypatch.setattr(policies, "LOOK_SECONDS", 0.05)
    told = Told(tmp_path)
    watching = asyncio.create_task(told.policies.watch())
    whole = "".join(f'[[rule]]\nname = "r{n}"\nset = {{ priority = {n} }}\n' for n in range(12))
    for end in range(0, len(whole), 40):
        told.file.write_text(whole[: whole.rfind("\n[[", 0, end + 1) + 1])
        await asyncio.sleep(0.03)
    told.file.write_text(whole)
    async with asyncio.timeout(5.0):
        await told.told.wait()
    watching.cancel()
    (loaded,) = told.seen
    assert isinstance(loaded, o.PolicyLoaded) and len(loaded.policy.rules) == 12


async def test_nothing_is_read_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "LOOK_SECONDS", 0.01)
    told = Told(tmp_path)
    watching = asyncio.create_task(told.policies.watch())
    await asyncio.sleep(0.2)
    watching.cancel()
    assert told.seen == []


async def test_the_core_is_told_the_hour_in_the_zones_that_the_policy_names(tmp_path: Path) -> None:
    told = Told(tmp_path)
    rule = '[[rule]]\nname = "n"\nwhen = { hours = "1-2", zone = "Asia/Kolkata" }\nset = { priority = 1 }\n'
    telling = asyncio.create_task(told.policies.hours())
    told.now += 3600 - told.now % 3600 + 1800 - 0.1  # a tenth of a second before the hour turns there
    told.file.write_text(rule)
    assert await told.policies.reload("test") == ()
    (loaded,) = told.seen
    assert isinstance(loaded, o.PolicyLoaded)
    (before,) = loaded.civil
    told.told.clear()
    await asyncio.sleep(0.05)  # it looks at the clock, and waits
    told.now += 0.2
    async with asyncio.timeout(5.0):
        await told.told.wait()
    telling.cancel()
    turned = told.seen[1]
    assert isinstance(turned, o.CivilTimeObserved)
    assert turned.civil[0].hour == (before.hour + 1) % 24


async def test_a_destination_that_a_rule_names_is_looked_at_while_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "NEW_DESTINATIONS_SECONDS", 0.01)
    monkeypatch.setattr(poll, "DESTINATION_SECONDS", 0.01)
    named, news = {"f": str(tmp_path)}, asyncio.Event()
    seen: list[dict[str, int | None]] = []

    async def put(observation: o.Observation) -> None:
        assert isinstance(observation, o.DestinationsObserved)
        seen.append(observation.free_bytes)
        news.set()

    looking = asyncio.create_task(poll.watch_destinations(lambda: named, put, Clock()))
    async with asyncio.timeout(5.0):
        await news.wait()
        named["/elsewhere/{series}"] = str(tmp_path / "gone" / "away")
        while "/elsewhere/{series}" not in seen[-1]:
            news.clear()
            await news.wait()
    looking.cancel()
    assert seen[0].keys() == {"f"} and seen[-1]["f"]


async def test_a_vanished_or_unreadable_file_is_refused_with_its_name(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.file.write_bytes(b"# \xff\n")
    assert "site.toml" in (await told.policies.reload("test"))[0]
    told.file.unlink()
    assert "site.toml" in (await told.policies.reload("test"))[0]
    assert told.kinds() == ["PolicyRefused", "PolicyRefused"]
    assert told.policies.policy is told.first


async def test_a_start_without_any_accepted_policy_is_refused(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.file.write_text(BROKEN)
    assert told.policies.begin() == told.first, "the one kept"
    (tmp_path / policies.ACCEPTED).write_text("{}")
    with pytest.raises(policies.Refused, match="running_max"):
        told.policies.begin()


@pytest.mark.parametrize(
    "zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe"]
)
def test_the_hour_is_that_of_the_zone_and_holds_until_it_turns(zone: str) -> None:
    """Over two days around both changes of summer time, every seven minutes."""
    for start in ("2026-03-28T12:00", "2026-10-24T12:00", "2026-04-04T12:00"):
        at = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo("UTC")).timestamp()
        for step in range(0, 2 * 86400, 420):
            time = policies.civil_time(zone, at + step)
            there = datetime.fromtimestamp(at + step, ZoneInfo(zone))
            assert (time.hour, time.weekday) == (there.hour, there.weekday())
            assert 0 < time.valid_until_at - (at + step) <= 3600
            last = datetime.fromtimestamp(time.valid_until_at - 1, ZoneInfo(zone))
            assert (last.hour, last.weekday()) == (time.hour, time.weekday)
