"""From the first word of the command line to the code of that command."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from typing import NoReturn

from .commands import COMMANDS, Command
from .exits import FAILED, INTERRUPTED, OK, USAGE

HEAD = "usage: tiltd COMMAND [...]\n\nA resource-aware job daemon for electron tomography.\n\ncommands:\n"
TAIL = """
`tiltd COMMAND --help` explains one. The configuration is --config FILE, $TILTD_CONFIG, ./tiltd.toml or
/etc/tiltd/tiltd.toml. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the daemon is not running,
4 not found.
"""


def dispatch(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return OK if arguments else USAGE
    name = "version" if arguments[0] in ("-V", "--version") else arguments[0]
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`tiltd --help` lists them"
        print(f"tiltd: there is no command {name!a}; {hint}", file=sys.stderr)
        return USAGE
    return _run(command, arguments[1:])


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command.name:{width}}  {command.summary}\n" for command in COMMANDS.values()]
    return HEAD + "".join(lines) + TAIL


def parser_of(command: Command) -> argparse.ArgumentParser:
    """Imports the command's code.  Raises ImportError for a command that this installation lacks."""
    module = importlib.import_module(command.module)
    parser = argparse.ArgumentParser(
        prog=f"tiltd {command.name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n" + "\n".join(f"  {example}" for example in command.examples),
        allow_abbrev=False,
    )
    parser.set_defaults(command=command.name, main=module.main)
    module.add_arguments(parser)
    return parser


def _run(command: Command, arguments: list[str]) -> int:
    from tiltd.daemon.client import Answered, NotRunning

    from .exits import told

    try:
        parser = parser_of(command)
    except ModuleNotFoundError as error:
        print(f"tiltd {command.name} is not part of this installation (no {error.name})", file=sys.stderr)
        return FAILED
    args = parser.parse_args(arguments)
    try:
        return int(args.main(args) or OK)
    except (NotRunning, Answered) as error:
        return told(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _leave_quietly()


def _leave_quietly() -> NoReturn:
    """The reader of our output went away (``tiltd list | head``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(OK)
