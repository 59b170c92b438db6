"""A real Prometheus scrapes a real daemon while series arrive, run, fail and wait: every panel has data."""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.monitoring import Asked, asked
from deploy.on_torque import on_torque
from deploy.programs import program
from shell.daemon_process import POLICY, DaemonProcess, Site, running, wait_until
from tiltd.daemon.standin.torque.records import Pretend
from tiltd.daemon.standin.torque.site import StandIn

SCRAPE = "500ms"
RULES = """
[shares]
p = 2
[[rule]]
name = "wait"
when = { project = "waiting" }
set = { hold = "until the tests are over" }
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Prometheus:
    """A server of its own in ``folder``, with the example's configuration, scraping more often."""

    def __init__(self, project: Path, folder: Path, target: int) -> None:
        self.port, self.folder = free_port(), folder
        for path in (project / "deploy" / "prometheus").glob("*.yml"):
            (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        config = (folder / "prometheus.yml").read_text(encoding="utf-8")
        config = config.replace("127.0.0.1:9178", f"127.0.0.1:{target}").replace("15s", SCRAPE)
        (folder / "prometheus.yml").write_text(config, encoding="utf-8")

    def __enter__(self) -> Prometheus:
        log = open(self.folder / "log", "wb")
        self.process = subprocess.Popen(
            [
                program("prometheus", "prometheus"),
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
        )
        log.close()
        try:
            wait_until(self._ready, 30, self._said)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    def _said(self) -> str:
        return (self.folder / "log").read_text()[-2000:]

    def _ready(self) -> bool:
        assert self.process.poll() is None, self._said()
        try:
            return bool(self.ask("query", query="up")["result"])
        except OSError:
            return False

    def ask(self, what: str, **fields: str) -> Any:
        """``data`` of the answer.  Raises OSError for one that is none."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(fields)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            return json.loads(answer.read())["data"]

    def values(self, expression: str) -> list[float]:
        return [float(each["value"][1]) for each in self.ask("query", query=expression)["result"]]


def live_through(daemon: DaemonProcess, site: Site, prometheus: Prometheus) -> None:
    """Some are delivered, before and after Prometheus has looked; one is tried twice, one fails, one is
    held."""
    site.feed("first.mrc")
    daemon.delivered("first")
    wait_until(lambda: prometheus.values('tiltd_datasets{state="delivered"}') == [1.0], 20)
    for name in ("second.mrc", "fails_once.mrc", "fails_always.mrc"):
        site.feed(name)
    daemon.delivered("second", "fails_once")
    daemon.wait(lambda: daemon.states().get("fails_always") == "failed")
    site.feed("kept.mrc", folder="waiting/s")
    daemon.wait(lambda: daemon.held("kept") == ["policy"])
    held = "sum(tiltd_datasets_held)"
    wait_until(lambda: prometheus.values(held) == [1.0], 20, lambda: prometheus.values(held))
    ended = 'sum(tiltd_datasets_ended_total{state=~"delivered|failed"})'
    wait_until(lambda: prometheus.values(ended) == [4.0], 20, lambda: prometheus.values(ended))
    rate = "sum(feed:tiltd_datasets_ended:rate6h) > 0"
    wait_until(lambda: prometheus.values(rate), 20)


@pytest.fixture(scope="module")
def world(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Site]]:
    program("prometheus", "prometheus")
    site = Site(tmp_path_factory.mktemp("scraped"), policy=POLICY + RULES)
    port = free_port()
    site.config.write_text(site.config.read_text().replace("port = 0", f"port = {port}"))
    node = Pretend("core-012", cores=4, scratch_bytes=10**9)
    with (
        StandIn(site.folder / "torque", [node]) as torque,
        Prometheus(project, tmp_path_factory.mktemp("prometheus"), port) as there,
    ):
        on_torque(site, torque)
        with running(site) as daemon:
            live_through(daemon, site, there)
            yield there, site
            assert daemon.stop() == 0


def empty(prometheus: Prometheus, panels: list[Asked]) -> dict[str, str]:
    return {each.where: each.expression for each in panels if not prometheus.values(each.expression)}


def test_every_panel_has_data(world: tuple[Prometheus, Site], project: Path) -> None:
    panels = asked(project)
    assert len(panels) > 80
    assert empty(world[0], panels) == {}


def test_a_panel_without_data_is_found(world: tuple[Prometheus, Site]) -> None:
    there_is_not = Asked("nowhere", "tiltd_queue_depth < 0", "")
    assert empty(world[0], [there_is_not]) == {"nowhere": "tiltd_queue_depth < 0"}


def test_every_expression_is_taken(world: tuple[Prometheus, Site], project: Path) -> None:
    for each in asked(project):
        world[0].ask("query", query=each.expression)


def test_big_numbers_are_right(world: tuple[Prometheus, Site], project: Path) -> None:
    found = {each.where.partition(": ")[2]: each.expression for each in asked(project)}
    numbers = {
        "Waiting": 0,
        "Running": 0,
        "Held": 1,
        "Daemons ready": 1,
        "Feeds down": 0,
        "Open breakers": 0,
        "Nodes that take jobs": 1,
        "Nodes away": 0,
    }
    assert {title: world[0].values(found[title]) for title in numbers} == {
        title: [value] for title, value in numbers.items()
    }


def test_what_happened_while_prometheus_looked_is_counted(
    world: tuple[Prometheus, Site], project: Path
) -> None:
    """Rates extrapolate, so no number of them is exact."""
    found = {each.where.partition(": ")[2]: each.expression for each in asked(project)}
    (delivered,) = world[0].values(found["Delivered, 24 h"])
    (failed,) = world[0].values(found["Failed, 24 h"])
    (minutes,) = world[0].values(found["Median minutes to tomogram"])
    assert 2 <= delivered <= 4
    assert 1 <= failed <= 2
    assert 0 < minutes < 1 and not math.isnan(minutes)


def test_every_rule_is_well(world: tuple[Prometheus, Site]) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in world[0].ask("rules")["groups"] for rule in group["rules"]]

    def loud() -> set[str]:
        return {r["name"] for r in rules() if r["type"] == "alerting" and r["state"] == "firing"}

    # Of all that is not as it should be, a failure is told at once.
    wait_until(lambda: loud() == {"TiltdFailed"}, 20, loud)
    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), 20)
    assert len(rules()) > 40
    assert {rule["name"]: rule.get("lastError") for rule in rules() if rule["health"] != "ok"} == {}


def test_nothing_in_the_world_is_a_label(world: tuple[Prometheus, Site]) -> None:
    """No series' name came to Prometheus."""
    labels = set(world[0].ask("labels"))
    values = {value for name in labels for value in world[0].ask(f"label/{name}/values")}
    assert "krios1" in values
    assert not {value for value in values if re.search(r"^(first|second)|fails_|\.mrc|^p/s", value)}
