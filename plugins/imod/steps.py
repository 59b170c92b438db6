"""How batchruntomo is started: arguments, environment, folders.  Pure.

    {input}/stack.mrc ...           -current   the job's own copy; batchruntomo moves it away from here
    {input}/sets/stack/             -deliver   the data set's folder: everything it makes
    {input}/home, {input}/etomologs            HOME and eTomo's logs, so that two jobs do not mix theirs
    {input}/quit                               the check file: a Q in it ends the run in order

Everything lies on one file system, since batchruntomo moves the stack by renaming it.
"""

from __future__ import annotations

import re

from tiltd.daemon.core.model import JobFile, Placement, Quit, Step, Witness
from tiltd.plugins.api import Permanent

from .catalogue import patterns
from .patterns import COMPLETED, PATTERNS, VALIDATED
from .settings import ImodSettings

ROOT = "stack"
"""The safe root name, as ``TiltSeries.local_names()`` has it: blanks in it are refused by batchruntomo, after
it has moved the stack."""

SETS = "{input}/sets"
FOLDER = f"{SETS}/{ROOT}"
BATCH_FILE = "batch.adoc"
TEMPLATE_FILE = "tiltd-template.adoc"
TEMPLATE_PLACE = f"home/.etomotemplate/{TEMPLATE_FILE}"
QUIT_FILE = "{input}/quit"
QUIT_SECONDS = 4.0
"""A Q was obeyed within two seconds in recorded runs."""

MAX_CPUS = 128

ENTER = """
kind=$1 what=$2 calib=$3 home=$4
shift 4
fail() { echo "tiltd: IMOD cannot be set up: $1" >&2; exit 126; }
case $kind in
  dir)
    [ -d "$what" ] || fail "[imod] dir: $what is no folder on this node"
    IMOD_DIR=$what
    PATH=$IMOD_DIR/bin:$PATH
    export IMOD_DIR PATH
    if [ -r "$IMOD_DIR/IMOD-linux.sh" ]; then . "$IMOD_DIR/IMOD-linux.sh"; fi ;;
  setup)
    [ -r "$what" ] || fail "[imod] setup: $what cannot be read on this node"
    . "$what" || fail "[imod] setup: $what ended with status $?" ;;
  module)
    for init in "${MODULESHOME:-/nowhere}/init/bash" /etc/profile.d/modules.sh /etc/profile.d/lmod.sh \\
        /usr/share/modules/init/bash /usr/share/lmod/lmod/init/bash; do
      if ! command -v module >/dev/null 2>&1 && [ -r "$init" ]; then . "$init"; fi
    done
    module load "$what" || fail "[imod] module: $what cannot be loaded on this node" ;;
esac
if [ -n "$calib" ]; then IMOD_CALIB_DIR=$calib; export IMOD_CALIB_DIR; fi
HOME=$home
export HOME
exec "$@"
"""
"""A constant: what differs comes as arguments, which no shell looks into.  Setting IMOD up means to source
a script or to load a module, and only a shell can do that.  HOME comes last: the set-up may need the real
one."""


def entered(settings: ImodSettings, *argv: str) -> tuple[str, ...]:
    """The arguments of a program of IMOD, with IMOD set up before it."""
    kind, what = "none", ""
    if settings.dir:
        kind, what = "dir", settings.dir
    if settings.setup:
        kind, what = "setup", settings.setup
    if settings.module:
        kind, what = "module", settings.module
    shell = "sh" if kind == "none" else "bash"  # IMOD's own IMOD-linux.sh is written for bash too
    enter = (shell, "-c", ENTER, "tiltd", kind, _plain(what), _plain(settings.calib_dir))
    return (*enter, "{input}/home", *argv)


def validate_steps(settings: ImodSettings, with_template: bool) -> tuple[Step, ...]:
    """batchruntomo's own look at the directives, a second each: nothing is moved yet when it says no."""
    steps = [_validation(settings, "validate", "1", f"{{input}}/{BATCH_FILE}")]
    if with_template:
        path = f"{{input}}/{TEMPLATE_PLACE}"
        steps.insert(0, _validation(settings, "validate_template", "2", path))
    return tuple(steps)


def _validation(settings: ImodSettings, name: str, kind: str, path: str) -> Step:
    return Step(
        name=name,
        argv=entered(settings, "batchruntomo", "-validation", kind, path),
        environment=environment(),
        success_pattern=VALIDATED,
        witness=witness(),
    )


def run_step(settings: ImodSettings, placement: Placement) -> Step:
    """The run itself.  Raises Permanent for nodes whose names cannot stand in a list of machines."""
    argv = (
        "batchruntomo",
        *cpus(placement),
        *("-ro", ROOT, "-current", "{input}", "-deliver", SETS),
        *("-directive", f"{{input}}/{BATCH_FILE}", "-check", QUIT_FILE),
    )
    return Step(
        name="batchruntomo",
        argv=entered(settings, *argv),
        environment=environment(),
        patterns=PATTERNS,
        success_pattern=COMPLETED,
        witness=witness(),
        quit=Quit(file=QUIT_FILE, text="Q\n", seconds=QUIT_SECONDS),
    )


def cpus(placement: Placement) -> tuple[str, ...]:
    """``-cpus``: none for one core (1 and ``host#1`` are refused), N on one node, ``a#n,b#n`` on several."""
    count = min(placement.cores, MAX_CPUS)
    if len(placement.nodes) > 1:
        for node in placement.nodes:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", node):
                raise Permanent(f"the node {node!a} cannot stand in a list of machines for batchruntomo")
        each = "" if count == 1 else f"#{count}"
        return ("-cpus", ",".join(f"{node}{each}" for node in placement.nodes))
    return ("-cpus", str(count)) if count > 1 else ()


def environment() -> dict[str, str]:
    """Of every program of the run; OMP_NUM_THREADS is the runner's."""
    return {"ETOMO_LOG_DIR": "{input}/etomologs", "PYTHONUNBUFFERED": "1"}


def witness() -> Witness:
    """Where the cause of a failure may stand: often not in the main log.  The folder's own copy of the main
    log (``b...``) is left out."""
    folder = FOLDER.replace("{input}", "input")
    files = (f"{folder}/processchunks.out", "input/etomologs/*.log", f"{folder}/[!b]*.log")
    return Witness(files=files, patterns=patterns())


def files(batch_text: str, template_text: str, tilt_angles_deg: tuple[float, ...]) -> tuple[JobFile, ...]:
    """What lies beside the input before the first step; a folder exists because a file is laid into it."""
    angles = "".join(f"{angle:.2f}\n" for angle in tilt_angles_deg)
    found = [
        JobFile(name=BATCH_FILE, text=batch_text, kept=True),
        JobFile(name="sets/.folder", text=""),
        JobFile(name="home/.folder", text=""),
        JobFile(name="etomologs/.folder", text=""),
    ]
    if angles:
        found.append(JobFile(name=f"{ROOT}.rawtlt", text=angles))
    if template_text:
        found.append(JobFile(name=TEMPLATE_PLACE, text=template_text, kept=True))
    return tuple(found)


def _plain(text: str) -> str:
    """A path of the settings; braces would be taken for the runner's own fields."""
    if "{" in text or "}" in text:
        raise Permanent(f"[imod]: {text!a} has braces; a folder, script or module without them is needed")
    return text
