"""The unit and its drop-ins as an administrator would put them together, and what systemd says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from deploy.programs import program

SETS = {
    "alone": (),
    "local": ("site", "local"),
    "torque": ("site", "torque"),
    "torque 2 and 3": ("site", "torque", "torque-setuid"),
}
"""What is copied to tiltd.service.d, by the kind of site."""


def analyze(*argv: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [program("systemd-analyze", "systemd"), *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def lay_out(project: Path, folder: Path, drop_ins: tuple[str, ...], *, real_programs: bool = False) -> Path:
    """The unit in ``folder``, with these drop-ins beside it, and with programs that are there."""
    source = project / "deploy" / "systemd"
    unit = folder / "tiltd.service"
    text = (source / "tiltd.service").read_text(encoding="utf-8")
    if not real_programs:
        text = re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/sh", text, flags=re.MULTILINE)
    beside = folder / "tiltd.service.d"
    beside.mkdir(parents=True)
    unit.write_text(text, encoding="utf-8")
    for name in drop_ins:
        shutil.copy(source / "drop-ins" / f"{name}.conf", beside)
    return unit
