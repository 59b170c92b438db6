"""Runs of the pipeline ``batchruntomo`` in the real runner, where a stand-in replays a recorded run."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from plugins.conformance_pipelines import CONTEXT, PLACEMENT, make_series
from shell.runner_site import RunnerSite, file_print
from tiltd.daemon.core.model import FilePrint, Fingerprint, Outcome, RunEnd, TiltSeries, Verdict
from tiltd.plugins.batchruntomo import BatchruntomoPipeline

TESTS = Path(__file__).parents[1]
RECORDINGS = TESTS / "golden" / "batchruntomo"
CASES = sorted(path.parent.name for path in RECORDINGS.glob("*/exit_code"))
SIDE_PX, VIEWS, THICKNESS_PX = 64, 41, 24
OPTIONS: dict[str, Any] = {
    "setupset.copyarg.gold": 10,
    "runtime.Fiducials.any.seedingMethod": 1,
    "comparam.autofidseed.autofidseed.TargetNumberOfBeads": 20,
    "comparam.tilt.tilt.THICKNESS": THICKNESS_PX,
    "runtime.Trimvol.any.reorient": 1,
}


def make_imod(folder: Path, case: str, **wishes: Any) -> Path:
    """An installation of IMOD whose batchruntomo replays ``case``; nothing else is in it."""
    program = folder / "bin" / "batchruntomo"
    program.parent.mkdir(parents=True, exist_ok=True)
    standin = TESTS / "standin" / "batchruntomo.py"
    program.write_text(f'#!/bin/sh\nexec python3 "{standin}" "$@"\n')
    program.chmod(0o755)
    told = {"case": str(RECORDINGS / case), "speed": 0} | wishes
    (folder / "standin.json").write_text(json.dumps(told))
    return folder


def write_stack(path: Path, side_px: int = SIDE_PX, sections: Iterable[bytes] = ()) -> None:
    """An MRC stack of 16-bit sections; flat ones, if none are given."""
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, side_px, side_px, VIEWS, 1)
    struct.pack_into("<3i3f", header, 28, side_px, side_px, VIEWS, side_px, side_px, VIEWS)
    struct.pack_into("<3f3i", header, 52, 90.0, 90.0, 90.0, 1, 2, 3)
    header[208:216] = b"MAP \x44\x44\x00\x00"
    flat = (struct.pack("<h", z) * (side_px * side_px) for z in range(VIEWS))
    path.write_bytes(bytes(header) + b"".join(sections or flat))


class ReplaySite:
    """A feed with one stack, an attempt of it, and the installation that replays."""

    side_px = SIDE_PX
    options = OPTIONS
    spacing_angstrom = 2.0
    walltime_seconds = 60.0

    def __init__(self, root: Path, case: str, **wishes: Any) -> None:
        self.site = RunnerSite(root)
        write_stack(self.site.stack)
        self.made(make_imod(root / "imod", case, **wishes))

    def made(self, imod: Path) -> None:
        """The stack and the installation are there."""
        self.imod = imod
        self.pipeline = BatchruntomoPipeline({"imod": {"dir": str(self.imod)}}, CONTEXT)
        self.before = self.identity()

    def identity(self) -> tuple[str, int, int, int]:
        """What must not change about the stack in the feed: content, inode, time, links."""
        found = self.site.stack.stat()
        content = hashlib.sha256(self.site.stack.read_bytes()).hexdigest()
        return content, found.st_ino, found.st_mtime_ns, found.st_nlink

    @property
    def series(self) -> TiltSeries:
        size = self.site.stack.stat().st_size
        prints = FilePrint(relative_path="TS_01.mrc", size_bytes=size, piece_bytes=4096, head_sha256="a")
        return make_series(
            stack_path="TS_01.mrc",
            mdoc_path="",
            fingerprint=Fingerprint(files=(prints,)),
            image_size=(self.side_px, self.side_px),
            pixel_spacing_angstrom=self.spacing_angstrom,
            tilt_axis_deg=84.0,
        )

    def prepare(self, cores: int = 2, **options: Any) -> None:
        """The attempt, as the daemon writes it."""
        series, asked = self.series, self.options | options
        request = self.pipeline.request(series, asked)
        placement = msgspec.structs.replace(PLACEMENT, cores=cores, threads=cores)
        answer: dict[str, Any] = msgspec.to_builtins(self.pipeline.steps(series, asked, placement))
        self.site.prepare(
            *answer["steps"],
            texts=answer["files"],
            cores=cores,
            threads=cores,
            walltime_seconds=self.walltime_seconds,
            scratch={"path": str(self.site.scratch), "bytes": request.scratch_bytes, "ballast": True},
            input={
                "root": str(self.site.feed),
                "files": [file_print(self.site.stack, "TS_01.mrc", "stack.mrc")],
            },
            output=self.site.document()["output"] | {"results": answer["results"]},
        )

    def run(self, **options: Any) -> RunEnd:
        self.prepare(**options)
        self.site.run(env={"TILTD_TEST_MARK": str(self.site.root)})
        end = self.site.seen().end
        assert end is not None, self.site.log()
        return end

    def judge(self, end: RunEnd) -> Verdict:
        return self.pipeline.judge(Outcome(end=end, options=self.options, series=self.series))

    def staged(self) -> set[str]:
        """Names of all files in the staging folder."""
        paths = [path for path in self.site.staging.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.site.staging)) for path in paths}
