"""A feed under a clock that the test moves, and a ``seen`` table in a dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiltd.daemon.core.model import Sighting
from tiltd.daemon.core.observations import FilesObserved
from tiltd.daemon.watch import FeedWatch
from tiltd.plugins.api import Context
from tiltd.plugins.serialem import SerialEmDetector

CONTEXT = Context(state_folder="/s", spool_folder="/p", journal_id="j", owner="o")


@dataclass
class Row:
    dataset_id: str
    revision: int
    digest: str
    stat_signature: str


class SeenRows:
    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def get(self, feed: str, series_key: str) -> Row | None:
        return self.rows.get(series_key)

    def remember(self, sighting: Sighting) -> None:
        digest = sighting.series.fingerprint.digest if sighting.series else ""
        self.rows[sighting.series_key] = Row("d1", 1, digest, sighting.stat_signature)


@dataclass
class Feed:
    """``look`` moves the clock on and makes one pass; ``opened`` keeps the last sighting of each series."""

    root: Path
    seen: SeenRows = field(default_factory=SeenRows)
    now: float = 2e9
    live: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    detector: Any = None

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        detector = self.detector or SerialEmDetector({}, CONTEXT)
        self.watch = FeedWatch("krios1", str(self.root), detector, self.seen, **self.options)

    def look(self, seconds: float = 15.0, live: Mapping[str, str] | None = None) -> FilesObserved:
        self.now += seconds
        observed = self.watch.look(self.now, self.live if live is None else live)
        assert observed.at == self.now
        for sighting in observed.sightings:
            if sighting.not_series is None:
                self.live[sighting.series_key] = "d1"
            else:
                self.seen.remember(sighting)
        return observed

    def finish(self, sighting: Sighting) -> None:
        """As the core does once the dataset is terminal."""
        self.seen.remember(sighting)
        self.live.pop(sighting.series_key, None)
