"""A spool, a feed, a scratch folder and a destination for tests that run the real runner as a process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiltd.daemon import runner
from tiltd.daemon.spool import AttemptSeen, Spool

RUNNER = Path(runner.__file__)


def file_print(path: Path, source: str, name: str, piece_bytes: int = 4096) -> dict[str, Any]:
    content = path.read_bytes()
    whole = len(content) <= piece_bytes
    return {
        "source": source,
        "name": name,
        "size_bytes": len(content),
        "piece_bytes": piece_bytes,
        "head_sha256": hashlib.sha256(content[:piece_bytes]).hexdigest(),
        "tail_sha256": "" if whole else hashlib.sha256(content[-piece_bytes:]).hexdigest(),
    }


def python(code: str, name: str = "work", **more: Any) -> dict[str, Any]:
    """A step of Python code; ``o`` is the output folder, ``i`` the input folder."""
    prelude = "import sys, os, time; i, o, s = map(os.fsencode, sys.argv[1:4])\n"
    argv = ["{python}", "-c", prelude + code, "{input}", "{output}", "{scratch}"]
    return {"name": name, "argv": argv, "environment": {}, "patterns": []} | more


MAKE_RESULT = python("open(o + b'/tomogram.mrc', 'wb').write(open(i + b'/stack.mrc', 'rb').read()[::-1])")


HELD_RUNNER = """
import importlib.util, sys, time
path, number, sign = sys.argv[1], int(sys.argv[2]), sys.argv[3]
spec = importlib.util.spec_from_file_location("runner", path)
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
real, copies = runner.move_bytes, []

def held(source, target, on_bytes):
    copies.append(1)
    if len(copies) == number:
        on_bytes(runner.by_reading(source, target, 0, 1000))
        open(sign, "w").close()
        while True:
            time.sleep(0.1)
    return real(source, target, on_bytes)

runner.move_bytes = held
sys.exit(runner.main(["runner.py", sys.argv[4]]))
"""
"""The runner, but its copy number NUMBER stops after 1,000 bytes and tells so by making a file."""


def wait_until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def running(mark: str) -> list[int]:
    """Processes that carry ``mark`` in their environment, zombies left out."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                content = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in content:
                found.append(int(name))
    return found


class RunnerSite:
    """One attempt, ``TS_01.1.1.a1``, with a stack of 100,000 bytes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.spool = Spool(root / "spool")
        self.feed = root / "feed"
        self.scratch = root / "scratch"
        self.results = root / "results"
        for folder in (self.feed, self.scratch, self.results):
            folder.mkdir()
        self.stack = self.feed / "TS_01.mrc"
        self.stack.write_bytes(bytes(range(250)) * 400)
        self.attempt_id = "TS_01.1.1.a1"

    @property
    def staging(self) -> Path:
        return self.results / "session" / f".tiltd-{self.attempt_id}"

    @property
    def job_scratch(self) -> Path:
        return self.scratch / self.attempt_id

    @property
    def folder(self) -> Path:
        return self.spool.folder(self.attempt_id)

    def document(self, *steps: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return {
            "format": 1,
            "attempt_id": self.attempt_id,
            "job_name": "t1",
            "dataset_id": "TS_01.1.1",
            "kind": "run",
            "nonce": "n0nce",
            "cores": 2,
            "threads": 3,
            "memory_bytes": 0,
            "walltime_seconds": 60.0,
            "scratch": {"path": str(self.scratch), "bytes": 2_000_000, "ballast": True},
            "input": {"root": str(self.feed), "files": [file_print(self.stack, "TS_01.mrc", "stack.mrc")]},
            "texts": [],
            "steps": list(steps or [MAKE_RESULT]),
            "output": {
                "staging": str(self.staging),
                "dir_mode": "0755",
                "file_mode": "0644",
                "group": "",
                "results": [],
            },
            "rescue": {"path": ""},
            "story": {},
        } | changes

    def prepare(self, *steps: dict[str, Any], **changes: Any) -> None:
        self.spool.prepare(self.attempt_id, self.document(*steps, **changes))

    @property
    def holding(self) -> Path:
        return self.root / "holding"

    def start(
        self, job_id: str = "7.here", interpreter: str = sys.executable, hold_copy: int = 0, **more: Any
    ) -> Any:
        """``hold_copy``: stop for ever in the copy of that number (1: in, 2: out)."""
        held = ["-c", HELD_RUNNER, str(RUNNER), str(hold_copy), str(self.holding), str(self.folder)]
        return subprocess.Popen(
            [interpreter, *(held if hold_copy else [str(RUNNER), str(self.folder)])],
            env=os.environ | {"TILTD_JOB_ID": job_id} | more.pop("env", {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            **more,
        )

    def run(self, job_id: str = "7.here", **more: Any) -> int:
        process = self.start(job_id, **more)
        _, errors = process.communicate(timeout=60)
        assert b"Traceback" not in errors, errors.decode()
        return int(process.returncode)

    def seen(self) -> AttemptSeen:
        return self.spool.read(self.attempt_id)

    def phase(self) -> str:
        progress = self.seen().progress
        return progress.phase if progress else ""

    def sums(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.staging / ".checksums.json").read_text())
        return content

    def clean(self) -> bool:
        return not self.job_scratch.exists()

    def log(self) -> str:
        path = self.folder / "runner.log"
        return path.read_text() if path.exists() else ""
