"""Whatever goes wrong with the cluster, whenever the daemon is killed: nothing is declared wrongly, nothing
runs twice, nothing is left behind, and no scratch is over-committed.

``fault_scene.py`` is the program that plays the stories; see there what a broken promise is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from standin import fault_scene
from standin.fault_scene import FAULTS

SCENE = Path(fault_scene.__file__ or "")
TESTS = SCENE.parent.parent
STORIES, PARTS = 500, 4


def play(*arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(SCENE), *arguments],
        env=os.environ | {"PYTHONPATH": f"{TESTS / '_path'}:{TESTS}", "PYTHONHASHSEED": "0"},
        capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def broken(stories: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [story for story in stories if story["wrong"] or not story["ended"]]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_fault_breaks_a_promise(part: int) -> None:
    count = STORIES // PARTS
    stories = play(str(part * count), str(count))
    assert len(stories) == count
    assert broken(stories) == []
    assert sum(story["deaths"] for story in stories) >= count // 4
    played = Counter(fault for story in stories for fault in story["faults"])
    assert set(played) == set(FAULTS)
    met = Counter[str]()
    for story in stories:
        met.update(story["met"])
    assert len(met) >= 14, "faults were planned that no command met"


@pytest.mark.slow
def test_a_kill_at_any_point_of_a_submission_breaks_no_promise() -> None:
    stories = play("submission", "2")  # the odd ones of one mode, the even ones of the other
    assert broken(stories) == []
    assert {story["deaths"] for story in stories} == {1} and len(stories) >= 30
    points = {story["point"].partition(" ")[0] for story in stories}
    assert {"effect", "open", "write", "os.rename", "asks", "asked", "answer"} <= points
