"""``tiltd run``: the daemon itself, in the foreground."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from tiltd.daemon import logs
from tiltd.daemon.client import config_file
from tiltd.daemon.config import ConfigError, Settings

from .exits import FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )


def main(args: argparse.Namespace) -> int:
    settings = load(args.config)
    if settings is None:
        return FAILED
    logs.set_up(settings.log.format, settings.log.level)
    app = importlib.import_module("tiltd.daemon.app")
    os.chdir("/")  # where its commands are started too: it keeps no file system from being unmounted
    return int(app.run(settings))


def load(given: str | None) -> Settings | None:
    """The configuration, or ``None`` after its faults were printed."""
    path = config_file(given)
    if path is None:
        print(
            "tiltd: there is no tiltd.toml here or in /etc/tiltd; `tiltd init DIR` writes one",
            file=sys.stderr,
        )
        return None
    try:
        return Settings.load(path)
    except ConfigError as error:
        for sentence in error.sentences:
            print(sentence, file=sys.stderr)
        return None
