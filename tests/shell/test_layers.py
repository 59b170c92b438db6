"""Who may import whom: the contracts in pyproject.toml hold, and each of them can be broken."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"


def lint(folder: Path) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": str(folder / "tests" / "_path"), "COLUMNS": "500"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LINT],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_layers_hold(project: Path) -> None:
    status, told = lint(project)
    assert status == 0, told


# contract, file, line to add; a file that is not there yet is made.
VIOLATIONS = [
    ("core and policy read no clock", "daemon/core/facts.py", "import os"),
    ("core and policy read no clock", "policy/scores.py", "import time"),
    ("core and policy read no clock", "daemon/core/model/job.py", "def late():\n    import random"),
    ("the core decides", "daemon/core/model/job.py", "import tiltd.daemon.core.facts"),
    ("the core decides", "policy/scores.py", "import tiltd.plugins.api"),
    ("the core decides", "plugins/api.py", "import tiltd.daemon.core.observations"),
    ("the rooms of the daemon", "daemon/core/effects.py", "import tiltd.daemon.registry"),
    ("the rooms of the daemon", "daemon/journal.py", "import tiltd.daemon.loop"),
    ("the daemon meets plugins by name", "daemon/registry.py", "import tiltd.plugins.local"),
    ("plugins do not know each other", "plugins/wbp.py", "import tiltd.plugins.local"),
    ("plugins do not know each other", "plugins/mdoc.py", "import tiltd.plugins.serialem"),
]


@pytest.mark.parametrize(("contract", "file", "line"), VIOLATIONS)
def test_a_violation_is_caught(project: Path, tmp_path: Path, contract: str, file: str, line: str) -> None:
    for name in ("daemon", "policy", "plugins", "tests/_path"):
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project / name, tmp_path / name, symlinks=True, ignore=unwanted)
    shutil.copy(project / "pyproject.toml", tmp_path)
    for needed in ("daemon/loop.py", "daemon/registry.py", "plugins/local.py", "plugins/serialem.py"):
        (tmp_path / needed).touch()
    with (tmp_path / file).open("a") as source:
        source.write(f"\n\n{line}\n")
    status, told = lint(tmp_path)
    broken = [text for text in told.splitlines() if "BROKEN" in text]
    assert status == 1, told
    assert any(text.startswith(contract) for text in broken), told


def test_the_runner_stands_alone(project: Path) -> None:
    """One file, the standard library, Python 3.6: nodes have nothing else."""
    source = (project / "daemon" / "runner.py").read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names = [node.module or ""]
            # `from __future__ import annotations` is of 3.7.
            assert not any(alias.name == "annotations" for alias in node.names), f"line {node.lineno}"
        for name in names:
            assert name.partition(".")[0] in sys.stdlib_module_names, f"line {node.lineno}: {name}"
