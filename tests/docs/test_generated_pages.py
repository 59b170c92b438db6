"""What is drawn from the code is what the code says; `make docs` draws all of it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = [
    "draw_states.py",
    "draw_layers.py",
    "draw_flow.py",
    "write_errors.py",
    "write_metrics.py",
    "write_directives.py",
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_is_what_the_code_says(project: Path, program: str) -> None:
    argv = [sys.executable, f"docs/{program}", "--check"]
    done = subprocess.run(argv, cwd=project, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


def test_make_docs_draws_all_that_is_checked(project: Path) -> None:
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    drawing = sorted(path.name for path in (project / "docs").glob("*.py"))
    assert drawing == sorted(PROGRAMS)
    assert [program for program in PROGRAMS if f"docs/{program}" not in makefile] == []
