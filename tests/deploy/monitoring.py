"""What dashboards, rules and alerts ask for, taken apart; and the programs of Prometheus that judge them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml

from deploy.programs import program
from tiltd.daemon.metrics import METRICS

TARGET_LABELS = {"job", "instance"}
"""Labels that Prometheus itself gives to whatever it scrapes."""
PROMETHEUS_OWN = {"up": set[str]()}


def promtool(folder: Path, *argv: str, stdin: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        [program("promtool", "prometheus"), *argv],
        cwd=folder,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=300,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


class Selected(NamedTuple):
    """One metric that an expression reads, and the labels by which it selects."""

    name: str
    labels: frozenset[str]


def selected(expression: str) -> list[Selected]:
    """Raises ValueError for what is no PromQL."""
    found: list[Selected] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            matchers = frozenset(each.name for each in node.matchers.matchers)
            found.append(Selected(node.name or "", matchers))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def grouped(expression: str) -> set[str]:
    """Labels that the aggregations keep or drop by name."""
    found: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def family(name: str) -> str:
    """The metric of which a sample is part: a histogram has three kinds."""
    for suffix in ("_bucket", "_sum", "_count"):
        stem = name.removesuffix(suffix)
        if stem != name and stem in METRICS and METRICS[stem].kind == "histogram":
            return stem
    return name


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules(project: Path) -> Iterator[dict[str, Any]]:
    """Recording rules and alerts."""
    for name in ("tiltd-rules.yml", "tiltd-alerts.yml"):
        for group in read_yaml(project / "deploy" / "prometheus" / name)["groups"]:
            yield from group["rules"]


def recorded(project: Path) -> set[str]:
    return {rule["record"] for rule in rules(project) if "record" in rule}


class Asked(NamedTuple):
    """One query of one panel, as Grafana sends it when all daemons are selected."""

    where: str
    expression: str
    legend: str


def dashboards(project: Path) -> dict[str, Any]:
    folder = project / "deploy" / "grafana" / "dashboards"
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def asked(project: Path) -> list[Asked]:
    found = []
    for name, page in dashboards(project).items():
        for panel in page["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"].replace("$instance", ".*")
                found.append(Asked(f"{name}: {panel['title']}", expression, target["legendFormat"]))
    return found
