"""How a run that did not succeed is judged, where the program itself makes no difference.  Pure.

Every pipeline's ``judge`` has to answer for every end that a runner can tell; this is the common part.
"""

from __future__ import annotations

from tiltd.daemon.core.model import Failure, FailureClass, RunEnd

_OUTCOMES: dict[str, tuple[FailureClass, bool, str]] = {
    "scratch_short": ("scratch", False, "nothing: another node, or this one later, is tried"),
    "input_changed": (
        "input",
        False,
        "nothing: the changed files become a new revision",
    ),
    "stranded": (
        "destination",
        False,
        "make room at the destination; the results wait on the node",
    ),
    "fenced": ("lost", True, "nothing: the node was given up while it was out of reach"),
    "terminated": ("killed", True, "look for who or what ended the job: an operator, the server, a shutdown"),
    "lost_claim": ("lost", False, "nothing: another runner has this attempt, or it was withdrawn"),
}
"""Outcome of the runner -> class, whether it counts as a try, remedy."""

_REASONS: dict[str, tuple[FailureClass, str]] = {
    "no space": ("scratch", "give more scratch: raise scratch_factor in the policy"),
    "memory": ("memory", "give more memory: raise memory_factor in the policy"),
    "walltime": ("walltime", "give more time: raise walltime_factor in the policy"),
    "input": ("input", "look at the input files: they could not be read"),
    "job file": ("config", "report this: the job file was refused by the runner"),
    "missing result": ("program", "look at the log: the program ended well but did not write what it should"),
    "wrong result": ("program", "look at the log: the program wrote a result of another size or type"),
}
"""Reason of a runner's ``failed`` -> class and remedy."""

_ENVIRONMENT = {126: "cannot be executed", 127: "was not found"}
_KILL = (137, -9)


def failure_of(end: RunEnd) -> Failure:
    """The failure that ``end`` (any end but a success) is, as far as the runner can tell.

    Exit statuses 126 and 127 are the shell's words for a program that cannot be started; death by KILL is
    the kernel's for want of memory, as a rule.
    """
    if end.outcome in _OUTCOMES:
        failure_class, spent, remedy = _OUTCOMES[end.outcome]
        if end.outcome == "terminated" and end.reason in _REASONS:
            failure_class, remedy = _REASONS[end.reason]
        return _failure(end, failure_class, remedy, spent)
    if end.reason in _REASONS:
        return _failure(end, *_REASONS[end.reason])
    if end.exit_status in _ENVIRONMENT:
        what = _ENVIRONMENT[end.exit_status]
        return _failure(end, "environment", f"install the program on {end.node}: it {what} there")
    if end.exit_status in _KILL:
        return _failure(end, "memory", "killed, most likely for want of memory: raise memory_factor")
    return _failure(end, "program", f"look at the log of step {end.step or '?'}")


def _failure(end: RunEnd, failure_class: FailureClass, remedy: str, spent: bool = True) -> Failure:
    return Failure(
        failure_class=failure_class,
        reason=end.reason or end.outcome,
        detail=end.detail or last_words(end),
        remedy=remedy,
        spent=spent,
        exit_status=end.exit_status,
    )


def last_words(end: RunEnd) -> str:
    """The last line of the log that is not blank, or an empty string."""
    return next((line.strip() for line in reversed(end.log_tail) if line.strip()), "")
