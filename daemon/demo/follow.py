"""How far everything is, as the daemon's API tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiltd.daemon.client import Answered, Client

from .shooting import Expected

TERMINAL = frozenset({"delivered", "failed", "cancelled"})


@dataclass(frozen=True)
class Seen:
    """What the daemon says of one series.  ``state`` is empty while it has not said anything.

    ``reason`` is one sentence: why it is held, ignored, failed or waits.  ``record`` is the whole dataset,
    asked for once it has settled.
    """

    state: str = ""
    held: tuple[str, ...] = ()
    reason: str = ""
    nodes: tuple[str, ...] = ()
    dataset_ids: tuple[str, ...] = ()
    changed_at: float = 0.0
    record: Mapping[str, Any] | None = None

    def settled(self, expected: Expected) -> bool:
        """Whether nothing more is to come, be it what was expected or not."""
        return self.as_expected(expected) or self.state in TERMINAL or self.state == "ignored"

    def as_expected(self, expected: Expected) -> bool:
        if expected.outcome == "partial":
            return "partial" in self.held
        return self.state == expected.outcome and not self.held


def look(client: Client, expected: tuple[Expected, ...]) -> dict[str, Seen]:
    """By the name of the series.  Two questions, and one more for each that has settled.

    Raises NotRunning, Answered.
    """
    rows = client.get("datasets")["datasets"]
    ignored = {each["series_key"]: each["reason"] for each in client.get("ignored")["ignored"]}
    found = {}
    for series in expected:
        own = [row for row in rows if row["name"] == series.name]
        # A map looks like any series while it grows: it is met, and taken back once it was opened.
        if series.stack in ignored and all(row["state"] == "cancelled" for row in own):
            found[series.name] = _ignored(client, series, ignored[series.stack])
        elif own:
            found[series.name] = _of_row(client, series, own)
        else:
            found[series.name] = Seen()
    return found


def _ignored(client: Client, series: Expected, code: str) -> Seen:
    answer = _known(client, "why", series.stack)
    line = (answer.get("lines") or [code])[0]
    return Seen(state="ignored", reason=line if code in line else f"{code}: {line}")


def _of_row(client: Client, series: Expected, rows: list[dict[str, Any]]) -> Seen:
    newest = max(rows, key=lambda row: float(row["since_at"]))
    seen = Seen(
        state=newest["state"],
        held=tuple(newest["held"]),
        reason=newest["why"],
        nodes=tuple(newest["nodes"]),
        dataset_ids=tuple(row["dataset_id"] for row in rows),
        changed_at=float(newest["since_at"]),
    )
    if not seen.settled(series) and not seen.held:
        return seen
    record = _known(client, "datasets", newest["dataset_id"]).get("dataset", {})
    return Seen(**{**seen.__dict__, "record": record, "reason": _sentence(record, seen.reason)})


def _known(client: Client, *parts: str) -> dict[str, Any]:
    """The answer, empty where the daemon knows no such thing."""
    try:
        return dict(client.get(*parts))
    except Answered as refusal:
        if refusal.status == 404:
            return {}
        raise


def _sentence(record: Mapping[str, Any], word: str) -> str:
    """The detail of a hold or of a failure, else the word of the list."""
    if record.get("state") == "delivered":
        return ""
    details = [f"{hold['cause']}: {hold['detail']}" for hold in record.get("holds") or ()]
    failure = record.get("failure")
    if failure and not details:
        details = [f"{failure['failure_class']}: {failure['reason']} {failure.get('detail', '')}".strip()]
    return "; ".join(details) or word
