"""``tiltd why``."""

from __future__ import annotations

import argparse

from tiltd.daemon.text import one_line, shown

from .asking import add_connection, client_of, print_json
from .exits import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="id, series name, or the beginning of an id")
    add_connection(parser)


def main(args: argparse.Namespace) -> int:
    answer = client_of(args).get("why", args.dataset)
    if args.json:
        print_json(answer)
        return OK
    print(f"{answer['dataset_id'] or shown(answer['name'])}  {answer['state']}")
    for line in answer["lines"]:
        print(f"  {one_line(line)}")
    return OK
