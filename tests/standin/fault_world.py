"""Stories of faults: a daemon that lives and dies in virtual time against a stand-in Torque that lives on.

The real App, core, Perform, Journal, Spool and the plugin ``torque`` run in a forked child on an event loop
whose time jumps; every command of the plugin goes through a pipe to the parent, where the stand-in's server
and its nodes are.  A life ends as by SIGKILL: by ``_exit``, at one of the points of ``crash_world``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import shutil
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shell.crash_world import DEAD, Points, Unthreaded, VirtualClock, instrument
from shell.daemon_process import Site
from standin.cluster_scene import QUEUES, Timers
from standin.fault_runner import World
from tiltd.daemon import app as app_module
from tiltd.daemon.app import App
from tiltd.daemon.config import Settings
from tiltd.daemon.standin.torque.batch import Batch, Pace
from tiltd.daemon.standin.torque.commands import Commands
from tiltd.daemon.standin.torque.control import Control
from tiltd.daemon.standin.torque.records import Call, Node, Pretend
from tiltd.plugins import commandline, torque

STORY_SECONDS_MAX = 3 * 3600.0
"""Pauses grow with each refusal: a dozen of "queue full" alone take most of half an hour."""
TICK_SECONDS = 2.0
SCRATCH_BYTES = 1_500_000
"""One job of 1 MB fits on a node, two do not."""
NODES = tuple(Pretend(name, cores=4, scratch_bytes=SCRATCH_BYTES) for name in ("core-012", "core-014"))
PACE = Pace(
    cycle_seconds=0.8, status_seconds=15.0, down_after_seconds=60.0, keep_completed_seconds=300.0,
    defer_seconds=120.0,
)  # fmt: skip

POLICY = """
[completeness]
quiet_min = "1s"
gap_max = "1s"
short_series_wait = "1s"
stale = "10s"
[placement]
scratch_margin = "1kB"
[retry]
delay = "5s"
delay_factor = 1.0
attempts_max = 20
[resources]
cores = { base = 1 }
threads = { base = 1 }
[jobs]
marker_grace = "90s"
node_lost_after = "3min"
[breaker]
probe = "30s"
"""


class Story:
    """One cluster, one daemon's folders, and what is to go wrong: pairs of an instant and an operation."""

    def __init__(self, root: Path, seed: int, mode: str = "pinned") -> None:
        self.folder = Path(tempfile.mkdtemp(dir=root))
        self.chance = random.Random(seed)
        self.time = Timers(1_800_000_000.0)
        self.world = World(self.time, self.chance)
        nodes = [self._node(pretend) for pretend in NODES]
        self.batch = Batch(nodes, self.world, self.time.now, self.time.later, PACE, QUEUES)
        self.world.batch = self.batch
        self.commands = Commands(self.batch, self.time.later)
        self.control = Control(self.commands)
        self.site = Site(self.folder, step_seconds=0, scan_seconds=20.0, policy=POLICY)
        self.site.config.write_text(self._config(mode))
        self.deaths = 0
        self.lives = 0

    def _node(self, pretend: Pretend) -> Node:
        scratch = self.folder / "nodes" / pretend.name / "scratch"
        scratch.mkdir(parents=True)
        return Node(pretend, str(scratch), str(scratch.parent))

    def _config(self, mode: str) -> str:
        text = self.site.config.read_text()
        before, _, _ = text.partition("[[local.node]]")
        polls = "[poll]\njobs_seconds = 5\nnodes_seconds = 10\nspool_seconds = 2\n"
        tables = "".join(
            f'[[torque.node]]\nnames = "{node.name}"\nmode = "{mode}"\nscratch = "{node.scratch}"\n'
            for node in self.batch.nodes.values()
        )
        return f'resource_manager = "torque"\n{before}\n{polls}[torque]\nowner = "tiltd"\n{tables}'

    def happen(self, at: float, operation: str, **fields: Any) -> None:
        """Something goes wrong so many seconds from now; what is not there then does not."""

        def do() -> None:
            try:
                self.control.do(operation, fields)
            except (KeyError, ValueError, IndexError):
                pass
            except Exception as error:
                if type(error).__name__ != "Refused":
                    raise

        self.time.later(at, do)

    def to_some_job(self, at: float, operation: str) -> None:
        """To a random job of ours that is not over by then."""

        def do() -> None:
            live = [job for job in self.batch.jobs.values() if job.state in "QRH" and job.user == "tiltd"]
            if live:
                self.happen(0.0, operation, job_id=self.chance.choice(live).job_id)

        self.time.later(at, do)

    # -- a life ----------------------------------------------------------------------------------------------

    def live(self, names: Sequence[str], die_at: int = -1) -> bool:
        """Until everything is delivered, or until it dies at that point.  Raises AssertionError when stuck.

        Returns whether it died.
        """
        self.lives += 1
        ours, theirs = socket.socketpair()
        gc.freeze()  # a child that looks through what it was born with copies it all
        pid = os.fork()
        if not pid:
            ours.close()
            _child(self.site, names, theirs, self.time.now(), die_at)
        theirs.close()
        with ours, ours.makefile("rwb") as pipe:
            for line in pipe:
                pipe.write(json.dumps(self._answer(json.loads(line))).encode() + b"\n")
                pipe.flush()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert status in (0, DEAD), f"a life ended with {status}: {self.told()}"
        self.deaths += status == DEAD
        return status == DEAD

    def _answer(self, asked: dict[str, Any]) -> Any:
        self.time.advance(max(0.0, asked["at"] - self.time.now()))
        if "argv" not in asked:
            return {"live": sum(job.state != "C" and job.user == "tiltd" for job in self.batch.jobs.values())}
        environment = {"LOGNAME": "tiltd", "HOME": "/home/tiltd"}
        answer = self.commands.run(Call(asked["argv"][0], tuple(asked["argv"][1:]), "/", environment))
        return {
            "rc": answer.rc, "out": answer.out.decode("latin-1"), "err": answer.err.decode("latin-1"),
            "delay": answer.delay_seconds, "hang": answer.hang,
        }  # fmt: skip

    def told(self) -> str:
        return json.dumps(self.control.told()["jobs"])[:2000]

    def close(self) -> None:
        shutil.rmtree(self.site.socket.parent, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


# -- the child -----------------------------------------------------------------------------------------------


def _child(site: Site, names: Sequence[str], pipe: socket.socket, born_at: float, die_at: int) -> None:
    gc.disable()  # it lives for a tenth of a second
    try:
        _live(site, names, pipe, born_at, die_at)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _live(site: Site, names: Sequence[str], pipe: socket.socket, born_at: float, die_at: int) -> None:
    random.seed(born_at)  # the jitter of the polls
    loop = Unthreaded()
    points = Points(site, die_at)
    points.clock = clock = VirtualClock(loop, born_at)
    app_module.Clock = torque.Clock = lambda: clock  # type: ignore[assignment,misc]
    line = Line(pipe, clock, points)
    commandline.CommandLine.run = line.run  # type: ignore[method-assign]
    asyncio.set_event_loop(loop)
    armed = [True]
    sys.addaudithook(lambda event, args: points.audit(event, args) if armed[0] else None)
    app = App(Settings.load(site.config))
    instrument(app, points)

    async def both() -> None:
        app.servers = Unserved()  # type: ignore[assignment]
        inside = asyncio.create_task(app.run())
        while not inside.done():
            await asyncio.sleep(TICK_SECONDS)
            armed[0] = False
            jobs = line.ask({})["live"]
            if "krios1" in app.core.state.feeds_met:
                feed(site, names)
            if settled(app, names) and not jobs:
                app._stop.set()
                await inside
                break
            assert clock.now() < 1_800_000_000.0 + STORY_SECONDS_MAX, stuck(app)
            armed[0] = True
        await inside

    loop.run_until_complete(both())
    armed[0] = False
    (site.folder / "points").write_text(json.dumps(points.names))


def feed(site: Site, names: Sequence[str]) -> None:
    for name in names:
        if not (site.feeds["krios1"] / "p/s" / f"{name}.mrc").exists():
            site.feed(f"{name}.mrc")


class Unserved:
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def changed(self, datasets: Iterable[object], nodes: bool = False) -> None: ...


class Line:
    """What stands in the place of subprocesses: a question to the parent, and its answer in virtual time."""

    def __init__(self, pipe: socket.socket, clock: VirtualClock, points: Points) -> None:
        self._file = pipe.makefile("rwb")
        self._clock, self._points = clock, points

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._file.write(json.dumps({"at": self._clock.now(), **question}).encode() + b"\n")
        self._file.flush()
        return json.loads(self._file.readline())  # type: ignore[no-any-return]

    async def run(
        self, argv: Sequence[str], *, timeout_seconds: float, max_bytes: int = 1 << 20, sink: Any = None
    ) -> commandline.Ran:
        self._points.reached(f"asks {argv[0]}") if argv[0] in ("qsub", "qdel") else None
        answer = self.ask({"argv": [os.path.basename(argv[0]), *argv[1:]]})
        self._points.reached(f"asked {argv[0]}") if argv[0] in ("qsub", "qdel") else None
        seconds = timeout_seconds if answer["hang"] else min(timeout_seconds, answer["delay"] + 0.02)
        await asyncio.sleep(seconds)
        late = answer["hang"] or answer["delay"] >= timeout_seconds
        out, err = answer["out"].encode("latin-1"), answer["err"].encode("latin-1")
        if late:
            out = err = b""
        if sink is not None:
            sink(out)
        return commandline.Ran(
            command=os.path.basename(argv[0]), exit_code=-9 if late else answer["rc"],
            out=b"" if sink is not None else out, err=err, seconds=seconds, timed_out=late,
        )  # fmt: skip


def settled(app: App, names: Sequence[str]) -> bool:
    rows = {row.tilt_series_name: row.state for row in app.reader.select()}
    return (
        set(rows) == set(names)
        and set(rows.values()) == {"delivered"}
        and not app.core.state.datasets
        and not app.core.outstanding()
        and not list(app.core.state.ledger.reservations())
    )


def stuck(app: App) -> str:
    rows = {row.tilt_series_name: row.state for row in app.reader.select()}
    why = [line for name in app.core.state.datasets for line in app.core.why(name, app.clock.now())]
    facts = [str(fact)[:300] for name in app.core.state.datasets for _, fact in app.reader.facts(name)]
    facts = [str(sorted(app.core.state.datasets)), str(app.core.state.notices), *facts]
    booked = [str(each) for each in app.core.state.ledger.reservations()]
    return "\n".join([f"stuck: {rows}, to do {app.core.outstanding()}, booked {booked}", *why, *facts[-25:]])
