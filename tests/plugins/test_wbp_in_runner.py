"""The pipeline ``wbp`` through the real runner, within the memory and scratch that it asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from plugins.conformance_pipelines import CONTEXT, PLACEMENT, make_series
from plugins.phantom import make_phantom, write_series
from plugins.phantom import make_series as make_tilt_series
from shell.runner_site import RunnerSite, file_print
from tiltd.daemon.core.model import FilePrint, Fingerprint, Outcome, RunEnd, TiltSeries
from tiltd.plugins.wbp import WbpPipeline

PIPELINE = WbpPipeline({}, CONTEXT)
SIDE = 96


class Site:
    """A small phantom in the feed, and the job made as the daemon makes it."""

    def __init__(self, root: Path) -> None:
        self.site = RunnerSite(root)
        series = make_tilt_series(make_phantom(SIDE, SIDE, 24), np.arange(-60.0, 60.1, 6.0), shift_px=1.0)
        write_series(series, root)
        self.site.stack.write_bytes((root / "stack.mrc").read_bytes())
        self.angles = tuple(float(angle) for angle in series.angles_deg)

    def described(self) -> TiltSeries:
        size = self.site.stack.stat().st_size
        prints = FilePrint(relative_path="TS_01.mrc", size_bytes=size, piece_bytes=4096, head_sha256="a")
        return make_series(
            stack_path="TS_01.mrc",
            mdoc_path="",
            fingerprint=Fingerprint(files=(prints,)),
            image_size=(SIDE, SIDE),
            tilt_angles_deg=self.angles,
        )

    def run(self) -> RunEnd:
        series = self.described()
        request = PIPELINE.request(series, {})
        placement = msgspec.structs.replace(PLACEMENT, cores=2, threads=2, memory_bytes=request.memory_bytes)
        answer: dict[str, Any] = msgspec.to_builtins(PIPELINE.steps(series, {}, placement))
        for step in answer["steps"]:
            step["environment"] = {"PYTHONPATH": str(Path(__file__).parents[1] / "_path")}
        self.site.prepare(
            *answer["steps"],
            texts=answer["files"],
            cores=2,
            threads=2,
            memory_bytes=request.memory_bytes,
            scratch={"path": str(self.site.scratch), "bytes": request.scratch_bytes, "ballast": True},
            input={
                "root": str(self.site.feed),
                "files": [file_print(self.site.stack, "TS_01.mrc", "stack.mrc")],
            },
            output=self.site.document()["output"] | {"results": answer["results"]},
        )
        self.site.run()
        seen = self.site.seen()
        assert seen.end is not None
        return seen.end


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_tomogram_is_staged_out_and_judged(site: Site) -> None:
    end = site.run()
    assert end.outcome == "success", (end, end.log_tail)
    staged = {path.name for path in site.site.staging.iterdir()}
    assert {"tomogram.mrc", "central.png", "alignment.json"} <= staged
    assert end.figures["view_count"] == 21
    assert PIPELINE.judge(Outcome(end=end)).verdict == "good"
    assert not site.site.job_scratch.exists()


def test_a_truncated_stack_is_an_input_failure(site: Site) -> None:
    site.site.stack.write_bytes(site.site.stack.read_bytes()[:-100])
    end = site.run()
    failure = PIPELINE.judge(Outcome(end=end)).failure
    assert failure is not None
    assert (failure.failure_class, end.exit_status) == ("input", 2)
    assert "truncated" in failure.detail
