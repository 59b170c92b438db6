"""The dashboards from their code: ``deploy/grafana/write.py`` writes them, ``--check`` compares.

Needs grafana-foundation-sdk (of the ``dev`` extra), whose models are those of Grafana 11.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import cluster
import facility
import performance
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from panels import DATASOURCE, Panel, built

FOLDER = Path(__file__).parent / "dashboards"
ROOMS = {"facility": facility, "cluster": cluster, "performance": performance}


def drawn(name: str, title: str, meaning: str, rows: Mapping[str, tuple[Panel, ...]]) -> str:
    """One dashboard as JSON.  Cost grows with its panels."""
    page = dashboard.Dashboard(title).uid(f"tiltd-{name}").description(meaning).tags(["tiltd"])
    page.time("now-24h", "now").refresh("30s").timezone("browser").readonly()
    page.link(_siblings()).with_variable(_datasource()).with_variable(_instance())
    numbers = count(1)
    for heading, panels in rows.items():
        page.with_row(dashboard.Row(heading).id(next(numbers)))
        for panel in panels:
            page.with_panel(built(panel).id(next(numbers)))
    return json.dumps(page.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _siblings() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("tiltd").type(models.DashboardLinkType.DASHBOARDS).tags(["tiltd"])
    return link.keep_time(True).include_vars(True).as_dropdown(False)


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _instance() -> dashboard.QueryVariable:
    """Which daemons: all of them at first."""
    query: dict[str, object] = {
        "query": "label_values(tiltd_build_info, instance)",
        "refId": "instance",
        "qryType": 1,
    }
    every = models.VariableOption(selected=True, text="All", value="$__all")
    variable = dashboard.QueryVariable("instance").label("Daemon").datasource(DATASOURCE).query(query)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).current(every)
    return variable.multi(True).include_all(True).all_value(".*")


def main(argv: list[str]) -> int:
    """Exit code 1 if a file is not what the code says."""
    old = []
    for name, room in ROOMS.items():
        path = FOLDER / f"tiltd-{name}.json"
        text = drawn(name, room.TITLE, room.MEANING, room.ROWS)
        if "--check" not in argv:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            old.append(path.name)
    if old:
        print(f"{', '.join(old)}: old; run: python deploy/grafana/write.py", file=sys.stderr)
    return int(bool(old))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
