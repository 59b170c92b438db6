"""Which runs there are to do, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tiltd.daemon.core.model import NodeInfo, Record


class Shape(Record, order=True):
    """``cores`` are on each node; ``threads`` those of programs that run once (OMP_NUM_THREADS)."""

    nodes: int
    cores: int
    threads: int

    @property
    def name(self) -> str:
        return f"n{self.nodes}c{self.cores}t{self.threads}"

    def __str__(self) -> str:
        return f"{self.nodes} x {self.cores} cores, {self.threads} threads"


class Planned(Record):
    """One run: of this shape the ``repeat``-th, from 1."""

    shape: Shape
    repeat: int

    @property
    def name(self) -> str:
        return f"r{self.repeat}"


def shapes(
    nodes: Iterable[int],
    cores: Iterable[int],
    threads: Iterable[int],
    known: Sequence[NodeInfo],
    *,
    one_node: bool = False,
) -> tuple[list[Shape], list[str]]:
    """The shapes that this cluster can run, and a sentence for each choice that it cannot.

    ``one_node``: the resource manager cannot run a job on several (``local``).  The daemon gives a job fewer
    cores and threads where a node has fewer: that would be measured twice.
    """
    usable = [node for node in known if node.state in ("free", "busy")]
    most_cores = max((node.cores for node in usable), default=0)
    most_nodes = min(1, len(usable)) if one_node else len(usable)
    why = "its resource manager runs a job on one node" if one_node else f"there are {len(usable)}"
    left_out = [f"{wanted} nodes: {why}" for wanted in sorted(set(nodes)) if wanted > most_nodes]
    for what, wanted in (("cores", cores), ("threads", threads)):
        left_out += [
            f"{each} {what}: no node has more than {most_cores} cores"
            for each in sorted(set(wanted))
            if each > most_cores
        ]
    found = []
    for count in sorted(each for each in set(nodes) if each <= most_nodes):
        fitting = sorted((node.cores for node in usable), reverse=True)[:count]
        for each in sorted(set(cores)):
            if each > fitting[-1]:
                if each <= most_cores:
                    left_out.append(f"{count} nodes of {each} cores: there are not so many")
                continue
            found += [
                Shape(nodes=count, cores=each, threads=number)
                for number in sorted(set(threads))
                if number <= fitting[-1]
            ]
    return found, left_out


def plan(chosen: Sequence[Shape], repeat: int) -> list[Planned]:
    """Repeat by repeat over all shapes, so that what drifts meanwhile (other users, a warm disk) falls on all
    of them alike."""
    return [Planned(shape=shape, repeat=number) for number in range(1, repeat + 1) for shape in chosen]
