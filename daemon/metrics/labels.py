"""Label values stay few and harmless, whatever the world calls things."""

from __future__ import annotations

import re

MAX_VALUES = 2000
"""Distinct values of one label before the rest becomes ``other``; a thousand nodes fit."""

LIMITS = {"step": 40, "code": 100}
"""Fewer of those that a program's output or a pipeline names."""


class BoundedLabels:
    """Remembers which values a label has had.  What is odd or too much becomes ``other``."""

    def __init__(self, max_values: int = MAX_VALUES) -> None:
        self._max_values = max_values
        self._known: dict[str, set[str]] = {}

    def value(self, label: str, raw: str) -> str:
        """``raw`` itself if it is a plain word of at most 100 characters and there is room for it."""
        known = self._known.setdefault(label, set())
        if raw in known:
            return raw
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", raw) or len(known) >= self._limit(label):
            return "other"
        known.add(raw)
        return raw

    def _limit(self, label: str) -> int:
        return min(self._max_values, LIMITS.get(label, self._max_values))
