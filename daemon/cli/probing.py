"""Looking at folders the way ``tiltd check`` does: read a feed, write a probe elsewhere."""

from __future__ import annotations

import grp
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from tiltd.daemon.core.model import Options
from tiltd.daemon.sample import SAMPLE
from tiltd.plugins.api import Permanent, Pipeline


class Check(NamedTuple):
    what: str
    ok: bool
    detail: str


def good(what: str, detail: str) -> Check:
    return Check(what, True, detail)


def bad(what: str, detail: str) -> Check:
    return Check(what, False, detail)


def probe_options(what: str, pipeline: Pipeline, options: Options) -> Check:
    """Would the pipeline take an ordinary series with these options?"""
    try:
        pipeline.request(SAMPLE, options)
    except Permanent as error:
        return bad(what, str(error))
    return good(what, ", ".join(f"{key}={value}" for key, value in options.items()))


def probe_feed(what: str, folder: Path) -> Check:
    """Can it be listed?  Nothing is ever written here."""
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except OSError as error:
        return bad(what, f"{folder} cannot be read ({error.strerror}); mount it, or let this user read it")
    return good(what, f"{folder} can be read")


def probe_writable(what: str, folder: Path) -> Check:
    """Can a file be made, synced and removed there?  A folder that is not there yet will be made by
    tiltd, so the nearest one above it is probed."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(prefix=".tiltd-check-", dir=there) as probe:
            probe.write(b"tiltd")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return bad(
            what, f"{there} cannot be written ({error.strerror}); let this user write it, or make room"
        )
    return good(what, f"{folder} can be written" if there == folder else f"{folder} can be made")


def probe_group(group: str) -> Check:
    what = f"group {group}"
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        return bad(what, "there is no such group; mend group in [publish]")
    if os.geteuid() != 0 and gid not in {os.getgid(), *os.getgroups()}:
        return bad(
            what, "this user is not in it, so results cannot be given to it; add the user to the group"
        )
    return good(what, "results can be given to it")
