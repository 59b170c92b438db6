"""Whatever word tiltd prints to an operator as a reason, docs/troubleshooting.md says what to do about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from docs.codes import first_arguments, problem_codes, returned, waits
from docs.pages import pages
from tiltd.daemon.core.model import FailureClass, HoldCause
from tiltd.plugins import serialem_names
from tiltd.policy import completeness, filters

SERIALEM = ("plugins/serialem.py", "plugins/serialem_names.py")
DETECTORS = (
    *SERIALEM,
    "plugins/tomo5.py",
    "plugins/mdoc.py",
    "plugins/mrc.py",
    "plugins/prints.py",
)
SCANNERS = ("daemon/scan.py", "daemon/watch.py", "daemon/feed_look.py")


def explained(project: Path, heading: str) -> set[str]:
    """Words in the first column of the table below a heading."""
    text = pages(project)["docs/troubleshooting.md"]
    _, found, body = text.partition(f"\n## {heading}\n")
    assert found, f"docs/troubleshooting.md has no heading {heading!r}"
    rows = re.findall(r"^\| (`[^|]+) \|", body.partition("\n## ")[0], re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def not_a_series_codes(project: Path) -> set[str]:
    by_name = {code for code, _ in serialem_names._OTHERS}
    by_content = {"montage", "frame_set"}
    assert by_content <= problem_codes(project, *DETECTORS)
    return by_name | by_content | completeness.PROVISIONAL


def test_every_hold_cause_is_explained(project: Path) -> None:
    assert set(get_args(HoldCause)) - explained(project, "A series is held") == set()


def test_every_failure_class_is_explained(project: Path) -> None:
    assert set(get_args(FailureClass)) - explained(project, "An attempt failed") == set()


def test_every_refusal_is_explained(project: Path) -> None:
    """Of a node, of a gate before all nodes, and of what only metrics tell."""
    of_nodes = set(filters.REASONS) | {"breaker", "excluded", "kept_for_aged", "too_few_nodes"}
    of_gates = first_arguments(project, "daemon/core/gates.py", "_stop")
    in_metrics = returned(project, "daemon/metrics/view.py", "waiting_reason") | {"placing"}
    assert {"limit", "destination"} <= of_gates and {"held", "retry"} <= in_metrics
    missing = (of_nodes | of_gates | in_metrics) - explained(project, "A series is ready and does not run")
    assert missing == set()


def test_placing_bars_nodes_for_no_other_reason(project: Path) -> None:
    """Words that ``_barred`` gives; a new one has to come into the test above."""
    text = (project / "daemon/core/placing.py").read_text(encoding="utf-8")
    body = text.partition("def _barred")[2].partition("\n    def ")[0]
    assert set(re.findall(r'"([a-z_]+)"', body)) == {"excluded", "kept_for_aged"}
    text = (project / "policy/place.py").read_text(encoding="utf-8")
    assert set(re.findall(r'rejected\["(\w+)"\]|rejected=\{"(\w+)"', text)) <= {("too_few_nodes", "")}


def test_every_reason_to_ignore_a_file_is_explained(project: Path) -> None:
    assert not_a_series_codes(project) - explained(project, "A file was ignored: no tilt series") == set()


def test_every_wait_is_explained(project: Path) -> None:
    of_content = {code for _, codes in completeness._CONTENT for code in codes}
    by_signs = set(serialem_names.BLOCKERS.values()) | set(serialem_names._BLOCKING_SUFFIXES.values())
    wanted = waits(project, "policy/completeness.py") | of_content | by_signs | completeness.PROVISIONAL
    wanted |= problem_codes(project, *DETECTORS) - not_a_series_codes(project)
    assert {"quiet", "not_opened", "too_few_tilts", "openTS"} <= wanted
    assert wanted - explained(project, "A series stays arriving") == set()


def test_every_trouble_of_a_scan_is_explained(project: Path) -> None:
    wanted = problem_codes(project, *SCANNERS) | returned(project, "daemon/scan.py", "_link_trouble")
    assert {"folder_unreadable", "symlink_loop"} <= wanted
    assert wanted - explained(project, "A series is not noticed") == set()


@pytest.mark.parametrize(
    "heading",
    [
        "A series is held",
        "An attempt failed",
        "A file was ignored: no tilt series",
        "A series is not noticed",
    ],
)
def test_no_word_is_explained_that_nobody_prints(project: Path, heading: str) -> None:
    known = {
        "A series is held": set(get_args(HoldCause)),
        "An attempt failed": set(get_args(FailureClass)),
        "A file was ignored: no tilt series": not_a_series_codes(project),
        "A series is not noticed": problem_codes(project, *SCANNERS)
        | returned(project, "daemon/scan.py", "_link_trouble"),
    }
    assert explained(project, heading) - known[heading] == set()
