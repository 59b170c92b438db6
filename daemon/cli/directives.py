"""``tiltd directives show | explain | check``: what steers a pipeline such as batchruntomo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tiltd.daemon import registry
from tiltd.daemon.client import config_file
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.text import one_line, shown
from tiltd.plugins.api import Context, DirectiveBook, DirectiveFault, Permanent

from .asking import add_connection, client_of, print_json
from .exits import FAILED, NOT_FOUND, OK, USAGE

PIPELINE = "batchruntomo"
MAX_FILE_BYTES = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        f"{parser.epilog}\n\nexit codes: 0 good, 1 a fault, 2 wrong usage, 3 no daemon, 4 not found"
    )
    questions = parser.add_subparsers(metavar="QUESTION", required=True, dest="question")

    show = questions.add_parser("show", help="the directives of a series, and who set each of them")
    show.add_argument("dataset", metavar="DATASET", help="id, series name, or the beginning of an id")
    show.add_argument("--all", action="store_true", help="with the values that were overruled")
    add_connection(show)

    explain = questions.add_parser("explain", help="what a directive means, its type and its choices")
    explain.add_argument("key", metavar="KEY", help="the whole key, or its end, such as THICKNESS")

    check = questions.add_parser("check", help="every fault of directive files and templates")
    check.add_argument("files", nargs="+", metavar="FILE")
    check.add_argument("--template", action="store_true", help="they are templates, not directive files")
    for each in (explain, check):
        each.add_argument(
            "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
        )
        each.add_argument(
            "--pipeline", default=PIPELINE, metavar="NAME", help=f"whose directives (default: {PIPELINE})"
        )
        each.add_argument("--json", action="store_true", help="print JSON, for programs")


def main(args: argparse.Namespace) -> int:
    return {"show": show, "explain": explain, "check": check}[args.question](args)


def show(args: argparse.Namespace) -> int:
    """Exit code 1 if a run would be refused for them."""
    answer = client_of(args).get("datasets", args.dataset, "directives")
    if args.json:
        print_json(answer)
    else:
        for line in _lines(answer, args.all):
            print(line)
    return FAILED if any(fault["severity"] == "error" for fault in answer["faults"]) else OK


def explain(args: argparse.Namespace) -> int:
    try:
        lines = _book(args).explained(args.key)
    except _NoBook as error:
        return _usage(error)
    except Permanent as error:
        print(f"tiltd directives explain: {one_line(str(error))}", file=sys.stderr)
        return NOT_FOUND
    if args.json:
        print_json({"key": lines[0], "lines": list(lines)})
    else:
        print("\n".join(one_line(line) for line in lines))
    return OK


def check(args: argparse.Namespace) -> int:
    """Exit code 1 if there is a fault; warnings alone are none."""
    try:
        book = _book(args)
    except _NoBook as error:
        return _usage(error)
    faults: list[DirectiveFault] = []
    for name in args.files:
        text, trouble = _text(Path(name))
        faults += [trouble] if trouble else book.checked(text, name, args.template)
    errors = sum(fault.severity == "error" for fault in faults)
    if args.json:
        print_json({"ok": not errors, "faults": [msgspec.to_builtins(fault) for fault in faults]})
    else:
        for fault in faults:
            print(_fault(msgspec.to_builtins(fault)))
        print(f"{len(args.files)} files, {errors} faults, {len(faults) - errors} warnings")
    return FAILED if errors else OK


class _NoBook(Exception):
    """No pipeline could be asked; one sentence."""


def _usage(error: _NoBook) -> int:
    print(f"tiltd directives: {one_line(str(error))}", file=sys.stderr)
    return USAGE


def _book(args: argparse.Namespace) -> DirectiveBook:
    """Of the pipeline as the site has set it up; without any tiltd.toml, of the pipeline as it is."""
    path = config_file(args.config)
    context = Context(state_folder="", spool_folder="", journal_id="question", owner="")
    try:
        table = Settings.load(path).table(args.pipeline) if path is not None else {}
        pipeline = registry.make("pipeline", args.pipeline, table, context)
    except (ConfigError, registry.RegistryError) as error:
        raise _NoBook(str(error)) from None
    book: DirectiveBook | None = getattr(pipeline, "directives", None)
    if book is None:
        raise _NoBook(f"the pipeline {args.pipeline} takes no directives")
    return book


def _text(path: Path) -> tuple[str, DirectiveFault | None]:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        return "", DirectiveFault(file=str(path), sentence=f"cannot be read: {error.strerror}")
    if len(content) > MAX_FILE_BYTES:
        return "", DirectiveFault(file=str(path), sentence=f"has more than {MAX_FILE_BYTES} bytes")
    return content.decode("utf-8", "surrogateescape"), None


def _lines(answer: dict[str, Any], overruled: bool) -> Iterator[str]:
    yield f"{answer['dataset_id']} ({answer['state']}), pipeline {shown(answer['pipeline'])}"
    rows = answer["directives"]
    width = min(60, max((len(row["key"]) for row in rows), default=0))
    values = min(30, max((len(row["value"]) for row in rows), default=0))
    for row in rows:
        set_to = f"{shown(row['key']):{width}} = {shown(row['value']):{values}}"
        yield f"  {set_to}  {one_line(row['origin'])}".rstrip()
        if overruled:
            yield from (f"  {'':{width}}   not {one_line(old)}" for old in row["overruled"])
    yield from _told(answer["faults"])


def _told(faults: Sequence[dict[str, Any]]) -> Iterator[str]:
    errors = sum(fault["severity"] == "error" for fault in faults)
    if faults:
        yield f"{errors} faults, {len(faults) - errors} warnings"
        yield from (f"  {_fault(fault)}" for fault in faults)


def _fault(fault: dict[str, Any]) -> str:
    """``FILE:LINE: KEY SENTENCE``, as one line."""
    line = f":{fault['line']}" if fault["line"] else ""
    where = f"{shown(fault['file'])}{line}: " if fault["file"] else ""
    mark = "warning: " if fault["severity"] == "warning" else ""
    key = f"{shown(fault['key'])} " if fault["key"] else ""
    return f"{where}{mark}{key}{one_line(fault['sentence'])}"
