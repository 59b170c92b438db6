"""Looking at folders the way ``tiltd check`` does: read a feed, write a probe elsewhere."""

from __future__ import annotations

import contextlib
import grp
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from tiltd.daemon.core.model import FilePrint, Fingerprint, Options, SeriesKind
from tiltd.daemon.journal_file import on_network
from tiltd.daemon.mounts import mount_of, network_mount
from tiltd.daemon.sample import SAMPLE
from tiltd.plugins.api import Permanent, Pipeline, takes

_FILES = tuple(f"s_{number:03d}.eer" for number in range(SAMPLE.tilt_count))
FRAMES = replace(
    SAMPLE,
    kind="frames",
    stack_path="",
    mdoc_path="s.mdoc",
    frame_paths=_FILES,
    fingerprint=Fingerprint(
        files=tuple(
            FilePrint(relative_path=name, size_bytes=130_000_000, piece_bytes=65536, head_sha256="")
            for name in ("s.mdoc", *_FILES)
        )
    ),
)
"""The same as a file of frames a tilt."""


class Check(NamedTuple):
    what: str
    ok: bool
    detail: str


def good(what: str, detail: str) -> Check:
    return Check(what, True, detail)


def bad(what: str, detail: str) -> Check:
    return Check(what, False, detail)


def probe_options(what: str, pipeline: Pipeline, options: Options, kind: SeriesKind = "stack") -> Check:
    """Would the pipeline take an ordinary series of that kind with these options?"""
    if not takes(pipeline, kind, options):
        return bad(
            what,
            "the feed's series are frames, and its pipeline takes stacks: give the option frames a program "
            "that makes a stack of them, or take a pipeline that has this option",
        )
    try:
        pipeline.request(SAMPLE if kind == "stack" else FRAMES, options)
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


def probe_local(what: str, journal: Path) -> Check:
    """Will it lie on a disk of this machine?"""
    if mount := network_mount(journal):
        return bad(what, on_network(journal, mount))
    mount = mount_of(journal)
    return good(what, f"{journal} lies on {mount.type if mount else 'a file system that cannot be told'}")


def probe_memory(what: str, wanted_bytes: int, root: Path = Path("/")) -> Check:
    """Local jobs run in the service's control group: may that have as much memory as the nodes promise?
    ``root`` has ``proc`` and ``sys``; only the unified hierarchy (cgroup v2) is looked at."""
    limit_bytes = None
    with contextlib.suppress(OSError, StopIteration):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        group = (
            root / "sys/fs/cgroup" / next(line[3:] for line in lines if line.startswith("0::")).lstrip("/")
        )
        # In a shell it is the limit of whoever logged in, which says nothing.
        for folder in (group, *group.parents) if group.suffix == ".service" else ():
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit, and the root has no such file
                found = int((folder / "memory.max").read_text())
                limit_bytes = found if limit_bytes is None else min(found, limit_bytes)
    if limit_bytes is not None and limit_bytes < wanted_bytes:
        return bad(
            what,
            f"this service and its jobs may use {limit_bytes} bytes in all, and [[local.node]] promises "
            f"{wanted_bytes}: copy drop-ins/local.conf beside the unit, or lower memory",
        )
    return good(what, f"nothing keeps the jobs from {wanted_bytes} bytes")


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
