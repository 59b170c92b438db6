"""Draws the states of a dataset from the table in daemon/core/transitions.py into docs/architecture.md.

.venv/bin/python docs/draw_states.py            rewrite the part between the two markers
.venv/bin/python docs/draw_states.py --check    exit 1 if that part is not what the table says
"""

from __future__ import annotations

import sys
from pathlib import Path

from tiltd.daemon.core.model import State
from tiltd.daemon.core.transitions import TABLE

PAGE = Path(__file__).parent / "architecture.md"
BEGIN, END = "<!-- drawn by docs/draw_states.py: begin -->", "<!-- drawn by docs/draw_states.py: end -->"


def shown(state: State | None) -> str:
    return "[*]" if state is None else state.name


def rows() -> list[tuple[State | None, str, tuple[State | None, ...]]]:
    """The table by state, in the order in which a dataset meets them."""
    order: list[State | None] = [None, *State]
    found = [(state, fact.__name__, outcomes) for (state, fact), outcomes in TABLE.items()]
    return sorted(found, key=lambda row: order.index(row[0]))


def edges() -> dict[tuple[State | None, State | None], list[str]]:
    """The facts that lead from one state to another one."""
    found: dict[tuple[State | None, State | None], list[str]] = {}
    for state, fact, outcomes in rows():
        for outcome in outcomes:
            if outcome != state:
                found.setdefault((state, outcome), []).append(fact)
    return found


def drawn() -> str:
    lines = ["```mermaid", "stateDiagram-v2"]
    for (state, outcome), facts in edges().items():
        lines.append(f"    {shown(state)} --> {shown(outcome)}: {', '.join(facts)}")
    lines += ["```", "", "| in state | fact | next state |", "|---|---|---|"]
    for state, fact, outcomes in rows():
        following = " or ".join("the same" if outcome == state else shown(outcome) for outcome in outcomes)
        lines.append(f"| {shown(state)} | `{fact}` | {following} |")
    return "\n".join(lines)


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        print(f"{PAGE}: the markers {BEGIN} and {END} are not there", file=sys.stderr)
        return 1
    wanted = f"{before}{BEGIN}\n{drawn()}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if wanted != page:
            print(f"{PAGE} is not what the table says: run python {Path(__file__)}", file=sys.stderr)
        return int(wanted != page)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
