"""The ledger: what is booked on a node, what others use of it, and so what is free."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from core.scene import node
from tiltd.daemon.core import ledger as rooms
from tiltd.daemon.core.ledger import Free, Ledger, OverCommit
from tiltd.daemon.core.model import NodeInfo, Reservation

TOTAL = 1000


def seen(at: float, free_bytes: int, **changes: Any) -> NodeInfo:
    """Node ``n1`` of 1000 bytes, 8 cores and 100 bytes of memory, as it was seen at ``at``."""
    known = {"scratch_total_bytes": TOTAL, "cores": 8, "cores_free": 8, "memory_bytes": 100}
    return node("n1", at, **(known | {"scratch_free_bytes": free_bytes} | changes))


def booking(attempt_id: str, reserved_bytes: int, node_name: str = "n1", **changes: Any) -> Reservation:
    known = {"cores": 2, "memory_bytes": 10, "reserved_at": 0.0}
    return Reservation(
        attempt_id=attempt_id, node=node_name, reserved_bytes=reserved_bytes, **(known | changes)
    )


def ledger(*observed: NodeInfo) -> Ledger:
    made = Ledger()
    for known in observed:
        made.observe(known)
    return made


# -- the formula -------------------------------------


def test_what_others_use_is_what_is_gone() -> None:
    now = seen(1.0, 700, cores_free=5)
    assert ledger(now).free(now) == Free(cores=5, memory_bytes=100, scratch_bytes=700)


def test_a_margin_is_kept_free() -> None:
    now = seen(1.0, 700)
    known = ledger(now)
    assert [known.free(now, margin).scratch_bytes for margin in (0, 100, 900)] == [700, 600, -200]


def test_a_booking_counts_at_once_whatever_the_node_says() -> None:
    now = seen(1.0, 700)
    known = ledger(now)
    known.book(booking("a", 300))
    assert known.free(now) == Free(cores=6, memory_bytes=90, scratch_bytes=400)
    later = seen(2.0, 700)
    known.observe(later)
    assert known.free(later).scratch_bytes == 400


def test_a_release_counts_at_once_whatever_the_node_says() -> None:
    known = ledger(seen(1.0, 700))
    known.book(booking("a", 300))
    known.materialised("a", "n1", 2.0)
    now = seen(3.0, 400, cores_free=6)
    known.observe(now)
    assert known.free(now) == Free(cores=6, memory_bytes=90, scratch_bytes=400)
    known.release("a", "n1")
    assert known.free(now) == Free(cores=8, memory_bytes=100, scratch_bytes=700)


@pytest.mark.parametrize(
    ("observed_at", "free_bytes", "expected"),
    [
        pytest.param(10.0, 700, 400, id="before its ballast stands, nothing of it is gone"),
        pytest.param(20.0, 700, 400, id="at that very moment it is not counted on"),
        pytest.param(21.0, 400, 400, id="after that it is in the node's figures"),
        pytest.param(21.0, 700, 700, id="a node that does not show it has others' space freed"),
        pytest.param(40.0, 700, 400, id="its files are gone again, though it is not released"),
    ],
)
def test_what_is_ours_of_the_gone_by_the_time_of_the_look(
    observed_at: float, free_bytes: int, expected: int
) -> None:
    known = ledger(seen(1.0, 700))
    known.book(booking("a", 300))
    known.materialised("a", "n1", 20.0)
    known.vanished("a", "n1", 40.0)
    now = seen(observed_at, free_bytes)
    known.observe(now)
    assert known.free(now).scratch_bytes == min(expected, TOTAL - 300)


@pytest.mark.parametrize("told_first", [True, False], ids=["told, then seen", "seen, then told"])
def test_the_order_of_the_two_witnesses_does_not_matter(told_first: bool) -> None:
    """The spool tells of the ballast a little later than the node shows it, or sooner."""
    known = ledger(seen(1.0, 700))
    known.book(booking("a", 300))
    now = seen(3.0, 400)
    if told_first:
        known.materialised("a", "n1", 2.0)
        known.observe(now)
    else:
        known.observe(now)
        known.materialised("a", "n1", 2.0)
    assert known.free(now).scratch_bytes == 400


def test_others_never_use_less_than_nothing() -> None:
    """An attempt that takes less than it booked leaves the rest booked."""
    known = ledger(seen(1.0, TOTAL))
    known.book(booking("a", 600, cores=4))
    known.materialised("a", "n1", 2.0)
    now = seen(3.0, 900)
    known.observe(now)
    assert known.free(now) == Free(cores=4, memory_bytes=90, scratch_bytes=400)


def test_a_node_of_which_nothing_was_seen_has_what_is_not_booked() -> None:
    known = Ledger()
    known.book(booking("a", 300))
    assert known.free(seen(1.0, 5)).scratch_bytes == 700


def test_the_first_word_of_its_ballast_counts_and_the_last_of_its_end() -> None:
    known = ledger(seen(1.0, TOTAL))
    known.book(booking("a", 300))
    known.materialised("a", "n1", 2.0)
    known.materialised("a", "n1", 50.0)
    now = seen(10.0, 700)
    known.observe(now)
    assert known.free(now).scratch_bytes == 700
    known.vanished("a", "n1", 5.0)  # at 10 they were gone: what is missing then is others'
    assert known.free(now).scratch_bytes == 400


# -- bookings -------------------------------------


def test_a_booking_done_twice_is_one_and_so_is_a_release() -> None:
    known = Ledger()
    for _ in range(2):
        known.book(booking("a", 300))
    assert known.reserved_bytes("n1") == 300
    assert known.booked == {"a": ("n1",)}
    known.materialised("a", "n1", 1.0)
    for _ in range(2):
        known.release("a", "n1")
    assert (known.reserved_bytes("n1"), known.booked, list(known.reservations())) == (0, {}, [])
    assert not known._windows, "nothing is remembered of what was released"


def test_an_attempt_on_several_nodes_is_released_node_by_node() -> None:
    known = Ledger()
    for name in ("n1", "n2"):
        known.book(booking("a", 300, name))
    known.release("a", "n1")
    assert known.booked == {"a": ("n2",)}
    assert (known.reserved_bytes("n1"), known.reserved_bytes("n2")) == (0, 300)


def test_a_stranded_result_keeps_its_scratch_alone() -> None:
    now = seen(1.0, TOTAL)
    known = ledger(now)
    known.book(booking("a", 300))
    known.only_scratch("a")
    known.only_scratch("unheard")
    assert known.free(now) == Free(cores=8, memory_bytes=100, scratch_bytes=700)


def test_what_is_to_be_booked_has_to_fit_to_the_byte() -> None:
    now = seen(1.0, 700)
    known = ledger(now)
    known.require(now, 700)
    with pytest.raises(OverCommit, match=r"^n1: 701 bytes of scratch were to be booked, only 700 are free$"):
        known.require(now, 701)


def test_two_ledgers_are_equal_if_the_same_is_booked() -> None:
    one, two = Ledger(), Ledger()
    for name in ("a", "b"):
        one.book(booking(name, 1))
    for name in ("b", "a"):
        two.book(booking(name, 1))
    two.observe(seen(1.0, 5))
    assert one == two
    two.release("a", "n1")
    assert one != two


# -- who has to be looked at again -------------------------------------


def test_the_same_answer_is_the_same_object_until_something_changes() -> None:
    now = seen(1.0, 700)
    known = ledger(now)
    first = known.free(now)
    later = seen(2.0, 700)
    known.observe(later)
    assert known.free(later) is first
    known.book(booking("a", 1))
    assert known.free(later) != first


def changed(known: Ledger, mark: rooms.Mark) -> list[str] | None:
    names, _ = known.changed_since(mark)
    return None if names is None else list(names)


def test_the_nodes_that_changed_since_a_mark_are_told() -> None:
    known = ledger(seen(1.0, 700))
    _, mark = known.changed_since((0, 0))
    known.observe(seen(2.0, 700))
    assert changed(known, mark) == []
    known.observe(seen(3.0, 600))
    known.book(booking("a", 1, "n2"))
    known.book(booking("a", 1, "n2"))
    assert changed(known, mark) == ["n1", "n2"]
    known.forget("n1")
    known.release("a", "n2")
    assert changed(known, mark) == ["n1", "n2"]


def test_a_node_that_can_take_another_kind_of_request_has_changed() -> None:
    known = ledger(seen(1.0, 700))
    for change in ({"state": "offline"}, {"properties": ("gpu",)}, {"memory_bytes": 5}):
        _, mark = known.changed_since((0, 0))
        known.observe(seen(2.0, 700, **change))
        assert changed(known, mark) == ["n1"], change


def test_whose_mark_is_too_old_has_to_look_at_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "LOG_MAX", 3)
    known = Ledger()
    _, mark = known.changed_since((0, 0))
    for number in range(4):
        known.book(booking(f"a{number}", 1, f"n{number}"))
    assert changed(known, mark) is None
    _, mark = known.changed_since(mark)
    assert changed(known, mark) == []


# -- whatever happens -------------------------------------

NAMES = ("a", "b", "c", "d")
deeds = st.lists(
    st.tuples(
        st.sampled_from(["book", "release", "materialised", "vanished", "observe"]),
        st.sampled_from(NAMES),
        st.integers(0, TOTAL),
    ),
    max_size=40,
)


class Plainly:
    """The formula of the ledger's docstring, worked out afresh every time."""

    def __init__(self, first: NodeInfo) -> None:
        self.node = first
        self.reserved: dict[str, int] = {}
        self.windows: dict[str, tuple[float, float]] = {}
        self.others = first.scratch_total_bytes - first.scratch_free_bytes

    def look(self) -> None:
        at = self.node.observed_at
        ours = sum(
            size
            for name, size in self.reserved.items()
            if name in self.windows and self.windows[name][0] < at < self.windows[name][1]
        )
        self.others = max(0, TOTAL - self.node.scratch_free_bytes - ours)

    def free_bytes(self) -> int:
        return TOTAL - self.others - sum(self.reserved.values())


@settings(max_examples=150, deadline=None)
@given(deeds)
def test_the_books_agree_with_the_formula_and_never_exceed_the_node(story: Any) -> None:
    known = ledger(seen(0.0, TOTAL))
    plain = Plainly(seen(0.0, TOTAL))
    for at, (deed, name, size) in enumerate(story, 1):
        match deed:
            case "book" if name not in plain.reserved:
                try:
                    known.require(plain.node, size)
                except OverCommit:
                    assert size > plain.free_bytes()
                    continue
                assert size <= plain.free_bytes()
                known.book(booking(name, size))
                plain.reserved[name] = size
            case "release":
                known.release(name, "n1")
                if plain.reserved.pop(name, None) is not None:
                    plain.windows.pop(name, None)
            case "materialised" if name in plain.reserved and name not in plain.windows:
                known.materialised(name, "n1", at - 0.5)
                plain.windows[name] = (at - 0.5, float("inf"))
                plain.look()
            case "vanished" if plain.windows.get(name, (0.0, 0.0))[1] == float("inf"):
                known.vanished(name, "n1", at - 0.5)
                plain.windows[name] = (plain.windows[name][0], at - 0.5)
                plain.look()
            case "observe":
                plain.node = replace(plain.node, observed_at=float(at), scratch_free_bytes=size)
                known.observe(plain.node)
                plain.look()
        assert known.free(plain.node).scratch_bytes == plain.free_bytes()
        assert known.reserved_bytes("n1") == sum(plain.reserved.values()) <= TOTAL
