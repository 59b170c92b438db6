"""A staged result and its collection, for the tests of collecting and of the report."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

from tiltd.daemon.collect import collect, staging_folder
from tiltd.daemon.config import PublishSettings
from tiltd.daemon.core.model import (
    Attempt,
    Dataset,
    ExpectedResult,
    FilePrint,
    Fingerprint,
    Measured,
    Placement,
    ResourceRequest,
    RunEnd,
    State,
    TiltSeries,
    Verdict,
)
from tiltd.daemon.core.observations import CollectAnswered
from tiltd.daemon.durable import at_once

HOSTILE = "x\n$(rm -rf ~) '\"\udce9"
NONCE = "f00d"
PROMISES = (
    ExpectedResult(name="tomogram.mrc", image_size=(4, 3, 2), mode=1),
    ExpectedResult(name="central.png", min_bytes=3),
)


def mrc(nx: int = 4, ny: int = 3, nz: int = 2, mode: int = 1) -> bytes:
    header = bytearray(1024)
    struct.pack_into("<4i", header, 0, nx, ny, nz, mode)
    struct.pack_into("<3i", header, 28, nx, ny, nz)
    header[208:212] = b"MAP "
    header[212:216] = b"\x44\x44\x00\x00"
    return bytes(header) + bytes(nx * ny * nz * 2)


def series(content: str = "stack") -> TiltSeries:
    sha = hashlib.sha256(content.encode()).hexdigest()
    prints = (FilePrint(relative_path=f"{HOSTILE}.st", size_bytes=5, piece_bytes=65536, head_sha256=sha),)
    return TiltSeries(
        tilt_series_name=HOSTILE,
        kind="stack",
        fingerprint=Fingerprint(files=prints),
        stack_path=f"{HOSTILE}.st",
        tilt_angles_deg=(-3.0, 0.0, 3.0),
    )


def attempt(number: int = 1, **more: Any) -> Attempt:
    end = RunEnd(
        job_id="local-7", nonce=NONCE, outcome="success", ended_at=1000.0, node="n1", exit_status=0,
        figures={"residual_px": 0.2}, measured=Measured(run_seconds=12.5, peak_memory_bytes=7),
    )  # fmt: skip
    placement = Placement(
        nodes=("n1",), cores=4, threads=4, memory_bytes=1, scratch_bytes=1, walltime_seconds=60.0, queue="",
        rule="default", policy_version="p1",
    )  # fmt: skip
    fields: dict[str, Any] = {"kind": "run", "end": end, "nodes": ("n1",), "job_id": "local-7"} | more
    return Attempt(
        attempt_id=f"TS-1.1.1.a{number}",
        number=number,
        placement=placement,
        request=ResourceRequest(),
        placed_at=900.0,
        started_at=950.0,
        **fields,
    )


def dataset(*attempts: Attempt, **more: Any) -> Dataset:
    fields: dict[str, Any] = {
        "dataset_id": "TS-1.1.1",
        "series": series(),
        "pipeline": "wbp",
        "options": {"binning": 2},
    }
    return Dataset(
        feed="krios1",
        series_key=f"{HOSTILE}.st",
        tilt_series_name=HOSTILE,
        kind="stack",
        revision=1,
        run=1,
        found_at=1.0,
        state=State.COLLECTING,
        state_since_at=2.0,
        labels={"project": "p", "microscope": "krios1"},
        attempts=attempts or (attempt(),),
        **(fields | more),
    )


class Bench:
    def __init__(self, folder: Path) -> None:
        self.final = folder / "tomograms" / "p" / "TS-1"
        self.publish = PublishSettings()
        self.verdict = Verdict(verdict="good", quality={"residual_px": 0.2})

    @property
    def staging(self) -> Path:
        return Path(staging_folder(str(self.final), "TS-1.1.1.a1"))

    def stage(self, **files: bytes) -> None:
        """As the runner does, under umask 0077."""
        content = {"tomogram.mrc": mrc(), "central.png": b"png", "logs/wbp.log": b"fine\n"} | files
        old = os.umask(0o077)
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self.staging.mkdir()
            (self.staging / "logs").mkdir()
            for name, data in content.items():
                (self.staging / name).write_bytes(data)
            sums = [
                {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in content.items()
            ]
            inputs = [{"name": "stack.st", "size_bytes": 5, "sha256": "ab"}]
            text = json.dumps({"files": sums, "nonce": NONCE, "inputs": inputs})
            (self.staging / ".checksums.json").write_text(text)
        finally:
            os.umask(old)

    def collect(self, of: Dataset | None = None, **more: Any) -> CollectAnswered:
        of = of or dataset()
        last = of.attempts[-1]
        fields: dict[str, Any] = {"nonce": NONCE, "expected": PROMISES, "verdict": self.verdict, "at": 5000.0}
        return at_once(collect(of, last, str(self.final), publish=self.publish, **(fields | more)))

    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.final / "manifest.json").read_text())
        return found

    def tree(self) -> dict[str, str]:
        """Everything below the destination: mode and content."""
        top = self.final.parent.parent
        return {
            str(path.relative_to(top)): f"{stat.S_IMODE(path.lstat().st_mode):o} "
            + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
            for path in sorted(top.rglob("*"))
        }
