"""``tiltd hold | release | retry | rerun | cancel | accept | prioritize``: datasets, or a selection."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from tiltd.daemon.client import Client
from tiltd.daemon.text import one_line

from .asking import add_connection, add_selection, client_of, print_json, selection_of
from .exits import FAILED, NOT_FOUND, OK, USAGE
from .tables import table

PART = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "datasets", nargs="*", metavar="DATASET", help="id, series name, or beginning of an id"
    )
    add_selection(parser)
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, do nothing")
    parser.add_argument("--yes", action="store_true", help="do it to more than one dataset without asking")
    parser.add_argument("--reason", default="", help="why; it is kept in the dataset's story")
    name = parser.prog.rpartition(" ")[2]
    if name == "rerun":
        parser.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", type=option, help="a pipeline option"
        )
    if name == "prioritize":
        parser.add_argument(
            "--priority", type=int, required=True, metavar="N", help="added to the policy's; 0 takes it back"
        )
    if name == "release":
        parser.add_argument(
            "--breaker", default="", metavar="SCOPE", help="close this breaker, e.g. node:n04"
        )
    add_connection(parser)


def option(text: str) -> tuple[str, str | int | float | bool]:
    """``KEY=VALUE``; true, false and numbers are what they look like, all else is text."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text!a} is not KEY=VALUE")
    if value in ("true", "false"):
        return key, value == "true"
    for number in (int, float):
        try:
            return key, number(value)
        except ValueError:
            continue
    return key, value


def main(args: argparse.Namespace) -> int:
    client, body = client_of(args), _body(args)
    if body is None:
        print(
            f"tiltd {args.command}: name datasets, or select some (--session ...), not both", file=sys.stderr
        )
        return USAGE
    if args.dry_run or len(args.datasets) == 1 or body["action"] == "close_breaker":
        return _told(client.post("actions", body), args)
    would = client.post("actions", body | {"dry_run": True})["results"]
    if len(would) > 1 and not args.yes and not _agreed(would, args):
        return FAILED
    return _told(_in_parts(client, body, [result["dataset_id"] for result in would]), args)


def _in_parts(client: Client, body: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    """Exactly the datasets that were shown, some at a time, with progress when they are many."""
    body = {key: value for key, value in body.items() if key != "selection"}
    answer: dict[str, Any] = {"action": body["action"], "dry_run": False, "results": []}
    for start in range(0, len(ids), PART):
        part = client.post("actions", body | {"datasets": ids[start : start + PART]})
        answer["results"] += part["results"]
        if len(ids) > PART:
            print(f"{len(answer['results'])} of {len(ids)}", file=sys.stderr)
    return answer


def _body(args: argparse.Namespace) -> dict[str, Any] | None:
    chosen = selection_of(args)
    body: dict[str, Any] = {"action": args.command, "reason": args.reason, "dry_run": args.dry_run}
    if getattr(args, "breaker", ""):
        return None if chosen or args.datasets else {"action": "close_breaker", "reason": args.breaker}
    if bool(chosen) == bool(args.datasets):
        return None
    if args.command == "rerun":
        body["options"] = dict(args.set)
    if args.command == "prioritize":
        body["priority"] = args.priority
    return body | ({"selection": chosen} if chosen else {"datasets": args.datasets})


def _agreed(results: list[dict[str, Any]], args: argparse.Namespace) -> bool:
    sys.stderr.write(_rows(results))
    question = f"{args.command} these {len(results)} datasets?"
    if not sys.stdin.isatty():
        print(f"{question} Nothing was done; add --yes to do it.", file=sys.stderr)
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _told(answer: dict[str, Any], args: argparse.Namespace) -> int:
    results = answer["results"]
    if args.json:
        print_json(answer)
    elif args.dry_run:
        sys.stdout.write(_rows(results))
    else:
        for result in results:
            print(one_line(result["message"]), file=sys.stdout if result["ok"] else sys.stderr)
    if not results:
        print("tiltd: the selection is empty; nothing was done", file=sys.stderr)
        return NOT_FOUND
    return OK if all(result["ok"] for result in results) else FAILED


def _rows(results: list[dict[str, Any]]) -> str:
    rows = [(r["dataset_id"], r["name"], r["state"], r["message"]) for r in results]
    return table(("DATASET", "NAME", "STATE", ""), rows)
