"""The job file: one attempt as data, written by the daemon and read by the runner.  Pure.

A job that was queued before an upgrade keeps the runner and the file it had, so every released format stays
readable here: :func:`decode` is the one place that knows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from tiltd.daemon.as_json import encode_ascii
from tiltd.daemon.core.model import Attempt, Dataset, ExpectedResult, JobSteps, Record, TiltSeries
from tiltd.plugins.api import Permanent

FORMAT = 1
REMEMBERED_MAX = 1024
_NO_NAMES = frozenset(("", ".", ".."))
_OCTAL = re.compile(r"0?[0-7]{3,4}")
STEP_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class _Output(Record):
    """Of the job file's output, what is read again: of a record's type, msgspec remembers how to."""

    results: tuple[ExpectedResult, ...] | None = None


def job_document(
    dataset: Dataset,
    attempt: Attempt,
    steps: JobSteps,
    *,
    feed_root: str,
    scratch_path: str,
    staging: str,
    dir_mode: str,
    file_mode: str,
    group: str,
    nonce: str,
    job_name: str = "",
    scratch_paths: Mapping[str, str] | None = None,
    tickets: tuple[int, str] = (0, ""),
) -> dict[str, Any]:
    """The content of ``job.json``; the modes are octal text as in ``"0755"``.  ``feed_root`` is the folder,
    as the node sees it, below which the input's relative paths lie (the import folder, for an imported
    series), ``staging`` the hidden folder beside the destination, ``scratch_path`` the node's scratch folder;
    ``scratch_paths`` names those of nodes that have another, for a job that floats.  ``tickets`` is how many
    jobs may stage in at once, and the folder in which they take turns (0: any number).
    Raises :class:`Permanent` with one sentence when something in it could not be run as it stands.
    """
    check_steps(steps)
    for what, path in (("feed", feed_root), ("scratch folder", scratch_path), ("staging folder", staging)):
        if not path.startswith("/") or "\0" in path:
            raise Permanent(f"The path of the {what}, {path!r}, must be absolute and without NUL.")
    placement = attempt.placement
    return {
        "format": FORMAT,
        "attempt_id": attempt.attempt_id,
        "job_name": job_name or attempt.attempt_id,
        "dataset_id": dataset.dataset_id,
        "kind": attempt.kind,
        "nonce": nonce,
        "cores": placement.cores,
        "threads": placement.threads,
        "memory_bytes": placement.memory_bytes,
        "walltime_seconds": placement.walltime_seconds,
        "scratch": _scratch(scratch_path, scratch_paths or {}, placement.scratch_bytes),
        **({"stage_in": {"tickets": tickets[0], "folder": tickets[1]}} if tickets[0] else {}),
        "input": {"root": feed_root, "files": input_files(dataset.series)},
        "texts": [{"name": file.name, "text": file.text, "kept": file.kept} for file in steps.files],
        "steps": [msgspec.to_builtins(step) for step in steps.steps],
        "output": _output(steps, staging, octal(dir_mode), octal(file_mode), group),
        "rescue": {"path": attempt.rescue_path},
        "story": with_attempt(dataset, attempt),  # a record, which encodes in less than its plain values take
    }


def _scratch(path: str, paths: Mapping[str, str], size_bytes: int) -> dict[str, Any]:
    elsewhere = {"paths": dict(paths)} if paths else {}
    return {"path": path, **elsewhere, "bytes": size_bytes, "ballast": True}


def _output(steps: JobSteps, staging: str, dir_mode: str, file_mode: str, group: str) -> dict[str, Any]:
    results = [msgspec.to_builtins(result) for result in steps.results]
    modes = {"dir_mode": dir_mode, "file_mode": file_mode}
    return {"staging": staging, **modes, "group": group, "results": results}


def input_files(series: TiltSeries | None) -> list[dict[str, Any]]:
    if series is None:
        return []
    names = series.local_names()
    return [
        {
            "source": file.relative_path,
            "name": names[file.relative_path],
            "size_bytes": file.size_bytes,
            "piece_bytes": file.piece_bytes,
            "head_sha256": file.head_sha256,
            "tail_sha256": file.tail_sha256,
        }
        for file in series.fingerprint.files
    ]


def with_attempt(dataset: Dataset, attempt: Attempt) -> Dataset:
    """The dataset's story up to and including this attempt."""
    if dataset.attempt is attempt:
        return dataset
    others = tuple(other for other in dataset.attempts if other.attempt_id != attempt.attempt_id)
    return msgspec.structs.replace(dataset, attempts=(*others, attempt))


def octal(mode: str) -> str:
    if not _OCTAL.fullmatch(mode):
        raise Permanent(f"The mode {mode!r} of published files must be octal digits such as '0644'.")
    return mode


def check_steps(steps: JobSteps) -> None:
    """Raises Permanent for what no program or file system could take."""
    seen: set[str] = set()
    for step in steps.steps:
        if not STEP_NAME.fullmatch(step.name) or step.name in seen:
            raise Permanent(
                f"The step name {step.name!r} must be unique and of letters, digits, '.', '_' and '-'."
            )
        seen.add(step.name)
        if not step.argv or not step.argv[0]:
            raise Permanent(f"Step {step.name} names no program to run.")
        check_no_nul(f"step {step.name}", step.argv)
        check_no_nul(f"the environment of step {step.name}", (*step.environment, *step.environment.values()))
        if any(not key or "=" in key for key in step.environment):
            raise Permanent(f"The environment of step {step.name} has a name that is empty or contains '='.")
    check_files([file.name for file in steps.files], steps.results)


def check_files(texts: list[str], results: Iterable[ExpectedResult]) -> None:
    names = [*texts, *(result.name for result in results)]
    check_no_nul("a file name", names)
    for name in names:
        if not _NO_NAMES.isdisjoint(name.split("/")):
            raise Permanent(f"The file name {name!r} must be a relative path that stays in the job's folder.")


def check_no_nul(what: str, texts: Iterable[str]) -> None:
    if "\0" in "".join(texts):
        raise Permanent(f"There is a NUL character in {what}; the system cannot pass it on.")


def encode(document: dict[str, Any]) -> bytes:
    """ASCII JSON; lone surrogates of hostile names survive as escapes."""
    return encode_ascii(document)


def decode(content: bytes) -> dict[str, Any]:
    """A job file of any released format as the newest one's fields.  Raises ValueError with a sentence."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The job file is no JSON: {error}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else None
        raise ValueError(f"The job file has format {found!r}; this version reads format {FORMAT}.")
    return document


def expected_results(document: dict[str, Any]) -> tuple[ExpectedResult, ...]:
    """What the pipeline promised when this job file was made; empty for a file that tells nothing."""
    return msgspec.convert(document.get("output") or {}, _Output).results or ()


def staging(document: dict[str, Any]) -> str:
    """The folder that its runner stages into; "" for a file that tells nothing."""
    return str((document.get("output") or {}).get("staging", ""))


def kept_texts(document: dict[str, Any]) -> dict[str, str]:
    """The texts that the manifest keeps, by name; empty for a file that tells nothing."""
    texts = document.get("texts") or ()
    return {str(text["name"]): str(text["text"]) for text in texts if text.get("kept")}


def step_names(document: dict[str, Any]) -> tuple[str, ...]:
    """The steps that were to be run, in their order."""
    return tuple(str(step["name"]) for step in document.get("steps") or ())


def story(document: dict[str, Any]) -> Dataset:
    """The dataset as the job file tells it.  Raises ValueError with a sentence."""
    try:
        record = msgspec.convert(document.get("story"), Dataset)
    except msgspec.ValidationError as error:
        raise ValueError(f"The job file's story is no dataset: {error}.") from error
    attempt = record.attempt
    told = str(document.get("attempt_id"))
    if attempt is None or attempt.attempt_id != told or told.rpartition(".a")[0] != record.dataset_id:
        raise ValueError("The job file's story is not that of its attempt.")
    paths = record.series.input_paths if record.series is not None else ()
    for name in (record.series_key, record.tilt_series_name, *record.labels.values(), *paths):
        try:
            name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise ValueError("The job file's story has a name that no file can have.") from error
    return record


class Remembered:
    """What is asked of job files again and again, by attempt, so that each is read once as a rule.  Without
    what may be long (the story, and the texts); few attempts are live, so few are remembered."""

    def __init__(self) -> None:
        self._told: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._told)

    def get(self, attempt_id: str) -> dict[str, Any] | None:
        """Its nonce, output and step names as in the job file; ``keeps_texts`` if that has texts to keep."""
        return self._told.get(attempt_id)

    def put(self, attempt_id: str, document: dict[str, Any]) -> dict[str, Any]:
        """Returns what :meth:`get` will."""
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        told: dict[str, Any] = {key: document[key] for key in ("nonce", "output") if key in document}
        told["steps"] = [{"name": name} for name in step_names(document)]
        told["keeps_texts"] = bool(kept_texts(document))
        self._told[attempt_id] = told
        return told

    def forget(self, attempt_id: str) -> None:
        self._told.pop(attempt_id, None)
