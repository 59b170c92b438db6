"""``tiltd errors``: what the programs that tiltd runs say when something is wrong, and what to do."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator, Sequence

import msgspec

from tiltd.daemon import registry
from tiltd.daemon.text import one_line, shown
from tiltd.plugins.api import KnownError

from .asking import print_json
from .exits import FAILED, NOT_FOUND, OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("code", nargs="?", default="", metavar="CODE", help="this one, as tiltd show names it")
    add("--program", default="", metavar="NAME", help="of this program only")
    add("--class", dest="failure_class", default="", metavar="CLASS", help="of this class only")
    add("--match", default="", metavar="LINE", help="those that speak of this line of a log")
    add("--json", action="store_true", help="print JSON, for programs")


def main(args: argparse.Namespace) -> int:
    """Needs neither settings nor a daemon.  Exit code 4 if there is none that fits."""
    try:
        known = _known()
    except registry.RegistryError as error:
        print(f"tiltd errors: {error}", file=sys.stderr)
        return FAILED
    wanted = [(pipeline, error) for pipeline, error in known if _fits(error, args)]
    if not wanted:
        print(f"tiltd errors: {_none(args, known)}", file=sys.stderr)
        return NOT_FOUND
    if args.json:
        print_json({"errors": [{"pipeline": p, **msgspec.to_builtins(error)} for p, error in wanted]})
        return OK
    print("\n".join(_lines([error for _, error in wanted])))
    return OK


def _known() -> list[tuple[str, KnownError]]:
    """Of every installed pipeline that knows its program's messages.  Raises RegistryError."""
    return [
        (name, error)
        for name in registry.names("pipeline")
        for error in getattr(registry.factory("pipeline", name), "errors", ())
    ]


def _fits(error: KnownError, args: argparse.Namespace) -> bool:
    return (
        args.code in ("", error.code)
        and args.program in ("", error.program)
        and args.failure_class in ("", error.failure_class or "note")
        and (not args.match or bool(re.search(error.pattern, args.match)))
    )


def _none(args: argparse.Namespace, known: Sequence[tuple[str, KnownError]]) -> str:
    if args.code:
        near = difflib.get_close_matches(args.code, [error.code for _, error in known], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "tiltd errors lists all"
        return f"there is no entry {shown(args.code)!r}; {hint}"
    return "no entry fits; tiltd errors lists all"


def _lines(errors: Sequence[KnownError]) -> Iterator[str]:
    """By program, each with what it says, what that means and what to do."""
    for program in sorted({error.program for error in errors}):
        yield shown(program)
        for error in errors:
            if error.program == program:
                yield f"  {error.code} ({error.failure_class or 'note'})"
                yield f"    says    {one_line(error.pattern)}{_by_status(error)}"
                yield f"    means   {one_line(error.cause)}"
                yield f"    do      {one_line(error.remedy)}"
                yield f"    tiltd   {one_line(error.action)}"


def _by_status(error: KnownError) -> str:
    """Told by how the program ended, beside what it says."""
    return f" or exit status {' or '.join(map(str, error.exits))}" if error.exits else ""
