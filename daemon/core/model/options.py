"""Options as people write them in TOML."""

from __future__ import annotations

from typing import Any


def dotted(table: Any) -> Any:
    """Tables below an option become parts of its name, so that a key with dots needs no quotes.

    >>> dotted({"comparam": {"tilt": {"tilt": {"THICKNESS": 800}}}, "keep": "logs"})
    {'comparam.tilt.tilt.THICKNESS': 800, 'keep': 'logs'}
    """
    if not isinstance(table, dict):
        return table
    found: dict[Any, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            found |= {f"{key}.{below}": each for below, each in dotted(value).items()}
        else:
            found[key] = value
    return found
