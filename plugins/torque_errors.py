"""What the exit codes of Torque's commands mean.  Pure.

A command ends with the last eight bits of the server's error number (15001 gives 153), or with an errno.
The codes marked (r) were recorded from a Torque 6.1.3; the others follow from the order of its error list.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tiltd.plugins.commandline import Kind, Rule

SENT_AGAIN = b"Trying again"
"""What qsub writes to its error output when it submits again by itself: one call, perhaps two jobs."""

_WORDS: Mapping[str, tuple[str, str]] = {
    "no_server": ("the server does not accept connections", "start pbs_server, or wait"),
    "no_trqauthd": ("trqauthd does not run here", "start trqauthd on this host"),
    "refused": ("the server refuses connections", "start pbs_server, or wait"),
    "no_route": ("the server's host does not answer", "look at the network to the head node"),
    "credential": ("the server rejects this host's credential", "look at trqauthd here"),
    "no_connections": ("the server has no connections left", "fewer commands at once, on this cluster"),
    "shutting_down": ("the server is shutting down", "it goes on when the server is back"),
    "end_of_file": ("the server hung up in the middle", ""),
    "protocol": ("the server's answer could not be understood", ""),
    "server_timeout": ("the server did not answer the command in time", ""),
    "socket": ("the connection to the server broke", ""),
    "ok": ("it went well", ""),
    "usage": (
        "qsub does not take the job as it is written",
        "this is a bug of tiltd, or qsub was run as root",
    ),
    "syntax": (
        "a resource request has a fault in its syntax",
        "look at [torque] properties and the policy's directives",
    ),
    "permission": ("this account may not do that", "ask the cluster's admin"),
    "bad_value": ("a resource has a value that is not possible", "look at the policy's directives"),
    "unknown_queue": (
        "there is no such queue",
        "set [torque] queue or the policy's queue to one that qstat -q lists",
    ),
    "queue_disabled": ("the queue takes no jobs", "enable it in qmgr, or name another one"),
    "queue_access": (
        "this account or host may not use the queue",
        "ask the cluster's admin, or name another queue",
    ),
    "bad_user": (
        "the server does not accept this account from this host",
        "add this host to submit_hosts, or the account to the server",
    ),
    "unknown_resource": ("a resource is not known to the server", "look at the policy's directives"),
    "infeasible": (
        "no queue and nodes could ever take it",
        "look at the queue's limits, and whether the node, its cores and all properties exist",
    ),
    "no_default_queue": ("the server has no default queue", "set [torque] queue"),
    "route": ("the routing queue found no queue that takes it", "look at the limits of its destinations"),
    "bad_group": ("the group is not accepted", "ask the cluster's admin"),
    "bad_account": ("the account is not accepted", "set [torque] account, or the policy's"),
    "dependency": ("a dependency names no job", "look at the policy's directives"),
    "queue_full": (
        "the queue holds as many jobs as it may",
        "it goes on when jobs end; tiltd's own caps can be set lower",
    ),
    "user_full": (
        "this account has as many jobs in the queue as it may",
        "it goes on when jobs end; tiltd's own caps can be set lower",
    ),
    "unknown_job": ("the server does not know the job", ""),
    "ending_already": ("the job is ending or has ended", ""),
    "node_unreachable": (
        "its node is out of reach",
        "it ends when the node is back; or: qdel -p, as the admin",
    ),
}
"""For each reason: what it means, and what to do."""


def _rule(kind: Kind, reason: str) -> Rule:
    meaning, remedy = _WORDS[reason]
    return Rule(kind=kind, reason=reason, meaning=meaning, remedy=remedy)


def _table(*rows: tuple[Kind, str, tuple[int, ...]]) -> Mapping[int, Rule]:
    rules = {code: _rule(kind, reason) for kind, reason, codes in rows for code in codes}
    return MappingProxyType(rules)


_SERVER: tuple[tuple[Kind, str, tuple[int, ...]], ...] = (
    ("retry", "no_server", (29, 188)),
    ("retry", "no_trqauthd", (33, 160)),  # 33 (r)
    ("retry", "refused", (111,)),  # (r)
    ("retry", "no_route", (110, 113)),
    ("retry", "credential", (171, 173, 174)),
    ("retry", "no_connections", (187,)),
    ("retry", "shutting_down", (214,)),  # (r)
    ("unsure", "end_of_file", (67,)),
    ("unsure", "protocol", (185,)),
    ("unsure", "server_timeout", (237,)),
    ("unsure", "socket", (248,)),
)

QSUB = _table(
    ("done", "ok", (0,)),
    *_SERVER,
    ("permanent", "usage", (1, 2)),  # 1 2 (r)
    ("permanent", "syntax", (27,)),  # (r)
    ("permanent", "permission", (159,)),  # (r)
    ("permanent", "bad_value", (168,)),  # (r)
    ("permanent", "unknown_queue", (172,)),  # (r)
    ("permanent", "queue_disabled", (175, 184)),  # 175 (r)
    ("permanent", "queue_access", (176,)),
    ("permanent", "bad_user", (177,)),  # (r)
    ("permanent", "unknown_resource", (189,)),  # (r)
    ("permanent", "infeasible", (190,)),  # (r)
    ("permanent", "no_default_queue", (191,)),
    ("permanent", "route", (193,)),
    ("permanent", "bad_group", (199,)),
    ("permanent", "bad_account", (203,)),
    ("permanent", "dependency", (208,)),  # (r)
    ("wait", "queue_full", (200,)),  # (r)
    ("wait", "user_full", (228,)),  # (r)
)
QSUB_OTHERWISE = Rule(kind="unsure", reason="other", meaning="qsub ended with a code that is not known")

QUESTION = _table(
    ("done", "ok", (0,)),
    *_SERVER,
    ("gone", "unknown_job", (153,)),  # (r)
)
QUESTION_OTHERWISE = Rule(kind="retry", reason="other", meaning="the command failed")

QDEL = _table(
    ("done", "ok", (0,)),
    *_SERVER,
    ("gone", "unknown_job", (153,)),  # (r)
    ("gone", "ending_already", (170,)),  # (r)
    ("permanent", "permission", (159,)),  # (r)
    ("retry", "node_unreachable", (224,)),  # (r)
)
QDEL_OTHERWISE = Rule(kind="retry", reason="other", meaning="qdel failed")


def ending(exit_status: int | None) -> str:
    """The end of a completed job in words; empty where Torque recorded no status.

    Negative ones are the mom's own (walltime -11, memory -10, cpu time -12); 271 is TERM, which is how a
    job is deleted; above 256 it is the signal that ended the job, and a shell gives 128 and the signal of
    its last program.
    """
    if exit_status is None:
        return ""
    known = {-10: "memory", -11: "walltime", -12: "cpu time", 271: "deleted"}
    if exit_status in known:
        return known[exit_status]
    if exit_status < 0:
        return f"not started or not followed ({exit_status})"
    if exit_status > 256:
        return f"signal {exit_status - 256}"
    if 128 < exit_status < 128 + 65:
        return f"signal {exit_status - 128}"
    return f"exit {exit_status}"
