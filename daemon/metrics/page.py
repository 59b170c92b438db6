"""docs/metrics.md, from the table."""

from __future__ import annotations

from .table import METRICS


def as_markdown() -> str:
    """The reference page; cost grows with the table."""
    lines = [_HEAD]
    for metric in METRICS.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        lines.append(
            f"| `{metric.name}` | {metric.kind} | {metric.unit or '-'} | {labels} | {metric.meaning} |"
        )
    lines += [
        "",
        "## Buckets",
        "",
        "Upper bounds, in seconds or as ratios; the last bucket takes the rest.",
        "",
    ]
    for metric in METRICS.values():
        if metric.buckets:
            bounds = ", ".join(f"{bound:g}" for bound in metric.buckets)
            lines.append(f"* `{metric.name}`: {bounds}")
    return "\n".join(lines) + "\n"


_HEAD = """\
# Metrics

`GET /metrics` on the address of `[listen]` (default `http://127.0.0.1:9178/metrics`) answers in the
Prometheus text format. A scrape reads memory only. This page is written from `daemon/metrics/table.py` by
`python docs/write_metrics.py`; a test compares the two, and both with what a daemon exposes.

Labels are bounded: feeds, pipelines and nodes are named by the site. Projects, sessions and series never
become labels; ask `tiltd list` for those.

| metric | kind | unit | labels | meaning |
|---|---|---|---|---|"""
