"""Releases of tiltd, installed side by side: this one, and one that might follow it."""

from __future__ import annotations

import re
import shutil
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path

from docs.pages import tracked

ROOMS = ("daemon/", "policy/", "plugins/")
NEXT = {
    "daemon/journal_file.py": [
        ("SCHEMA_VERSION = 1\n", "SCHEMA_VERSION = 2\n"),
        (
            "MIGRATIONS: Mapping[int, Migration] = {}",
            "MIGRATIONS: Mapping[int, Migration] = {1: lambda connection: connection.execute("
            "'CREATE TABLE remarks (dataset_id TEXT, text TEXT)')}",
        ),
    ],
    "daemon/core/facts.py": [
        ("dict.fromkeys(FACTS, 1)\n", 'dict.fromkeys(FACTS, 1) | {"DatasetFound": 2}\n'),
    ],
    "daemon/upcasters.py": [
        (
            "STEPS: Mapping[tuple[str, int], Step] = {}",
            'STEPS: Mapping[tuple[str, int], Step] = {("DatasetFound", 1): dict}',
        ),
    ],
}  # fmt: skip
"""What a later release changes for good: the journal's schema, and the version of a fact."""


def install(
    project: Path, folder: Path, version: str, changes: dict[str, list[tuple[str, str]]] | None = None
) -> str:
    """A virtual environment with what a wheel of this checkout would put there, as ``version``, and with what
    tiltd needs from the one that runs the tests.  Returns its interpreter."""
    venv.create(folder, symlinks=True, with_pip=False)
    packages = Path(next(folder.glob("lib/python*/site-packages")))
    for name in tracked(project):
        if name.startswith(ROOMS):
            (packages / "tiltd" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, packages / "tiltd" / name)
    for name, replaced in (changes or {}).items():
        file = packages / "tiltd" / name
        text = file.read_text(encoding="utf-8")
        for old, new in replaced:
            assert text.count(old) == 1, f"{name} does not have {old!r} once"
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
    about = packages / f"tiltd-{version}.dist-info"
    about.mkdir()
    installed = distribution("tiltd")
    metadata = installed.read_text("METADATA") or ""
    (about / "METADATA").write_text(re.sub(r"(?m)^Version: .*", f"Version: {version}", metadata, count=1))
    (about / "entry_points.txt").write_text(installed.read_text("entry_points.txt") or "")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return str(folder / "bin" / "python")
