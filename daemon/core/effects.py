"""Effects: imperative, and safe to do twice.  Each is answered into the inbox exactly once.

An effect carries ids only; ``perform`` reads what it needs from the core's state when it starts, which is
the state in which the effect became outstanding.
"""

from __future__ import annotations

from .model import Record


class Effect(Record):
    """Hashable: the set of effects that are outstanding is compared with the set that was started."""


class SubmitJob(Effect):
    attempt_id: str
    dataset_id: str


class RevokeAttempt(Effect):
    attempt_id: str
    dataset_id: str


class FenceAttempt(Effect):
    attempt_id: str
    dataset_id: str


class CancelJob(Effect):
    attempt_id: str
    dataset_id: str
    job_id: str


class CollectResult(Effect):
    attempt_id: str
    dataset_id: str


class ImportSeries(Effect):
    dataset_id: str


class ReleaseScratch(Effect):
    """Make sure that nothing of the attempt is left on the node, then give the reservation back."""

    attempt_id: str
    dataset_id: str
    node: str


class SendNotice(Effect):
    """Tell one destination of one notice."""

    notice_id: str
    to: str = "log"


class Reply(Effect):
    """The answer to an operator; not outstanding after a restart, because the asker is gone too."""

    request_id: str
    ok: bool
    message: str
