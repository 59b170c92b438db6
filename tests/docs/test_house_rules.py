"""The rules of CONTRIBUTING.md that can be counted."""

from __future__ import annotations

import ast
from pathlib import Path

from docs.pages import tracked

FILE_LINES = 400
FUNCTION_LINES = 50
JUNK_ROOMS = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}


def sources(project: Path) -> list[str]:
    rooms = ("daemon/", "policy/", "plugins/")
    return [name for name in tracked(project) if name.startswith(rooms) and name.endswith(".py")]


def long_functions(text: str) -> list[str]:
    functions = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = ((node.name, (node.end_lineno or node.lineno) - node.lineno + 1) for node in functions)
    return [f"{name} has {lines} lines" for name, lines in lengths if lines > FUNCTION_LINES]


def test_files_and_functions_are_short(project: Path) -> None:
    faults = []
    for name in sources(project):
        text = (project / name).read_text(encoding="utf-8")
        lines = text.count("\n")
        # The runner has to be one file: it is copied to nodes that have nothing of tiltd.
        if lines > FILE_LINES and name != "daemon/runner.py":
            faults.append(f"{name} has {lines} lines, {FILE_LINES} are allowed")
        faults += [f"{name}: {fault}" for fault in long_functions(text)]
    assert not faults


def test_rooms_are_named_for_what_they_hold(project: Path) -> None:
    assert [name for name in sources(project) if Path(name).stem in JUNK_ROOMS] == []


def test_every_module_says_what_it_is(project: Path) -> None:
    trees = {name: ast.parse((project / name).read_text(encoding="utf-8")) for name in sources(project)}
    assert [name for name, tree in trees.items() if not ast.get_docstring(tree)] == []


def test_a_long_function_is_found() -> None:
    assert long_functions("def f():\n" + "    x = 1\n" * 60) == ["f has 61 lines"]
