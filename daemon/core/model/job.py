"""Jobs: what is asked of a resource manager, and what comes back from it and from the runner."""

from __future__ import annotations

import enum
from typing import Literal

from .series import Problem, Record, TiltSeries

Options = dict[str, str | int | float | bool]
"""Parameters of a pipeline, merged by the shell from feed, policy and operator; recorded in the fact."""

FailureClass = Literal[
    "input",
    "config",
    "environment",
    "node",
    "transient",
    "licence",
    "scratch",
    "memory",
    "walltime",
    "killed",
    "lost",
    "program",
    "destination",
    "submit",
]
"""Why an attempt failed, coarse enough to count and to hang a retry rule on."""


RunOutcome = Literal[
    "success", "failed", "scratch_short", "input_changed", "stranded", "fenced", "terminated", "lost_claim"
]


class JobState(enum.StrEnum):
    """A job's state as observed, never inferred (Torque's letters in brackets)."""

    QUEUED = "queued"  # Q W T
    HELD = "held"  # H
    RUNNING = "running"  # R E
    SUSPENDED = "suspended"  # S
    COMPLETED = "completed"  # C
    UNKNOWN = "unknown"


class Failure(Record):
    """One attempt's end that was no success.

    ``spent`` is false for ends that do not count as a try: scratch too short on the node (exit 75),
    input changed underneath, lost the claim.  ``remedy`` says what to do, in words.  ``repair`` names what
    ``change`` would alter so that a further attempt may succeed; the policy says whether it may
    (``[retry] repair``).
    """

    failure_class: FailureClass
    reason: str
    detail: str
    remedy: str = ""
    spent: bool = True
    exit_status: int | None = None
    change: dict[str, float | str] = {}
    repair: str = ""


class Job(Record):
    """A job of ours as the resource manager lists it.

    ``ending`` names the end of a completed job in words, where its exit status tells it: ``walltime``,
    ``memory``, ``cpu time``, ``deleted``, ``signal 9``, ``exit 3``.  ``exit 0`` is no success: only the
    runner's own end marker is.
    """

    job_id: str
    job_name: str
    owner: str
    state: JobState
    queue: str = ""
    exec_host: tuple[str, ...] = ()
    exit_status: int | None = None
    comment: str = ""
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    native_state: str = ""
    start_count: int = 0
    ending: str = ""


class JobSpec(Record):
    """All that a resource manager needs to start one attempt; the work itself is in the job file.

    The command is ``python3 RUNNER_PATH ATTEMPT_FOLDER`` and nothing else: no name of a dataset, no
    option and no environment of the pipeline ever meets a command line or a shell.  ``directives`` are
    further lines of the policy for the resource manager, in its own words.

    ``floating``: the resource manager's scheduler chooses among the nodes that have all ``properties``;
    ``nodes`` then only says how many (one if empty).  Else the job is pinned to ``nodes``.  ``cores`` and
    ``memory_bytes`` are per node.  ``largest_file_bytes`` is the largest single file that the job is expected
    to write, for systems where a reserve of disk space is also a limit of every file.  ``papers_laid``: the
    resource manager's own files (``Papered``) lie in the folder only since now, so nothing was submitted yet.
    """

    attempt_id: str
    job_name: str
    runner_path: str
    attempt_folder: str
    nodes: tuple[str, ...]
    cores: int
    threads: int
    memory_bytes: int
    scratch_bytes: int
    walltime_seconds: float
    queue: str = ""
    account: str = ""
    priority: int = 0
    directives: tuple[str, ...] = ()
    floating: bool = False
    properties: tuple[str, ...] = ()
    largest_file_bytes: int = 0
    papers_laid: bool = False


class ProgressPattern(Record):
    """How the runner follows a step: a regular expression over a line of its output.

    Named groups used: ``step`` (a new part of the step has begun), ``done`` and ``total`` (numbers),
    ``seconds`` with ``minutes`` and ``tenths`` (what that part took; parts of one name add up), and
    ``figure_NAME`` (a number for ``RunEnd.figures``; the last one counts).  ``step`` names the part where the
    line itself does not.
    """

    pattern: str
    step: str = ""


class Quit(Record):
    """How a step is asked to end in order, before its processes are signalled.

    The runner writes ``text`` into ``file`` (a path with the placeholders of ``Step.argv``) and waits at
    most ``seconds`` for the step to end.
    """

    file: str
    text: str
    seconds: float = 3.0


class Witness(Record):
    """What the runner reads of a step that failed, while its files are still there.

    Of the step's own log and of ``files`` (glob patterns below the job's scratch folder) the lines in which
    one of ``patterns`` is found go into ``RunEnd.notes`` as ``NAME: LINE``: of each file the first and the
    last eight, 80 in all.
    """

    files: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class Step(Record):
    """One program of a job.  ``argv`` may use ``{scratch}``, ``{input}``, ``{output}``, ``{cores}``,
    ``{threads}``, ``{python}`` and ``{hosts}`` (all nodes of the job, as ``host#cores,host#cores``); the
    runner fills them in as whole substrings, without any shell.

    Where ``success_pattern`` is given, exit status 0 is a success only if a line of the output matches.
    """

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str] = {}
    patterns: tuple[ProgressPattern, ...] = ()
    success_pattern: str = ""
    witness: Witness | None = None
    quit: Quit | None = None


class JobFile(Record):
    """A small text file that the runner writes into the job's input folder before the first step.

    The manifest of a result keeps the text of those that are ``kept``, for every attempt that was made:
    directives, say, so that it can be seen what a retry changed.
    """

    name: str
    text: str
    kept: bool = False


class ExpectedResult(Record):
    """A file that must exist in ``{output}`` after the last step.

    ``image_size`` (nx, ny, nz) and ``mode`` are checked against its MRC header when given.
    """

    name: str
    min_bytes: int = 1
    image_size: tuple[int, int, int] | None = None
    mode: int | None = None


class JobSteps(Record):
    """A pipeline's whole answer for one placement."""

    steps: tuple[Step, ...]
    files: tuple[JobFile, ...] = ()
    results: tuple[ExpectedResult, ...] = ()


class Measured(Record):
    """What the runner measured of one attempt; seconds and bytes."""

    stage_in_seconds: float = 0.0
    run_seconds: float = 0.0
    stage_out_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_scratch_bytes: int = 0
    stage_in_bytes: int = 0
    stage_out_bytes: int = 0
    step_seconds: dict[str, float] = {}


class RunEnd(Record):
    """The last record that a runner appends to its ``end`` file.

    ``success`` is the only final outcome; every other is a hint until the job's end is proved
    (a requeue ends a runner with TERM and starts it again).  ``stranded`` is a success whose results
    could not be staged out: they stay at ``stranded_path`` on ``node``.

    ``figures`` are numbers and ``notes`` lines that the job's own programs left for the pipeline's ``judge``
    in ``{output}/figures.json`` (an object of at most 100 numbers) and ``{output}/notes.json`` (a list of
    at most 200 strings, of 500 characters each).  The runner reads both after the last step that ran, also
    when it failed, and adds figures that patterns found and the lines of a failed step's ``Witness``.
    """

    job_id: str
    nonce: str
    outcome: RunOutcome
    ended_at: float
    node: str
    exit_status: int | None = None
    reason: str = ""
    detail: str = ""
    step: str = ""
    log_tail: tuple[str, ...] = ()
    stranded_path: str = ""
    stranded_bytes: int = 0
    figures: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    measured: Measured = Measured()


class RunSeen(Record):
    """One claim of an attempt, and whether its runner or janitor said that it left nothing on the node."""

    node: str
    cleaned: bool


class Progress(Record):
    """The newest line of a runner's ``progress`` file."""

    phase: str
    at: float
    node: str = ""
    step: str = ""
    done: float = 0.0
    total: float = 0.0
    scratch_bytes: int = 0
    peak_memory_bytes: int = 0


class Outcome(Record):
    """What a pipeline judges: the proved end of an attempt.

    ``options`` and ``series`` are what it ran with, so that limits of quality can be options (and so the
    policy's), and views be counted.  ``series`` is ``None`` only where a test gives none.
    """

    end: RunEnd
    step_names: tuple[str, ...] = ()
    options: Options = {}
    series: TiltSeries | None = None


class Verdict(Record):
    """A pipeline's judgement.  ``good`` and ``doubtful`` are delivered; ``bad`` is delivered nowhere and
    held for a person; ``failed`` goes to the retry rule.

    ``quality`` are the figures that ``tiltd show``, the manifest and the report tell.  ``problems`` say what
    is doubtful or bad, each in a sentence: they stand in the notice, the hold, the record and the report.
    """

    verdict: Literal["good", "doubtful", "bad", "failed"]
    quality: dict[str, float] = {}
    problems: tuple[Problem, ...] = ()
    failure: Failure | None = None
