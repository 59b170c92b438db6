"""A Torque server in memory, whose commands go wrong in seeded ways: for the plugin alone, without processes.

Jobs claim their attempt as the runner does.  Every fault is one that was met: a lost reply, a reply without
an id, a submission that the server takes late or twice, a list that is empty, cut short, garbage, or lacks a
job for a while.
"""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from plugins.torque_recorded import Told, ran
from tiltd.plugins.commandline import Ran

DOWN = "qsub: cannot connect to server head (errno=111) Connection refused\n"
SUBMIT_FAULTS = [
    "refused",
    "before",
    "accepted_silent",
    "lost_before",
    "lost_after",
    "socket_before",
    "socket_after",
    "twice",
    "late",
    "no_id",
    "killed_after",
]
LIST_FAULTS = ["down", "empty", "cut", "garbage", "hang", "forgets"]


class Killed(BaseException):
    """The daemon dies here."""


class Entry:
    def __init__(self, number: int, name: str, owner: str, script: str, appears_at: int) -> None:
        self.job_id, self.name, self.owner, self.script = f"{number}.head", name, owner, script
        self.state, self.appears_at, self.ended_at, self.number = "Q", appears_at, 0, number


class Server(Told):
    """``trouble``: the share of commands that go wrong; ``kill``: whether the daemon may die within qsub."""

    def __init__(self, seed: int, trouble: float) -> None:
        super().__init__({})
        self.random = random.Random(seed)
        self.trouble, self.kill, self.tick_number, self.number = trouble, True, 0, 0
        self.jobs: dict[str, Entry] = {}
        self.deleted: list[str] = []
        self.claims: list[tuple[str, str]] = []
        self.unclear: set[str] = set()
        self.frozen = self.forgot = False

    # -- the cluster -------------------------------------------------------------------------------------

    def add(self, name: str, owner: str, script: str, delay: int = 0) -> Entry:
        self.number += self.random.choice([1, 1, 2])
        entry = Entry(self.number, name, owner, script, self.tick_number + delay)
        self.jobs[entry.job_id] = entry
        return entry

    def live(self) -> list[Entry]:
        return [job for job in self.jobs.values() if job.state != "C"]

    def seen(self, name: str) -> list[Entry]:
        """Our own jobs of that name that a list shows."""
        ours = [job for job in self.jobs.values() if job.name == name and job.script]
        return [job for job in ours if job.appears_at <= self.tick_number]

    def tick(self) -> None:
        """Some jobs start, some end, and what ended long ago is forgotten."""
        self.tick_number += 1
        for job in list(self.jobs.values()):
            if (
                not self.frozen
                and job.state == "Q"
                and job.appears_at <= self.tick_number
                and job.script
                and self.random.random() < 0.2
            ):
                self._start(job)
            elif job.state == "R" and job.script and self.random.random() < 0.2:
                self._end(job)
            elif job.state == "C" and job.ended_at + 8 < self.tick_number:
                del self.jobs[job.job_id]

    def _start(self, job: Entry) -> None:
        folder = Path(job.script).parent
        try:
            (folder / "job.json").rename(folder / f"claimed.{job.job_id}")
        except FileNotFoundError:
            self._end(job)  # lost the claim: nothing is done
            return
        job.state = "R"
        self.claims.append((folder.name, job.job_id))

    def _end(self, job: Entry) -> None:
        job.state, job.ended_at = "C", self.tick_number

    # -- the commands ------------------------------------------------------------------------------------

    async def run(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        max_bytes: int = 1 << 20,
        sink: Callable[[bytes], None] | None = None,
    ) -> Ran:
        self.calls.append(list(argv))
        end = {"qsub": self._qsub, "qstat": self._qstat, "qdel": self._qdel}[argv[0]](argv)
        if sink is not None:
            sink(end.out)
        return Ran(
            command=argv[0],
            exit_code=end.exit_code,
            out=end.out,
            err=end.err,
            seconds=0.0,
            timed_out=end.timed_out,
        )

    def _fault(self, faults: Sequence[str]) -> str:
        return self.random.choice(faults) if self.random.random() < self.trouble else ""

    def _qsub(self, argv: Sequence[str]) -> Ran:
        fault, name = self._fault(SUBMIT_FAULTS), argv[argv.index("-N") + 1]
        assert name not in self.unclear, "what was unclear is never submitted again"
        if fault not in ("refused", "before") or self.kill:
            self.unclear.add(name)
        if fault in ("refused", "before", "lost_before", "socket_before"):
            if fault == "before" and self.kill:
                raise Killed
            if fault in ("refused", "before"):
                self.unclear.discard(name)
            return {
                "refused": ran(111, err=DOWN),
                "before": ran(214, err="qsub: submit error (Request not allowed: Server shutting down)\n"),
                "lost_before": ran(-9, timed_out=True),
                "socket_before": ran(248),
            }[fault]
        job = self.add(
            name, "tomography", argv[-1], delay=self.random.randint(1, 6) if fault == "late" else 0
        )
        if fault == "twice":
            self.add(name, "tomography", argv[-1], delay=self.random.choice([0, 0, 3]))
            return ran(0, out=f"{job.job_id}\n", err="Trying again\n")
        if fault == "killed_after" and self.kill:
            raise Killed
        if fault in ("lost_after", "late"):
            return ran(-9, timed_out=True)
        if fault == "socket_after":
            return ran(self.random.choice([237, 248, 185, 67]))
        return ran(0) if fault in ("no_id", "accepted_silent") else ran(0, out=f"{job.job_id}\n")

    def _qstat(self, argv: Sequence[str]) -> Ran:
        wanted = argv[2:]
        fault = self._fault(LIST_FAULTS)
        answers = {
            "down": ran(111, err=DOWN),
            "empty": ran(0),
            "garbage": ran(0, out="PBS: \x01 license server says hello\n<html>"),
            "hang": ran(-9, timed_out=True),
        }
        if fault in answers:
            return answers[fault]
        seen = [job for job in self.jobs.values() if job.appears_at <= self.tick_number]
        if wanted:
            found = [job for job in seen if job.job_id in wanted]
            unknown = set(wanted) - {job.job_id for job in found}
            errors = "".join(f"qstat: Unknown Job Id Error {job_id}\n" for job_id in unknown)
            out = "".join(f"<Data>{_row(job)}</Data>\n" for job in found)
            return ran(153 if unknown else 0, out=out, err=errors)
        if fault == "forgets" and seen and not self.forgot:  # not twice running
            seen.remove(self.random.choice(seen))
        self.forgot = fault == "forgets"
        out = f"<Data>{''.join(map(_row, seen))}</Data>"
        return ran(0, out=out[: self.random.randint(0, len(out) - 1)] if fault == "cut" else out)

    def _qdel(self, argv: Sequence[str]) -> Ran:
        if self._fault(["down"]):
            return ran(111, err=DOWN)
        self.deleted.append(argv[1])
        job = self.jobs.get(argv[1])
        if job is None or job.appears_at > self.tick_number:
            return ran(153)
        if job.state == "C":
            return ran(170)
        self._end(job)
        return ran(0)


def _row(job: Entry) -> str:
    return (
        f"<Job><Job_Id>{job.job_id}</Job_Id><Job_Name>{job.name}</Job_Name><Job_Owner>{job.owner}@head"
        f"</Job_Owner><job_state>{job.state}</job_state><ctime>{1000 + job.number}</ctime></Job>"
    )


def revoke(folder: str) -> str:
    """As the daemon: one rename; else who claimed it."""
    with contextlib.suppress(FileNotFoundError):
        Path(folder, "job.json").rename(Path(folder, "revoked"))
        return ""
    claimed = [
        found.group(1)
        for name in Path(folder).iterdir()
        if (found := re.fullmatch(r"claimed\.(.*)", name.name))
    ]
    return claimed[0] if claimed else ""
