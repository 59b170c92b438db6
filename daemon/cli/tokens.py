"""``tiltd token add | list | revoke``: works on the file of tokens itself; the daemon notices."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from tiltd.daemon.client import config_file
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.core.units import parse_seconds
from tiltd.daemon.text import one_line, shown
from tiltd.daemon.tokens import TokenError, TokenFile

from .asking import print_json
from .exits import FAILED, NOT_FOUND, OK, USAGE
from .tables import instant, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tokens let people and programs read, or act, over TCP. The file keeps hashes: a token is shown "
        "once, when it is made."
    )
    parser.add_argument("what", choices=("add", "list", "revoke"))
    parser.add_argument("name", nargs="?", default="", help="of the token: whose it is, or what for")
    parser.add_argument("--act", action="store_true", help="it may act, not only read")
    parser.add_argument(
        "--project", action="append", default=[], help="it sees this project; may be repeated (default: all)"
    )
    parser.add_argument("--expires", type=span, metavar="SPAN", help="after so long (90d; default: never)")
    parser.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def span(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(args: argparse.Namespace) -> int:
    """Exit code 4 for a token that is not there."""
    if (args.what == "list") == bool(args.name):
        print("tiltd token: add and revoke take one name, list takes none", file=sys.stderr)
        return USAGE
    path = config_file(args.config)
    if path is None:
        print("tiltd token: no tiltd.toml here or in /etc/tiltd; name one by --config", file=sys.stderr)
        return USAGE
    try:
        return _done(args, path)
    except ConfigError as error:
        for sentence in error.sentences:
            print(f"tiltd token: {one_line(sentence)}", file=sys.stderr)
        return USAGE
    except TokenError as error:
        print(f"tiltd token: {one_line(str(error))}", file=sys.stderr)
        return FAILED


def _done(args: argparse.Namespace, path: Path) -> int:
    file = TokenFile(Settings.load(path).tokens_file)
    if args.what == "add":
        return _added(args, file)
    if args.what == "list":
        return _listed(file, args.json)
    if not file.revoke(args.name):
        print(f"tiltd token: there is no token {shown(args.name)}", file=sys.stderr)
        return NOT_FOUND
    print(f"the token {args.name} is revoked")
    return OK


def _added(args: argparse.Namespace, file: TokenFile) -> int:
    now = time.time()
    expires_at = now + args.expires if args.expires else 0.0
    secret = file.add(args.name, "act" if args.act else "read", args.project, now, expires_at)
    if args.json:
        print_json({"name": args.name, "token": secret})
    else:
        print(secret)
        print("Keep it now: it is shown this once.", file=sys.stderr)
    return OK


def _listed(file: TokenFile, as_json: bool) -> int:
    tokens = file.read()
    if as_json:
        print_json([{k: v for k, v in msgspec.to_builtins(t).items() if k != "sha256"} for t in tokens])
        return OK
    rows = [
        (
            token.name,
            token.rights,
            ", ".join(shown(project) for project in token.projects),
            instant(token.created_at),
            instant(token.expires_at) if token.expires_at else "never",
        )
        for token in tokens
    ]
    sys.stdout.write(table(("NAME", "MAY", "PROJECTS", "MADE", "EXPIRES"), rows))
    return OK
