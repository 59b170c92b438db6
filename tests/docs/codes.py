"""The codes that tiltd prints and counts, read from the code itself, for the tests on documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

CODE = re.compile(r"[a-z][A-Za-z0-9_]*")


def nodes(project: Path, *names: str) -> Iterator[ast.AST]:
    for name in names:
        yield from ast.walk(ast.parse((project / name).read_text(encoding="utf-8")))


def words(expression: ast.expr | None) -> list[str]:
    """The codes that an expression may give: a constant, or either branch of a choice."""
    match expression:
        case ast.Constant(value=str(word)):
            return [word] if CODE.fullmatch(word) else []
        case ast.IfExp(body=yes, orelse=no):
            return [*words(yes), *words(no)]
        case _:
            return []


def keyword(call: ast.Call, name: str) -> list[str]:
    return [word for given in call.keywords if given.arg == name for word in words(given.value)]


def called(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def problem_codes(project: Path, *names: str) -> set[str]:
    """What stands as ``Problem(code=...)``, directly, by the variable ``code`` or through ``_nothing``."""
    found: set[str] = set()
    for node in nodes(project, *names):
        match node:
            case ast.Call() if called(node, "Problem"):
                found |= set(keyword(node, "code"))
            case ast.Call(args=[first, *_]) if called(node, "_nothing"):
                found |= set(words(first))
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                found |= set(words(value))
    return found


def waits(project: Path, name: str) -> set[str]:
    """What the rule of completeness waits for: the codes of its ``(code, line)`` pairs, and its own."""
    found: set[str] = set()
    for node in nodes(project, name):
        match node:
            case ast.Tuple(elts=[first, ast.Name(id="line") | ast.Call(func=ast.Name(id="_line"))]):
                found |= set(words(first))
            case ast.Call() if called(node, "Waiting"):
                found |= set(keyword(node, "why"))
    return found


def first_arguments(project: Path, name: str, function: str) -> set[str]:
    """First arguments of the calls of one function."""
    calls = (node for node in nodes(project, name) if isinstance(node, ast.Call) and called(node, function))
    return {word for call in calls if call.args for word in words(call.args[0])}


def returned(project: Path, name: str, function: str) -> set[str]:
    """The words that one function returns."""
    found: set[str] = set()
    for node in nodes(project, name):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            returns = (inner for inner in ast.walk(node) if isinstance(inner, ast.Return))
            found |= {word for inner in returns for word in words(inner.value)}
    return found
