"""The desk that all rooms of the core work at: state, policy, clock time, and the facts of this step."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from msgspec.structs import replace

from tiltd.plugins.api import Pipeline

from . import facts as f
from .model import TERMINAL, Dataset, HoldCause, Notice, NoticeEvent, Policy, Record, State
from .site import Site
from .state import CoreState
from .transitions import IllegalTransition

Changed = Callable[[Dataset | None, Dataset | None], None]
Concerns = Callable[[State | None, State | None], bool]
"""(state before, state after) of a fact's dataset; ``None`` is "not in the working set"."""
WakeKey = tuple[str, ...]
Wake = tuple[float, WakeKey]
SOON_SECONDS = 64.0
"""Wake-ups that are farther away wait unsorted, those of one such span together: most of them are for
datasets that will have left by then, and are never sorted at all."""
LATER: WakeKey = ("later",)
OF_A_DATASET = frozenset({"dataset", "effect", "aged"})
"""Kinds of wake-up whose second word is a dataset's id (or empty: the notices')."""
BUGS_MAX = 100


class Bug(str):
    """The sentence of a bug, and the dataset that it is about (``""`` for none)."""

    dataset_id: str = ""


class Tidings(Record):
    """Something that people may want to hear of; see :meth:`Desk.notice`."""

    event: NoticeEvent
    summary: str
    about: str
    dataset: Dataset | None = None
    cause: str = ""
    remedy: str = ""
    feed: str = ""
    only_if_asked: bool = False
    known_cause: bool = False

    @property
    def notice_id(self) -> str:
        return f"{self.event}:{self.about}"

    def notice(self, at: float) -> Notice:
        """As it is told to the log at once."""
        dataset = self.dataset
        return Notice(
            notice_id=self.notice_id,
            event=self.event,
            summary=self.summary,
            dataset_id=dataset.dataset_id if dataset else "",
            project=dataset.project if dataset else "",
            session=dataset.session if dataset else "",
            name=dataset.tilt_series_name if dataset else "",
            feed=self.feed,
            remedy=self.remedy,
            due_at=at,
        )


HELD_UNTOLD = frozenset({"input_gone", "no_pipeline", "policy", "bug"})
"""Causes of holds of which no room makes a notice of its own: they are told if a rule asks for it."""


class Desk:
    """Shared by the rooms; only ``record`` changes the state, and only by a fact.

    ``records`` holds the last record of every dataset that this step changed; those that left are finalized.
    ``now`` is the time of the observation being handled: there is no other clock in the core.
    """

    def __init__(
        self, state: CoreState, policy: Policy, site: Site, pipelines: Mapping[str, Pipeline]
    ) -> None:
        self.state = state
        self.dataset = state.datasets.get
        """The live dataset of this id, or ``None``."""
        self.policy = policy
        self.site = site
        self.pipelines = pipelines
        self.now = 0.0
        self.bugs: list[Bug] = []
        self.facts: list[f.Fact] = []
        self.touched: dict[str, None] = {}
        self.records: dict[str, Dataset] = {}
        self.refusals: Counter[str] = Counter()
        self._listeners: list[tuple[Changed, Concerns]] = []
        self._concerned: dict[tuple[State | None, State | None], tuple[Changed, ...]] = {}
        self.tell: Callable[[Tidings], None] = self._tell_log
        self._wakes: list[Wake] = []
        self._asked_for: set[Wake] = set()
        self._later: dict[float, set[Wake]] = {}

    def record(self, fact: f.Fact) -> None:
        """Apply a fact and keep it for the journal.  Raises ``IllegalTransition``; nothing changed then."""
        before, after = self.state.apply(fact)
        self.facts.append(fact)
        if after is not None:
            self.records[after.dataset_id], now = after, after.state
            self.touched[after.dataset_id] = None
        elif before is not None:
            self.records[before.dataset_id], now = replace(before, finalized_at=fact.at), None
            self.touched[before.dataset_id] = None
        else:
            return  # it is about the facility
        was = before.state if before is not None else None
        try:
            concerned = self._concerned[was, now]
        except KeyError:
            concerned = self._concerned[was, now] = self._those_concerned(was, now)
        for changed in concerned:
            changed(before, after)

    def listen(self, changed: Changed, concerns: Concerns) -> None:
        """Have ``changed`` told of each fact between two states (or within one) that it ``concerns``, as the
        records before and after.  Who asked first is told first."""
        self._listeners.append((changed, concerns))
        self._concerned.clear()

    def _those_concerned(self, was: State | None, now: State | None) -> tuple[Changed, ...]:
        """Who is to be told; worked out once for each pair of states."""
        return tuple([changed for changed, concerns in self._listeners if concerns(was, now)])

    def begin(self, now: float) -> None:
        """A new step: nothing recorded yet."""
        self.now = now
        self.facts = []
        self.touched = {}
        self.records = {}

    def hold(self, dataset: Dataset, cause: HoldCause, detail: str, origin: str = "tiltd") -> None:
        """Place a hold, unless the very same stands already."""
        known = dataset.hold(cause)
        if known is not None and known.detail == detail:
            return
        dataset_id = dataset.dataset_id
        self.record(
            f.HoldPlaced(at=self.now, dataset_id=dataset_id, cause=cause, origin=origin, detail=detail)
        )
        if cause in HELD_UNTOLD:
            sentence = f"{dataset_id} is held: {detail}"
            self.notice("held", sentence, f"{dataset_id}:{detail}", dataset, cause=cause, only_if_asked=True)

    def lift(self, dataset: Dataset, cause: HoldCause, by: str = "tiltd") -> None:
        """Lift a hold, if it stands."""
        if dataset.hold(cause) is not None:
            self.record(f.HoldLifted(at=self.now, dataset_id=dataset.dataset_id, cause=cause, by=by))

    def notice(
        self,
        event: NoticeEvent,
        summary: str,
        about: str,
        dataset: Dataset | None = None,
        *,
        cause: str = "",
        remedy: str = "",
        feed: str = "",
        only_if_asked: bool = False,
        known_cause: bool = False,
    ) -> None:
        """A thing to be told once; ``about`` makes its id, so the same thing is told once.  ``cause`` parts
        what may be told together from what may not; ``only_if_asked``: it is no news unless a rule of the
        policy names it; ``known_cause``: those who are told at once heard of its breaker.  ``feed`` is for
        what is about no dataset."""
        self.tell(
            Tidings(
                event=event,
                summary=summary,
                about=about,
                dataset=dataset,
                cause=cause,
                remedy=remedy,
                feed=dataset.feed if dataset is not None else feed,
                only_if_asked=only_if_asked,
                known_cause=known_cause,
            )
        )

    def _tell_log(self, tidings: Tidings) -> None:
        if tidings.notice_id not in self.state.notices and not tidings.only_if_asked:
            self.record(f.NoticeDue(at=self.now, notice=tidings.notice(self.now)))

    def bug(self, error: Exception, dataset_id: str = "") -> None:
        """Keep a bug of ours in ``bugs``; the dataset it is about is held, and everything else goes on."""
        sentence = Bug(f"{error} ({type(error).__name__} in {_place(error)})")
        self.bugs.append(sentence)
        del self.bugs[:-BUGS_MAX]
        if isinstance(error, IllegalTransition):
            dataset_id = error.dataset_id
        sentence.dataset_id = dataset_id
        dataset = self.dataset(dataset_id)
        if dataset is not None and dataset.state not in TERMINAL:
            told = str(error) if isinstance(error, IllegalTransition) else str(sentence)
            self.hold(dataset, "bug", told)

    def wake(self, at: float, *key: str) -> None:
        """Ask to be looked at again at ``at``, twice is once.  A wake-up no longer needed is harmless."""
        wake = (at, key)
        if at < self.now + SOON_SECONDS:
            self._wake_soon(wake)
            return
        opens_at = at // SOON_SECONDS * SOON_SECONDS
        later = self._later.get(opens_at)
        if later is None:
            later = self._later[opens_at] = set()
            heapq.heappush(self._wakes, (opens_at, LATER))
        later.add(wake)

    def _wake_soon(self, wake: Wake) -> None:
        if wake not in self._asked_for:
            self._asked_for.add(wake)
            heapq.heappush(self._wakes, wake)

    @property
    def next_wake_at(self) -> float | None:
        """When something is to be looked at next."""
        return self.next_wake_by(float("inf"))

    def next_wake_by(self, latest_at: float) -> float | None:
        """When something is to be looked at next, if that is by ``latest_at``.  Wake-ups for datasets that
        have left are dropped here."""
        wakes = self._wakes
        while wakes and wakes[0][0] <= latest_at:
            at, key = wakes[0]
            if key is LATER:
                heapq.heappop(wakes)
                for wake in filter(self._still_wanted, self._later.pop(at)):
                    self._wake_soon(wake)
            elif self._still_wanted(wakes[0]):
                return at
            else:
                self._asked_for.discard(heapq.heappop(wakes))
        return None

    def _still_wanted(self, wake: Wake) -> bool:
        kind, about = wake[1][0], wake[1][-1]
        return kind not in OF_A_DATASET or not about or about in self.state.datasets

    def wakes(self) -> Iterator[Wake]:
        """Everything that was asked for and is still to come, in no order."""
        yield from (wake for wake in self._wakes if wake[1] is not LATER)
        for later in self._later.values():
            yield from later

    def due(self) -> list[WakeKey]:
        """All keys whose time has come, each once, earliest first."""
        keys: dict[WakeKey, None] = {}
        while self.next_wake_by(self.now) is not None:
            wake = heapq.heappop(self._wakes)
            self._asked_for.discard(wake)
            keys[wake[1]] = None
        return list(keys)


def _place(bug: Exception) -> str:
    """The function and line that raised."""
    at = bug.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return f"{at.tb_frame.f_code.co_qualname}, line {at.tb_lineno}" if at is not None else "?"
