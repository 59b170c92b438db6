"""How a job is written for Torque: the arguments of ``qsub`` and the fixed script.  Pure.

Nothing of a dataset's name, options or paths is in it; what varies is checked letter by letter, so that no
quoting has to be right.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Sequence

from tiltd.daemon.core.model import JobSpec, Record
from tiltd.daemon.text import shown
from tiltd.plugins.api import Permanent

JOB_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,229}|[0-9][A-Za-z0-9_.-]{0,229}")
"""Recorded: over 15 and over 128 characters were taken; blanks, newlines and letters beyond ASCII are not."""
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}")
_PATH = re.compile(r"/[A-Za-z0-9_./+@%=~-]*")
_OPTION = re.compile(r"-([A-Za-z])")
REFUSED = {
    "N": "the job's name is tiltd's own",
    "V": "it would copy the daemon's environment into the job",
    "I": "an interactive job has nobody to talk to",
    "X": "an interactive job has nobody to talk to",
    "t": "an array would run one series several times",
    "z": "the job's id would not be printed",
    "x": "an interactive job has nobody to talk to",
    "C": "the script's directives would not be read",
    "o": "the output goes into the spool",
    "e": "the output goes into the spool",
    "k": "the output goes into the spool",
    "h": "a job that is held never starts; hold the series instead: tiltd hold",
    "r": "set [torque] rerun instead",
}


class Options(Record):
    """What ``[torque]`` says of every job.  ``python`` is the interpreter on the nodes."""

    queue: str = ""
    account: str = ""
    properties: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    python: str = "python3"
    rerun: bool = False
    mail: str = "n"
    mail_users: tuple[str, ...] = ()
    memory: bool = True
    file: bool = False
    output: bool = True


def script(spec: JobSpec, options: Options) -> str:
    """The job: a few fixed lines around the attempt's folder.

    ``exec`` makes the runner the job's own process, so that no shell is left to die before it; ``cd /``
    keeps no home folder busy; what the runner says goes straight into the spool, because what Torque
    collects comes after the end, if it can be delivered at all.  Raises Permanent.
    """
    words = (options.python, spec.runner_path, spec.attempt_folder)
    for what, path in zip(("[torque] python", "the runner's path", "spool_dir"), words, strict=True):
        if not _PATH.fullmatch(path) and not (path == options.python and _WORD.fullmatch(path)):
            raise Permanent(
                f"{what}, {shown(path)!r}, has characters that Torque's tools do not pass on safely; "
                "use letters, digits and . _ - + @ % = ~"
            )
    command = " ".join(map(shlex.quote, words))
    log = shlex.quote(f"{spec.attempt_folder}/runner.log")
    return f"#!/bin/sh\numask 077\ncd /\nexec {command} >> {log} 2>&1\n"


def mark(journal_id: str) -> str:
    """What stands behind every job's name: two daemons of one account, for production and for trial, give
    the same series the same name, and must never take each other's jobs for their own."""
    return f".j{hashlib.sha256(journal_id.encode()).hexdigest()[:6]}"


def qsub_arguments(spec: JobSpec, options: Options, script_path: str, mark: str) -> list[str]:
    """All arguments after ``qsub``.  Options of the site come first and the policy's next, so that what is
    the daemon's own comes last and counts.  Raises Permanent with a sentence."""
    name = spec.job_name + mark
    if not JOB_NAME.fullmatch(name):
        raise Permanent(f"{shown(name)!r} is no job name that Torque takes")
    arguments = [word for line in options.extra for word in directive(line, "[torque] extra")]
    arguments += [word for line in spec.directives for word in directive(line, "the policy's directives")]
    arguments += ["-N", name, "-S", "/bin/sh", "-r", "y" if options.rerun else "n"]
    arguments += ["-m", options.mail]
    if options.mail_users:
        arguments += ["-M", ",".join(options.mail_users)]
    arguments += ["-j", "oe", "-o", f"{spec.attempt_folder}/job.out" if options.output else "/dev/null"]
    if queue := spec.queue or options.queue:
        arguments += ["-q", _word(queue, "the queue")]
    if account := spec.account or options.account:
        arguments += ["-A", _word(account, "the account")]
    if spec.priority:
        arguments += ["-p", str(max(-1024, min(1023, spec.priority)))]
    return [*arguments, "-l", resources(spec, options), script_path]


def directive(line: str, where: str) -> list[str]:
    """One line of options for qsub, such as ``-l gres=imod`` or ``#PBS -W x=NODESET:ONEOF``, as words.

    Raises Permanent for one that would take the job out of tiltd's hands.
    """
    try:
        words = shlex.split(line.removeprefix("#PBS"))
    except ValueError as error:
        raise Permanent(f"{where}: {shown(line)!r}: {error}") from None
    found = _OPTION.match(words[0]) if words else None
    if found is None or not all(word.isprintable() and word.isascii() for word in words) or len(words) > 2:
        raise Permanent(
            f"{where}: {shown(line)!r} must be one option of qsub and its value, as in '-l gres=imod'"
        )
    if len(words) == 2 and words[1].startswith("-"):
        raise Permanent(
            f"{where}: {shown(line)!r} must be one option of qsub and its value, as in '-l gres=imod'"
        )
    if why := REFUSED.get(found.group(1)):
        raise Permanent(f"{where}: qsub's option -{found.group(1)} cannot be set: {why}")
    return words


def resources(spec: JobSpec, options: Options) -> str:
    """The value of ``-l``: nodes, walltime, memory and, if the site wants its scheduler to know, ``file``.

    Recorded: ``file`` counts per processor, and is also the limit of every single file that the job writes;
    ``mem`` is for the whole job.
    """
    count = len(spec.nodes) or 1
    parts = [f"nodes={nodes(spec, options)}", f"walltime={hours(spec.walltime_seconds)}"]
    if options.memory and spec.memory_bytes > 0:
        parts.append(f"mem={-(-spec.memory_bytes * count // 1024)}kb")
    if options.file and spec.scratch_bytes > 0:
        parts.append(f"file={file_kib(spec)}kb")
    return ",".join(parts)


def nodes(spec: JobSpec, options: Options) -> str:
    """``core-014:ppn=4:tomography+...`` for a pinned job, ``1:ppn=4:tomography`` for a floating one."""
    properties = dict.fromkeys((*options.properties, *spec.properties))
    tail = "".join((f":ppn={max(1, spec.cores)}", *(f":{_word(name, 'a property')}" for name in properties)))
    if spec.floating or not spec.nodes:
        return f"{len(spec.nodes) or 1}{tail}"
    for node in spec.nodes:
        if not _NODE.fullmatch(node):
            raise Permanent(f"{shown(node)!r} is no name of a node")
    return "+".join(node + tail for node in spec.nodes)


def file_kib(spec: JobSpec) -> int:
    """KiB per processor: the whole share of a node rounded up, never below the largest file expected."""
    share = -(-spec.scratch_bytes // (1024 * max(1, spec.cores)))
    return max(1, share, -(-spec.largest_file_bytes // 1024))


def hours(seconds: float) -> str:
    """Whole seconds, rounded up, as HH:MM:SS."""
    whole = max(1, math.ceil(seconds))
    return f"{whole // 3600:02d}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def _word(value: str, what: str) -> str:
    if not _WORD.fullmatch(value):
        raise Permanent(f"{what} {shown(value)!r} must be of letters, digits and . _ @ -")
    return value


def question(command: str, job_ids: Sequence[str] = ()) -> list[str]:
    """``qstat -x``: without operands one connection and one document; with ids one of each for every id."""
    return [command, "-x", *job_ids]
