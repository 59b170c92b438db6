"""Which effects are under way: the difference between what is outstanding and what was started.

Memory, not history: after a restart nothing is under way, so everything outstanding is started again.
"""

from __future__ import annotations

from msgspec.structs import replace

from . import effects as e
from . import observations as o
from .desk import Desk
from .model import TERMINAL, Dataset, Record
from .outstanding import notices_to_send, outstanding_of

BACKOFF_SECONDS = (2.0, 5.0, 15.0, 60.0, 120.0, 300.0)
REPEAT_SECONDS = 60.0


class UnderWay(Record):
    """One started effect.  ``failures`` counts troubled answers in a row; ``again_at`` is when to repeat
    it, ``None`` while it is being performed."""

    failures: int = 0
    again_at: float | None = None
    trouble: str = ""


class Performing:
    """Starts each outstanding effect once, and again after trouble, with growing pauses."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._started: dict[str, dict[e.Effect, UnderWay]] = {}
        self._turns = 0

    def difference(self) -> tuple[list[e.Effect], list[Dataset]]:
        """Effects to start now, for the datasets touched in this step and the notices that are due; and those
        of the datasets that are terminal and ask for nothing any more.

        Costs the touched datasets, and the unsent notices if one of them turned.
        """
        state, started, feeds = self._desk.state, self._started, self._desk.site.feeds
        starts: list[e.Effect] = []
        over: list[Dataset] = []
        for owner in self._desk.touched:
            if not owner:
                continue  # the notices', below
            dataset = state.datasets.get(owner)
            wanted = outstanding_of(dataset, state.ledger.booked, feeds) if dataset is not None else []
            if wanted or owner in started:
                starts += self._hold_against(owner, wanted)
            if not wanted and dataset is not None and dataset.state in TERMINAL:
                over.append(dataset)
        if self._turns != state.board.turns or "" in self._desk.touched:
            self._turns = state.board.turns
            notices = notices_to_send(state)
            if notices or "" in started:
                starts += self._hold_against("", notices)
        return starts, over

    def _hold_against(self, owner: str, wanted: list[e.Effect]) -> list[e.Effect]:
        if not wanted:
            del self._started[owner]
            return wanted
        known = self._started.get(owner)
        if known is None:
            self._started[owner] = dict.fromkeys(wanted, _STARTED)
            return wanted
        kept = {effect: known.get(effect, _NEW) for effect in wanted}
        starts = []
        for effect, under_way in kept.items():
            if under_way is _NEW or (under_way.again_at is not None and under_way.again_at <= self._desk.now):
                kept[effect] = replace(under_way, again_at=None)
                starts.append(effect)
            elif under_way.again_at is not None:
                self._desk.wake(under_way.again_at, "effect", owner)
        self._started[owner] = kept
        return starts

    def answered(self, owner: str, effect: e.Effect, answer: o.Answer) -> None:
        """An answer came.  If the effect stays outstanding it is repeated: soon after trouble, with a
        growing pause; else after ``REPEAT_SECONDS`` (a cancel that has not ended the job yet).

        For a submission that is to come again at some time (a queue is full), that time counts alone: the
        resource manager's plugin lengthens its own pauses, for all together, and a series must not wait for
        most of an hour because it met a full queue a dozen times."""
        started = self._started.get(owner, _NOTHING)
        under_way = started.get(effect)
        if under_way is None:
            return
        failures, pause = 0, REPEAT_SECONDS
        if answer.trouble:
            failures = under_way.failures + 1
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1]
        if isinstance(answer, o.SubmitAnswered) and answer.retry_seconds > 0:
            pause = BACKOFF_SECONDS[0]
        if answer.retry_seconds > pause:
            pause = answer.retry_seconds
        again_at = self._desk.now + pause
        started[effect] = UnderWay(failures=failures, again_at=again_at, trouble=answer.trouble)
        self._desk.touched[owner] = None  # if it stays outstanding, ``difference`` asks for the wake-up

    def troubles(self, dataset_id: str) -> list[str]:
        """What went wrong with the effects of a dataset that are still to be repeated."""
        return [
            f"{type(effect).__name__}: {under_way.trouble} (tried {under_way.failures} times)"
            for effect, under_way in self._started.get(dataset_id, {}).items()
            if under_way.trouble
        ]

    def hurry(self, effect: e.ReleaseScratch) -> None:
        """What stood in its way is over: if it had trouble, it is tried now, and its pauses begin anew."""
        under_way = self._started.get(effect.dataset_id, {}).get(effect)
        if under_way is not None and under_way.again_at is not None and under_way.trouble:
            again = replace(under_way, failures=0, again_at=self._desk.now)
            self._started[effect.dataset_id][effect] = again
            self._desk.touched[effect.dataset_id] = None

    def troubles_of(self, owner: str, effect: e.Effect) -> list[str]:
        """What went wrong with this one, the last time."""
        under_way = self._started.get(owner, {}).get(effect)
        return [under_way.trouble] if under_way is not None and under_way.trouble else []

    @property
    def under_way(self) -> frozenset[e.Effect]:
        """Everything started and still outstanding."""
        return frozenset(effect for effects in self._started.values() for effect in effects)


_NEW = UnderWay(again_at=0.0)
_STARTED = UnderWay()
_NOTHING: dict[e.Effect, UnderWay] = {}
