"""The dashboards: what their code makes, in Grafana's own models; asking for what tiltd has."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.monitoring import (
    PROMETHEUS_OWN,
    TARGET_LABELS,
    asked,
    dashboards,
    family,
    grouped,
    read_yaml,
    recorded,
    rules,
    selected,
)
from tiltd.daemon.metrics import METRICS


def test_they_are_what_their_code_makes(project: Path) -> None:
    argv = [sys.executable, "deploy/grafana/write.py", "--check"]
    done = subprocess.run(argv, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


def test_there_are_three(project: Path) -> None:
    pages = dashboards(project)
    assert list(pages) == ["tiltd-cluster.json", "tiltd-facility.json", "tiltd-performance.json"]
    assert len({page["uid"] for page in pages.values()}) == 3
    for page in pages.values():
        numbers = [panel["id"] for panel in page["panels"]]
        assert len(set(numbers)) == len(numbers)
        assert all(panel["type"] == "row" or panel["description"] for panel in page["panels"])


def keys(value: Any, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value} | {
            each for key, inner in value.items() for each in keys(inner, f"{path}.{key}")
        }
    if isinstance(value, list):
        return {each for number, inner in enumerate(value) for each in keys(inner, f"{path}[{number}]")}
    return set()


def lost(page: dict[str, Any]) -> set[str]:
    """Keys that Grafana's models do not know: reading and writing loses them."""
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(page)))
    return keys(page) - keys(again)


def test_grafana_knows_every_key(project: Path) -> None:
    for name, page in dashboards(project).items():
        assert lost(page) == set(), name


def test_a_misspelt_key_is_found(project: Path) -> None:
    page = dashboards(project)["tiltd-facility.json"]
    page["refrsh"] = page.pop("refresh")
    page["panels"][1]["fieldConfig"]["defaults"]["untis"] = "s"
    assert lost(page) == {".refrsh", ".panels[1].fieldConfig.defaults.untis"}


def faults(expression: str, known: set[str]) -> list[str]:
    """What an expression asks for that there is not: metrics, or labels of them."""
    found, labels = [], set(TARGET_LABELS) | {"le"}
    anything = False
    for each in selected(expression):
        name = family(each.name)
        if name in known:
            anything = True
            continue
        own = PROMETHEUS_OWN.get(name, set(METRICS[name].labels) if name in METRICS else None)
        if own is None:
            found.append(f"there is no {each.name}")
            continue
        labels |= own
        found += [f"{name} has no label {label}" for label in each.labels - own - TARGET_LABELS - {"le"}]
        if name in METRICS and METRICS[name].kind == "histogram" and name == each.name:
            found.append(f"{name} is a histogram: ask for its buckets, sum or count")
    if not anything:
        found += [f"no metric of it has the label {label}" for label in grouped(expression) - labels]
    return found


def test_every_panel_asks_for_what_there_is(project: Path) -> None:
    known = recorded(project)
    assert {each.where: found for each in asked(project) if (found := faults(each.expression, known))} == {}


def test_every_rule_asks_for_what_there_is(project: Path) -> None:
    known = recorded(project)
    found = {rule.get("alert", rule.get("record")): faults(rule["expr"], known) for rule in rules(project)}
    assert {name: each for name, each in found.items() if each} == {}


@pytest.mark.parametrize(
    "expression",
    [
        "tiltd_queue_dept",
        'tiltd_queue_depth{pipeline="wbp"}',
        "sum by (pipeline) (tiltd_queue_depth)",
        "rate(tiltd_run_seconds[1h])",
    ],
)
def test_what_there_is_not_is_found(expression: str) -> None:
    assert faults(expression, set())


def test_every_rule_that_is_recorded_is_used(project: Path) -> None:
    used = {each.name for one in asked(project) for each in selected(one.expression)}
    used |= {each.name for rule in rules(project) for each in selected(rule["expr"])}
    assert recorded(project) - used == set()


def test_legends_name_labels_that_are_there(project: Path) -> None:
    unchecked = recorded(project)
    for one in asked(project):
        named = set(re.findall(r"\{\{(\w+)\}\}", one.legend))
        names = [family(each.name) for each in selected(one.expression)]
        if named and not set(names) & unchecked:
            has = {label for name in names for label in METRICS[name].labels} | {"instance"}
            assert named <= (grouped(one.expression) or has), one


def test_every_metric_is_shown_or_said_why_not(project: Path) -> None:
    """A metric that nobody looks at is one too many."""
    shown = {family(each.name) for one in asked(project) for each in selected(one.expression)}
    shown |= {family(each.name) for rule in rules(project) for each in selected(rule["expr"])}
    assert set(METRICS) - shown == set()


def test_provisioning(project: Path) -> None:
    folder = project / "deploy" / "grafana" / "provisioning"
    (provider,) = read_yaml(folder / "dashboards" / "tiltd.yml")["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/etc/grafana/dashboards/tiltd")
    (source,) = read_yaml(folder / "datasources" / "prometheus.yml")["datasources"]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")


def test_the_sdk_speaks_of_grafana_11() -> None:
    """The version without a suffix resolves to the models of another Grafana."""
    found = importlib.metadata.version("grafana-foundation-sdk")
    assert found.endswith("!11.6.0")
