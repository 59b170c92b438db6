"""The classes of failure in words: what each means, and what a person can do.  Retries are the policy's."""

from __future__ import annotations

from typing import NamedTuple

from tiltd.daemon.core.model import FailureClass, Policy


class Class(NamedTuple):
    name: FailureClass
    meaning: str
    remedy: str


CLASSES = (
    Class("input", "The program or the runner could not read the input.", "Look at the files, then retry."),
    Class("config", "An option or the job file was refused.", "Run it again with another option."),
    Class("licence", "The program found no licence.", "Mend that, then retry."),
    Class(
        "environment",
        "The program is not installed on that node, or cannot be started.",
        "Install it there; other nodes are tried meanwhile.",
    ),
    Class("node", "The node is at fault.", "Look at its disk and log."),
    Class(
        "scratch",
        "Scratch was too short, at the start or during the run.",
        "Raise scratch_factor in the policy if it happens during the run.",
    ),
    Class(
        "memory",
        "The job used more memory than it was given, or was killed for want of it.",
        "Raise memory_factor in the policy if that is usual.",
    ),
    Class("walltime", "It ran longer than it was given.", "Raise walltime_factor in the policy."),
    Class("killed", "Somebody or something ended the job.", "Ask: an operator, the server, a shutdown?"),
    Class(
        "lost",
        "Its node was out of reach for too long, and the job was fenced off.",
        "Nothing: what the old one still does cannot be published.",
    ),
    Class(
        "program",
        "The program ended with an error, or did not write what it should.",
        "Read the attempt's log.",
    ),
    Class("transient", "A result was damaged on its way, or something failed that may work later.", "Wait."),
    Class(
        "destination",
        "The result could not be delivered; it is rescued, not computed again.",
        "Make room, or mount the destination.",
    ),
    Class("submit", "The resource manager refused the job.", "Its words are in the detail."),
)


def follows(name: str, policy: Policy) -> str:
    """What the policy in force does after such an end."""
    retry = policy.retry
    if name in retry.give_up:
        return "not tried again"
    parts = [f"at most {retry.attempts_max} attempts"]
    parts += ["on another node"] * (name in retry.other_node)
    parts += [f"with {retry.memory_factor:g} times the memory"] * (name in retry.more_memory)
    parts += [f"with {retry.walltime_factor:g} times the walltime"] * (name in retry.more_walltime)
    parts += ["then held for a person"] * (name in retry.hold)
    return ", ".join(parts)
