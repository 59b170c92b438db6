"""``tiltd policy ...``: questions to the policy before it is live, and after."""

from __future__ import annotations

import argparse
import importlib

_CLI = "tiltd.daemon.cli"
QUESTIONS = {
    "check": (f"{_CLI}.policy_files", "judge policy files: every fault with its line"),
    "test": (f"{_CLI}.policy_files", "run the tests that the files have in them"),
    "reload": (f"{_CLI}.policy_files", "let the daemon read its policy again"),
    "explain": (f"{_CLI}.policy_explain", "what the policy makes of one dataset, and which line says so"),
    "diff": (f"{_CLI}.policy_trying", "what changes from one policy to another, and for which series"),
    "replay": (f"{_CLI}.policy_trying", "the history's arrivals under another policy, beside what happened"),
}
"""Question -> (module with ``add_QUESTION(parser)`` and ``QUESTION(args) -> int``, one line)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{parser.epilog}\n\nexit codes: 0 yes, 1 refused, failed or changed, 2 wrong usage"
    questions = parser.add_subparsers(metavar="QUESTION", required=True, dest="question")
    for name, (module, summary) in QUESTIONS.items():
        asked = questions.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        getattr(importlib.import_module(module), f"add_{name}")(asked)


def main(args: argparse.Namespace) -> int:
    module = importlib.import_module(QUESTIONS[args.question][0])
    return int(getattr(module, args.question)(args))
