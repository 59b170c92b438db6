"""What can be made to go wrong with the commands, by hand or by a seed.

What goes wrong with the cluster itself (a node that is away, a job forgotten, held or requeued, limits of a
queue) is done to the :class:`.batch.Batch`; see :data:`.control.OPERATIONS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from .client import DOWN_RC, NO_DAEMON_RC, down_words, no_daemon_words
from .records import Answer, Call, said

Kind = Literal[
    "hang",  # no answer, nothing was done
    "down",  # connection refused
    "unauthorised",  # trqauthd does not answer
    "shutting_down",  # submissions are refused, questions answered
    "credential",  # refused, without rhyme or reason
    "no_connections",
    "full",  # maximum number of jobs in the queue
    "garbage",  # done, and the answer is rubbish
    "banner",  # done, with a site's greetings before the answer
    "cut_short",  # done, and half of the answer arrives
    "empty",  # done, and nothing is said
    "lost_reply",  # done, and the connection breaks
    "accepted_then_hang",  # done, and no answer
    "accepted_late",  # no answer, and done later
    "sent_again",  # qsub sends again after a time-out of the server: two jobs
    "slow",
]
KINDS: tuple[str, ...] = get_args(Kind)

REFUSALS = {
    "shutting_down": (214, "Request not allowed: Server shutting down"),
    "credential": (173, "Invalid credential"),
    "no_connections": (187, "No free connections"),
    "full": (
        200,
        "Maximum number of jobs already in queue MSG=total number of jobs in queue exceeds the limit",
    ),
}
LOST = {237: "Timeout", 248: "Batch protocol error", 185: "Protocol (ASN.1) error", 67: "End of File"}
"""Exit statuses of a qsub that cannot know whether it submitted."""

MAUI = ("checkjob", "showq", "showstart")
GARBAGE = b"\x00\xff<Data><<Job>\x1b[31m segmentation fault (core dumped)\n"
BANNER = b"*** maintenance on Monday 07:00, save your work ***\n"


@dataclasses.dataclass
class Fault:
    """One thing to go wrong: for which command (a pattern), what, and how often.

    ``times`` -1: until it is taken away.  ``seconds``: of ``slow`` and ``accepted_late``.  ``rc``: of
    ``lost_reply``.
    """

    command: str
    kind: Kind
    times: int = 1
    seconds: float = 1.0
    rc: int = 237

    def meets(self, call: Call) -> bool:
        if not self.times or not fnmatchcase(call.name, self.command):
            return False
        if call.name in MAUI:  # Maui answers though the server does not
            return self.kind in ("hang", "slow", "garbage", "empty", "cut_short")
        return call.name == "qsub" or self.kind not in _OF_QSUB


_OF_QSUB = ("shutting_down", "full", "accepted_then_hang", "accepted_late", "sent_again", "lost_reply")


@dataclasses.dataclass
class Faults:
    """Those that wait to happen, the oldest first; ``met`` counts those that did."""

    waiting: list[Fault] = dataclasses.field(default_factory=list)
    met: dict[str, int] = dataclasses.field(default_factory=dict)

    def add(self, fault: Fault) -> None:
        self.waiting.append(fault)

    def clear(self) -> None:
        self.waiting.clear()

    def next(self, call: Call) -> Fault | None:
        """The fault that this command meets; it is spent by that."""
        for fault in self.waiting:
            if fault.meets(call):
                fault.times -= fault.times > 0
                self.waiting = [other for other in self.waiting if other.times]
                self.met[fault.kind] = self.met.get(fault.kind, 0) + 1
                return fault
        return None

    @property
    def down(self) -> bool:
        return any(fault.kind in ("down", "unauthorised") for fault in self.waiting)


def refusal(call: Call, fault: Fault) -> Answer | None:
    """The answer of a command that is not even carried out; ``None`` for the other kinds."""
    if fault.kind == "hang":
        return Answer(hang=True)
    if fault.kind == "down":
        return Answer(DOWN_RC[call.name], err=said(down_words(call.name)))
    if fault.kind == "unauthorised":
        return Answer(NO_DAEMON_RC[call.name], err=said(no_daemon_words(call.name)))
    if fault.kind in REFUSALS:
        rc, words = REFUSALS[fault.kind]
        text = f"qsub: submit error ({words})\n" if call.name == "qsub" else f"{call.name}: {words}\n"
        return Answer(rc, err=said(text))
    return None


def spoilt(answer: Answer, fault: Fault) -> Answer:
    """The answer of a command that was carried out."""
    changes: dict[str, Any] = dict(_spoilt(answer, fault))
    return dataclasses.replace(answer, **changes)


def _spoilt(answer: Answer, fault: Fault) -> Iterator[tuple[str, Any]]:
    if fault.kind == "garbage":
        yield "out", GARBAGE
    elif fault.kind == "banner":
        yield "out", BANNER + answer.out
    elif fault.kind == "cut_short":
        yield "out", answer.out[: len(answer.out) // 2]
    elif fault.kind == "empty":
        yield "out", b""
    elif fault.kind == "slow":
        yield "delay_seconds", fault.seconds
    elif fault.kind == "accepted_then_hang":
        yield "hang", True
    elif fault.kind == "lost_reply":
        yield "rc", fault.rc
        yield "out", b""
        yield "err", said(f"qsub: submit error ({LOST.get(fault.rc, 'Unknown')})\n")
    elif fault.kind == "sent_again":
        yield "err", b"qsub: Connection timed out (server busy). Trying again...\n"
