"""``manifest.json``: what a published result says of itself, and how one recognises one's own.

Written into the result's folder before it is published; the folder and it appear by one rename.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tiltd.daemon.as_json import ascii_lines, encode
from tiltd.daemon.core.model import Attempt, Dataset, Problem, Record, RunEnd, Verdict

NAME = "manifest.json"
REPORT = "report.html"
"""The page for people beside it (:mod:`tiltd.daemon.report`)."""
FORMAT = 1
MAX_BYTES = 64 << 20
PYTHON = platform.python_version()


class ResultFile(Record):
    """One verified file of a result: name relative to its folder, SHA-256 in hex."""

    name: str
    size_bytes: int
    sha256: str


class FromJobFiles(Record):
    """What the job files in the spool tell of a dataset's attempts: the kept texts (directives) of each, by
    the attempt's id and their names, and the names of the steps of the one that computed the result."""

    texts: dict[str, dict[str, str]] = {}
    step_names: tuple[str, ...] = ()


NOTHING_TOLD = FromJobFiles()


class Published(Record):
    """A result that stands at its final place, as its manifest tells it."""

    path: str
    dataset_id: str
    input_digest: str
    pipeline: str
    options_digest: str
    result_bytes: int
    verdict: str
    quality: dict[str, float]
    files: tuple[ResultFile, ...]
    problems: tuple[Problem, ...] = ()


def options_digest(options: Mapping[str, Any]) -> str:
    """Hex SHA-256 of options, independent of their order."""
    return _digest_of(encode(dict(options)))


@functools.lru_cache(maxsize=64)
def _digest_of(options: str) -> str:
    """Remembered: all series of a feed have the same options, as a rule."""
    return hashlib.sha256(json.dumps(json.loads(options), sort_keys=True).encode()).hexdigest()


def manifest(
    dataset: Dataset,
    attempt: Attempt,
    end: RunEnd,
    verdict: Verdict,
    files: Sequence[ResultFile],
    inputs: Sequence[Any] = (),
    published_at: float = 0.0,
    told: FromJobFiles = NOTHING_TOLD,
) -> dict[str, Any]:
    """Everything that was decided and measured on the way to this result; plain values for JSON.

    ``attempt`` is the one that computed it and ``end`` its runner's last word (also where a rescue attempt
    delivered it).  ``inputs`` are the whole files' checksums as the runner read them.  Hostile names stand
    here, and only here, in full.
    """
    return {
        "format": FORMAT,
        "dataset_id": dataset.dataset_id,
        "feed": dataset.feed,
        "series_key": dataset.series_key,
        "tilt_series_name": dataset.tilt_series_name,
        "labels": dataset.labels,
        "revision": dataset.revision,
        "run": dataset.run,
        "partial": dataset.partial,
        "input": _input_part(dataset, inputs),
        "pipeline": dataset.pipeline,
        "options": dataset.options,
        "options_digest": options_digest(dataset.options),
        "policy": _policy(attempt),
        "attempt": _attempt_part(attempt, end) | {"step_names": list(told.step_names)},
        "attempts": [_try(each, told.texts.get(each.attempt_id, {})) for each in dataset.attempts],
        "verdict": verdict.verdict,
        "quality": verdict.quality,
        "problems": msgspec.to_builtins(verdict.problems),
        "versions": {"tiltd": tiltd_version(), "python": PYTHON},
        "published_at": published_at,
        "result_bytes": sum([file.size_bytes for file in files]),
        "files": msgspec.to_builtins(files),
    }


def text(record: Mapping[str, Any]) -> str:
    """As JSON with a line for each part: an indented one takes ten times as long to write, and nobody reads
    the angles of a series one below the other."""
    lines = [f'"{key}": {value}' for key, value in zip(record, ascii_lines(record.values()), strict=True)]
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _input_part(dataset: Dataset, inputs: Sequence[Any]) -> dict[str, Any]:
    series = dataset.series
    return {
        "digest": series.fingerprint.digest if series else "",
        "files": msgspec.to_builtins(series.fingerprint.files) if series else [],
        "checksums": list(inputs),
        "kind": dataset.kind,
        "tilt_count": series.tilt_count if series else 0,
        "tilt_angles_deg": list(series.tilt_angles_deg) if series else [],
        "image_size": list(series.image_size) if series else [],
        "pixel_spacing_angstrom": series.pixel_spacing_angstrom if series else None,
        "tilt_axis_deg": series.tilt_axis_deg if series else None,
        "voltage_kv": series.voltage_kv if series else None,
        "last_change_at": dataset.last_change_at,
    }


def _attempt_part(attempt: Attempt, end: RunEnd) -> dict[str, Any]:
    return {
        "attempt_id": attempt.attempt_id,
        "job_id": attempt.job_id,
        "placement": msgspec.to_builtins(attempt.placement),
        "nodes": list(attempt.nodes or attempt.placement.nodes),
        "placed_at": attempt.placed_at,
        "started_at": attempt.started_at,
        "ended_at": end.ended_at,
        "exit_status": end.exit_status,
        "measured": msgspec.to_builtins(end.measured),
        "figures": end.figures,
        "notes": list(end.notes),
    }


def _try(attempt: Attempt, texts: Mapping[str, str]) -> dict[str, Any]:
    """One attempt of all that were made: what failed it, with what change it was followed, its directives."""
    return {
        "attempt_id": attempt.attempt_id,
        "kind": attempt.kind,
        "nodes": list(attempt.nodes or attempt.placement.nodes),
        "placed_at": attempt.placed_at,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "outcome": attempt.end.outcome if attempt.end is not None else "",
        "failure": msgspec.to_builtins(attempt.failure),
        "texts": dict(texts),
    }


def _policy(attempt: Attempt) -> dict[str, Any]:
    """The policy's version and rules, what they saw of the dataset, and what was predicted of its run."""
    found: dict[str, Any] = {"version": attempt.placement.policy_version, "rule": attempt.placement.rule}
    if attempt.decided is not None:
        found["decided"] = msgspec.to_builtins(attempt.decided)
    return found


@functools.cache
def tiltd_version() -> str:
    """Of the installed package, looked up once: that reads its metadata from disk."""
    try:
        return importlib.metadata.version("tiltd")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def read(folder: str) -> Published | None:
    """The manifest in a folder; ``None`` where there is none, or none that we can read.  Raises OSError
    for everything but absence, so that a destination out of reach is not taken for an empty one."""
    try:  # as a rule there is none, which is told soonest like this
        fd = os.open(f"{folder}/{NAME}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with open(fd, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    try:
        raw = json.loads(content) if len(content) <= MAX_BYTES else {}
        return Published(
            path=folder,
            dataset_id=str(raw["dataset_id"]),
            input_digest=str(raw["input"]["digest"]),
            pipeline=str(raw["pipeline"]),
            options_digest=str(raw["options_digest"]),
            result_bytes=int(raw["result_bytes"]),
            verdict=str(raw["verdict"]),
            quality={str(name): float(value) for name, value in raw["quality"].items()},
            files=tuple(msgspec.convert(raw["files"], list[ResultFile])),
            problems=tuple(msgspec.convert(raw.get("problems", []), list[Problem])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def is_of(published: Published, dataset: Dataset) -> bool:
    """Whether a published result is this dataset's: made of the very same input, and either under the same
    id or by the same pipeline with the same options (a journal that was lost gives new ids).

    The id alone does not suffice: a lost journal counts revisions from 1 again, over another input.
    """
    if dataset.series is None or published.input_digest != dataset.series.fingerprint.digest:
        return False
    same_work = (dataset.pipeline, options_digest(dataset.options))
    return (
        published.dataset_id == dataset.dataset_id
        or (published.pipeline, published.options_digest) == same_work
    )


def lacking(published: Published) -> str:
    """Name of the first file that is no longer there as it was published; "" if all are.  Sizes only."""
    for file in published.files:
        try:
            if os.lstat(os.path.join(published.path, file.name)).st_size != file.size_bytes:
                return file.name
        except (FileNotFoundError, NotADirectoryError):
            return file.name
    return ""
