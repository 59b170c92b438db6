"""Run after run through a daemon: put a series into the feed, wait for its end, keep what was measured."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tiltd.daemon.client import Client
from tiltd.daemon.demo.site import Site
from tiltd.daemon.text import one_line

from .figures import Measurement, append
from .plan import Planned
from .site import FEED

LOOK_SECONDS = 0.3
TERMINAL = frozenset({"delivered", "failed", "cancelled"})
TROUBLES_MAX = 3
"""So many failures one after another, and the rest is not tried: they have one cause."""
NOT_SEEN_SECONDS = 120.0
"""Files in which nothing was found for so long, many looks of the daemon's, hold no series."""


class StudyFailed(Exception):
    """The experiment cannot go on; the message is for a person."""


def series_files(folder: Path) -> list[Path]:
    """The files of the one series in this folder.  Raises StudyFailed."""
    if not folder.is_dir():
        raise StudyFailed(f"{folder} is no folder; name the one that holds the files of one series")
    found = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise StudyFailed(f"{folder} holds no files; name the one that holds the files of one series")
    return found


class Study:
    """``tell`` gets a sentence for every run that ends; ``check`` raises when the daemon has died."""

    def __init__(
        self,
        site: Site,
        client: Client,
        files: Sequence[Path],
        at_once: int,
        tell: Callable[[Planned, Measurement], None],
        check: Callable[[], None],
        keep: bool = False,
    ) -> None:
        self._site, self._client, self._files = site, client, files
        self._at_once, self._tell, self._check, self._keep = at_once, tell, check, keep
        self._troubles = 0
        self._shot_at: dict[Planned, float] = {}

    @property
    def runs_file(self) -> Path:
        return self._site.folder / "runs.jsonl"

    def wait_for_feed(self, limit_seconds: float = 60.0) -> None:
        """Until the daemon has met the feed: what it finds there first would be held as from before it."""
        deadline = time.monotonic() + limit_seconds
        while not self._client.get("status")["feeds_up"].get(FEED):
            self._check()
            if time.monotonic() > deadline:
                raise StudyFailed("the daemon does not come to watch its feed; its log is in the folder")
            time.sleep(LOOK_SECONDS)

    def run(self, planned: Sequence[Planned]) -> None:
        """All of them, ``at_once`` at a time.  Raises StudyFailed."""
        waiting = list(planned)
        under_way: list[Planned] = []
        while waiting or under_way:
            while waiting and len(under_way) < self._at_once:
                under_way.append(waiting.pop(0))
                self._shoot(under_way[-1])
            time.sleep(LOOK_SECONDS)
            self._check()
            for each in list(under_way):
                measured = self._looked(each)
                if measured is not None:
                    under_way.remove(each)
                    self._ended(each, measured)

    def _shoot(self, planned: Planned) -> None:
        """The series into its folder of the feed: as links where it can be, which take no space."""
        self._shot_at[planned] = time.monotonic()
        folder = self._site.incoming / planned.shape.name / planned.name
        folder.mkdir(parents=True, exist_ok=True)
        for file in self._files:
            target = folder / file.name
            if target.exists():
                continue
            try:
                os.link(file, target)
            except OSError:
                shutil.copy2(file, target)
        for row in self._rows(planned):
            if row["state"] in ("failed", "cancelled"):  # in an earlier attempt at the experiment
                self._client.post("actions", {"action": "retry", "datasets": [row["dataset_id"]]})

    def _looked(self, planned: Planned) -> Measurement | None:
        """What came of it; ``None`` while it is on its way."""
        rows = self._rows(planned)
        if not rows:
            if time.monotonic() > self._shot_at[planned] + NOT_SEEN_SECONDS:
                raise StudyFailed(
                    f"no series was found in {one_line(', '.join(f.name for f in self._files)[:200])}; the "
                    "folder that is named has to hold the files of one series"
                )
            return None
        if rows[0]["state"] not in TERMINAL:
            held = rows[0].get("held") or []
            return Measurement(planned=planned, trouble=f"held: {', '.join(held)}") if held else None
        return _measurement(planned, self._client.get("datasets", rows[0]["dataset_id"])["dataset"])

    def _rows(self, planned: Planned) -> list[dict[str, Any]]:
        found = self._client.get("datasets", project=planned.shape.name, session=planned.name)
        return list(found["datasets"])

    def _ended(self, planned: Planned, measured: Measurement) -> None:
        append(self.runs_file, measured)
        self._tell(planned, measured)
        if not self._keep:
            # With its files its pages leave the cache, which made the study's runs differ (section 4.4).
            shutil.rmtree(self._site.results / planned.shape.name / planned.name, ignore_errors=True)
            shutil.rmtree(self._site.incoming / planned.shape.name / planned.name, ignore_errors=True)
        self._troubles = self._troubles + 1 if measured.trouble else 0
        if self._troubles >= TROUBLES_MAX:
            raise StudyFailed(f"{TROUBLES_MAX} runs failed one after another: {measured.trouble}")


def _measurement(planned: Planned, record: dict[str, Any]) -> Measurement:
    if record["state"] != "delivered":
        failure = record.get("failure") or (record["attempts"] or [{}])[-1].get("failure") or {}
        why = f"{failure.get('failure_class', record['state'])}: {failure.get('detail', '')}"
        return Measurement(planned=planned, trouble=one_line(why))
    measured, placed = record["measured"], record["attempts"][-1]["placement"]
    wanted = planned.shape
    got = (len(placed["nodes"]), placed["cores"], placed["threads"])
    trouble = ""
    if got != (wanted.nodes, wanted.cores, wanted.threads):
        trouble = f"it got {got[0]} x {got[1]} cores and {got[2]} threads instead"
    return Measurement(
        planned=planned,
        run_seconds=measured["run_seconds"],
        stage_in_seconds=measured["stage_in_seconds"],
        stage_out_seconds=measured["stage_out_seconds"],
        cpu_seconds=measured["cpu_seconds"],
        peak_memory_bytes=measured["peak_memory_bytes"],
        peak_scratch_bytes=measured["peak_scratch_bytes"],
        on=tuple(placed["nodes"]),
        trouble=trouble,
    )
