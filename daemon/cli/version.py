"""``tiltd version``."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version

from .exits import OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "The version of tiltd and of the Python that runs it."


def main(args: argparse.Namespace) -> int:
    print(f"tiltd {version('tiltd')} (Python {platform.python_version()})")
    return OK
