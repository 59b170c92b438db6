"""What tiltd itself knows of directives, from ``known.toml`` beside this file, read once."""

from __future__ import annotations

from importlib import resources

import tomli

from .csv_table import Entry, Table, choices_of


def _read() -> Table:
    text = resources.files(__package__).joinpath("known.toml").read_text(encoding="utf-8")
    entries = {
        key: Entry(
            key=key,
            definition=told["is"],
            type=told["type"],
            batch="B" in told["in"],
            template="T" in told["in"],
            section=section,
            choices=choices_of(told.get("choices", "")),
            ours=told.get("note", ""),
        )
        for section, directives in tomli.loads(text).items()
        for key, told in directives.items()
    }
    return Table(entries=entries, source="tiltd's own table")


KNOWN = _read()
