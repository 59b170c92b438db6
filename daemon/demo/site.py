"""A site of its own in one folder: feed, nodes, scratch, results, tiltd.toml and a policy in a hurry."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_MAX = 100
"""A unix socket's path may have 107 bytes (unix(7))."""


NODES = ("alpha", "beta")


@dataclass(frozen=True)
class Site:
    """Where everything is.  ``socket`` is elsewhere when the folder's path is too long for one.

    ``scratch_pattern`` has ``{node}`` for the name of a node; it is relative to ``folder``, or absolute.
    """

    folder: Path
    socket: Path
    nodes: tuple[str, ...] = NODES
    scratch_pattern: str = "scratch-{node}"

    @property
    def incoming(self) -> Path:
        return self.folder / "incoming"

    @property
    def results(self) -> Path:
        return self.folder / "tomograms"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "tiltd.toml"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.toml"

    @property
    def log(self) -> Path:
        return self.folder / "tiltd.log"

    def scratch(self, node: str) -> Path:
        return self.folder / self.scratch_pattern.format(node=node)


def fresh_folder(wanted: Path | None) -> Path:
    """``wanted``, which must be empty or not exist, or a new ``demo-tiltd-XXXXXXXX`` right here.

    Raises FileExistsError with a sentence, or OSError.
    """
    if wanted is None:
        return Path(tempfile.mkdtemp(prefix="demo-tiltd-", dir=Path.cwd()))
    wanted = wanted.absolute()
    if wanted.is_dir() and any(wanted.iterdir()):
        raise FileExistsError(f"{wanted} is not empty; name a folder that does not exist yet")
    wanted.mkdir(parents=True, exist_ok=True)
    return wanted


def lay_out(folder: Path, tilt_count: int, scratch_bytes: int) -> Site:
    """Make the folders and write the two files, for two nodes that are parts of this machine.

    ``scratch_bytes`` is the size of each node's scratch.
    """
    site = made(folder)
    for node in site.nodes:
        site.scratch(node).mkdir()
    write(site, tilt_count, "local", _local_nodes(site, scratch_bytes))
    return site


def made(folder: Path, nodes: tuple[str, ...] = NODES, scratch_pattern: str = "scratch-{node}") -> Site:
    """The site with its folders, without a scratch."""
    socket = folder / "state" / "tiltd.sock"
    if len(os.fsencode(socket)) > SOCKET_PATH_MAX:
        socket = Path(tempfile.mkdtemp(prefix="tiltd-")) / "tiltd.sock"
    site = Site(folder, socket, nodes, scratch_pattern)
    for path in (site.incoming, site.results, site.state):
        path.mkdir()
    return site


def write(site: Site, tilt_count: int, manager: str, tables: str) -> None:
    """tiltd.toml, with the resource manager's own ``tables``, and the policy."""
    site.config.write_text(_config(site, manager, tables), encoding="utf-8")
    site.policy.write_text(_policy(tilt_count), encoding="utf-8")


def _local_nodes(site: Site, scratch_bytes: int) -> str:
    cores = len(os.sched_getaffinity(0))
    shares = (max(1, (cores + 1) // 2), max(1, cores // 2))
    return "".join(
        f"""
[[local.node]]                     # a part of this machine
name = {quoted(node)}
cores = {min(share, 4)}
memory = 2_000_000_000             # bytes
scratch = {quoted(site.scratch(node))}
scratch_bytes = {scratch_bytes}         # room for one job and not for two
"""
        for node, share in zip(site.nodes, shares, strict=True)
    )


def _config(site: Site, manager: str, tables: str) -> str:
    return f"""# Written by `tiltd demo`; have a look, change it, and run the daemon again:
#   tiltd run --config {site.config.name}
state_dir = {quoted(site.state)}
policy_file = {quoted(site.policy)}
resource_manager = {quoted(manager)}

[listen]
port = 0                           # no TCP; the commands speak through the socket
socket = {quoted(site.socket)}

[[feed]]
name = "krios1"
path = {quoted(site.incoming)}
detector = "serialem"
pipeline = "wbp"
destination = {quoted(str(site.results) + "/{project}/{session}/{series}")}
pattern = "{{project}}/{{session}}"
labels = {{ microscope = "krios1" }}
scan_seconds = 0.5
{tables}
[poll]
jobs_seconds = 0.5
nodes_seconds = 1
spool_seconds = 0.2
"""


def _policy(tilt_count: int) -> str:
    return f"""# A microscope in a hurry: seconds where a real session takes minutes.  What is not
# here is as in the shipped policy.
[completeness]
quiet_min = "2s"
positive_sign = "1s"
planned_tilts = {tilt_count}                 # fewer are partial, once nothing changes for long
stale = "6s"
partial = "hold"

[placement]
scratch_margin = "1MB"
"""


def quoted(value: str | Path) -> str:
    """A TOML basic string.  Raises ValueError for a path that is no UTF-8, which TOML cannot hold."""
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("the demo's folder must have a name that is UTF-8; name another --folder") from None
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
