"""What became of an action, told once, on the next page that the same visitor loads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from tiltd.daemon.core.model import Record

from .access import Principal

VISITORS_MAX = 500
SENTENCES_MAX = 12


class Notice(Record):
    ok: bool
    sentences: tuple[str, ...]
    more: int = 0


class Notices:
    """By visit; the oldest goes when there are too many."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, Notice] = OrderedDict()

    def put(self, principal: Principal, ok: bool, sentences: Sequence[str]) -> None:
        if not principal.anchor:
            return
        kept = tuple(sentences[:SENTENCES_MAX])
        self._waiting[principal.anchor] = Notice(ok=ok, sentences=kept, more=len(sentences) - len(kept))
        if len(self._waiting) > VISITORS_MAX:
            self._waiting.popitem(last=False)

    def take(self, principal: Principal) -> Notice | None:
        return self._waiting.pop(principal.anchor, None) if principal.anchor else None
