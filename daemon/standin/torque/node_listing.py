"""Nodes as pbsnodes shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from .records import KILOBYTE, Node, ranges


def nodes_xml(nodes: Iterable[Node]) -> str:
    """``pbsnodes -x``: no XML declaration, one line and no newline at its end."""
    return f"<Data>{''.join(_node_xml(node) for node in nodes)}</Data>\n"


def _node_xml(node: Node) -> str:
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in _elements(node))
    return f"<Node><name>{node.name}</name>{inside}</Node>"


def nodes_text(nodes: Iterable[Node]) -> str:
    """``pbsnodes``, ``pbsnodes -a``."""
    return "".join(
        f"{node.name}\n" + "".join(f"     {name} = {value}\n" for name, value in _elements(node)) + "\n"
        for node in nodes
    )


def nodes_list(nodes: Iterable[Node], everything: bool, with_notes: bool) -> str:
    """``pbsnodes -l``: those that cannot be used; ``-l all``; ``-l -n``."""
    shown = [node for node in nodes if everything or node.shown_state() in ("down", "offline")]
    if with_notes:
        return "".join(f"{node.name:<20} {node.shown_state():<22} {node.note}\n" for node in shown)
    return "".join(f"{node.name:<20} {node.shown_state()}\n" for node in shown)


def _elements(node: Node) -> list[tuple[str, str]]:
    found = [
        ("state", node.shown_state()),
        ("power_state", "Running"),
        ("np", str(node.pretend.cores)),
        ("properties", ",".join(node.pretend.properties)),
        ("ntype", "cluster"),
        ("jobs", _jobs(node)),
        ("status", _status(node)),
        ("note", node.note),
        ("mom_service_port", "15002"),
        ("mom_manager_port", "15003"),
    ]
    return [(name, value) for name, value in found if value]


def _jobs(node: Node) -> str:
    """``0-3/81.torque-head,4/82.torque-head``."""
    by_job: dict[str, list[int]] = {}
    for processor, job_id in sorted(node.taken.items()):
        by_job.setdefault(job_id, []).append(processor)
    return ",".join(f"{ranges(tuple(taken))}/{job_id}" for job_id, taken in by_job.items())


def _status(node: Node) -> str:
    """What the mom told last: a node that is away is shown with it all the same."""
    sessions = [str(session) for session in node.told_sessions]
    memory = node.pretend.memory_bytes // KILOBYTE
    parts: Sequence[str] = [
        "opsys=linux",
        f"uname=Linux {node.name} 5.15.0 #1 SMP PREEMPT_DYNAMIC @0 x86_64",
        *([f"sessions={' '.join(sessions)}"] if sessions else []),
        f"nsessions={len(sessions)}",
        f"nusers={int(bool(sessions))}",
        "idletime=209843",
        f"totmem={memory}kb",
        f"availmem={memory}kb",
        f"physmem={memory}kb",
        f"ncpus={node.pretend.cores}",
        "loadave=0.00",
        "gres=",
        "netload=81085",
        *([_size(node)] if node.reports_size else []),
        "state=free",
        "varattr= ",
        "cpuclock=Fixed",
        "macaddr=4e:4c:a7:41:bc:8c",
        "version=6.1.3.h5",
        f"rectime={node.rectime}",
        f"jobs={' '.join(node.told_jobs)}",
    ]
    return ",".join(parts)


def _size(node: Node) -> str:
    return f"size={node.told_free_bytes // KILOBYTE}kb:{node.pretend.scratch_bytes // KILOBYTE}kb"
