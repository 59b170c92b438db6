"""``tiltd show``: one dataset's record and story."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiltd.daemon.core.units import show_bytes, show_seconds
from tiltd.daemon.manifest import REPORT
from tiltd.daemon.text import one_line, shown

from .asking import add_connection, client_of, print_json
from .exits import OK
from .tables import instant

LOG_LINES = 10
_PLAIN = str | int | float | bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="id, series name, or the beginning of an id")
    add_connection(parser)


def main(args: argparse.Namespace) -> int:
    client = client_of(args)
    answer = client.get("datasets", args.dataset)
    answer |= {"facts": client.get("datasets", answer["dataset"]["dataset_id"], "facts")["facts"]}
    if args.json:
        print_json(answer)
        return OK
    for line in _lines(answer):
        print(line)
    return OK


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    dataset = answer["dataset"]
    yield f"{dataset['dataset_id']}  {dataset['state']} since {instant(dataset['state_since_at'])}"
    where = f"{shown(dataset['feed'])}/{shown(dataset['series_key'])}"
    yield f"  series    {shown(dataset['tilt_series_name'])} ({where})"
    labels = ", ".join(f"{shown(key)}={shown(value)}" for key, value in sorted(dataset["labels"].items()))
    yield f"  labels    {labels or '-'}"
    options = ", ".join(
        f"{shown(key)}={shown(str(value))}" for key, value in sorted(dataset["options"].items())
    )
    yield f"  pipeline  {shown(dataset['pipeline'])} {options}".rstrip()
    yield from _series(dataset.get("series"))
    if dataset["result_path"]:
        size = show_bytes(dataset["result_bytes"])
        yield f"  result    {shown(dataset['result_path'])} ({size}, {dataset['verdict']})"
        page = Path(dataset["result_path"], REPORT)
        yield from [f"  report    {shown(str(page))}"] if page.is_file() else []
    for problem in dataset["problems"]:
        sentence = f"{shown(problem['code'])}: {one_line(problem['detail'])}"
        yield from textwrap.wrap(sentence, 100, initial_indent="  doubtful  ", subsequent_indent=" " * 12)
    quality = ", ".join(f"{shown(name)} {value:.4g}" for name, value in sorted(dataset["quality"].items()))
    yield from textwrap.wrap(quality, 100, initial_indent="  quality   ", subsequent_indent=" " * 12)
    yield "why"
    yield from (f"  {one_line(line)}" for line in answer["why"])
    for attempt in dataset["attempts"]:
        last = attempt is dataset["attempts"][-1]
        measured = (attempt["end"] or {}).get("measured") or (dataset["measured"] if last else None)
        yield from _attempt(attempt, measured)
    yield "story"
    yield from (_fact(fact) for fact in answer["facts"])


def _series(series: dict[str, Any] | None) -> Iterator[str]:
    if series is None:
        return
    size = sum(file["size_bytes"] for file in series["fingerprint"]["files"])
    angles = series["tilt_angles_deg"]
    reach = f", {min(angles):g} to {max(angles):g} degrees" if angles else ""
    yield f"  input     {len(angles)} tilts{reach}, {show_bytes(size)}"


def _attempt(attempt: dict[str, Any], measured: dict[str, Any] | None) -> Iterator[str]:
    placement = attempt["placement"]
    nodes = " ".join(attempt["nodes"] or placement["nodes"])
    yield f"attempt {attempt['number']} ({attempt['kind']})  {attempt['attempt_id']}"
    yield (
        f"  on {shown(nodes)}: {placement['cores']} cores, {placement['threads']} threads, "
        f"memory {show_bytes(placement['memory_bytes'])}, scratch {show_bytes(placement['scratch_bytes'])}, "
        f"walltime {show_seconds(placement['walltime_seconds'])} (rule {shown(placement['rule'])})"
    )
    yield from _decided(attempt, measured)
    times = (("placed", "placed_at"), ("started", "started_at"), ("ended", "ended_at"))
    yield f"  job {shown(attempt['job_id']) or '-'}: " + ", ".join(
        f"{w} {instant(attempt[k])}" for w, k in times
    )
    if failure := attempt["failure"]:
        yield f"  FAILED {failure['failure_class']}: {one_line(failure['reason'])}"
        yield f"  {one_line(failure['detail'])}"
        if failure["remedy"]:
            yield f"  what to do: {one_line(failure['remedy'])}"
    end = attempt["end"] or {}
    tail = end.get("log_tail", ())
    if failure and tail:
        yield "  last lines of its log:"
        yield from (f"    {one_line(line)}" for line in tail[-LOG_LINES:])


def _decided(attempt: dict[str, Any], measured: dict[str, Any] | None) -> Iterator[str]:
    """The rules that made it so, what was expected of it, and what it took."""
    decided = attempt.get("decided")
    if not decided:
        return
    rules = ", ".join(shown(rule) for rule in decided["rules"]) or "none but the defaults"
    due = f", due {instant(decided['due_at'])}" if decided["due_at"] else ""
    yield f"  policy {attempt['placement']['policy_version']}, rules matched: {rules}{due}"
    predicted = decided["predicted"]
    memory, scratch = (_expected_bytes(predicted, what) for what in ("memory", "scratch"))
    runs = predicted["samples"]
    learnt = f"from {runs} runs" if runs else "by the 2015 study and its pipeline"
    yield (
        f"  expected {show_seconds(round(predicted['seconds_p50']))}, at most "
        f"{show_seconds(round(predicted['seconds_p99']))}; {memory}; {scratch} ({learnt})"
    )
    if measured and measured["run_seconds"]:
        seconds = measured["stage_in_seconds"] + measured["run_seconds"] + measured["stage_out_seconds"]
        yield (
            f"  took     {show_seconds(round(seconds))}; memory {show_bytes(measured['peak_memory_bytes'])}, "
            f"scratch {show_bytes(measured['peak_scratch_bytes'])}"
        )


def _expected_bytes(predicted: dict[str, Any], what: str) -> str:
    """The median, where one was measured, and the 99th percentile."""
    usual, most = predicted.get(f"{what}_bytes_p50", 0), show_bytes(predicted[f"{what}_bytes_p99"])
    return f"{what} {show_bytes(usual)}, at most {most}" if usual else f"{what} at most {most}"


def _fact(fact: dict[str, Any]) -> str:
    quiet = {"kind", "at", "dataset_id", "sequence"}
    details = [
        f"{key}={_value(key, value)}"
        for key, value in fact.items()
        if key not in quiet and isinstance(value, _PLAIN) and value not in ("", False)
    ]
    return f"  {instant(fact['at'])}  {fact['kind']:18} {' '.join(details)}".rstrip()


def _value(key: str, value: str | int | float | bool) -> str:
    return instant(float(value)) if key.endswith("_at") else shown(str(value))[:80]
