"""The demo's cluster: a stand-in Torque with three pretend nodes, whose scratch fits two jobs at a time.

Nothing of it pretends to tiltd: it meets ``qsub``, ``qstat``, ``pbsnodes`` and ``qdel`` as on a cluster.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltd.daemon.standin.torque.records import Pretend
from tiltd.daemon.standin.torque.site import StandIn
from tiltd.daemon.told import lines

from .checks import Check
from .follow import Seen
from .site import Site, made, quoted, write

FULL_NODES = ("core-012", "core-014")
SMALL_NODE = "core-015"
AT_ONCE = len(FULL_NODES)
PASSED_ON = re.compile(r"[A-Za-z0-9_./+@%=~-]+")


class Cluster:
    """The stand-in, and what was seen of it while the series ran."""

    def __init__(self, folder: Path, tilt_count: int, scratch_bytes: int) -> None:
        """``scratch_bytes`` holds one job and not two; the third node has a third of it, and holds none.

        Raises ValueError for a folder whose name Torque's tools do not pass on, OSError.
        """
        if not PASSED_ON.fullmatch(str(folder)):
            raise ValueError(
                "the name of its folder has blanks or other characters that qsub does not pass on"
            )
        nodes = [Pretend(name, cores=16, scratch_bytes=scratch_bytes) for name in FULL_NODES]
        nodes.append(Pretend(SMALL_NODE, cores=8, scratch_bytes=scratch_bytes // 3))
        self.torque = StandIn(folder / "torque", nodes)
        self.site: Site = made(folder, tuple(node.name for node in nodes), self.torque.scratch)
        write(self.site, tilt_count, "torque", self._tables())
        self.waited: dict[str, str] = {}
        self.over_committed: list[str] = []

    def _tables(self) -> str:
        sets = "".join(
            f"""
[[torque.node]]
names = {quoted(node)}
mode = "pinned"                    # tiltd chooses the node; "floating" leaves it to Maui
scratch = {quoted(self.site.scratch(node))}
"""
            for node in self.site.nodes
        )
        return f"""
[torque]
path = {quoted(self.torque.bin)}   # where qsub, qstat, qdel and pbsnodes are
python = {quoted(sys.executable)}   # on the nodes; `wbp` needs one that has tiltd
properties = ["tomography"]
{sets}"""

    def watch(self, nodes: Mapping[str, Any], seen: Mapping[str, Seen]) -> None:
        """Note who waits and why, and whether anything was booked that is not there.

        ``nodes`` is the daemon's answer to that question.
        """
        for name, series in seen.items():
            # What a series waits for afterwards does not take back that it waited for scratch.
            told = "scratch" in self.waited.get(name, "")
            if series.state == "ready" and series.reason and not told:
                self.waited[name] = series.reason
        for node in nodes["nodes"]:
            if node["scratch_reserved_bytes"] > node["scratch_total_bytes"]:
                self.over_committed.append(f"{node['name']}: {node['scratch_reserved_bytes']} bytes booked")

    def checks(self) -> Iterator[Check]:
        """Whether the scratch was kept to.  Raises StandInFailed, OSError."""
        told = self.torque.do("told")
        sizes = {name: self._scratch_bytes(name) for name in told["nodes"]}
        filled = [
            f"{name}: {node['most_used_bytes']} of {sizes[name]} bytes"
            for name, node in told["nodes"].items()
            if node["most_used_bytes"] > sizes[name]
        ]
        yield Check(
            "no scratch was ever over-committed",
            not filled and not self.over_committed,
            "; ".join([*filled, *self.over_committed]),
        )
        most = most_at_once(held(self.site.state / "spool/attempts"))
        what = f"never more than {AT_ONCE} jobs held scratch at a time"
        yield Check(what, 0 < most <= AT_ONCE, f"{most} did")
        reasons = {name: why for name, why in self.waited.items() if "scratch" in why}
        said = "; ".join(f"{name}: {why}" for name, why in self.waited.items()) or "none waited"
        yield Check("who had to wait for scratch said so", bool(reasons), said)
        names = [job["name"] for job in told["jobs"]]
        yield Check("each job was submitted once", len(names) == len(set(names)), ", ".join(sorted(names)))

    def _scratch_bytes(self, node: str) -> int:
        return self.torque.nodes[node].scratch_bytes


def held(attempts: Path) -> list[tuple[float, float]]:
    """From when to when each attempt held scratch, as its runner told in the spool: from its claim until it
    had cleaned up, or for ever.  What its job does after that needs none."""
    spans = []
    for folder in sorted(attempts.iterdir()):
        told = {line.get("phase"): float(line.get("at", 0.0)) for line in lines(str(folder / "progress"))}
        if "claimed" in told:
            spans.append((told["claimed"], told.get("cleaned", math.inf)))
    return spans


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """How many of these overlap, at the most."""
    return max((sum(since <= at < until for since, until in spans) for at, _ in spans), default=0)
