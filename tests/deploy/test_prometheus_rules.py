"""Scrape example, rules and alerts, judged by promtool; each alert fires and does not."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from deploy.monitoring import promtool, read_yaml, rules
from docs.pages import anchors
from shell.test_metrics import NOW, full
from tiltd.daemon.metrics import Metrics

SEVERITIES = {"critical", "warning", "info"}


@pytest.fixture
def folder(project: Path) -> Path:
    return project / "deploy" / "prometheus"


def alerts(project: Path) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules(project) if "alert" in rule}


def test_the_scrape_example_is_right(folder: Path) -> None:
    code, said = promtool(folder, "check", "config", "prometheus.yml")
    assert code == 0 and "2 rule files found" in said, said


@pytest.mark.parametrize("name", ["tiltd-rules", "tiltd-alerts-minutes", "tiltd-alerts-hours"])
def test_they_fire_when_they_should(folder: Path, name: str) -> None:
    code, said = promtool(folder, "test", "rules", f"{name}.test.yml")
    assert code == 0, said


def test_each_alert_is_made_to_fire_and_not_to(project: Path, folder: Path) -> None:
    outcomes: dict[str, set[bool]] = defaultdict(set)
    for path in folder.glob("tiltd-alerts-*.test.yml"):
        for group in read_yaml(path)["tests"]:
            for each in group["promql_expr_test"]:
                expected = f'ALERTS{{alertname="{group["name"]}", alertstate="firing"}}'
                assert each["expr"] == expected
                outcomes[group["name"]].add(bool(each["exp_samples"]))
    assert set(outcomes) == set(alerts(project))
    assert [name for name, seen in outcomes.items() if seen != {True, False}] == []


def test_each_recorded_series_is_tried(project: Path, folder: Path) -> None:
    tried = (folder / "tiltd-rules.test.yml").read_text(encoding="utf-8")
    names = [rule["record"] for rule in rules(project) if "record" in rule]
    assert names
    assert [name for name in names if f"{name}" not in tried] == []


def test_each_alert_says_what_it_is_and_what_to_do(project: Path) -> None:
    page = (project / "docs" / "monitoring.md").read_text(encoding="utf-8")
    headings = anchors(page)
    for name, alert in alerts(project).items():
        assert re.fullmatch(r"Tiltd([A-Z][a-z]*)+", name)
        assert alert["labels"]["severity"] in SEVERITIES
        said = alert["annotations"]
        assert set(said) == {"summary", "action", "page"}
        assert said["summary"].endswith(".") and said["action"].endswith((".", "?"))
        assert said["page"] == f"docs/monitoring.md#{name.lower()}"
        assert name.lower() in headings


def test_the_page_tells_of_each_alert_how_bad_it_is_and_what_to_do(project: Path) -> None:
    page = (project / "docs" / "monitoring.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^### (Tiltd\w+)\n\n(.+?)(?=^##|\Z)", page, re.M | re.S))
    assert set(told) == set(alerts(project))
    for name, alert in alerts(project).items():
        assert told[name].startswith(f"*{alert['labels']['severity']}.*"), name
        assert "**Do:** " in told[name], name


def test_the_exposition_is_clean() -> None:
    """``promtool check metrics`` has nothing to say of a daemon's page."""
    text = full(Metrics(now=lambda: NOW, journal_bytes=lambda: 4096)).render()
    code, said = promtool(Path.cwd(), "check", "metrics", stdin=text)
    assert (code, said) == (0, "")


def test_what_is_not_clean_is_told() -> None:
    text = b"# TYPE tiltd_runs counter\ntiltd_runs 1\n"
    code, said = promtool(Path.cwd(), "check", "metrics", stdin=text)
    assert code != 0 and "_total" in said
