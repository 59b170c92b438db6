"""The whole boundary between the daemon and its plugins: four protocols and their errors.  Pure.

A plugin is an object made by ``factory(settings, context)``, where ``settings`` is its own table of
``tiltd.toml`` and ``context`` tells it the daemon's folders.  It meets the daemon by the name of its entry
point.  It has at most four methods, and every plugin of a kind passes the conformance suite of that kind
(``tests/plugins/conformance_*.py``), which a stranger's plugin can run too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from tiltd.daemon.core.model import (
    FailureClass,
    FileEntry,
    Job,
    JobSpec,
    JobSteps,
    NodeInfo,
    Notice,
    Options,
    Outcome,
    Placement,
    Record,
    ResourceRequest,
    SeriesKind,
    Sighting,
    TiltSeries,
    Verdict,
)

__all__ = [
    "CommandCount",
    "Context",
    "Counting",
    "Detector",
    "DirectiveBook",
    "DirectiveFault",
    "DirectiveRow",
    "Examiner",
    "Expecting",
    "Explainer",
    "Finding",
    "JobsSeen",
    "KnownError",
    "Notifier",
    "Permanent",
    "Pipeline",
    "PluginError",
    "ResourceManager",
    "Temporary",
    "Unreachable",
    "Unsure",
    "takes",
]


class PluginError(Exception):
    """Something that a plugin met in the world (never a bug of its own).  The message is for a person."""


class Temporary(PluginError):
    """It may work later.  ``delay_seconds`` is the plugin's wish; the policy decides."""

    def __init__(self, message: str, delay_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.delay_seconds = delay_seconds


class Unreachable(Temporary):
    """The server did not answer, or not understandably: nothing is known, nothing is concluded."""


class Permanent(PluginError):
    """Trying again as it is cannot help.  The message says what has to change."""


class Unsure(PluginError):
    """A submission that may or may not have happened (time-out, lost reply).

    ``absent``: a complete list, asked for well after it, does not have the job.  A late one may still
    appear, so the attempt has to be revoked before anything is placed anew.
    """

    def __init__(self, message: str, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


class JobsSeen(Record):
    """One answer to "which jobs are there?"."""

    jobs: tuple[Job, ...]
    complete: bool
    asked_at: float
    foreign_counts: dict[str, int] = {}


class Context(Record):
    """What the daemon tells every plugin when it makes it.

    ``in_worker(function, *arguments)`` is awaited: it calls what blocks for a moment (a look into a folder)
    in a worker thread that the daemon keeps for that, which costs less than a thread of the loop's own
    executor.  ``None`` where there is no daemon; ``asyncio.to_thread`` does the same.
    """

    state_folder: str
    spool_folder: str
    journal_id: str
    owner: str
    in_worker: Callable[..., Awaitable[Any]] | None = None


class Finding(Record):
    """One line of a site's examination: what was looked at, whether it is as it must be, and what to do."""

    what: str
    ok: bool
    detail: str


@runtime_checkable
class Examiner(Protocol):
    """Optional, for a resource manager that can tell how its site is set up: for ``tiltd check``."""

    async def examine(self) -> Sequence[Finding]:
        """Look, change nothing, and never raise: what cannot be looked at is a finding too."""
        ...


class ResourceManager(Protocol):
    async def submit(self, spec: JobSpec) -> str:
        """Start the attempt and return its native job id.

        Safe to do twice: a job that already bears ``spec.job_name`` and our owner is adopted.
        Raises Temporary, Permanent or Unsure.
        """
        ...

    async def jobs(self) -> JobsSeen:
        """All jobs of ours, in one question.  Raises Unreachable, never "nothing" for "don't know"."""
        ...

    async def nodes(self) -> Sequence[NodeInfo]:
        """All nodes.  Raises Unreachable."""
        ...

    async def cancel(self, job_id: str) -> None:
        """Ask for the job's end; success if it is already gone.  Its end is observed, not assumed."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """Optional, for a resource manager whose lists may leave a job out: it is told which to expect.

    A job that is expected and missing from a complete list is then asked for by its id.  Only when the
    server says that it does not know the id is it left out of ``JobsSeen.jobs``; otherwise it is there with
    the state ``UNKNOWN``.
    """

    def expect(self, job_ids: Collection[str]) -> None:
        """Called before ``jobs`` with the ids of all live attempts.  Quick, never raises."""
        ...


@runtime_checkable
class Papered(Protocol):
    """Optional, for a resource manager that leaves files of its own beside the job file, such as a script."""

    def papers(self, spec: JobSpec) -> Mapping[str, bytes]:
        """Contents by name, for the attempt's folder; none where it is not to be submitted now.

        They go to the disk together with the job file, which costs next to nothing, before ``submit`` is
        called.  ``spec.papers_laid`` tells it whether they were not there before: where they were, an earlier
        call may have submitted the attempt.  Called in a worker thread; quick, and never raises.
        """
        ...


class CommandCount(Record):
    """How often a command ended in which way, and what that took: ``outcome`` is a word of a bounded set."""

    command: str
    outcome: str
    count: int
    seconds: float


@runtime_checkable
class Counting(Protocol):
    """Optional, for a resource manager that runs commands: how they ended, for the metrics."""

    def counts(self) -> Sequence[CommandCount]: ...


@runtime_checkable
class Explainer(Protocol):
    """Optional: what the cluster's scheduler itself says of a job.  Words for people, never a state."""

    async def reasons(self, job_id: str) -> Sequence[str]:
        """Sentences, empty when it says nothing.  Raises Unreachable."""
        ...


class Pipeline(Protocol):
    """Pure.  Options are merged by the shell (feed, policy, operator) and recorded in the fact.

    Raises Permanent (with a sentence) for a series or options that it cannot take.

    A pipeline that can take series of frames has a fourth method, ``takes_frames(options) -> bool``
    (:func:`takes` asks it); while it says no, or is not there, such series are held.
    """

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest: ...

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps: ...

    def judge(self, outcome: Outcome) -> Verdict: ...


def takes(pipeline: Pipeline, kind: SeriesKind, options: Options) -> bool:
    """Does this pipeline take series of that kind, as its options are?  All take stacks."""
    takes_frames = getattr(pipeline, "takes_frames", None)
    return kind == "stack" or (takes_frames is not None and bool(takes_frames(options)))


class DirectiveRow(Record):
    """One directive as it will be handed to the program.  ``origin`` says in words who set it; ``overruled``
    are the values that lost, with their origins, the nearest first."""

    key: str
    value: str
    origin: str
    layer: str
    overruled: tuple[str, ...] = ()


class DirectiveFault(Record):
    """What is wrong with a directive, in a sentence that says what to do.  ``file`` and ``line`` (from 1; 0
    is none) say where it was set.  ``warning``: it runs all the same."""

    sentence: str
    key: str = ""
    file: str = ""
    line: int = 0
    severity: Literal["error", "warning"] = "error"


class DirectiveBook(Protocol):
    """What a pipeline that is steered by directives can say of them, in its attribute ``directives`` (only
    such a pipeline has it).  Pure, like the pipeline itself."""

    def shown_for(
        self, series: TiltSeries, options: Options, origins: Mapping[str, str], cores: int
    ) -> tuple[tuple[DirectiveRow, ...], tuple[DirectiveFault, ...]]:
        """What a run of this series on ``cores`` cores would be given, and what is wrong with it.
        ``origins`` is key of ``options`` -> ``feed NAME``, ``policy rule NAME`` or ``operator``."""
        ...

    def explained(self, key: str) -> tuple[str, ...]:
        """Lines about one directive (the end of a key will do); raises Permanent for an unknown one, with the
        nearest ones."""
        ...

    def checked(self, text: str, name: str, template: bool) -> tuple[DirectiveFault, ...]:
        """What is wrong with a file of directives, or with a template."""
        ...

    def sources(self) -> tuple[str, tuple[str, ...]]:
        """What it goes by, in words, and what is wrong with it."""
        ...

    def read_again(self) -> Callable[[], None] | tuple[str, ...]:
        """Read the site's files as they are now, which may take a while: what has them count from then on, or
        the faults for which the files as they were go on counting."""
        ...


class KnownError(Record):
    """What a program says when something is wrong, and what to do: for pipelines that know their program's
    messages, in their attribute ``errors``.  ``tiltd errors`` lists them.

    ``pattern`` is searched in single lines; ``exits`` are exit statuses that mean the same.  A note has no
    class: it is worth knowing, and no failure by itself.  ``repair`` names what a further attempt may change.
    ``action`` is what is done about it, in words.
    """

    code: str
    program: str
    pattern: str
    cause: str
    remedy: str
    failure_class: FailureClass | None = None
    exits: tuple[int, ...] = ()
    repair: str = ""
    action: str = ""


class Look(Protocol):
    """How a detector reads: small, read-only, bounded.  Raises OSError as the file system does."""

    def head(self, relative_path: str, size_bytes: int) -> bytes: ...

    def tail(self, relative_path: str, size_bytes: int) -> bytes: ...

    def text(self, relative_path: str, max_bytes: int) -> bytes: ...


class Detector(Protocol):
    """File names + header bytes + mdoc text -> sightings of series.

    ``entries`` are all files of one folder (and, for frames, of the folders the site names beside it).
    ``opened`` tells for which series keys the files are quiet enough to be opened through ``look``; the
    others are judged by names and ``stat`` alone.
    """

    def read(
        self, entries: Sequence[FileEntry], opened: Callable[[str], bool], look: Look
    ) -> Sequence[Sighting]: ...


class Notifier(Protocol):
    async def notify(self, notice: Notice) -> None:
        """Deliver it to the one destination in ``notice.to``.  Raises Temporary(delay) or Permanent."""
        ...


Factory = Callable[[Mapping[str, Any], Context], Any]
"""What an entry point of any kind names."""
