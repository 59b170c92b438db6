"""This machine cut into one or several nodes: their settings, their cores, their scratch."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tiltd.daemon.core.model import NodeInfo, Record
from tiltd.daemon.core.units import parse_bytes
from tiltd.plugins.api import Context, Permanent

_NODE_KEYS = {"name", "cores", "memory", "scratch", "scratch_bytes"}
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class LocalNode(Record):
    """One ``[[local.node]]``.  ``cpus`` has one entry per core: the machine's core that stands for it
    (several for one where the nodes ask for more cores than there are).  ``scratch_bytes`` 0: no cap."""

    name: str
    cpus: tuple[int, ...]
    memory_bytes: int
    scratch_path: str
    scratch_bytes: int = 0

    @property
    def cores(self) -> int:
        return len(self.cpus)

    def pick(self, cores: int, taken: Iterable[int]) -> tuple[int, ...]:
        """Slots (indices into ``cpus``) for a job: free ones first, then the least used ones again."""
        used = Counter(taken)
        order = sorted(range(self.cores), key=lambda slot: (used[slot], slot))
        return tuple(sorted(order[: max(1, cores)]))


def local_nodes(settings: Mapping[str, Any], context: Context) -> tuple[LocalNode, ...]:
    """The nodes of the ``[local]`` table; without any, one named ``localhost`` with all there is.

    Sizes are as the file has them, "16GB", or plain numbers of bytes.  Raises Permanent.
    """
    tables = settings.get("node") or [{"name": "localhost"}]
    if not isinstance(tables, Sequence) or not all(isinstance(table, Mapping) for table in tables):
        raise Permanent("[local] node: must be tables, written [[local.node]]; mend tiltd.toml")
    machine_cpus = sorted(os.sched_getaffinity(0))
    nodes: list[LocalNode] = []
    cursor = 0
    for number, table in enumerate(tables, start=1):
        node = _node(
            table,
            f"[[local.node]] {number}",
            machine_cpus[cursor % len(machine_cpus) :] + machine_cpus,
            context,
        )
        if any(node.name == other.name for other in nodes):
            raise Permanent(f"[[local.node]] {number}: name {node.name!r} is taken already; names are unique")
        nodes.append(node)
        cursor += node.cores
    return tuple(nodes)


def _node(table: Mapping[str, Any], where: str, cpus: Sequence[int], context: Context) -> LocalNode:
    for key in sorted(set(table) - _NODE_KEYS):
        raise Permanent(f"{where}: unknown key {key!r}; known are {', '.join(sorted(_NODE_KEYS))}")
    name = table.get("name", "")
    if not isinstance(name, str) or not _NODE_NAME.fullmatch(name):
        raise Permanent(
            f"{where}: name must be 1 to 63 of A-Z a-z 0-9 . _ - and begin with a letter or digit"
        )
    scratch = str(table.get("scratch") or os.path.join(context.state_folder, "scratch"))
    if not scratch.startswith("/"):
        raise Permanent(f"{where}: scratch must be an absolute path, not {scratch!r}")
    ring = list(dict.fromkeys(cpus))
    cores = _number(table, "cores", where) or len(ring)
    return LocalNode(
        name=name,
        cpus=tuple(ring[index % len(ring)] for index in range(cores)),
        memory_bytes=_size(table, "memory", where) or psutil.virtual_memory().total,
        scratch_path=scratch,
        scratch_bytes=_size(table, "scratch_bytes", where),
    )


def _number(table: Mapping[str, Any], key: str, where: str) -> int:
    value = table.get(key)
    if value is None or value == "":
        return 0
    if not isinstance(value, bool) and isinstance(value, int) and 0 < value < 2**63:
        return value
    raise Permanent(f"{where}: {key} must be a whole number above 0, not {value!r}")


def _size(table: Mapping[str, Any], key: str, where: str) -> int:
    value = table.get(key)
    if value is None or value == "":
        return 0
    try:
        return parse_bytes(value)
    except (TypeError, ValueError) as error:
        raise Permanent(f"{where}: {key} {error}") from None


def node_info(node: LocalNode, cores_taken: int, shared_by: int, at: float) -> NodeInfo:
    """The node as it is now.  ``shared_by``: how many nodes without ``scratch_bytes`` use its file system
    (see :func:`sharers`); each counts on an equal part of it only.

    A node whose scratch folder cannot be made or written is offline, and ``comment`` says why.
    """
    total, free, comment = _scratch(node, shared_by)
    cores_free = max(0, node.cores - cores_taken)
    return NodeInfo(
        name=node.name,
        state="offline" if comment else "free" if cores_free else "busy",
        cores=node.cores,
        cores_free=cores_free,
        memory_bytes=node.memory_bytes,
        scratch_total_bytes=total,
        scratch_free_bytes=free,
        scratch_path=node.scratch_path,
        observed_at=at,
        comment=comment,
    )


def _scratch(node: LocalNode, shared_by: int) -> tuple[int, int, str]:
    """Total and free bytes, and what is wrong ("" if nothing)."""
    path = node.scratch_path
    try:
        # Only the last folder is made: a whole missing path is rather a file system that is not mounted.
        with contextlib.suppress(FileExistsError):
            Path(path).mkdir(0o755)
        found = os.statvfs(path)
        if not Path(path).is_dir():
            return 0, 0, f"scratch {path} is no folder; put a folder there"
        if not os.access(path, os.W_OK | os.X_OK):
            return 0, 0, f"scratch {path} cannot be written to by this user; change its owner or its mode"
        total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        if not node.scratch_bytes:
            return total // shared_by, free // shared_by, ""
        left = node.scratch_bytes - used_bytes(path)
        return min(total, node.scratch_bytes), max(0, min(free, left)), ""
    except OSError as error:
        return (
            0,
            0,
            f"scratch {path} cannot be used: {error.strerror}; make the folder or change [[local.node]]",
        )


def sharers(nodes: Sequence[LocalNode]) -> dict[str, int]:
    """Node name -> how many nodes without a cap of their own have their scratch on the same file system."""
    devices: dict[str, int] = {}
    for node in nodes:
        with contextlib.suppress(OSError):
            if not node.scratch_bytes:
                devices[node.name] = Path(node.scratch_path).stat().st_dev
    counts = Counter(devices.values())
    return {node.name: counts[devices[node.name]] if node.name in devices else 1 for node in nodes}


def used_bytes(folder: str) -> int:
    """Bytes allocated below a folder (blocks, so that ballast counts and holes do not); links are not
    followed, what vanishes meanwhile counts 0.  Cost grows with the number of files (some 5 us each)."""
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    total += used_bytes(entry.path)
    return total
