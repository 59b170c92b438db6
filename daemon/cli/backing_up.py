"""``tiltd backup`` and ``tiltd restore``: the journal, copied while the daemon runs, and put back."""

from __future__ import annotations

import argparse
import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path

from tiltd.daemon.config import Settings
from tiltd.daemon.journal_file import JournalError, connect, copy_to, put_back
from tiltd.daemon.owning import StartError, own
from tiltd.daemon.text import shown

from .exits import FAILED, OK
from .running import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    if parser.prog.endswith("backup"):
        parser.description = (
            "Copy the journal, whole and as it is at one moment, into FOLDER; the daemon may run meanwhile. "
            "With --keep, the oldest of such copies go."
        )
        parser.add_argument("folder", metavar="FOLDER", help="where; made if it is not there")
        parser.add_argument(
            "--keep", type=int, default=0, metavar="N", help="keep the N newest copies there (default: all)"
        )
    else:
        parser.description = (
            "Put a copy back as the journal, while the daemon is stopped. The journal that was there stays "
            "beside it."
        )
        parser.add_argument(
            "copy", metavar="COPY", help="a path, or the name of a copy that lies in the state folder"
        )
    parser.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )


def main(args: argparse.Namespace) -> int:
    settings = load(args.config)
    if settings is None:
        return FAILED
    try:
        if "folder" in args:
            print(_backup(settings, Path(args.folder), args.keep))
        else:
            print(_restore(settings, args.copy))
    except (JournalError, StartError, OSError) as error:
        print(f"tiltd: {shown(str(error))}", file=sys.stderr)
        return FAILED
    return OK


def _backup(settings: Settings, folder: Path, keep: int) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    taken_at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = folder / f"journal-{taken_at}.sqlite"
    with contextlib.closing(connect(settings.journal, read_only=True)) as journal:
        size_bytes = copy_to(journal, target)
    for old in sorted(folder.glob("journal-*Z.sqlite"))[:-keep] if keep > 0 else []:
        old.unlink()
    return f"{target} ({size_bytes} bytes)"


def _restore(settings: Settings, name: str) -> str:
    """What stands in the state folder may be called by its name alone."""
    copy = Path(name)
    if not copy.exists() and copy.name == name:
        copy = settings.state_dir / name
    lock = own(settings.state_dir)
    try:
        replaced = put_back(copy, settings.journal)
    finally:
        lock.close()
    kept = f"; the one that was there is {replaced.name} now" if replaced else ""
    return (
        f"{settings.journal} is {copy.name}{kept}. Start the daemon: it takes over the jobs that run, finds "
        "the results that are published, and holds other series that this copy does not know"
    )
