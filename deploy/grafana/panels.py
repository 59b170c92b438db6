"""What a panel is, and how it becomes one of Grafana's.

In an expression ``{@}`` stands for the selection of daemons at the top of the page, ``{@, state="failed"}``
for that and more.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
SELECTION = 'instance=~"$instance"'
Kind = Literal["number", "word", "lines", "stack", "bars"]
WIDTH = {"number": 4, "word": 4, "lines": 12, "stack": 12, "bars": 12}
"""Of 24 columns."""
HEIGHT = {"number": 4, "word": 4, "lines": 8, "stack": 8, "bars": 8}

Builder = stat.Panel | timeseries.Panel | bargauge.Panel


class Query(NamedTuple):
    """``legend`` may name labels: ``{{feed}}``."""

    expression: str
    legend: str = ""


class Panel(NamedTuple):
    """``meaning`` is what the corner of the panel tells.  ``warn`` and ``alarm`` colour its value from there
    on, or up to there if ``alarm`` is the smaller."""

    title: str
    meaning: str
    kind: Kind
    unit: str
    queries: tuple[Query, ...]
    warn: float | None = None
    alarm: float | None = None
    width: int = 0


def number(title: str, meaning: str, unit: str, expression: str, *levels: float) -> Panel:
    """One big number; ``levels`` are from where it warns and from where it alarms."""
    return Panel(title, meaning, "number", unit, (Query(expression),), *levels)


def lines(title: str, meaning: str, unit: str, *queries: tuple[str, str]) -> Panel:
    """Lines over time; each query with its legend."""
    return Panel(title, meaning, "lines", unit, tuple(Query(*query) for query in queries))


def stack(title: str, meaning: str, unit: str, *queries: tuple[str, str]) -> Panel:
    """Areas on top of each other: parts of a whole."""
    return lines(title, meaning, unit, *queries)._replace(kind="stack")


def bars(title: str, meaning: str, unit: str, query: tuple[str, str], *levels: float) -> Panel:
    """A bar a label value, of now."""
    return Panel(title, meaning, "bars", unit, (Query(*query),), *levels)


def quantiles(name: str, by: str, span: str, *shares: float) -> tuple[tuple[str, str], ...]:
    """Queries of a histogram's quantiles by a label."""
    return tuple(
        (
            f"histogram_quantile({share}, sum by (le, {by}) (rate({name}_bucket{{@}}[{span}])))",
            f"{{{{{by}}}}} {share:.0%}",
        )
        for share in shares
    )


def built(panel: Panel) -> Builder:
    """As the SDK's builder.  Raises KeyError for a kind that there is none of."""
    make = {"number": _stat, "word": _stat, "lines": _lines, "stack": _lines, "bars": _bars}
    made = make[panel.kind](panel)
    made.title(panel.title).description(panel.meaning).unit(panel.unit).datasource(DATASOURCE)
    made.span(panel.width or WIDTH[panel.kind]).height(HEIGHT[panel.kind])
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        made.with_target(_target(query, letter, instant=panel.kind in ("word", "bars")))
    return made


def _target(query: Query, letter: str, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression.replace("@", SELECTION)).ref_id(letter)
    target = target.legend_format(query.legend or "__auto")
    return target.instant() if instant else target.range()


def _levels(panel: Panel) -> dashboard.ThresholdsConfig:
    """Green, yellow from ``warn``, red from ``alarm``; the other way round where little is bad."""
    warn, alarm = panel.warn, panel.alarm
    steps = [(None, "green")]
    if warn is not None and alarm is not None and alarm < warn:
        steps = [(None, "red"), (alarm, "yellow"), (warn, "green")]
    else:
        steps += [(level, name) for level, name in ((warn, "yellow"), (alarm, "red")) if level is not None]
    config = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
    return config.steps([models.Threshold(value=value, color=color) for value, color in steps])


def _stat(panel: Panel) -> stat.Panel:
    word = panel.kind == "word"
    made = stat.Panel().thresholds(_levels(panel)).reduce_options(_newest())
    made.graph_mode(common_models.BigValueGraphMode.NONE if word else common_models.BigValueGraphMode.AREA)
    if word:
        made.text_mode(common_models.BigValueTextMode.NAME)
    return made


def _lines(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    legend = legend.display_mode(common_models.LegendDisplayMode.LIST)
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    made = timeseries.Panel().legend(legend).tooltip(tooltip).axis_soft_min(0)
    made.show_points(common_models.VisibilityMode.NEVER)
    if panel.kind == "stack":
        stacking = common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A")
        made.stacking(stacking).fill_opacity(30)
    return made


def _bars(panel: Panel) -> bargauge.Panel:
    made = bargauge.Panel().thresholds(_levels(panel)).reduce_options(_newest()).min(0)
    return made.orientation(common_models.VizOrientation.HORIZONTAL)


def _newest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
