"""What happens again and again in the simulated world: scans, polls, nodes that go down, operators."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from msgspec.structs import replace

from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import TERMINAL, Dataset, Sighting, State

from .arrivals import LOOK_SECONDS, Arriving, arrivals, growing, opened, stat_only
from .draws import GRID, Draws
from .scene import START_AT, Scene
from .world import World

FINISHED_MAX = 64
OPERATOR_SECONDS = 600.0
NODE_SECONDS = 7200.0


class Routine:
    """Starts everything; ``exhausted`` once the last series was written and shown."""

    def __init__(self, scene: Scene, world: World) -> None:
        self._scene = scene
        self._world = world
        self._stream: Iterator[Arriving] = arrivals(scene)
        self._next: Arriving | None = next(self._stream, None)
        self._due: dict[str, list[tuple[float, int, Sighting | str]]] = {}
        self._expected = 0
        self.exhausted = False
        self.finished: dict[str, Dataset] = {}
        self.left = 0

    def begin(self) -> None:
        schedule = self._world.schedule
        schedule(START_AT + 0.25, self._nodes, 0)
        schedule(START_AT + 1.5, self._scan, 0)
        schedule(START_AT + 2.75, self._jobs, 0)
        if self._scene.failures:
            schedule(START_AT + 700.0 + 77 * GRID, self._operate, 0)
            for node in self._world.nodes:
                schedule(START_AT + NODE_SECONDS + 99 * GRID, self._shake, node, 0)

    def _repeat(self, seconds: float, what: str, number: int) -> float:
        """The next instant of a routine, a hair off the beat so that no two things happen at once."""
        hair = int(Draws(self._scene.seed, what, number)[0] * 4096) * GRID
        return self._world.now + seconds + hair

    # -- scans ---------------------------------------------------------------------------------------------

    def _scan(self, number: int) -> None:
        world, now = self._world, self._world.now
        while self._next is not None and self._next.at <= now:
            self._expect(self._next)
            self._next = next(self._stream, None)
        for feed, coming in self._due.items():
            sightings: list[Sighting] = []
            gone: list[str] = []
            while coming and coming[0][0] <= now:
                what = heapq.heappop(coming)[2]
                if isinstance(what, str):
                    gone.append(what)
                else:
                    sightings.append(what)
            if sightings or gone:
                world.tell(
                    o.FilesObserved(at=now, feed=feed, up=True, sightings=tuple(sightings), gone=tuple(gone))
                )
        self.exhausted = self._next is None and not any(self._due.values())
        world.schedule(self._repeat(self._scene.scan_seconds, "scan", number), self._scan, number + 1)

    def _expect(self, series: Arriving) -> None:
        """All that will be seen of one series, and when."""
        whole_at = series.at + series.growing_seconds
        look_at = whole_at + LOOK_SECONDS
        seen: list[tuple[float, Sighting | str]] = [(look_at, opened(series))]
        if series.growing_seconds:
            seen += [(series.at, growing(series)), (whole_at, stat_only(series))]
        match series.trouble:
            case "gone":
                seen += [(look_at + 60.0, series.key), (look_at + 400.0, opened(series))]
            case "changed":
                seen += [(look_at + 60.0, stat_only(series, 2)), (look_at + 90.0, opened(series, 2))]
            case "touched":
                known = self._known(series, opened(series))
                seen.append((look_at + 900.0, replace(known, stat_signature="touched")))
            case "changed_late":
                at = look_at + 350.0 + 1200.0 * Draws(self._scene.seed, "late", series.number)[0]
                seen.append((at, self._known(series, stat_only(series, 2))))
                seen.append((at + 45.0, self._known(series, opened(series, 2))))
        coming = self._due.setdefault(series.feed, [])
        for at, what in seen:
            self._expected += 1
            heapq.heappush(coming, (at, self._expected, what))

    @staticmethod
    def _known(series: Arriving, sighting: Sighting) -> Sighting:
        """As the watcher adds it from the journal's table of what it has seen."""
        first = opened(series).series
        assert first is not None
        return replace(
            sighting,
            known_dataset_id=series.dataset_id,
            known_revision=1,
            known_digest=first.fingerprint.digest,
        )

    # -- polls ---------------------------------------------------------------------------------------------

    def _jobs(self, number: int) -> None:
        world, scene = self._world, self._scene
        draws = Draws(scene.seed, "jobs", number)
        listed = world.server.listed(world.now)
        trouble = draws[1] if scene.failures else 1.0
        answer: o.Observation
        if trouble < scene.failures:
            answer = o.ServerUnreachable(at=world.now, detail="simulated: no answer")
        else:
            complete = trouble >= 2 * scene.failures
            if not complete:
                listed = listed[::2]
            elif trouble < 3 * scene.failures:
                left_out = int(draws[2] * len(listed))
                listed = listed[:left_out] + listed[left_out + 1 :]
            answer = o.JobsObserved(at=world.now, jobs=listed, complete=complete, asked_at=world.now)
        world.tell(answer)
        world.schedule(self._repeat(scene.jobs_seconds, "jobs", number), self._jobs, number + 1)

    def _nodes(self, number: int) -> None:
        world = self._world
        nodes = tuple([node.info(world.now) for node in world.nodes.values()])
        late = o.NodesObserved(at=world.now + 1.0, nodes=nodes)
        world.schedule(world.now + 1.0, world.tell, late)
        world.schedule(self._repeat(self._scene.nodes_seconds, "nodes", number), self._nodes, number + 1)

    def _shake(self, name: str, number: int) -> None:
        """Now and then a node is down for a while, some of them for longer than counts as lost."""
        world = self._world
        draws = Draws(self._scene.seed, "node", name, number)
        if draws[1] < self._scene.failures:
            world.down(world.nodes[name], draws.between(2, 200.0, 7000.0))
        world.schedule(world.now + NODE_SECONDS + int(draws[0] * 2**20) * GRID, self._shake, name, number + 1)

    # -- operators -----------------------------------------------------------------------------------------

    def finish(self, record: Dataset) -> None:
        """A dataset left the working set; some of them are remembered, for second thoughts."""
        self.left += 1
        if not self._scene.failures or (record.state is State.DELIVERED and self.left % 50):
            return
        self.finished[record.dataset_id] = record
        if len(self.finished) > FINISHED_MAX:
            del self.finished[min(self.finished)]

    def _operate(self, number: int) -> None:
        """Someone looks after what is held, and meddles with one dataset."""
        world = self._world
        for dataset_id, dataset in sorted(world.state().datasets.items()):
            for hold in dataset.holds:
                if hold.since_at < world.now - 900.0:
                    action = "cancel" if hold.cause in ("partial", "input_gone") else "release"
                    self._ask(action, dataset_id, None)
                    break
        self._meddle(Draws(self._scene.seed, "operator", number))
        world.schedule(self._repeat(OPERATOR_SECONDS, "beat", number), self._operate, number + 1)

    def _meddle(self, draws: Draws) -> None:
        live = sorted(self._world.state().datasets)
        if draws[1] < 0.3 and live:
            action = draws.choose(2, ("hold", "cancel", "release", "retry", "accept", "rerun"))
            self._ask(action, live[int(draws[3] * len(live))], None)
        elif draws[1] < 0.6 and self.finished and self._next is not None:
            dataset_id = sorted(self.finished)[int(draws[3] * len(self.finished))]
            record = self.finished.pop(dataset_id)
            action = draws.choose(2, ("retry", "rerun", "release", "cancel", "hold"))
            self._ask(action, dataset_id, record)

    def _ask(self, action: str, dataset_id: str, record: Dataset | None) -> None:
        live = self._world.state().datasets.get(dataset_id)
        if record is not None and live is not None and live.state not in TERMINAL:
            record = None
        self._world.tell(
            o.OperatorAsked(
                at=self._world.now,
                action=action,  # type: ignore[arg-type]
                dataset_id=dataset_id,
                by="operator",
                request_id="",
                record=record,
                latest_run=(record or live).run if (record or live) is not None else 0,  # type: ignore[union-attr]
            )
        )
