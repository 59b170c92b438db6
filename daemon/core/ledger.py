"""The ledger of scratch, cores and memory: what is booked on each node, by which attempt.

Resource managers over-commit scratch (the torque notes measured it), so the real reservation is ours.
A reservation is made by the fact ``Placed`` and ends by ``ScratchReleased``; it outlives its dataset and
stays while a node is unreachable.

What others use of a node is what was observed to be gone less what ours had already taken at that moment:

    others    = total - free at observed_at - sum(ours materialised at observed_at), at least 0
    available = total - others - sum(ours reserved) - margin

so a release counts at once and a reservation counts from the moment it is booked, whatever the node's own
figures still say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from .model import NodeInfo, Record, Reservation

LOG_MAX = 8192
Place = tuple[str, str]
"""An attempt's id and a node: a job may stand on one of its nodes, or on another than before."""
Mark = tuple[int, int]
"""A place in the log of changed nodes."""


class OverCommit(Exception):
    """A booking that the node cannot hold: a bug of ours, never a state of the world."""


class Free(Record):
    """What a node could still give to one more attempt."""

    cores: int
    memory_bytes: int
    scratch_bytes: int


class Ledger:
    """All reservations, with a sum per node so that a question costs no more than a node's own attempts."""

    def __init__(self) -> None:
        self.booked: dict[str, tuple[str, ...]] = {}
        """Attempt id -> the nodes where it holds a reservation."""
        self._by_node: dict[str, dict[str, Reservation]] = {}
        self._windows: dict[Place, tuple[float, float | None]] = {}
        self._others: dict[str, tuple[int, int]] = {}
        """Cores and bytes of scratch of a node that are gone, and not to ours."""
        self._nodes: dict[str, NodeInfo] = {}
        self._free: dict[str, tuple[NodeInfo, int, Free]] = {}
        self._stale: set[str] = set()
        self._log: list[str] = []
        self._log_number = 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and list(self.reservations()) == list(other.reservations())

    __hash__ = None  # type: ignore[assignment]

    def reservations(self) -> Iterator[Reservation]:
        """In the order of nodes and attempts, so that two ledgers can be compared."""
        for _, booked in sorted(self._by_node.items()):
            yield from (booked[attempt_id] for attempt_id in sorted(booked))

    def of(self, node: str) -> dict[str, Reservation]:
        """Attempt id -> reservation on this node."""
        return self._by_node.get(node, {})

    def reserved_bytes(self, node: str) -> int:
        return sum(reservation.reserved_bytes for reservation in self.of(node).values())

    # -- facts ------------------------------------------------------------------------------------

    def book(self, reservation: Reservation) -> None:
        """Record it.  Doing it twice is once.  Whether it fits was decided before (``require``)."""
        attempt_id, node = reservation.attempt_id, reservation.node
        self._by_node.setdefault(node, {})[attempt_id] = reservation
        self._touch(node)
        known = self.booked.get(attempt_id)
        self.booked[attempt_id] = (*[other for other in known if other != node], node) if known else (node,)

    def release(self, attempt_id: str, node: str) -> None:
        """Give it back.  Releasing what is not reserved is fine."""
        self._touch(node)
        booked = self._by_node.get(node, {})
        booked.pop(attempt_id, None)
        self._windows.pop((attempt_id, node), None)
        if not booked:
            self._by_node.pop(node, None)
        left = tuple([known for known in self.booked.get(attempt_id, ()) if known != node])
        if left:
            self.booked[attempt_id] = left
        else:
            self.booked.pop(attempt_id, None)

    def only_scratch(self, attempt_id: str) -> None:
        """Its job is over and its result stays on scratch: cores and memory are free again."""
        for node in self.booked.get(attempt_id, ()):
            self._touch(node)
            booked = self._by_node[node]
            booked[attempt_id] = replace(booked[attempt_id], cores=0, memory_bytes=0)

    # -- what is seen (memory, not history) ----------------------------------------------------------

    def observe(self, node: NodeInfo) -> None:
        """Take a node's own figures and work out what others use of it.

        A poll that tells nothing new about a node's room makes nobody look at it again.
        """
        known, known_others = self._nodes.get(node.name), self._others.get(node.name)
        self._nodes[node.name] = node
        cores = node.cores - node.cores_free
        scratch_bytes = node.scratch_total_bytes - node.scratch_free_bytes
        for ours in self.of(node.name).values():
            if self._materialised(ours, node.observed_at):
                cores -= ours.cores
                scratch_bytes -= ours.reserved_bytes
        others = (cores if cores > 0 else 0, scratch_bytes if scratch_bytes > 0 else 0)
        if known is None or known_others != others:
            self._others[node.name] = others
            self._touch(node.name)
        elif known is not node and not _alike(known, node):
            self._touch(node.name)

    def forget(self, node: str) -> None:
        self._nodes.pop(node, None)
        self._others.pop(node, None)
        self._free.pop(node, None)
        self._touch(node)

    def materialised(self, attempt_id: str, node: str, at: float) -> None:
        """From ``at`` on the attempt's ballast stands on the node, and so in the node's free bytes.

        The first word counts; a look at the node that was sooner here than the word is gone over again.
        """
        if (attempt_id, node) not in self._windows:
            self._windows[attempt_id, node] = (at, None)
            if node in self._nodes and self._nodes[node].observed_at > at:
                self.observe(self._nodes[node])

    def restarted(self, attempt_id: str) -> None:
        """It went back into the queue: what it had taken is no longer there, and its next run begins anew."""
        for node in self.booked.get(attempt_id, ()):
            self._windows.pop((attempt_id, node), None)
            if node in self._nodes:
                self.observe(self._nodes[node])

    def vanished(self, attempt_id: str, node: str, at: float) -> None:
        """From ``at`` on the attempt's files are gone again, though it is not yet released."""
        begin, _ = self._windows.get((attempt_id, node), (at, at))
        self._windows[attempt_id, node] = (begin, at)
        if node in self._nodes and self._nodes[node].observed_at >= at:
            self.observe(self._nodes[node])

    def _materialised(self, booked: Reservation, at: float) -> bool:
        window = self._windows.get((booked.attempt_id, booked.node))
        return window is not None and window[0] < at and (window[1] is None or at < window[1])

    # -- questions -----------------------------------------------------------------------------------

    def free(self, node: NodeInfo, margin_bytes: int = 0) -> Free:
        """What one more attempt could have there.

        Costs the attempts booked on this node if one of them or its figures changed, else a look-up; while
        the answer is the same it is the same object.
        """
        known = self._free.get(node.name)
        if (
            known is not None
            and node.name not in self._stale
            and known[0] is node
            and known[1] == margin_bytes
        ):
            return known[2]
        free = self._work_out(node, margin_bytes)
        if known is not None and known[2] == free:
            free = known[2]
        self._free[node.name] = (node, margin_bytes, free)
        self._stale.discard(node.name)
        return free

    def _touch(self, node: str) -> None:
        self._stale.add(node)
        if len(self._log) >= LOG_MAX:
            self._log.clear()
            self._log_number += 1
        self._log.append(node)

    def changed_since(self, mark: Mark) -> tuple[Iterable[str] | None, Mark]:
        """The nodes whose room may have changed since ``mark`` (``None``: any node), and a new mark."""
        now = (self._log_number, len(self._log))
        return (dict.fromkeys(self._log[mark[1] :]) if mark[0] == now[0] else None), now

    def _work_out(self, node: NodeInfo, margin_bytes: int) -> Free:
        cores, memory_bytes = node.cores, node.memory_bytes
        scratch_bytes = node.scratch_total_bytes - margin_bytes
        if (others := self._others.get(node.name)) is not None:
            cores -= others[0]
            scratch_bytes -= others[1]
        for booked in self.of(node.name).values():
            cores -= booked.cores
            memory_bytes -= booked.memory_bytes
            scratch_bytes -= booked.reserved_bytes
        return Free(cores=cores, memory_bytes=memory_bytes, scratch_bytes=scratch_bytes)

    def require(self, node: NodeInfo, reserved_bytes: int, margin_bytes: int = 0) -> None:
        """Raises :class:`OverCommit` if booking this much would exceed what the node has free, the margin
        included: it is named so that what :meth:`free` worked out with it need not be worked out again."""
        free = self.free(node, margin_bytes).scratch_bytes + margin_bytes
        if reserved_bytes > free:
            raise OverCommit(
                f"{node.name}: {reserved_bytes} bytes of scratch were to be booked, only {free} are free"
            )


def _alike(one: NodeInfo, other: NodeInfo) -> bool:
    """In what decides what a node can take, beside its free room."""
    return (
        one.state == other.state
        and one.cores == other.cores
        and one.memory_bytes == other.memory_bytes
        and one.scratch_total_bytes == other.scratch_total_bytes
        and one.properties == other.properties
    )
