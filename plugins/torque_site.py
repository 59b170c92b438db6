"""How a Torque site is set up, in words: the server, its queue, its nodes, and what Maui answers.

Only questions are asked, none of them needs a manager's rights, and none changes anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from tiltd.daemon.core.model import NodeInfo
from tiltd.daemon.core.units import show_bytes
from tiltd.daemon.text import shown
from tiltd.plugins.api import Finding, PluginError
from tiltd.plugins.commandline import CommandLine
from tiltd.plugins.torque_settings import TorqueSettings

KEEP_COMPLETED_SECONDS = 120
"""Twice the longest pause between two questions: shorter, a job's end may be forgotten before it is seen."""
SKEW_SECONDS = 60.0
REPORT_SECONDS = 300.0
"""A node reports every 45 s; from a clock or a report older than this nothing can be placed."""

Nodes = Callable[[], Awaitable[Sequence[NodeInfo]]]


async def examine(
    settings: TorqueSettings, commands: CommandLine, nodes: Nodes, now: Callable[[], float]
) -> list[Finding]:
    """Every finding; what could not be looked at is one too.  Costs five commands."""
    found: list[Finding] = []
    server = await _attributes(commands, settings, "-Bf", found)
    if server:
        found += _server(server)
        queues = await _attributes(commands, settings, "-Qf", found)
        name = settings.queue or server.get("default_queue", "")
        found += _queue(name, queues or {})
    found += await _nodes(settings, nodes, now)
    if settings.maui:
        found.append(await _maui(settings, commands))
    return found


async def _attributes(
    commands: CommandLine, settings: TorqueSettings, option: str, found: list[Finding]
) -> dict[str, str]:
    """Of the server, or ``QUEUE.attribute`` of all queues; empty, with a finding, without an answer."""
    what = f"qstat {option}"
    try:
        ran = await commands.run([settings.qstat, option], timeout_seconds=settings.timeout_seconds)
    except PluginError as error:
        found.append(_bad(what, f"{error}; install Torque's commands here, or set [torque] path"))
        return {}
    if ran.exit_code != 0 or ran.killed:
        said = "no answer in time" if ran.killed else f"code {ran.exit_code}: {shown(ran.said)}"
        found.append(_bad(what, f"{said}; is pbs_server up, and trqauthd on this machine?"))
        return {}
    values = attributes(ran.out.decode("utf-8", "replace"))
    if not values:
        found.append(_bad(what, "it answered with nothing that can be read"))
    return values


def attributes(text: str) -> dict[str, str]:
    """``Server:`` gives ``name``, ``Queue: q`` puts ``q.`` before the names below it.  A line that begins
    with a tab goes on with the one before."""
    values: dict[str, str] = {}
    prefix, last = "", ""
    for line in text.splitlines():
        if line.startswith("\t") and last:
            values[last] += line.strip()
        elif line.startswith("Queue:"):
            prefix = f"{line.partition(':')[2].strip()}."
            values[f"{prefix}name"] = prefix[:-1]
        elif " = " in line:
            key, _, value = line.strip().partition(" = ")
            last = f"{prefix}{key}"
            values[last] = value
    return values


def _server(server: dict[str, str]) -> Iterator[Finding]:
    state, version = server.get("server_state", "unknown"), server.get("pbs_version", "of no known version")
    up = state in ("Active", "Idle", "Scheduling") and server.get("scheduling", "True") == "True"
    detail = f"Torque {version} is {state}"
    yield (
        _good("server", detail) if up else _bad("server", f"{detail}, and does not schedule: qmgr tells why")
    )
    kept = server.get("keep_completed", "0")
    if kept.isdigit() and int(kept) >= KEEP_COMPLETED_SECONDS:
        yield _good("keep_completed", f"ended jobs stay listed for {kept} s")
    else:
        remedy = "qmgr -c 'set server keep_completed = 300'"
        yield _bad("keep_completed", f"ended jobs are forgotten after {shown(kept)} s: {remedy}")


def _queue(name: str, queues: dict[str, str]) -> Iterator[Finding]:
    what = f"queue {shown(name)}"
    if not name:
        yield _bad("queue", "the server has no default_queue: set [torque] queue")
    elif f"{name}.name" not in queues:
        known = sorted(value for key, value in queues.items() if key.endswith(".name"))
        yield _bad(what, f"there is no such queue; known are {', '.join(map(shown, known)) or 'none'}")
    elif "False" in (queues.get(f"{name}.enabled"), queues.get(f"{name}.started")):
        yield _bad(what, "it is not enabled and started: jobs would be refused, or wait for ever")
    else:
        limits = {
            key.removeprefix(f"{name}."): value
            for key, value in sorted(queues.items())
            if key.startswith((f"{name}.resources_max.", f"{name}.max_"))
        }
        told = ", ".join(f"{shown(key)} {shown(value)}" for key, value in limits.items())
        yield _good(what, f"it takes jobs; its limits: {told or 'none'}")


async def _nodes(settings: TorqueSettings, nodes: Nodes, now: Callable[[], float]) -> list[Finding]:
    try:
        seen = await nodes()
    except PluginError as error:
        return [_bad("pbsnodes", str(error))]
    if not seen:
        wanted = f" with the properties {', '.join(settings.properties)}" if settings.properties else ""
        return [_bad("nodes", f"there is no node{wanted}; see [torque] properties")]
    return [found for node in sorted(seen, key=lambda node: node.name) for found in _node(node, now())]


def _node(node: NodeInfo, now: float) -> Iterator[Finding]:
    what = f"node {shown(node.name)}"
    if node.state in ("down", "unknown"):
        yield _bad(what, f"it is {node.state}: is its pbs_mom up?")
        return
    mode = "the resource manager chooses it" if node.floating else "jobs are pinned to it"
    size = show_bytes(node.scratch_total_bytes)
    if node.scratch_total_bytes > 0:
        yield _good(
            what, f"{node.state}, {node.cores} cores, {size} of scratch in {node.scratch_path}; {mode}"
        )
    else:
        yield _bad(
            what,
            f"it does not report its scratch: put 'size[fs={node.scratch_path}]' into its mom's config, or "
            "say scratch_bytes in a [[torque.node]]",
        )
    age = now - node.observed_at
    if age < -SKEW_SECONDS:
        yield _bad(
            f"clock of {shown(node.name)}", f"its report is {-age:.0f} s in the future: set the clocks"
        )
    elif age > REPORT_SECONDS:
        yield _bad(
            f"clock of {shown(node.name)}", f"its last report is {age:.0f} s old, or the clocks differ"
        )


async def _maui(settings: TorqueSettings, commands: CommandLine) -> Finding:
    """Whether its commands are there at all: what is said of a job that does not exist does not matter."""
    try:
        ran = await commands.run([settings.checkjob, "0"], timeout_seconds=10.0)
    except PluginError as error:
        return _bad("Maui", f"{error}; set [torque] checkjob, or maui = false where there is no Maui")
    if ran.killed or "cannot connect" in f"{ran.out!r}{ran.err!r}".lower():
        return _bad("Maui", "checkjob does not reach it; jobs go on, only reasons are missing")
    return _good("Maui", "its commands answer; they are asked for reasons only")


def _good(what: str, detail: str) -> Finding:
    return Finding(what=what, ok=True, detail=detail)


def _bad(what: str, detail: str) -> Finding:
    return Finding(what=what, ok=False, detail=detail)
