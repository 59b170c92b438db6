"""The daemon dies at every boundary of its work and lives again: what comes of it is the same.

``crash_scene.py`` is the program that lives and dies; see there what a boundary is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCENE = Path(__file__).with_name("crash_scene.py")
TESTS = SCENE.parent.parent

# (scenario, every which of its points, its effects): the deaths of all of them together, with those of
# test_crash_kill.py, are more than 200.
SCENES = [
    ("delivered", 1, {"SubmitJob", "CollectResult", "ReleaseScratch"}),
    ("failing", 4, {"SubmitJob", "ReleaseScratch", "SendNotice"}),
    ("cancelled", 3, {"RevokeAttempt"}),
    ("stopped", 3, {"CancelJob"}),
    ("stranded", 3, {"SubmitJob", "CollectResult", "ReleaseScratch"}),
    ("imported", 3, {"ImportSeries"}),
]
LEAST_DEATHS = {
    "delivered": 70,
    "failing": 28,
    "cancelled": 24,
    "stopped": 24,
    "stranded": 24,
    "imported": 32,
}


def play(scenario: str, every: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    done = subprocess.run(
        [sys.executable, str(SCENE), scenario, str(every)],
        env=os.environ | {"PYTHONPATH": f"{TESTS / '_path'}:{TESTS}"},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return told[0], told[1:]


@pytest.mark.parametrize(("scenario", "every", "effects"), SCENES, ids=[scene[0] for scene in SCENES])
def test_a_death_at_any_boundary_changes_nothing(scenario: str, every: int, effects: set[str]) -> None:
    undisturbed, stories = play(scenario, every)
    wanted = undisturbed["outcome"]
    assert {f"effect {effect}" for effect in effects} <= set(undisturbed["points"])
    assert not wanted["reserved"]
    assert not wanted["scratch"]
    assert not wanted["staged"]
    assert len(set(wanted["runs"])) == len(wanted["runs"])
    different = [story for story in stories if not story["same"]]
    assert not different, f"wanted {wanted}, of {len(stories)} came otherwise: {different[:3]}"
    assert sum(story["died"] for story in stories) >= LEAST_DEATHS[scenario]
