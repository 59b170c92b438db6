"""What commands that speak to the daemon have in common: arguments, client, JSON."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from tiltd.daemon.client import Client, socket_path

STATES = (
    "arriving",
    "ready",
    "reserved",
    "queued",
    "running",
    "collecting",
    "delivered",
    "failed",
    "cancelled",
)


def add_connection(parser: argparse.ArgumentParser, prints_data: bool = True) -> None:
    group = parser.add_argument_group("the daemon")
    group.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )
    group.add_argument(
        "--socket", metavar="PATH", help="the daemon's unix socket, instead of what the file says"
    )
    if prints_data:
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("selection")
    group.add_argument("--feed", default="", help="of this feed")
    group.add_argument("--project", default="", help="of this project")
    group.add_argument("--session", default="", help="of this session")
    group.add_argument("--state", default="", help=f"in these states, by commas: {', '.join(STATES)}")
    group.add_argument("--name", default="", metavar="PATTERN", help="series names like this (* and ? match)")


def selection_of(args: argparse.Namespace) -> dict[str, str]:
    """The fields that were given."""
    names = ("feed", "project", "session", "state", "name")
    return {name: getattr(args, name) for name in names if getattr(args, name)}


def client_of(args: argparse.Namespace) -> Client:
    """Raises NotRunning for a configuration that cannot be read."""
    return Client(socket_path(args.socket, args.config))


def print_json(value: Any) -> None:
    """ASCII, so that any terminal and any name pass."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")
