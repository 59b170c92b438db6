"""The same on a real IMOD, where ``IMOD_DIR`` names one: synthetic series, with beads and without.

IMOD_DIR=/opt/imod .venv/bin/python -P -m pytest tests/plugins/test_batchruntomo_real.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from plugins.replaying import OPTIONS, ReplaySite, write_stack
from shell.runner_site import RunnerSite, running, wait_until
from tiltd.daemon.core.model import RunEnd
from tiltd.daemon.microscope import Optics
from tiltd.daemon.microscope.phantom import Phantom
from tiltd.plugins.api import Permanent

IMOD_DIR = Path(os.environ.get("IMOD_DIR") or "/nowhere")
SIDE_PX, SPACING_ANGSTROM = 512, 13.4
ANGLES = tuple(float(angle) for angle in range(-60, 61, 3))
MINUTES = 60.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (IMOD_DIR / "bin" / "batchruntomo").is_file(), reason="IMOD_DIR names no IMOD"),
]


class RealSite(ReplaySite):
    """A synthetic series with so many gold beads of about 10 nm, and the real installation."""

    side_px = SIDE_PX
    spacing_angstrom = SPACING_ANGSTROM
    walltime_seconds = 30 * MINUTES
    options: dict[str, Any] = OPTIONS | {
        "comparam.tilt.tilt.THICKNESS": 180,
        "comparam.track.beadtrack.LightBeads": 0,
        "comparam.align.tiltalign.SurfacesToAnalyze": 1,
        "runtime.Preprocessing.any.removeXrays": 1,
        "runtime.Preprocessing.any.archiveOriginal": 1,
    }

    def __init__(self, root: Path, bead_count: int = 30) -> None:
        self.site = RunnerSite(root)
        optics = Optics(SIDE_PX, SIDE_PX, SPACING_ANGSTROM, tilt_axis_deg=84.0)
        phantom = Phantom(seed=5, optics=optics, bead_count=bead_count)
        sections = [phantom.projection(angle).astype("<i2").tobytes() for angle in ANGLES]
        write_stack(self.site.stack, SIDE_PX, sections)
        self.made(IMOD_DIR)

    def run_long(self, **options: Any) -> RunEnd:
        self.prepare(**options)
        process = self.site.start(env={"TILTD_TEST_MARK": str(self.site.root)})
        process.wait(timeout=self.walltime_seconds)
        end = self.site.seen().end
        assert end is not None, self.site.log()
        return end

    def is_clean(self) -> bool:
        left = running(f"TILTD_TEST_MARK={self.site.root}")
        return not left and self.site.clean() and self.identity() == self.before


def test_a_series_with_beads_is_delivered(tmp_path: Path) -> None:
    site = RealSite(tmp_path)
    end = site.run_long()
    assert end.outcome == "success", (end.detail, end.notes, end.log_tail)
    verdict = site.judge(end)
    assert verdict.verdict in ("good", "doubtful") and "residual_mean_px" in verdict.quality, verdict
    assert {"TS_01.rec", "imod/align.log", "thumbnails/xy.png"} <= site.staged()
    assert {"setup", "xcorr", "track", "align", "tilt"} <= set(end.measured.step_seconds)
    wait_until(site.is_clean)


@pytest.mark.parametrize("bead_count", [0, 2])
def test_a_series_without_beads_is_never_good(tmp_path: Path, bead_count: int) -> None:
    site = RealSite(tmp_path, bead_count)
    end = site.run_long()
    verdict = site.judge(end)
    assert verdict.verdict != "good", (end, verdict)
    assert verdict.failure is None or verdict.failure.reason != "unknown", (verdict, end.notes)
    wait_until(site.is_clean)


def test_a_stack_that_was_cut_off_is_named(tmp_path: Path) -> None:
    site = RealSite(tmp_path)
    with open(site.site.stack, "r+b") as file:
        file.truncate(4_000_000)
    site.before = site.identity()
    failure = site.judge(site.run_long()).failure
    assert failure is not None
    assert failure.reason in ("stack_too_short", "stack_unreadable", "file_unreadable")
    wait_until(site.is_clean)


def test_a_directive_that_imod_does_not_know_never_runs(tmp_path: Path) -> None:
    site = RealSite(tmp_path)
    wrong: dict[str, Any] = {"runtime.Preprocessing.any.noSuchThing": 1}
    try:
        end = site.run_long(**wrong)
    except Permanent as refused:  # directives.csv was read
        assert "noSuchThing" in str(refused)
        return
    failure = site.judge(end).failure
    assert end.step == "validate" and failure is not None and failure.reason == "unknown_directive"


@pytest.mark.parametrize("step", ["setup", "xcorr", "autofidseed", "track", "tilt"])
def test_term_at_a_step_leaves_nothing(tmp_path: Path, step: str) -> None:
    site = RealSite(tmp_path)
    site.prepare()
    process = site.site.start(env={"TILTD_TEST_MARK": str(tmp_path)})

    def at_step() -> bool:
        progress = site.site.seen().progress
        return process.poll() is not None or (progress.step if progress else "") == f"batchruntomo: {step}"

    wait_until(at_step, seconds=10 * MINUTES)
    process.terminate()
    assert process.wait(timeout=60) == 143, site.site.seen().end
    wait_until(site.is_clean)
