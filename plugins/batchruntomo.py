"""Pipeline ``batchruntomo``: IMOD's automatic reconstruction, from directives to a judged tomogram.

Pure: it asks for resources, writes down directives and arguments, and judges the end.  What it knows of
IMOD is in :mod:`tiltd.plugins.imod`: how directives are merged and checked, what a run takes, how it is
started and followed, what its messages mean, which of its files are kept.

    [frames] --> validate --> batchruntomo --> bundle
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from tiltd.daemon.core.model import (
    ExpectedResult,
    Failure,
    FilePrint,
    Fingerprint,
    JobFile,
    JobSteps,
    Options,
    Outcome,
    Placement,
    Record,
    ResourceRequest,
    RunEnd,
    Step,
    TiltSeries,
    Verdict,
)
from tiltd.plugins import frames
from tiltd.plugins.api import Context, Permanent
from tiltd.plugins.endings import failure_of
from tiltd.plugins.imod import bundle, catalogue, log_quality, repair, steps
from tiltd.plugins.imod.book import Book, Ready
from tiltd.plugins.imod.directives import is_directive
from tiltd.plugins.imod.merge import Effective
from tiltd.plugins.imod.settings import FILE_OPTIONS
from tiltd.plugins.options import Value, read_options

NAME = "batchruntomo"
OPTIONS = (*log_quality.OPTIONS, *bundle.OPTIONS, *frames.OPTIONS)
"""Besides these, every directive is an option (``comparam.tilt.tilt.THICKNESS = 800``), and
``imod.settings.FILE_OPTIONS`` name templates."""

CORES = 4
"""The 2015 study's recommendation: gains end between 4 and 8 cores, and between 4 and 8 threads."""

_RUNNERS_OWN = frozenset({"memory", "walltime", "input", "job file"})
"""Reasons of a failure that the runner saw itself, deeper than any log."""

_BY_STATUS = ("exit ", "signal ", "not completed")
"""Reasons that say no more than how a program ended."""

_REORIENT = "runtime.Trimvol.any.reorient"
_TRIMMED = re.compile(r"^runtime\.Trimvol\.any\.(?:size|thickness|start|end|findSecAdded)", re.IGNORECASE)
UNKNOWN_REMEDY = "read these lines and the logs of the attempt; tell us the line, so that it can be listed"


class _Work(Record):
    """A series and its options, checked.  ``series`` is the stack, made of frames or not."""

    ready: Ready
    series: TiltSeries
    keep: tuple[str, ...]
    made: frames.FramesStep | None


class BatchruntomoPipeline:
    """``settings`` are options of all feeds (the table ``[batchruntomo]``; a feed's and an operator's win),
    with the table ``[imod]`` below its name.  The site's templates are read once, here."""

    errors = catalogue.CATALOGUE
    options = (*OPTIONS, *FILE_OPTIONS)

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self._book = Book.of(settings.get("imod", {}))
        self._settings = {key: value for key, value in settings.items() if key != "imod"}
        read_options(NAME, OPTIONS, self._settings)
        self.directives = self._book

    def takes_frames(self, options: Options) -> bool:
        """Whether the site has a program that makes a stack of frames."""
        return frames.takes_frames(self._settings, options)

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest:
        """What a run takes, by formulas measured on recorded runs (``imod/demand.py``).

        Raises Permanent for directives that cannot work and for a series that cannot be taken.
        """
        work = self._work(series, options, CORES)
        demand = work.ready.demand
        kept = bundle.kept_bytes(work.keep, demand.stack_bytes, demand.stack_bytes, 2 * demand.volume_bytes)
        frames_bytes = series.total_bytes if work.made is not None else 0
        return ResourceRequest(
            cores=1 if work.ready.one_core else CORES,
            threads=CORES,
            memory_bytes=demand.memory_bytes,
            scratch_bytes=demand.scratch_bytes + frames_bytes,
            result_bytes=2 * demand.volume_bytes + kept,
            walltime_seconds=demand.walltime_seconds,
        )

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps:
        """Frames to a stack where needed, validation by batchruntomo itself, the run, the bundle."""
        cores = placement.cores * max(1, len(placement.nodes))
        work = self._work(series, options, cores)
        name = tomogram_name(series.tilt_series_name)
        first: tuple[Step, ...] = (work.made.step,) if work.made is not None else ()
        own: tuple[JobFile, ...] = work.made.files if work.made is not None else ()
        settings = self._book.settings
        return JobSteps(
            steps=(
                *first,
                *steps.validate_steps(settings, bool(work.ready.template_text)),
                steps.run_step(settings, _used(placement, work.ready)),
                bundle.bundle_step(work.keep, steps.ROOT, steps.FOLDER, name),
            ),
            files=(
                *own,
                *steps.files(work.ready.batch_text, work.ready.template_text, work.series.tilt_angles_deg),
                bundle.bundle_file(),
            ),
            results=(_expected(work, name),),
        )

    def judge(self, outcome: Outcome) -> Verdict:
        """A success by the alignment's figures, anything else by the catalogue of messages."""
        end = outcome.end
        if end.outcome == "success":
            views = outcome.series.tilt_count if outcome.series is not None else 0
            return log_quality.verdict_on(end.figures, self._limits(outcome.options), views)
        failure = _failure(end)
        if failure.repair:
            change = repair.changes(failure.repair, *self._ran_with(outcome))
            failure = replace(failure, change=change)
        return Verdict(verdict="failed", quality=dict(end.figures), failure=failure)

    def _ran_with(self, outcome: Outcome) -> tuple[TiltSeries | None, Effective]:
        """The stack of the attempt and its directives; none where templates that it had are gone since."""
        if outcome.series is None:
            return None, Effective()
        try:
            work = self._work(outcome.series, outcome.options, CORES)
        except Permanent:
            return outcome.series, Effective()
        return work.series, work.ready.effective

    def _own_options(self, options: Options) -> dict[str, Value | None]:
        """The options that are no directives, checked.  Raises Permanent for an unknown one."""
        own = {key: value for key, value in options.items() if not is_directive(key)}
        return read_options(NAME, (*OPTIONS, *FILE_OPTIONS), self._settings, own)

    def _limits(self, options: Options) -> log_quality.Limits:
        """Those that it ran with; what is wrong with options has been told when it was placed."""
        try:
            return log_quality.Limits.of(self._own_options(options))
        except Permanent:
            return log_quality.Limits.of(self._own_options({}))

    def _work(self, series: TiltSeries, options: Options, cores: int) -> _Work:
        values = self._own_options(options)
        keep = bundle.read_keep(NAME, str(values["keep"] or ""))
        made = frames.frames_step(NAME, series, values) if series.kind == "frames" else None
        stack = _as_stack(made) if made is not None else series
        if series.kind == "stack" and not series.stack_path:
            raise Permanent(f"pipeline {NAME} reconstructs stacks; this series has none")
        if series.tilt_count < 3:
            raise Permanent(
                f"pipeline {NAME} needs at least 3 tilt angles; this series has {series.tilt_count}"
            )
        ready = self._book.checked_ready(
            stack, options, root=steps.ROOT, cores=cores, template_path=steps.TEMPLATE_FILE
        )
        return _Work(ready=ready, series=stack, keep=keep, made=made)


def _used(placement: Placement, ready: Ready) -> Placement:
    """One core of one node where batchruntomo fails with more (fiducialless alignment)."""
    return replace(placement, cores=1, nodes=placement.nodes[:1]) if ready.one_core else placement


def tomogram_name(tilt_series_name: str) -> str:
    """The result's name: that of the series as far as it is plain, so that the safe root is mapped back.

    >>> tomogram_name("TS_01"), tomogram_name("-rf $(x)"), tomogram_name("..")
    ('TS_01.rec', 'rf_x.rec', 'tomogram.rec')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", tilt_series_name).strip("._-")[:100]
    return f"{plain or 'tomogram'}.rec"


def _as_stack(made: frames.FramesStep) -> TiltSeries:
    """The stack that the frames will have become, as if it were the input."""
    print_ = FilePrint(relative_path=frames.STACK, size_bytes=made.stack_bytes, piece_bytes=1, head_sha256="")
    return replace(made.series, fingerprint=Fingerprint(files=(print_,)), stack_path=frames.STACK)


def _expected(work: _Work, name: str) -> ExpectedResult:
    """The right size, where the directives determine it: a square image (a tilt axis near 90 degrees swaps
    the sides), a given thickness, nothing trimmed off, turned or flipped so that thickness is z."""
    effective, demand = work.ready.effective, work.ready.demand
    width, height, thickness = demand.volume_size
    trimmed = any(_TRIMMED.match(key) for key in effective.directives)
    turned = effective.whole(_REORIENT) in (1, 2)
    if trimmed or not turned or not demand.thickness_known or width != height:
        return ExpectedResult(name=name, min_bytes=1025)
    return ExpectedResult(
        name=name, min_bytes=1024 + width * height * thickness, image_size=(width, height, thickness)
    )


def _failure(end: RunEnd) -> Failure:
    """The runner's own word first, then the first entry of the catalogue, then the last telling lines."""
    found = failure_of(end)
    if end.outcome != "failed" or end.reason in _RUNNERS_OWN:
        return found
    lines = (*end.notes, *end.log_tail, end.detail)
    matched = catalogue.match(lines, end.exit_status)
    if matched is None:
        return _unknown(found, lines) if found.reason.startswith(_BY_STATUS) else found
    entry = matched.entry
    if end.reason == "no space" and entry.failure_class != "scratch":
        return found
    return replace(
        found,
        failure_class=entry.failure_class or found.failure_class,
        reason=entry.code,
        detail=f"{entry.cause}: {matched.told}",
        remedy=entry.remedy,
        repair=entry.repair,
    )


def _unknown(found: Failure, lines: tuple[str, ...]) -> Failure:
    """Counted as ``unknown``, with what its logs told last."""
    told = " | ".join(catalogue.last_telling(lines))
    return replace(found, reason="unknown", detail=f"{found.detail}: {told}" if told else found.detail,
                   remedy=UNKNOWN_REMEDY)  # fmt: skip
