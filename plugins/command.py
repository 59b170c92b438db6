"""Pipeline ``command``: any program, by a template of its arguments.  Pure.

The option ``command`` is split into words the way a shell does, *before* the fields are filled in, and no
shell ever sees it: a value with blanks, quotes or ``$(...)`` stays one word, or part of one.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from tiltd.daemon.core.model import (
    ExpectedResult,
    JobFile,
    JobSteps,
    Options,
    Outcome,
    Placement,
    ResourceRequest,
    Step,
    TiltSeries,
    Verdict,
)
from tiltd.plugins.api import Context, Permanent
from tiltd.plugins.endings import failure_of
from tiltd.plugins.options import Option, Value, read_options

OPTIONS = (
    Option(name="command", default="", meaning="the program and its arguments, with {fields}"),
    Option(name="results", default="", meaning="names of the files in {output}, separated by commas"),
    Option(
        name="scratch_factor",
        default=3.0,
        low=1.0,
        high=1000.0,
        meaning="scratch as a multiple of the input, its copy included",
    ),
    Option(
        name="result_factor", default=1.0, low=0.0, high=1000.0, meaning="results as a multiple of the input"
    ),
    Option(name="memory", default=4e9, low=1e6, high=1e14, meaning="bytes of memory"),
    Option(name="walltime", default=3600.0, low=1.0, high=1e7, meaning="expected seconds"),
    Option(name="cores", default=4, low=1, high=1024, meaning="cores, and threads"),
)

RUNNER_FIELDS = ("input", "output", "scratch", "cores", "threads", "python", "hosts")
"""Filled in on the node; they pass through."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_RUNNER_FIELD = re.compile(r"\{(" + "|".join(RUNNER_FIELDS) + r")\}")
_RESULT = re.compile(r"[A-Za-z0-9_+=@%][A-Za-z0-9._+=@%-]{0,200}")
_SMALL_BYTES = 50_000_000


class CommandPipeline:
    """``settings`` (the table ``[command]``) gives options of all feeds; a feed's and an operator's win."""

    options = OPTIONS

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self._settings = dict(settings)
        read_options("command", OPTIONS, self._settings)

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        """Input times the factors, plus 50 MB; the rest as the options say.  Raises Permanent."""
        values = self._values(options)
        _argv(series, str(values["command"]))
        _result_names(str(values["results"]))
        cores, size_bytes = _whole(values["cores"]), series.total_bytes
        return ResourceRequest(
            cores=cores,
            threads=cores,
            memory_bytes=_whole(values["memory"]),
            scratch_bytes=_whole(_number(values["scratch_factor"]) * size_bytes) + _SMALL_BYTES,
            result_bytes=_whole(_number(values["result_factor"]) * size_bytes) + _SMALL_BYTES,
            walltime_seconds=_number(values["walltime"]),
        )

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps:
        """One step; the tilt angles lie in ``{input}/angles.tlt`` for those who ask for ``{angles}``."""
        values = self._values(options)
        angles = "".join(f"{angle!r}\n" for angle in series.tilt_angles_deg)
        return JobSteps(
            steps=(Step(name="command", argv=_argv(series, str(values["command"]))),),
            files=(JobFile(name="angles.tlt", text=angles),) if angles else (),
            results=tuple(ExpectedResult(name=name) for name in _result_names(str(values["results"]))),
        )

    def judge(self, outcome: Outcome) -> Verdict:
        """Exit 0 with every result there (the runner looks) is good; nothing else is."""
        end = outcome.end
        if end.outcome == "success":
            return Verdict(verdict="good", quality=dict(end.figures))
        return Verdict(verdict="failed", failure=failure_of(end))

    def _values(self, options: Options) -> dict[str, Value | None]:
        return read_options("command", OPTIONS, self._settings, options)


def _number(value: Value | None) -> float:
    return float(value or 0.0)


def _whole(value: Value | None) -> int:
    return int(_number(value))


def _argv(series: TiltSeries, template: str) -> tuple[str, ...]:
    """The words of the template with the fields filled in, each word by itself."""
    try:
        words = _words(template)
    except ValueError as error:
        raise Permanent(f"pipeline command: option command cannot be split into words: {error}") from error
    if not words:
        raise Permanent("pipeline command: option command is empty; give the program and its arguments")
    return tuple([_fill(word, series) if "{" in word else word for word in words])


@functools.lru_cache(maxsize=64)
def _words(template: str) -> tuple[str, ...]:
    return tuple(shlex.split(template))


def _place(series: TiltSeries, path: str) -> str | None:
    name = series.local_names().get(path)
    return None if name is None else f"{{input}}/{name}"


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.10g}"


FIELDS: dict[str, Callable[[TiltSeries], str | None]] = {
    "stack": lambda series: _place(series, series.stack_path),
    "mdoc": lambda series: _place(series, series.mdoc_path),
    "rawtlt": lambda series: _place(series, series.rawtlt_path),
    "angles": lambda series: "{input}/angles.tlt" if series.tilt_angles_deg else None,
    "name": lambda series: series.tilt_series_name,
    "pixel_size_angstrom": lambda series: _figure(series.pixel_spacing_angstrom),
    "pixel_size_nm": lambda series: _figure(
        series.pixel_spacing_angstrom and series.pixel_spacing_angstrom / 10
    ),
    "tilt_axis_deg": lambda series: _figure(series.tilt_axis_deg),
    "tilt_count": lambda series: str(series.tilt_count),
    "size_bytes": lambda series: str(series.total_bytes),
}
"""What a series tells, by the name of its field; None where it does not say."""


def _fill(word: str, series: TiltSeries) -> str:
    """One word.  A name from the outside may neither become an option nor look like a field of the runner."""
    name = series.tilt_series_name
    if "{name}" in word and _RUNNER_FIELD.search(name):
        raise Permanent(f"pipeline command: the name {name!a} looks like a field; leave {{name}} out")
    if word.startswith("{name}") and name.startswith("-"):
        raise Permanent(
            f"pipeline command: the name {name!a} would be taken for an option; "
            "write it behind something, as in --name={name}"
        )
    return _FIELD.sub(lambda found: _value(found.group(1), series), word)


def _value(field: str, series: TiltSeries) -> str:
    if field in RUNNER_FIELDS:
        return f"{{{field}}}"
    if field not in FIELDS:
        known = ", ".join([*FIELDS, *RUNNER_FIELDS])
        raise Permanent(f"pipeline command: unknown field {{{ascii(field)[1:-1]}}}; known are {known}")
    value = FIELDS[field](series)
    if value is None:
        raise Permanent(f"pipeline command: this series has no {field}, which the command needs")
    return value


@functools.lru_cache(maxsize=64)
def _result_names(text: str) -> tuple[str, ...]:
    """Names of files directly in the output folder.  Raises Permanent for anything cleverer."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if not _RESULT.fullmatch(name):
            raise Permanent(
                f"pipeline command: option results names {name!a}; plain file names of letters, "
                "digits and ._+=@%- are possible, without folders"
            )
    if not names:
        raise Permanent("pipeline command: option results is empty; name the files that the program leaves")
    if len(set(names)) < len(names):
        raise Permanent("pipeline command: option results names a file twice")
    return tuple(names)
