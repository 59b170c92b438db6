"""Recorded answers of a real Torque 6.1.3 with Maui 3.5, and commands that answer as they are told to."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltd.daemon.core.model import JobSpec, Record
from tiltd.plugins.api import Context
from tiltd.plugins.commandline import CommandLine, NotStarted, Ran
from tiltd.plugins.torque import TorqueManager
from tiltd.plugins.torque_script import mark

GOLDEN = Path(__file__).parents[1] / "golden" / "torque"


class Recorded(Record):
    """One command as it was run.  Bytes stand as Latin-1 in the files."""

    name: str
    command: str
    code: int
    out: bytes
    err: bytes


def recorded(family: str) -> dict[str, Recorded]:
    found = {}
    for line in (GOLDEN / f"{family}.jsonl").read_text("ascii").splitlines():
        row = json.loads(line)
        found[row["name"]] = Recorded(
            name=row["name"],
            command=row["command"],
            code=row["code"],
            out=row["out"].encode("latin-1"),
            err=row["err"].encode("latin-1"),
        )
    return found


def ids(out: bytes) -> list[str]:
    """The ids of all jobs in an answer, in order."""
    return [found.decode() for found in re.findall(rb"<Job_Id>([^<]*)<", out)]


Answer = Ran | BaseException | Callable[[Sequence[str]], Ran]


def ran(code: int = 0, out: bytes | str = b"", err: bytes | str = b"", **more: Any) -> Ran:
    def raw(text: bytes | str) -> bytes:
        return text.encode() if isinstance(text, str) else text

    return Ran(command="", exit_code=code, out=raw(out), err=raw(err), seconds=0.01, **more)


def late(**more: Any) -> Ran:
    """A command that was killed by its time-out."""
    return ran(-9, timed_out=True, **more)


class Told(CommandLine):
    """Commands that answer from a script: for each name a list of answers, the last one again and again."""

    def __init__(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        super().__init__()
        self.answers = {name: list(given) for name, given in answers.items()}
        self.calls: list[list[str]] = []
        self.answer_seconds = 0.0

    def called(self, name: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == name]

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        max_bytes: int = 1 << 20,
        sink: Callable[[bytes], None] | None = None,
    ) -> Ran:
        self.calls.append(list(argv))
        await asyncio.sleep(self.answer_seconds)
        given = self.answers.get(argv[0]) or [NotStarted(f"cannot start {argv[0]}")]
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, BaseException):
            raise answer
        end = answer if isinstance(answer, Ran) else answer(argv)
        if sink is not None:
            for at in range(0, len(end.out), 777):  # as a pipe gives it: cut anywhere
                sink(end.out[at : at + 777])
        fields = {name: getattr(end, name) for name in end.__struct_fields__} | {"command": argv[0]}
        return Ran(**fields | ({"out": b""} if sink is not None else {}))


MARK = mark("j1")
"""What the names of jobs end in that are of the journal ``j1``."""


class Desk:
    """A manager over told commands, a clock that stands, and attempts in a spool."""

    def __init__(self, folder: Path, answers: Mapping[str, Sequence[Answer]], **settings: Any) -> None:
        self.folder = folder
        self.now = 1_000_000.0
        self.settings = settings
        self.context = Context(
            state_folder=str(folder), spool_folder=str(folder), journal_id="j1", owner="tomography"
        )
        self.manager = self.restart(answers)

    def restart(self, answers: Mapping[str, Sequence[Answer]]) -> TorqueManager:
        """A daemon that starts again: nothing is remembered but the spool."""
        self.manager = TorqueManager(self.settings, self.context)
        self.told = Told(answers)
        self.manager.commands = self.told
        self.manager._asking._commands = self.told
        self.manager.clock = lambda: self.now
        self.manager._made_at = self.now
        return self.manager

    def spec(self, name: str = "TS_01-3fa2c1d0.1.1.a1", *, fresh: bool = True, **more: Any) -> JobSpec:
        attempt = self.folder / "attempts" / name
        if fresh:
            attempt.mkdir(parents=True, exist_ok=True)
            (attempt / "job.json").write_text("{}")
        fields: dict[str, Any] = {"nodes": ("core-014",), "cores": 4, "threads": 4, "job_name": name} | more
        return JobSpec(
            attempt_id=name,
            runner_path="/spool/runners/runner-0123456789ab.py",
            attempt_folder=str(attempt),
            memory_bytes=2 * 10**9,
            scratch_bytes=6 * 2**30,
            walltime_seconds=1200.0,
            **fields,
        )


def listed(
    *jobs: tuple[str, str, str], owner: str = "tomography@head", end: bool = True, mark: str = MARK
) -> Ran:
    """An answer of ``qstat -x``: ``(job id, name, state)`` each."""
    rows = "".join(
        f"<Job><Job_Id>{job_id}</Job_Id><Job_Name>{name}{mark}</Job_Name><Job_Owner>{owner}</Job_Owner>"
        f"<job_state>{state}</job_state><queue>batch</queue><ctime>{1000 + index}</ctime></Job>"
        for index, (job_id, name, state) in enumerate(jobs)
    )
    return ran(out=f'<?xml version="1.0"?>\n<Data>{rows}' + ("</Data>" if end else ""))
