"""docs/spool.md names every key that daemon, runner and result exchange."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from docs.pages import pages
from tiltd.daemon.core.model import Progress, RunEnd
from tiltd.daemon.core.model.job import RunOutcome


def keys_returned(file: Path, function: str) -> list[str]:
    """Keys of the dictionary that a function returns."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            found = [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
            return [
                str(key.value)
                for value in found
                if isinstance(value, ast.Dict)
                for key in value.keys
                if isinstance(key, ast.Constant)
            ]
    return []


def phases(file: Path) -> set[str]:
    """First arguments of ``self.tell``."""
    calls = (node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    return {
        str(call.args[0].value)
        for call in calls
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "tell"
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.parametrize(
    ("heading", "file", "function"),
    [
        ("`job.json`", "daemon/jobfile.py", "job_document"),
        ("`manifest.json`", "daemon/manifest.py", "manifest"),
    ],
)
def test_every_key_is_named(project: Path, heading: str, file: str, function: str) -> None:
    keys = keys_returned(project / file, function)
    assert len(keys) > 10
    body = section(project, heading)
    assert [key for key in keys if f"`{key}`" not in body] == []


def test_every_field_of_progress_and_end_is_named(project: Path) -> None:
    told, ended = section(project, "`progress`"), section(project, "`end`")
    assert [name for name in Progress.__struct_fields__ if f"`{name}`" not in told] == []
    assert [name for name in RunEnd.__struct_fields__ if f"`{name}`" not in ended] == []
    assert [name for name in get_args(RunOutcome) if f"| `{name}` |" not in ended] == []


def test_every_phase_of_the_runner_is_named(project: Path) -> None:
    found = phases(project / "daemon" / "runner.py")
    assert {"claimed", "stage_in"} <= found
    assert [phase for phase in found if f"`{phase}`" not in section(project, "`progress`")] == []


def section(project: Path, heading: str) -> str:
    _, found, body = pages(project)["docs/spool.md"].partition(f"\n## {heading}\n")
    assert found
    return body.partition("\n## ")[0]
