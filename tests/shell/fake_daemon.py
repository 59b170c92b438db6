"""A daemon for tests of what speaks to one: live datasets in a core, finished ones in a reader."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tiltd.daemon.config import Settings
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.digests import Board
from tiltd.daemon.core.ledger import Ledger
from tiltd.daemon.core.model import Dataset, Failure, Hold, NodeInfo, Policy, State, Unplaceable
from tiltd.daemon.core.observations import OperatorAsked
from tiltd.daemon.metrics import Metrics
from tiltd.daemon.plugged import Plugged
from tiltd.daemon.questions.candidate import Judged, judge
from tiltd.plugins import wbp
from tiltd.policy.breaker import Breakers

NOW = 10_000.0
HOSTILE = "TS 'x'\n\udcff$(reboot)"


def dataset(dataset_id: str, name: str = "TS_01", **changes: Any) -> Dataset:
    values: dict[str, Any] = {
        "dataset_id": dataset_id,
        "feed": "krios1",
        "series_key": f"{name}.mrc",
        "tilt_series_name": name,
        "kind": "stack",
        "revision": 1,
        "run": 1,
        "found_at": 0.0,
        "state": State.READY,
        "state_since_at": 10.0,
        "labels": {"project": "p1", "session": "s1"},
        "pipeline": "wbp",
        "completed_at": 9_000.0,
    }
    return Dataset(**(values | changes))


class FakeReader:
    def __init__(self, *rows: Dataset) -> None:
        self.rows = {row.dataset_id: row for row in rows}
        self.acted: list[tuple[int, f.OperatorActed]] = []

    def dataset(self, dataset_id: str) -> Dataset | None:
        return self.rows.get(dataset_id)

    def find(self, name: str, limit: int = 20, projects: Any = None) -> list[Dataset]:
        found = [d for d in self.rows.values() if d.tilt_series_name == name or d.dataset_id.startswith(name)]
        return [d for d in found if projects is None or d.project in projects]

    def page(
        self, *, states: Any = (), projects: Any = None, before: Any = None, limit: int = 100, **_: Any
    ) -> list[Dataset]:
        rows = [d for d in self.rows.values() if projects is None or d.project in projects]
        rows = [d for d in rows if before is None or (d.state_since_at, d.dataset_id) < before]
        rows.sort(key=lambda d: (d.state_since_at, d.dataset_id), reverse=True)
        return [d for d in rows if not states or d.state in states][:limit]

    def counts(self, projects: Any = None, since_at: float = 0.0) -> dict[str, int]:
        return dict(Counter(d.state.value for d in self.page(projects=projects, limit=10_000)))

    def projects(self) -> list[str]:
        return sorted({d.project for d in self.rows.values()})

    def acts(
        self, *, before: int | None = None, dataset_id: str = "", limit: int = 100
    ) -> list[tuple[int, f.OperatorActed]]:
        return [each for each in self.acted if not dataset_id or each[1].dataset_id == dataset_id][:limit]

    def select(
        self, *, states: Any = (), feed: str = "", project: str = "", session: str = "", limit: int = 500
    ) -> list[Dataset]:
        return [d for d in self.rows.values() if not states or d.state in states][:limit]

    def facts(self, dataset_id: str) -> list[tuple[int, f.Fact]]:
        return [(7, f.DatasetCancelled(at=1.0, dataset_id=dataset_id, reason="r", by="me"))]

    def told(self, limit: int = 50) -> list[Any]:
        sent = f.NoticeSent(at=2.0, notice_id="failed:x", to="anna@example.org")
        return [sent, f.NoticeGivenUp(at=1.0, notice_id="failed:y", to="chat", reason="gone")][:limit]

    def latest_run(self, dataset: Dataset) -> int:
        return max((d.run for d in self.rows.values() if d.series_key == dataset.series_key), default=1)

    def ignored(self, feed: str) -> list[Any]:
        return [SimpleNamespace(series_key="a/montage.mrc", reason="montage", detail="6 pieces")]


class FakeManager:
    """A resource manager whose scheduler has something to say."""

    words: list[str] | Exception = ["checkjob: too few cores"]

    async def reasons(self, job_id: str) -> list[str]:
        if isinstance(self.words, Exception):
            raise self.words
        return [f"{word} for {job_id}" for word in self.words]


class FakeDaemon:
    def __init__(self, settings: Settings, live: list[Dataset], finished: list[Dataset]) -> None:
        self.settings = settings
        node = NodeInfo(
            name="here",
            state="free",
            cores=4,
            cores_free=4,
            memory_bytes=1,
            scratch_total_bytes=100,
            scratch_free_bytes=50,
            scratch_path="/s",
            observed_at=0.0,
        )
        state = SimpleNamespace(
            board=Board(), datasets={d.dataset_id: d for d in live}, ledger=Ledger(), breakers=Breakers()
        )
        blocked = {live[0].dataset_id: Unplaceable(rejected={"scratch": 1}, unblocked_by=("node",))}
        self.core: Any = SimpleNamespace(
            notice_troubles=lambda notice_id, to: ["the mail server is away"],
            state=state,
            nodes={"here": node},
            arrivals={},
            blocked_by=blocked.get,
            refusals={},
            jobs_forgotten=0,
            foreign_counts={},
            listed_states=dict,
            shares=lambda now: [],
            why=lambda dataset_id, now: [f"{dataset_id} waits at {now:g}"],
            directives=lambda dataset: None,
            release_troubles=lambda attempt_id, node: [f"{node} is down"],
            objection=lambda action, dataset, options: "",
            progress=lambda dataset: None,
            policy=Policy(version="0123456789ab"),
        )
        self.reader = FakeReader(*finished)
        self.metrics = Metrics(now=lambda: NOW)
        self.clock = SimpleNamespace(now=lambda: NOW)
        self.asked: list[OperatorAsked] = []
        self.reasons: list[str] = []
        self.policy_refused: list[str] = []
        self.pruned: list[str] = []
        self.plugged: Any = Plugged({}, {}, {}, manager=FakeManager())  # type: ignore[arg-type]
        self.metrics.attach(self.core)

    def pipeline_options(self, name: str) -> Any:
        return wbp.OPTIONS

    async def try_policy(self, text: str, instead: bool) -> Judged:
        return judge(text, self.settings, self.core.policy, instead=instead)

    def ready(self) -> tuple[bool, list[str]]:
        return not self.reasons, self.reasons

    async def reload_policy(self, by: str) -> tuple[bool, list[str], str]:
        return False, ["site.toml:3: cores: no such thing"], "0123456789ab"

    async def prune_journal(self, dataset_ids: Any) -> int:
        self.pruned.extend(dataset_ids)
        return len(dataset_ids)

    async def ask(self, observation: OperatorAsked) -> tuple[bool, str]:
        self.asked.append(observation)
        return observation.action != "accept", f"{observation.action} done"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def fake_daemon(tmp_path: Path) -> FakeDaemon:
    (tmp_path / "tiltd.toml").write_text(
        f'state_dir = "{tmp_path}"\n[listen]\nport = {free_port()}\n'
        '[[feed]]\nname = "krios1"\npath = "/data/krios1"\ndestination = "/tomo/{series}"\n'
    )
    held = Hold(cause="operator", origin="me", detail="later", since_at=0.0)
    failure = Failure(failure_class="memory", reason="oom", detail="killed", remedy="ask for more")
    live = [dataset("a-1.1.1"), dataset("b-1.1.1", "TS_02", holds=(held,)), dataset("h-1.1.1", HOSTILE)]
    finished = [
        dataset("c-1.1.1", "TS_03", state=State.FAILED, failure=failure),
        dataset("d-1.1.1", "TS_04", state=State.DELIVERED, labels={"project": "p2"}),
        dataset("d-1.1.3", "TS_04", state=State.DELIVERED, run=3, labels={"project": "p2"}),
        dataset("e-1.1.1", "TS_01", state=State.DELIVERED, series_key="other/TS_01.mrc"),
    ]
    return FakeDaemon(Settings.load(tmp_path / "tiltd.toml"), live, finished)
