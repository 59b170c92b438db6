"""``tiltd status`` and ``tiltd nodes``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tiltd.daemon.core.units import show_bytes, show_seconds
from tiltd.daemon.text import one_line, shown

from .asking import STATES, add_connection, client_of, print_json
from .exits import FAILED, OK
from .tables import table

FAULTS_MAX = 5
SHARES_MAX = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)


def main(args: argparse.Namespace) -> int:
    return _nodes(args) if args.command == "nodes" else _status(args)


def _status(args: argparse.Namespace) -> int:
    """Exit code 1 when the daemon is not ready."""
    status = client_of(args).get("status")
    if args.json:
        print_json(status)
    else:
        sys.stdout.write("\n".join(_status_lines(status)) + "\n")
    return OK if status["ready"] else FAILED


def _status_lines(status: dict[str, Any]) -> list[str]:
    states = status["states"]
    counted = ", ".join(f"{states[state]} {state}" for state in STATES if states.get(state))
    feeds = ", ".join(f"{shown(name)} {'up' if up else 'DOWN'}" for name, up in status["feeds_up"].items())
    nodes = ", ".join(f"{count} {state}" for state, count in sorted(status["nodes"].items()))
    manager = f"{status['resource_manager']} {'up' if status['resource_manager_up'] else 'DOWN'}"
    lines = [
        f"tiltd {status['version']} is {'ready' if status['ready'] else 'NOT ready'}",
        *(f"  {one_line(reason)}" for reason in status["reasons"]),
        f"datasets  {counted or 'none'}",
        f"feeds     {feeds or 'none seen yet'}",
        f"nodes     {nodes or 'none seen yet'} ({manager})",
        f"policy    {status['policy_version'] or 'none'}",
    ]
    if faults := status.get("policy_refused", []):
        lines[-1] += " stays in force: the files as they are now were refused"
        lines += [f"          {one_line(fault)}" for fault in faults[:FAULTS_MAX]]
        more = len(faults) - FAULTS_MAX
        lines += [f"          and {more} more; 'tiltd policy check' tells all"] if more > 0 else []
    lines += _share_lines(status.get("shares", []))
    if status["held"]:
        held = ", ".join(f"{count} {cause}" for cause, count in sorted(status["held"].items()))
        lines.append(f"held      {held}")
    if oldest := status["oldest_waiting"]:
        waited = show_seconds(max(0, round(oldest["seconds"])))
        lines.append(f"waiting   {shown(oldest['name'])} longest, for {waited} ({oldest['reason']})")
    return lines


def _share_lines(shares: list[dict[str, Any]]) -> list[str]:
    """Who has used how much of its share, the least served first."""
    told = [
        f"{shown(share['project']) or 'no project'} {share['used_core_seconds'] / 3600:.1f} core hours "
        f"(weight {share['weight']:g})"
        for share in shares[:SHARES_MAX]
    ]
    return [f"shares    {', '.join(told)}"] if told else []


def _nodes(args: argparse.Namespace) -> int:
    answer = client_of(args).get("nodes")
    if args.json:
        print_json(answer)
        return OK
    head = ("NODE", "STATE", "CORES", "BOOKED", "SCRATCH", "FREE", "BOOKED", "LEAKED", "ATTEMPTS")
    rows = [
        (
            node["name"],
            node["state"],
            str(node["cores"]),
            str(node["cores_reserved"]),
            show_bytes(node["scratch_total_bytes"]),
            show_bytes(node["scratch_free_bytes"]),
            show_bytes(node["scratch_reserved_bytes"]),
            show_bytes(node["scratch_leaked_bytes"]),
            str(len(node["attempts"])),
        )
        for node in answer["nodes"]
    ]
    sys.stdout.write(table(head, rows))
    booked = [booking for node in answer["nodes"] for booking in node["bookings"]]
    if booked:
        sys.stdout.write("\n" + table(_BY_WHOM, [_by_whom(booking, answer["now_at"]) for booking in booked]))
    for booking in booked:
        for why in booking["why"]:
            sys.stdout.write(f"{shown(booking['attempt_id'])} on {shown(booking['node'])}: {one_line(why)}\n")
    return OK


_BY_WHOM = ("NODE", "BOOKED BY", "PROJECT", "CORES", "SCRATCH", "FOR", "PLIGHT")


def _by_whom(booking: dict[str, Any], now: float) -> tuple[str, ...]:
    return (
        booking["node"],
        booking["attempt_id"],
        booking["project"],
        str(booking["cores"]),
        show_bytes(booking["scratch_bytes"]),
        show_seconds(max(0, round(now - booking["since_at"]))),
        booking["plight"],
    )
