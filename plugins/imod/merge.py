"""Layers of directives laid over each other: which value counts, and who says so.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tiltd.daemon.core.model import Record
from tiltd.plugins.api import DirectiveRow

from .directives import Directive, Origin

LAYERS = (
    "scope template",
    "system template",
    "user template",
    "directive file",
    "dataset",
    "options",
    "feed",
    "policy",
    "operator",
    "tiltd",
)
"""Low to high.  The first four are batchruntomo's own order; what the series itself says (header, mdoc) wins
over files that were written for many series, and what a person set for feed, rule or series wins over that.
``options``: set by one of these three, which of them is not known.  ``tiltd``: what a run needs to work."""

TEMPLATES = ("scope template", "system template", "user template")


class Dropped(Record):
    """A directive that is not handed on, and why."""

    directive: Directive
    why: str


class Effective(Record):
    """What counts, by key in order of first appearance.  ``under`` are the values that were overruled, the
    nearest last."""

    directives: dict[str, Directive] = {}
    under: dict[str, tuple[Directive, ...]] = {}
    dropped: tuple[Dropped, ...] = ()

    def text(self, key: str) -> str:
        """The value as text; "" where it is not set."""
        return self.directives[key].value if key in self.directives else ""

    def has(self, key: str) -> bool:
        """Is it set, and not to nothing?"""
        return bool(self.text(key))

    def flag(self, key: str, default: bool = False) -> bool:
        """A Bool; what is no 0 or 1 counts as the default (validation has told it)."""
        return {"0": False, "1": True}.get(self.text(key), default)

    def whole(self, key: str, default: int = 0) -> int:
        """An Int, or the default."""
        return int(self.number(key, float(default)))

    def number(self, key: str, default: float = 0.0) -> float:
        """A Float, or the default where it is not set or no number below 10^9."""
        try:
            value = float(self.text(key))
        except ValueError:
            return default
        return value if abs(value) < 1e9 else default

    def rows(self) -> tuple[DirectiveRow, ...]:
        """For people: every directive with its origin and what it overruled, sorted by key."""
        return tuple(_row(each, self.under.get(key, ())) for key, each in sorted(self.directives.items()))


def merge(layers: Iterable[Iterable[Directive]]) -> Effective:
    """Later layers win, key by key; within a layer the last one.  Cost: the directives.

    A value that is the same again keeps the origin of the highest layer.
    """
    values: dict[str, Directive] = {}
    under: dict[str, tuple[Directive, ...]] = {}
    for layer in layers:
        for key, directive in {each.key: each for each in layer}.items():
            if key in values:
                under[key] = (*under.get(key, ()), values[key])
            values[key] = directive
    return Effective(directives=values, under=under)


def without(effective: Effective, keys: Iterable[str], why: str) -> Effective:
    """The same without these keys, which are told as dropped."""
    gone = [key for key in keys if key in effective.directives]
    dropped = tuple(Dropped(directive=effective.directives[key], why=why) for key in gone)
    kept = {key: each for key, each in effective.directives.items() if key not in gone}
    return Effective(directives=kept, under=effective.under, dropped=(*effective.dropped, *dropped))


def said(key: str, value: str, layer: str, source: str) -> Directive:
    """A directive that is not from a file."""
    return Directive(key=key, value=value, origin=Origin(layer=layer, source=source))


def _row(directive: Directive, under: tuple[Directive, ...]) -> DirectiveRow:
    return DirectiveRow(
        key=directive.key,
        value=directive.value,
        origin=str(directive.origin),
        layer=directive.origin.layer,
        overruled=tuple(f"{each.value} ({each.origin})" for each in reversed(under)),
    )
