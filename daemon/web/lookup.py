"""Finding datasets by id, name or selection: live ones in memory, finished ones in the journal.

The journal is read by one worker thread of its own, so that a long question delays no one else.
"""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tiltd.daemon.core.model import TERMINAL, Dataset, Record, State
from tiltd.daemon.text import shown

from .access import Principal
from .refusal import Refusal
from .view import Daemon, row

Answer = TypeVar("Answer")
MAX_ROWS = 10_000


class Selection(Record):
    """Empty fields select everything; ``name`` is a shell-like pattern over series names, ``text`` a part of
    the name in any case of letters, or the beginning of the id; ``held`` takes only what is held and in the
    working set."""

    states: tuple[State, ...] = ()
    feed: str = ""
    project: str = ""
    session: str = ""
    name: str = ""
    text: str = ""
    held: bool = False
    limit: int = 500

    def takes(self, dataset: Dataset) -> bool:
        return (
            (not self.states or dataset.state in self.states)
            and (not self.held or bool(dataset.holds))
            and self.feed in ("", dataset.feed)
            and self.project in ("", dataset.project)
            and self.session in ("", dataset.session)
            and (not self.name or fnmatch.fnmatchcase(dataset.tilt_series_name, self.name))
            and (not self.text or self._has_text(dataset))
        )

    def _has_text(self, dataset: Dataset) -> bool:
        name = dataset.tilt_series_name.lower()
        return self.text.lower() in name or dataset.dataset_id.startswith(self.text)


Place = tuple[float, str]


def place(dataset: Dataset) -> Place:
    """Where it stands in a list: the newest change is the largest."""
    return dataset.state_since_at, dataset.dataset_id


class Lookup:
    """Cost of a question: one pass over the live datasets, and one indexed question to the journal."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._thread = ThreadPoolExecutor(1, "journal-reader")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def ask_journal(self, question: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, question)

    async def select(self, principal: Principal, selection: Selection) -> list[Dataset]:
        """What this one may see of it, newest change first."""
        found, _ = await self.page(principal, selection)
        return found

    async def page(
        self, principal: Principal, selection: Selection, before: Place | None = None
    ) -> tuple[list[Dataset], Place | None]:
        """``selection.limit`` of them behind the place ``before``, and the place of the last if there are
        more.  What is in memory is newer than the journal's row of it."""
        live = self.daemon.core.state.datasets
        found = [
            d
            for d in live.values()
            if selection.takes(d) and principal.sees(d) and (before is None or place(d) < before)
        ]
        states = set(selection.states)
        if not selection.held and (not states or TERMINAL & states or State.ARRIVING in states):
            rows = await self._finished(principal, selection, before)
            found += [
                d for d in rows if d.dataset_id not in live and selection.takes(d) and principal.sees(d)
            ]
        found.sort(key=place, reverse=True)
        page = found[: selection.limit]
        return page, (place(page[-1]) if len(found) > len(page) else None)

    async def _finished(
        self, principal: Principal, selection: Selection, before: Place | None
    ) -> list[Dataset]:
        reader = self.daemon.reader
        # A pattern is known to Python only: more rows are read than are shown.
        limit = MAX_ROWS if selection.name else selection.limit + 1
        return await self.ask_journal(
            lambda: list(
                reader.page(
                    states=[state.value for state in selection.states],
                    feed=selection.feed,
                    project=selection.project,
                    session=selection.session,
                    text=selection.text,
                    projects=principal.named,
                    before=before,
                    limit=limit,
                )
            )
        )

    async def one(self, principal: Principal, name: str) -> Dataset:
        """By id, else by the series' name, else by a prefix of the id that is unique.

        Of several runs and revisions of one series the newest is meant.  Raises Refusal: 404 for none (and
        for what this one may not see: there is no difference), 409 for several series, with the candidates.
        """
        live = self.daemon.core.state.datasets
        if name in live and principal.sees(live[name]):
            return live[name]
        reader = self.daemon.reader
        rows = await self.ask_journal(lambda: list(reader.find(name, projects=principal.named)))
        found = {d.dataset_id: d for d in rows}
        found |= {
            k: d for k, d in live.items() if k in found or d.tilt_series_name == name or k.startswith(name)
        }
        found = {k: d for k, d in found.items() if principal.sees(d)}
        if name in found:
            return found[name]
        named = [d for d in found.values() if d.tilt_series_name == name]
        candidates = named or [d for key, d in found.items() if key.startswith(name)]
        if not candidates or not name:
            raise Refusal(404, f"no dataset has the id or the name {shown(name)!r}; `tiltd list` shows them")
        if len({(d.feed, d.series_key) for d in candidates}) == 1:
            return max(candidates, key=lambda d: (d.revision, d.run))
        core, now = self.daemon.core, self.daemon.clock.now()
        raise Refusal(
            409,
            f"{shown(name)!r} means {len(candidates)} datasets; give one's id",
            candidates=[row(d, core, now) for d in candidates[:50]],
        )

    async def latest_run(self, dataset: Dataset) -> int:
        """The highest run number that this revision ever had."""
        reader = self.daemon.reader
        known = await self.ask_journal(lambda: reader.latest_run(dataset))
        same = (dataset.feed, dataset.series_key, dataset.revision)
        live = self.daemon.core.state.datasets.values()
        return max([dataset.run, known, *(d.run for d in live if (d.feed, d.series_key, d.revision) == same)])
