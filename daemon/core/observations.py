"""Observations: present tense, the whole picture, not stored.  ``at`` is now, as the shell's clock says.

The shell compares nothing and decides nothing: it says what it sees, and the core holds that against
what is recorded.
"""

from __future__ import annotations

from typing import Literal

from .model import (
    CivilTime,
    Dataset,
    Failure,
    Job,
    Measured,
    NodeInfo,
    Options,
    Policy,
    Problem,
    Progress,
    Record,
    RunEnd,
    RunSeen,
    Sighting,
)


class Observation(Record):
    at: float


class FilesObserved(Observation):
    """One pass over a feed.  ``sightings`` are the series that are new, changed or newly opened since the
    last pass; what is not named is as it was.  ``gone`` are series keys whose files are no longer there.

    ``up`` is false when the feed itself cannot be read (``detail`` says why): then nothing is "gone".
    ``first`` marks the first whole pass over a feed that this journal never met: the baseline.
    """

    feed: str
    up: bool
    sightings: tuple[Sighting, ...] = ()
    gone: tuple[str, ...] = ()
    first: bool = False
    first_reason: str = ""
    detail: str = ""


class JobsObserved(Observation):
    """One answer for all jobs.  Absence from it counts only if it is ``complete`` and was ``asked_at``
    after the job was accepted."""

    jobs: tuple[Job, ...]
    complete: bool
    asked_at: float
    foreign_counts: dict[str, int] = {}


class NodesObserved(Observation):
    nodes: tuple[NodeInfo, ...]


class ServerUnreachable(Observation):
    """The resource manager did not answer: nothing follows for any job."""

    detail: str


class SpoolObserved(Observation):
    """What one attempt's spool folder shows.  Fields are ``None`` or empty where nothing is there yet."""

    attempt_id: str
    claimed_by: str = ""
    claimed_node: str = ""
    claimed_at: float | None = None
    progress: Progress | None = None
    end: RunEnd | None = None
    runs: tuple[RunSeen, ...] = ()


class SpoolOrphan(Observation):
    """An attempt folder whose dataset or attempt the journal does not know (lost or restored journal).

    ``record`` is the dataset as its job file tells it, up to and including this attempt.
    """

    attempt_id: str
    record: Dataset
    job_id: str = ""


class PolicyLoaded(Observation):
    """A whole policy, validated, its own tests passed.  ``civil`` has the time in every zone it names."""

    policy: Policy
    reason: str = "start"
    civil: tuple[CivilTime, ...] = ()


class PolicyRefused(Observation):
    """Policy files that are not accepted; ``content`` is a hash of them, ``faults`` says why, a line each."""

    content: str
    faults: tuple[str, ...]


class CivilTimeObserved(Observation):
    """The hour has turned in a zone that the policy names."""

    civil: tuple[CivilTime, ...]


class TimeReached(Observation):
    """A wake-up that the core asked for (``Core.next_wake_at``)."""


class DestinationsObserved(Observation):
    """Free bytes of each destination's file system, by feed name; ``None`` when it cannot be read."""

    free_bytes: dict[str, int | None]


Action = Literal["hold", "release", "retry", "rerun", "cancel", "accept", "prioritize", "close_breaker"]
Errand = Literal["reload_policy", "prune"]


class OperatorAsked(Observation):
    """Someone wants something done to one dataset.  ``request_id`` comes back in the ``Reply`` effect.

    ``record`` is the journal's row when the dataset is not in the working set.  ``options`` are for
    ``rerun``, ``priority`` for ``prioritize``.  ``latest_run`` is the highest run number that this revision
    ever had.  ``via`` is how the one who asks came: ``socket``, ``token`` or ``proxy``.

    An ``Errand`` is about no dataset and is done outside the core, which only notes it: ``told`` says what.
    """

    action: Action | Errand
    dataset_id: str
    by: str
    request_id: str
    record: Dataset | None = None
    options: Options = {}
    reason: str = ""
    latest_run: int = 0
    priority: int = 0
    via: str = ""
    told: str = ""
    ok: bool = True


# -- answers of effects ------------------------------------------------------------------------------


class Answer(Observation):
    """Every effect is answered exactly once.

    ``trouble`` is empty on success.  ``permanent`` trouble will not get better by trying again;
    ``retry_seconds`` is the plugin's own wish for when to try again, 0 for none.
    """

    trouble: str = ""
    permanent: bool = False
    retry_seconds: float = 0.0


class SubmitAnswered(Answer, kw_only=True):
    """``unknown``: the submission may have happened; submitting again adopts it by its name.  ``absent``: it
    is not there long after, but might still appear: the attempt is to be revoked and placed anew.

    ``result_path``: a published result of this very input, pipeline and options was found at the
    destination (journal lost or restored): nothing was submitted, nothing has to be.
    """

    attempt_id: str
    job_id: str = ""
    unknown: bool = False
    absent: bool = False
    result_path: str = ""
    result_bytes: int = 0
    failure: Failure | None = None


class RevokeAnswered(Answer, kw_only=True):
    """``revoked``: the daemon won.  Else ``claimed_by`` tells who did."""

    attempt_id: str
    revoked: bool = False
    claimed_by: str = ""


class FenceAnswered(Answer, kw_only=True):
    attempt_id: str


class CancelAnswered(Answer, kw_only=True):
    attempt_id: str


class CollectAnswered(Answer, kw_only=True):
    """``occupied``: another's result is at the destination; ``damaged``: what was staged is not what the
    runner said it staged.  ``mine_already``: this very result is published already, which is success.
    ``problems`` say what is doubtful or bad about it."""

    attempt_id: str
    result_path: str = ""
    result_bytes: int = 0
    verdict: str = ""
    quality: dict[str, float] = {}
    measured: Measured | None = None
    mine_already: bool = False
    occupied: bool = False
    damaged: bool = False
    failure: Failure | None = None
    problems: tuple[Problem, ...] = ()


class ImportAnswered(Answer, kw_only=True):
    dataset_id: str
    path: str = ""
    input_changed: bool = False


class ReleaseAnswered(Answer, kw_only=True):
    attempt_id: str
    node: str


class NoticeAnswered(Answer, kw_only=True):
    notice_id: str
    to: str = "log"
