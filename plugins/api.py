"""The whole boundary between the daemon and its plugins: four protocols and their errors.  Pure.

A plugin is an object made by ``factory(settings, context)``, where ``settings`` is its own table of
``tiltd.toml`` and ``context`` tells it the daemon's folders.  It meets the daemon by the name of its entry
point.  It has at most four methods, and every plugin of a kind passes the conformance suite of that kind
(``tests/plugins/conformance_*.py``), which a stranger's plugin can run too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tiltd.daemon.core.model import (
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
    Sighting,
    TiltSeries,
    Verdict,
)

__all__ = [
    "CommandCount",
    "Context",
    "Counting",
    "Detector",
    "Examiner",
    "Expecting",
    "Explainer",
    "Finding",
    "JobsSeen",
    "Notifier",
    "Permanent",
    "Pipeline",
    "PluginError",
    "ResourceManager",
    "Temporary",
    "Unreachable",
    "Unsure",
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
    """What the daemon tells every plugin when it makes it."""

    state_folder: str
    spool_folder: str
    journal_id: str
    owner: str


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
    """

    def request(self, series: TiltSeries, options: Options) -> ResourceRequest: ...

    def steps(self, series: TiltSeries, options: Options, placement: Placement) -> JobSteps: ...

    def judge(self, outcome: Outcome) -> Verdict: ...


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
        """Deliver it.  Raises Temporary(delay) or Permanent."""
        ...


Factory = Callable[[Mapping[str, Any], Context], Any]
"""What an entry point of any kind names."""
