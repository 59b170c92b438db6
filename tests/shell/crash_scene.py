"""Lives and deaths of the daemon at every boundary, in no time; a program, run by ``test_crash_boundaries``.

The real App, Loop, Perform, Journal, Spool, FeedWatch, runner and pipeline run on an event loop whose time
jumps to the next timer and whose worker threads are calls: so every life is the same as the last one up to
the point where it dies.  A point is: before and after each append and inside its transaction, before each
effect, before each change that an effect (or anything else of the daemon's) makes to a file system, and
before each answer.  A life dies there as by SIGKILL: a forked process ends by ``_exit``; nothing is unwound.

The batch server is a folder: what was submitted is there, and runs when the server's time has come, whether
or not a daemon lives.

    python crash_scene.py SCENARIO EVERY        one JSON line a story: {point, died, same, came}
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from shell.crash_world import DEAD, Manager, Points, Server, Unthreaded, VirtualClock, instrument
from shell.daemon_process import Site
from tiltd.daemon import app as app_module
from tiltd.daemon import journal, registry
from tiltd.daemon.app import App
from tiltd.daemon.config import Settings
from tiltd.daemon.core import observations as o
from tiltd.daemon.logs import set_up

LIFE_SECONDS_MAX = 900.0
"""Virtual seconds after which a life that has not come to its end is a failure."""


# -- scenarios ---------------------------------------------------------------------------------------------


class Scenario:
    """What is fed and asked.  ``tick`` is called every virtual second and must bear being called again."""

    def __init__(self, site: Site) -> None:
        self.site = site

    names = ("ts_one", "ts_two")
    wanted = {"ts_one": "delivered", "ts_two": "delivered"}

    def tick(self, app: App) -> None:
        for name in self.names:
            if not (self.site.feeds["krios1"] / "p/s" / f"{name}.mrc").exists():
                self.site.feed(f"{name}.mrc")

    never = ""
    """What the server never comes to run, ..."""
    claims = False
    """... though it is started, and its runner hangs after its claim."""
    feed_lines = ""

    def before_server(self) -> None:
        """Called before the server runs jobs."""

    @staticmethod
    def ask(app: App, action: Any, name: str) -> None:
        for dataset in app.core.state.datasets.values():
            if dataset.tilt_series_name == name:
                asked = o.OperatorAsked(
                    at=app.clock.now(), action=action, dataset_id=dataset.dataset_id, by="me", request_id="r"
                )
                app.loop.inbox.put_nowait(asked)


class Failing(Scenario):
    """One fails once and is tried again; one fails always."""

    names = ("fails_once", "fails_always")
    wanted = {"fails_once": "delivered", "fails_always": "failed"}


class Cancelled(Scenario):
    """One is cancelled while it is queued; the other goes on."""

    names = ("ts_one", "ts_unwanted")
    never = "ts_unwanted"
    claims = False
    while_it_is = "queued"
    wanted = {"ts_one": "delivered", "ts_unwanted": "cancelled"}

    def tick(self, app: App) -> None:
        super().tick(app)
        for dataset in app.core.state.datasets.values():
            wanted = dataset.tilt_series_name == "ts_unwanted" and dataset.attempts
            if wanted and not dataset.stop_requested and dataset.state == self.while_it_is:
                self.ask(app, "cancel", "ts_unwanted")


class Stopped(Cancelled):
    """One is cancelled while it runs, and its runner never says a word."""

    claims = True
    while_it_is = "running"


class Imported(Scenario):
    """The nodes do not see the feed: its series are copied first."""

    feed_lines = 'import = "{folder}/import"'


class Stranded(Scenario):
    """The destination takes nothing when the job stages out; later it does, and a rescue delivers."""

    names = ("ts_one",)
    wanted = {"ts_one": "delivered"}

    def before_server(self) -> None:
        """The destination's file system is away for as long as nothing was stranded (root ignores modes)."""
        away = self.site.folder / "results.away"
        waits = any(self.site.scratch.glob("*/lease.json"))
        if not waits and not away.exists() and self.site.results.is_dir():
            self.site.results.rename(away)
            self.site.results.write_text("no folder")

    def tick(self, app: App) -> None:
        super().tick(app)
        away = self.site.folder / "results.away"
        if away.exists() and any(
            b'"stranded": true' in path.read_bytes() for path in self.site.scratch.glob("*/lease.json")
        ):
            self.site.results.unlink()
            away.rename(self.site.results)


SCENARIOS = {
    "delivered": Scenario, "failing": Failing, "cancelled": Cancelled, "stopped": Stopped,
    "stranded": Stranded, "imported": Imported,
}  # fmt: skip


# -- one life ----------------------------------------------------------------------------------------------


def live(site: Site, scenario: Scenario, born_at: float, die_at: int) -> Points:
    """One life of the daemon: to its death, or until everything is as wanted."""
    loop = Unthreaded()
    points = Points(site, die_at)
    points.clock = clock = VirtualClock(loop, born_at)
    server = Server(site)
    manager = Manager(server, clock)
    app_module.Clock = lambda: clock  # type: ignore[assignment,misc]
    make = registry.make
    registry.make = lambda kind, *rest: manager if kind == "resource_manager" else make(kind, *rest)
    asyncio.set_event_loop(loop)
    armed = [True]
    sys.addaudithook(lambda event, args: points.audit(event, args) if armed[0] else None)
    app = App(Settings.load(site.config))
    instrument(app, points)

    async def world() -> None:
        while True:
            await asyncio.sleep(1.0)
            armed[0] = False
            if "krios1" in app.core.state.feeds_met:
                scenario.tick(app)
            if clock.now() % 3 < 1:
                if any(server.folder.glob("*.queued")):
                    scenario.before_server()
                server.tick(scenario)
            armed[0] = True
            if settled(site, app, scenario):
                app._stop.set()
                return
            assert loop.time() < LIFE_SECONDS_MAX, stuck(app)

    async def both() -> None:
        outside = asyncio.create_task(world())
        app.servers = Unserved()  # type: ignore[assignment]
        inside = asyncio.create_task(app.run())
        await asyncio.wait({outside, inside}, return_when=asyncio.FIRST_COMPLETED)
        outside.result() if outside.done() else None
        await inside

    loop.run_until_complete(both())
    armed[0] = False
    return points


def stuck(app: App) -> str:
    why = [line for name in app.core.state.datasets for line in (name, *app.core.why(name, app.clock.now()))]
    rows = {row.tilt_series_name: row.state for row in app.reader.select()}
    for name in app.core.state.datasets:
        why += [str(fact)[:400] for _, fact in app.reader.facts(name)]
    return f"it never came to its end: {rows}, still to do {app.core.outstanding()}, " + "\n".join(why)


class Unserved:
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def changed(self, datasets: Iterable[object], nodes: bool = False) -> None: ...


def settled(site: Site, app: App, scenario: Scenario) -> bool:
    rows = {row.tilt_series_name: row for row in app.reader.select()}
    return (
        {name: rows[name].state for name in rows} == scenario.wanted
        and not app.core.state.datasets
        and not app.core.state.notices
        and not app.core.outstanding()
    )


# -- judging -----------------------------------------------------------------------------------------------

PASSING = {"JobAccepted", "JobStarted", "StopRequested"}
"""Facts that a death may make superfluous: what follows is known already when the daemon lives again."""


def outcome(site: Site) -> dict[str, Any]:
    """What a history came to, times left out."""
    reader = app_module.JournalReader(site.state / "journal.sqlite")
    found: dict[str, Any] = {}
    for row in reader.select():
        kinds = [type(fact).__name__ for _, fact in reader.facts(row.dataset_id)]
        found[row.dataset_id] = {
            "state": row.state,
            "attempts": [(a.attempt_id, a.kind, a.failure and a.failure.reason) for a in row.attempts],
            "facts": dict(sorted(Counter(kind for kind in kinds if kind not in PASSING).items())),
        }
    state = journal.Journal.open(site.state / "journal.sqlite").load()
    found["server"] = sorted(path.stem for path in (site.folder / "server").glob("7.*"))
    found["reserved"] = [r.attempt_id for r in state.ledger.reservations()]
    found["runs"] = sorted(site.runs())
    found["scratch"] = site.scratch_left()
    found["staged"] = [path.name for path in site.staged()]
    found["published"] = [str(path.relative_to(site.results)) for path in site.published()]
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def forked(work: Callable[[], object]) -> int:
    """Run in a child; its exit status."""
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def story(
    kind: type[Scenario], root: Path, deaths: Sequence[int], meanwhile: bool
) -> tuple[int, dict[str, Any]]:
    """Live, die at each of ``deaths`` in turn, live to the end.  ``meanwhile``: the server runs jobs while
    no daemon lives.  Returns how often it died and the outcome, which has ``stuck`` if a life did not come
    to its end."""
    folder = Path(tempfile.mkdtemp(dir=root))
    site = Site(folder, step_seconds=0, feed_lines=kind.feed_lines.format(folder=folder))
    scenario, born_at, died = kind(site), time.time(), 0
    try:
        for number in [*deaths, -1]:
            status = forked(lambda born=born_at, number=number: live_and_tell(site, scenario, born, number))
            if status == DEAD:
                died += 1
                born_at = float((folder / "died_at").read_text()) + 0.5
                if meanwhile:
                    scenario.before_server() if any((folder / "server").glob("*.queued")) else None
                    Server(site).tick(scenario)
            elif status:
                return died, {"stuck": f"a life ended with status {status}"}
            else:
                break
        return died, outcome(site)
    finally:
        shutil.rmtree(site.socket.parent, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def live_and_tell(site: Site, scenario: Scenario, born_at: float, die_at: int) -> None:
    points = live(site, scenario, born_at, die_at)
    (site.folder.parent / "points").write_text(json.dumps(points.names))


def main(name: str, every: int, seed: int = 0) -> int:
    """One undisturbed life, then one story for every ``every``-th point of it; every fourth dies twice."""
    set_up("console", "error")
    kind, chance = SCENARIOS[name], random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="tiltd-crash-"))
    try:
        _, wanted = story(kind, root, (), False)
        names = json.loads((root / "points").read_text())
        print(json.dumps({"points": names, "outcome": wanted}), flush=True)
        for point in range(chance.randrange(every), len(names), every):
            deaths = (point, chance.randrange(20)) if chance.random() < 0.25 else (point,)
            died, came = story(kind, root, deaths, meanwhile=chance.random() < 0.5)
            told = {"point": f"{point} {names[point]}", "died": died, "same": came == wanted}
            print(json.dumps(told | ({} if came == wanted else {"came": came})), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
