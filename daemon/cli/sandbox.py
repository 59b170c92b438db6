"""``tiltd check --sandbox``: the check, once more, where the service would make it.

The sandbox is that of the installed unit with all its drop-ins (`systemctl cat`), given to `systemd-run`.
What says how a service lives (its type, when it is restarted) is left out: it is no part of what may be seen
and written.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from tiltd.daemon.text import shown

from .exits import FAILED

_LIFE = re.compile(
    r"Type|NotifyAccess|Exec\w+|Restart\w*|WatchdogS\w+|Timeout\w+|KillMode|OOMPolicy|RuntimeDirectoryPreserve"
)


class NoUnit(Exception):
    """The unit cannot be read; the message says what to do."""


def run(unit: str, options: Sequence[str]) -> int:
    """Does not return where `systemd-run` takes over: its output and exit status are the check's."""
    try:
        argv = command(unit_text(unit), options)
        os.execvp(argv[0], argv)
    except NoUnit as error:
        print(f"tiltd check: {error}", file=sys.stderr)
    except OSError as error:
        print(f"tiltd check: systemd-run cannot be started: {error.strerror}", file=sys.stderr)
    return FAILED


def unit_text(unit: str) -> str:
    """The unit's file and its drop-ins, in the order in which they count.  Raises NoUnit."""
    try:
        done = subprocess.run(
            ["systemctl", "cat", "--", unit], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except OSError as error:
        raise NoUnit(
            f"systemctl cannot be started ({error.strerror}); is this a host with systemd?"
        ) from None
    if done.returncode != 0:
        said = shown(done.stderr.strip().splitlines()[-1]) if done.stderr.strip() else "no word"
        raise NoUnit(f"the unit {shown(unit)} cannot be read ({said}); install it first, see docs/install.md")
    return done.stdout


def command(text: str, options: Sequence[str]) -> list[str]:
    """What runs ``tiltd check`` with these options in the sandbox of that unit.  Pure.  Raises NoUnit."""
    lines = settings(text)
    program = next((value for key, value in reversed(lines) if key == "ExecStart" and value), "")
    if not program:
        raise NoUnit("the unit has no ExecStart, so it is not tiltd's")
    kept = [f"--property={key}={value}" for key, value in lines if not _LIFE.fullmatch(key)]
    # Else the end of the check would remove the folder of the daemon that runs.
    kept.append("--property=RuntimeDirectoryPreserve=yes")
    argv = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *kept, "--"]
    return [*argv, shlex.split(program)[0].lstrip("@-:+!"), "check", *options]


def settings(text: str) -> list[tuple[str, str]]:
    """Keys and values of all [Service] sections, in order; a value may go on behind a backslash."""
    found: list[tuple[str, str]] = []
    section = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.append((key.strip(), value.strip()))
    return found
