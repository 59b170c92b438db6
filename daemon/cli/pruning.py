"""``tiltd prune``."""

from __future__ import annotations

import argparse
import sys

from tiltd.daemon.core.units import parse_seconds, show_bytes

from .asking import add_connection, client_of, print_json
from .exits import FAILED, OK, USAGE
from .tables import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Remove what is no longer needed. Shows what would go; --yes removes it. Pruned datasets stay known: "
        "their series are not run again. Published results go only when their datasets are named."
    )
    parser.add_argument(
        "--spool", action="store_true", help="spool folders of delivered and cancelled datasets"
    )
    parser.add_argument(
        "--attempts", action="store_true", help="spool folders (and logs) of failed datasets too"
    )
    parser.add_argument(
        "--imports", action="store_true", help="imported copies of the input of datasets that have ended"
    )
    parser.add_argument(
        "--journal", action="store_true", help="the stories (facts) of datasets that have ended"
    )
    parser.add_argument(
        "--results", nargs="+", default=[], metavar="DATASET", help="published results of these"
    )
    parser.add_argument(
        "--older-than",
        type=_span,
        default=30 * 86400.0,
        metavar="SPAN",
        help="ended so long ago (default: 30d)",
    )
    parser.add_argument("--yes", action="store_true", help="do it; without it nothing is removed")
    parser.add_argument("--dry-run", action="store_true", help="do nothing (as without --yes)")
    add_connection(parser)


def _span(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(args: argparse.Namespace) -> int:
    what = [kind for kind in ("spool", "attempts", "imports", "journal", "results") if getattr(args, kind)]
    if not what:
        print(
            "tiltd prune: say what: --spool, --attempts, --imports, --journal, --results DATASET",
            file=sys.stderr,
        )
        return USAGE
    dry_run = args.dry_run or not args.yes
    body = {"what": what, "datasets": args.results, "older_than_seconds": args.older_than, "dry_run": dry_run}
    answer = client_of(args).post("prune", body)
    found = answer["found"]
    if args.json:
        print_json(answer)
    else:
        rows = [
            (f["what"], f["dataset_id"], show_bytes(f["size_bytes"]), f["path"], f["trouble"]) for f in found
        ]
        sys.stdout.write(table(("WHAT", "DATASET", "SIZE", "PATH", "STAYS BECAUSE"), rows))
        goes = [each for each in found if not each["trouble"]]
        size = show_bytes(sum(each["size_bytes"] for each in goes))
        done = f"would be removed ({size}); add --yes to do it" if dry_run else f"removed ({size})"
        print(f"{len(goes)} of {len(found)} {done}")
    return FAILED if any(each["trouble"] for each in found) else OK
