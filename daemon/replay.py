"""``tiltd replay JOURNAL``: fold a journal again, fact by fact, and hold it against its snapshot."""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from .core import facts as f
from .core.state import CoreState, Snapshot
from .core.transitions import IllegalTransition
from .journal import decode_fact
from .journal_file import JournalError, connect
from .text import shown
from .upcasters import SNAPSHOT, TooNew, upcast


class Replayed:
    """What a journal tells when it is read from its first fact.

    ``faults`` are sentences; a journal of which facts were pruned cannot be folded from the beginning, and
    says so in ``partial``.
    """

    def __init__(self) -> None:
        self.facts = 0
        self.kinds: Counter[str] = Counter()
        self.first_at = self.last_at = 0.0
        self.state = CoreState()
        self.faults: list[str] = []
        self.partial = False

    def as_json(self) -> dict[str, Any]:
        states = Counter(dataset.state.value for dataset in self.state.datasets.values())
        return {
            "facts": self.facts,
            "kinds": dict(sorted(self.kinds.items())),
            "first_at": self.first_at,
            "last_at": self.last_at,
            "live": len(self.state.datasets),
            "live_states": dict(sorted(states.items())),
            "reservations": len(list(self.state.ledger.reservations())),
            "whole": not self.partial,
            "faults": self.faults,
        }


def read(connection: sqlite3.Connection) -> Iterator[tuple[int, f.Fact]]:
    """All facts in their order.  Raises TooNew and whatever decoding raises, with the fact's number."""
    rows = connection.execute("SELECT seq, kind, version, body FROM facts ORDER BY seq")
    for seq, kind, version, body in rows:
        try:
            yield seq, decode_fact(kind, version, body)
        except (ValueError, KeyError, msgspec.ValidationError) as error:
            raise JournalError(f"fact {seq} ({kind}, version {version}) cannot be read: {error}") from None


def replay(path: Path) -> Replayed:
    """Fold it from the first fact.  Raises JournalError and TooNew; costs every fact once."""
    connection = connect(path, read_only=True)
    found = Replayed()
    at_rest = _snapshot(connection)
    count, first, last = connection.execute("SELECT count(*), min(seq), max(seq) FROM facts").fetchone()
    found.partial = bool(count) and (first != 1 or last - first + 1 != count)
    if found.partial and at_rest is not None:
        found.state = CoreState.restore(at_rest)
    for seq, fact in read(connection):
        found.facts += 1
        found.kinds[type(fact).__name__] += 1
        found.first_at = found.first_at or fact.at
        found.last_at = max(found.last_at, fact.at)
        if found.partial and at_rest is not None and seq <= at_rest.sequence:
            continue
        _apply(found, seq, fact)
        if at_rest is not None and seq == at_rest.sequence and found.state.snapshot(seq) != at_rest:
            found.faults.append(f"the snapshot at fact {seq} is not what the facts before it come to")
    connection.close()
    return found


def _apply(found: Replayed, seq: int, fact: f.Fact) -> None:
    try:
        found.state.apply(fact)
    except IllegalTransition as illegal:
        found.faults.append(f"fact {seq}: {illegal}")


def _snapshot(connection: sqlite3.Connection) -> Snapshot | None:
    row = connection.execute("SELECT version, body FROM snapshot").fetchone()
    if row is None:
        return None
    return msgspec.convert(upcast(SNAPSHOT, row[0], json.loads(row[1])), Snapshot)


def story(path: Path, dataset_id: str) -> list[tuple[int, f.Fact]]:
    """The facts of one dataset, in their order."""
    connection = connect(path, read_only=True)
    rows = connection.execute(
        "SELECT seq, kind, version, body FROM facts WHERE dataset_id = ? ORDER BY seq", (dataset_id,)
    ).fetchall()
    connection.close()
    return [(seq, decode_fact(kind, version, body)) for seq, kind, version, body in rows]


# -- the command ---------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("journal", type=Path, help="journal.sqlite, or the state folder that holds it")
    parser.add_argument("--dataset", metavar="ID", help="tell the story of one dataset instead")
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    path = args.journal / "journal.sqlite" if args.journal.is_dir() else args.journal
    try:
        if args.dataset:
            return _tell(story(path, args.dataset), args.dataset, as_json=args.json)
        found = replay(path)
    except (JournalError, TooNew, sqlite3.Error) as error:
        print(f"tiltd replay: {shown(str(path))}: {shown(str(error))}", file=sys.stderr)
        return 1
    print(json.dumps(found.as_json()) if args.json else _table(found))
    return 1 if found.faults else 0


def _tell(facts: list[tuple[int, f.Fact]], dataset_id: str, *, as_json: bool) -> int:
    if not facts:
        print(f"tiltd replay: the journal has no fact about {shown(dataset_id)}", file=sys.stderr)
        return 4
    for seq, fact in facts:
        body = msgspec.to_builtins(fact)
        if as_json:
            print(json.dumps({"seq": seq, **body}))
        else:
            rest = {name: value for name, value in body.items() if name not in ("kind", "at", "dataset_id")}
            print(f"{seq:8} {_civil(fact.at)} {type(fact).__name__} {shown(json.dumps(rest))[:200]}")
    return 0


def _table(found: Replayed) -> str:
    figures = found.as_json()
    lines = [
        f"facts         {figures['facts']}, from {_civil(found.first_at)} to {_civil(found.last_at)}",
        f"live          {figures['live']} datasets, {figures['reservations']} reservations",
    ]
    lines += [f"  {kind:24} {count}" for kind, count in figures["kinds"].items()]
    if found.partial:
        lines.append("Facts were pruned: folded from the snapshot on; what is older was only read.")
    lines += [f"FAULT: {shown(fault)}" for fault in found.faults]
    lines.append("Every fact is legal." if not found.faults else f"{len(found.faults)} faults.")
    return "\n".join(lines)


def _civil(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
