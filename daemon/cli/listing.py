"""``tiltd list``."""

from __future__ import annotations

import argparse
import sys

from tiltd.daemon.core.units import show_seconds

from .asking import add_connection, add_selection, client_of, print_json, selection_of
from .exits import OK
from .tables import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--limit", type=int, default=500, metavar="N", help="at most so many (default: 500)")
    parser.add_argument(
        "--ignored", action="store_true", help="what was opened and is no tilt series, and why"
    )
    add_connection(parser)


def main(args: argparse.Namespace) -> int:
    if args.ignored:
        return _ignored(args)
    answer = client_of(args).get("datasets", **selection_of(args), limit=str(args.limit))
    if args.json:
        print_json(answer)
        return OK
    now = answer["now_at"]
    rows = [
        (
            each["dataset_id"],
            each["name"],
            each["feed"],
            each["state"],
            show_seconds(max(0, round(now - each["since_at"]))),
            " ".join(each["nodes"]) or "-",
            each["why"],
        )
        for each in answer["datasets"]
    ]
    sys.stdout.write(table(("DATASET", "NAME", "FEED", "STATE", "SINCE", "NODE", "WHY"), rows))
    if len(rows) == args.limit:
        print(f"Only the newest {args.limit} are shown; --limit shows more.", file=sys.stderr)
    return OK


def _ignored(args: argparse.Namespace) -> int:
    answer = client_of(args).get("ignored", feed=args.feed)
    if args.json:
        print_json(answer)
        return OK
    rows = [(each["feed"], each["series_key"], each["reason"], each["detail"]) for each in answer["ignored"]]
    sys.stdout.write(table(("FEED", "FILE", "REASON", ""), rows))
    return OK
