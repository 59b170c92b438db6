"""What a job's programs leave for the judgement reaches the end's line, also from a run that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from shell.runner_site import RunnerSite, python

LEAVE = """
import json
json.dump({"views_aligned": 40, "no number": "x"}, open(o + b"/figures.json", "w"))
json.dump(["two beads", 3, "x" * 600], open(o + b"/notes.json", "w"))
open(o + b"/tomogram.mrc", "wb").write(b"t")
"""


@pytest.mark.parametrize(("ending", "outcome"), [("", "success"), ("sys.exit(3)", "failed")])
def test_figures_and_notes_are_told(tmp_path: Path, ending: str, outcome: str) -> None:
    site = RunnerSite(tmp_path)
    site.prepare(python(LEAVE + ending))
    site.run()
    end = site.seen().end
    assert end is not None and end.outcome == outcome
    assert end.figures == {"views_aligned": 40.0}
    assert end.notes == ("two beads", "x" * 500)


@pytest.mark.parametrize("content", [b"", b"{}", b"3", b'"x"', b"[" * 9000, b"\xff"])
def test_notes_that_are_none_are_passed_over(tmp_path: Path, content: bytes) -> None:
    site = RunnerSite(tmp_path)
    site.prepare(python(f"open(o + b'/notes.json', 'wb').write({content!r})"))
    site.run()
    end = site.seen().end
    assert end is not None and (end.outcome, end.notes) == ("success", ())
