"""Jobs that compute nothing: one makes sure that a node is clean, one looks whether a node can be used.

They go the way of every job: a job file in the spool, the runner, the resource manager.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from .core.model import JobSpec
from .jobfile import FORMAT

SWEEP_WALLTIME_SECONDS = 900.0
CHECK_WALLTIME_SECONDS = 900.0
CHECK_SECONDS = 60.0
"""So long an examination waits to be ended, which is part of it."""
MEMORY_BYTES = 256_000_000


def sweep_id(attempt_id: str) -> str:
    """The folder and name of the job that cleans up after an attempt."""
    return f"{attempt_id}.sweep"


def sweep_document(attempt_id: str, scratch_path: str, given_up: bool, at: float) -> dict[str, Any]:
    """Nothing of this attempt may be left on the node; a stranded result only goes when it is given up."""
    errand_id = sweep_id(attempt_id)
    sweep = {"attempts": [attempt_id], "given_up": given_up}
    return _document(errand_id, "sweep", scratch_path, SWEEP_WALLTIME_SECONDS, at) | {"sweep": sweep}


def check_document(
    errand_id: str,
    scratch_path: str,
    scratch_bytes: int,
    at: float,
    *,
    feeds: Sequence[tuple[str, str]],
    destinations: Sequence[str],
    programs: Sequence[str],
    modules: Sequence[str],
    output: dict[str, str],
) -> dict[str, Any]:
    """``feeds`` are names and folders as nodes see them; ``destinations`` folders into which results go;
    ``modules`` must be importable by the interpreter of the runner.  ``output`` has the modes and the group
    of what is published."""
    document = _document(errand_id, "check", scratch_path, CHECK_WALLTIME_SECONDS, at)
    document["scratch"]["bytes"] = scratch_bytes
    document["output"] |= output
    return document | {
        "check": {
            "feeds": [{"name": name, "path": path} for name, path in feeds],
            "destinations": list(destinations),
            "programs": list(programs),
            "modules": list(modules),
            "seconds": CHECK_SECONDS,
        }
    }


def _document(
    errand_id: str, kind: Literal["sweep", "check"], scratch_path: str, walltime: float, at: float
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "attempt_id": errand_id,
        "job_name": errand_id,
        "dataset_id": "",
        "kind": kind,
        "nonce": f"{errand_id}@{at:.6f}",
        "cores": 1,
        "threads": 1,
        "memory_bytes": 0,
        "walltime_seconds": walltime,
        "scratch": {"path": scratch_path, "bytes": 0, "ballast": True},
        "input": {"root": "/", "files": []},
        "texts": [],
        "steps": [],
        # An errand stages nothing out; the name only has to be one that the runner accepts.
        "output": {
            "staging": f"{scratch_path}/.tiltd-{errand_id}",
            "dir_mode": "0755",
            "file_mode": "0644",
            "group": "",
            "results": [],
        },
        "rescue": {"path": ""},
        "story": None,
    }


def spec(
    document: dict[str, Any], node: str, runner_path: str, folder: str, queue: str = "", account: str = ""
) -> JobSpec:
    """The job that runs an errand on exactly this node."""
    return JobSpec(
        attempt_id=document["attempt_id"],
        job_name=document["job_name"],
        runner_path=runner_path,
        attempt_folder=folder,
        nodes=(node,),
        cores=1,
        threads=1,
        memory_bytes=MEMORY_BYTES,
        scratch_bytes=document["scratch"]["bytes"],
        walltime_seconds=document["walltime_seconds"],
        queue=queue,
        account=account,
    )
