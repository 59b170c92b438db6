"""A run's log as a collector reads it: one event, one line, and what is about a dataset says which."""

from __future__ import annotations

import json
import re
from pathlib import Path

from shell.daemon_process import Site, running

DATASET = re.compile(r"\b\w+-[0-9a-f]{8}\.\d+\.\d+\b")


def test_every_line_about_a_dataset_is_bound_to_it(tmp_path: Path) -> None:
    site = Site(tmp_path, more='[log]\nformat = "json"\nlevel = "debug"\n')
    with running(site) as daemon:
        for name in ("good.mrc", "fails_once.mrc", "fails_always.mrc"):
            site.feed(name)
        daemon.delivered("good", "fails_once")
        daemon.wait(lambda: daemon.states().get("fails_always") == "failed")
        # The spool cannot be written, and so nothing can be prepared or submitted.
        (site.spool / "attempts").chmod(0o500)
        site.feed("refused.mrc")
        daemon.wait(lambda: "SubmitJob" in site.log_text())
        daemon.act("hold", datasets=["refused"])
        (site.spool / "attempts").chmod(0o700)
        daemon.act("release", datasets=["refused"])
        daemon.delivered("refused")
        daemon.stop()
    events = [json.loads(line) for line in site.log_text().splitlines()]
    named = 0
    for event in events:
        rest = json.dumps({key: value for key, value in event.items() if key != "dataset"})
        for found in DATASET.findall(rest):
            named += 1
            assert event.get("dataset") == found, event
    assert named > 5
    told = {event["event"] for event in events if event.get("dataset", "").startswith("refused")}
    assert {"found", "completed", "placed", "held", "released", "started", "delivered"} <= told
    assert all({"event", "level", "timestamp"} <= set(event) for event in events)
