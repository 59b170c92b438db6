"""The world around the core: it answers effects, runs jobs, and shows what a daemon would see.

Two drivers carry it through time (a heap here, asyncio in the tests) by ``schedule(at, what, *arguments)``;
what it shows goes to ``tell``.  All chance is drawn from names (``draws.py``), none from the order of calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.model import Attempt, Dataset, JobState, Measured, Progress, RunEnd
from tiltd.daemon.core.state import CoreState

from .cluster import Folder, Node, Server, SimJob
from .draws import Draws, on_grid
from .fates import collect_fate, run_fate, run_seconds, submit_fate
from .scene import Scene

Schedule = Callable[..., None]
Tell = Callable[[o.Observation], None]


class World:
    """One facility.  Memory: its nodes, its live attempts, and jobs that ended lately."""

    def __init__(self, scene: Scene, state: Callable[[], CoreState]) -> None:
        self.scene = scene
        self.state = state
        self.now = 0.0
        self.nodes = {name: Node(name, scene) for name in (f"n{n:03d}" for n in range(scene.nodes))}
        self.server = Server()
        self.folders: dict[str, Folder] = {}
        self.published: dict[str, str] | None = {} if scene.datasets <= 100_000 else None
        self.twice: list[str] = []
        self.busy_core_seconds = 0.0
        self.schedule: Schedule = lambda *_: None
        self.tell: Tell = lambda _: None
        self._tries: dict[str, int] = {}
        self._handlers: dict[type[e.Effect], Callable[[Any], None]] = {
            e.SubmitJob: self._submit,
            e.RevokeAttempt: self._revoke,
            e.FenceAttempt: self._fence,
            e.CancelJob: self._cancel,
            e.CollectResult: self._collect,
            e.ImportSeries: self._import,
            e.ReleaseScratch: self._release,
            e.SendNotice: self._notify,
        }

    def start(self, effect: e.Effect) -> None:
        """Perform it: some time later exactly one answer is told (now and then the same again)."""
        if handler := self._handlers.get(type(effect)):
            handler(effect)

    def _answer(self, seconds: float, kind: type[o.Answer], twice: bool = False, **fields: Any) -> None:
        at = self.now + seconds
        self.schedule(at, self.tell, kind(at=at, **fields))
        if twice:
            at = self.now + on_grid(seconds * 3.0 + 1.0)
            self.schedule(at, self.tell, kind(at=at, **fields))

    def _goes_wrong(self, draws: Draws, index: int) -> bool:
        return draws[index] < self.scene.failures

    # -- submitting ----------------------------------------------------------------------------------------

    def _find(self, dataset_id: str, attempt_id: str) -> tuple[Dataset | None, Attempt | None]:
        dataset = self.state().datasets.get(dataset_id)
        attempt = dataset.attempt if dataset is not None else None
        return dataset, attempt if attempt is not None and attempt.attempt_id == attempt_id else None

    def _submit(self, effect: e.SubmitJob) -> None:
        dataset, attempt = self._find(effect.dataset_id, effect.attempt_id)
        if dataset is None or attempt is None:
            self._answer(0.25, o.SubmitAnswered, attempt_id=effect.attempt_id, trouble="no such attempt")
            return
        folder = self.folders.get(effect.attempt_id)
        if folder is None:
            draws = Draws(self.scene.seed, "attempt", effect.attempt_id)
            fate = run_fate(draws, self.scene.failures, attempt.kind)
            folder = Folder(attempt, draws, fate, run_seconds(draws, dataset, attempt))
            self.folders[effect.attempt_id] = folder
        folder.submits += 1
        fate = submit_fate(folder.draws, self.scene.failures, folder.submits)
        seconds = folder.draws.latency(1, 0.5 * folder.submits)
        fields: dict[str, Any] = {"attempt_id": effect.attempt_id}
        if self.published and effect.dataset_id in self.published:
            fields |= {"result_path": f"/results/{dataset.tilt_series_name}", "result_bytes": 1}
        elif fate in ("temporary", "permanent"):
            fields |= {"trouble": f"simulated: {fate}", "permanent": fate == "permanent"}
        else:
            job = self._adopt(folder)
            if fate == "unknown":
                fields |= {"trouble": "simulated: no answer", "unknown": True}
            else:
                fields |= {"job_id": job.job.job_id}
        self._answer(seconds, o.SubmitAnswered, self._goes_wrong(folder.draws, 2), **fields)

    def _adopt(self, folder: Folder) -> SimJob:
        """The job that bears the attempt's name, or a new one."""
        for job in folder.jobs:
            if not job.ended:
                return job
        node = self.nodes[folder.attempt.placement.nodes[0]]
        job = self.server.submit(folder, node, self.now)
        seconds = folder.draws.latency(3, 4.0)
        if folder.fate == "double" and len(folder.jobs) == 1:
            second = self.server.submit(folder, node, self.now)
            self.schedule(self.now + seconds, self._begin, second)
            seconds = on_grid(seconds + 20.0)
        self.schedule(self.now + seconds, self._begin, job)
        return job

    # -- the runner ----------------------------------------------------------------------------------------

    def _begin(self, job: SimJob) -> None:
        """The job starts: claim or go."""
        folder = job.folder
        if job.ended:
            return
        if not job.node.is_up(self.now):
            self.schedule(job.node.up_at + 1.0, self._begin, job)
            return
        if folder.fate == "vanish":
            self.server.vanish(job, self.now)
            return
        if folder.revoked or folder.claimed_by not in ("", job.job.job_id):
            self.server.end(job, 0, self.now)
            return
        folder.claimed_by, folder.claimed_node, folder.claimed_at = job.job.job_id, job.node.name, self.now
        self.server.show(job, JobState.RUNNING)
        job.take()
        self._shown(folder, Progress(phase="staging", at=self.now, node=job.node.name), None)
        self._plan(job)

    def _plan(self, job: SimJob) -> None:
        """What this run will come to."""
        folder, now = job.folder, self.now
        share = 0.25 + 0.5 * folder.draws[4]
        match folder.fate:
            case "slow":
                pass
            case "gone":
                self.schedule(now + on_grid(folder.seconds * share), self._vanish, job)
            case "requeue" if job.ran == 1:
                self.schedule(now + on_grid(folder.seconds * share), self._requeue, job)
            case "scratch_short" | "input_changed":
                self.schedule(now + 4.0, self._end, job, folder.fate, folder.fate, 75)
            case "program" | "memory" | "environment" | "input":
                at = now + on_grid(folder.seconds * share)
                self.schedule(at, self._end, job, "failed", folder.fate, 1)
            case "terminated" | "silent":
                at = now + on_grid(folder.seconds * share)
                self.schedule(at, self._end, job, folder.fate, "killed", 271)
            case "stranded":
                self.schedule(now + folder.seconds, self._end, job, "stranded", "destination", 0)
            case _:
                self.schedule(now + folder.seconds, self._end, job, "success", "", 0)

    def _vanish(self, job: SimJob) -> None:
        if job.running:
            job.give_back()
            self.server.vanish(job, self.now)

    def _requeue(self, job: SimJob) -> None:
        """TERM, and back into the queue under the same id; the runner had its say."""
        if job.running:
            job.give_back()
            self.server.show(job, JobState.QUEUED)
            self._shown(job.folder, None, self._run_end(job, "terminated", "killed", 271))
            self.schedule(self.now + 90.0, self._begin, job)

    def _end(self, job: SimJob, outcome: str, reason: str, status: int) -> None:
        if not job.running:
            return
        if job.folder.fenced and outcome == "success":
            outcome, status = "fenced", 0
        job.give_back()
        self.server.end(job, status, self.now)
        self.busy_core_seconds += job.folder.attempt.placement.cores * (
            self.now - (job.folder.claimed_at or self.now)
        )
        if outcome != "silent":
            self._shown(job.folder, None, self._run_end(job, outcome, reason, status))

    def _run_end(self, job: SimJob, outcome: str, reason: str, status: int) -> RunEnd:
        folder = job.folder
        seconds = self.now - (folder.claimed_at or self.now)
        decided = folder.attempt.decided
        return RunEnd(
            job_id=job.job.job_id,
            nonce="",
            outcome=outcome,  # type: ignore[arg-type]
            ended_at=self.now,
            node=job.node.name,
            exit_status=status,
            reason=reason,
            detail="simulated",
            stranded_path="/scratch/stranded" if outcome == "stranded" else "",
            measured=Measured(
                run_seconds=seconds,
                peak_memory_bytes=decided.asked_memory_bytes // 2 if decided is not None else 0,
                peak_scratch_bytes=decided.asked_scratch_bytes // 2 if decided is not None else 0,
            ),
        )

    def _shown(self, folder: Folder, progress: Progress | None, end: RunEnd | None) -> None:
        self.tell(
            o.SpoolObserved(
                at=self.now,
                attempt_id=folder.attempt.attempt_id,
                claimed_by=folder.claimed_by,
                claimed_node=folder.claimed_node,
                claimed_at=folder.claimed_at,
                progress=progress,
                end=end,
            )
        )

    def down(self, node: Node, seconds: float) -> None:
        """The node is gone with all that runs on it; the server only notices when it is back."""
        node.up_at = self.now + seconds
        for job in list(self.server.jobs.values()):
            if job.node is node and job.running:
                job.running = False
                self.schedule(node.up_at, self._died, job)

    def _died(self, job: SimJob) -> None:
        job.give_back()
        if not job.ended:
            self.server.end(job, 265, self.now)

    # -- withdrawing -----------------------------------------------------------------------------------------

    def _revoke(self, effect: e.RevokeAttempt) -> None:
        self.schedule(self.now + 0.5, self._renamed, effect.attempt_id)

    def _renamed(self, attempt_id: str) -> None:
        """One rename wins."""
        folder = self.folders.get(attempt_id)
        claimed_by = folder.claimed_by if folder is not None else ""
        if folder is not None and not claimed_by:
            folder.revoked = True
        self.tell(
            o.RevokeAnswered(
                at=self.now, attempt_id=attempt_id, revoked=not claimed_by, claimed_by=claimed_by
            )
        )

    def _fence(self, effect: e.FenceAttempt) -> None:
        folder = self.folders.get(effect.attempt_id)
        if folder is not None:
            folder.fenced = True
        self._answer(0.5, o.FenceAnswered, attempt_id=effect.attempt_id)

    def _cancel(self, effect: e.CancelJob) -> None:
        job = self.server.jobs.get(effect.job_id)
        fields: dict[str, Any] = {"attempt_id": effect.attempt_id}
        if job is not None:
            job.folder.cancels += 1
            if self._goes_wrong(job.folder.draws, 5) and job.folder.cancels == 1:
                self._answer(2.0, o.CancelAnswered, trouble="simulated: busy", **fields)
                return
            self.schedule(self.now + 8.0, self._cancelled, job)
        self._answer(1.0, o.CancelAnswered, **fields)

    def _cancelled(self, job: SimJob) -> None:
        if job.running:
            self._end(job, "terminated", "cancelled", 271)
        elif not job.ended and job.node.is_up(self.now):
            self.server.end(job, 271, self.now)

    # -- results ---------------------------------------------------------------------------------------------

    def _collect(self, effect: e.CollectResult) -> None:
        dataset, attempt = self._find(effect.dataset_id, effect.attempt_id)
        fields: dict[str, Any] = {"attempt_id": effect.attempt_id}
        folder = self.folders.get(effect.attempt_id)
        if dataset is None or attempt is None or folder is None:
            self._answer(0.25, o.CollectAnswered, trouble="no longer the newest attempt", **fields)
            return
        folder.collects += 1
        fate = collect_fate(folder.draws, self.scene.failures, folder.collects)
        seconds = folder.draws.latency(6, 3.0)
        if fate == "bad" and dataset.accepted_quality:
            fate = ""
        match fate:
            case "occupied" | "damaged":
                fields |= {"trouble": f"simulated: {fate}", fate: True}
            case "temporary":
                fields |= {"trouble": "simulated: the destination is full"}
            case "bad":
                fields |= {"trouble": "simulated: 40 nm residual", "verdict": "bad"}
            case _:
                self._publish(dataset.dataset_id, effect.attempt_id)
                fields |= {
                    "result_path": f"/results/{dataset.tilt_series_name}",
                    "result_bytes": attempt.request.result_bytes,
                    "verdict": "good",
                    "measured": attempt.end.measured if attempt.end is not None else None,
                }
        self._answer(seconds, o.CollectAnswered, self._goes_wrong(folder.draws, 7), **fields)

    def _publish(self, dataset_id: str, attempt_id: str) -> None:
        if self.published is not None and self.published.setdefault(dataset_id, attempt_id) != attempt_id:
            self.twice.append(dataset_id)

    def _import(self, effect: e.ImportSeries) -> None:
        tries = self._again(f"import {effect.dataset_id}")
        draws = Draws(self.scene.seed, "import", effect.dataset_id)
        fields: dict[str, Any] = {"dataset_id": effect.dataset_id}
        if self._goes_wrong(draws, 0) and tries == 1:
            fields |= {"trouble": "simulated: no space"}
        else:
            del self._tries[f"import {effect.dataset_id}"]
            fields |= {"path": f"/import/{effect.dataset_id}"}
        self._answer(draws.latency(1, 15.0), o.ImportAnswered, **fields)

    def _again(self, what: str) -> int:
        self._tries[what] = self._tries.get(what, 0) + 1
        return self._tries[what]

    def _release(self, effect: e.ReleaseScratch) -> None:
        folder = self.folders.get(effect.attempt_id)
        fields: dict[str, Any] = {"attempt_id": effect.attempt_id, "node": effect.node}
        if folder is not None:
            folder.releases += 1
            alive = [job for job in folder.jobs if job.running]
            away = not self.nodes[effect.node].is_up(self.now)
            if alive or away or (self._goes_wrong(folder.draws, 8) and folder.releases == 1):
                self._answer(0.5, o.ReleaseAnswered, trouble="simulated: not clean yet", **fields)
                return
            seconds = folder.draws.latency(9, 1.0)
        else:
            seconds = 1.0
        self._answer(seconds, o.ReleaseAnswered, **fields)

    def forget(self, dataset: Dataset) -> None:
        """It left the working set: its attempts' folders are pruned."""
        for attempt in dataset.attempts:
            folder = self.folders.pop(attempt.attempt_id, None)
            if folder is not None:
                folder.jobs.clear()  # which name it too: nothing is left for the collector

    def _notify(self, effect: e.SendNotice) -> None:
        told = effect.notice_id if effect.to == "log" else f"{effect.notice_id}:{effect.to}"
        tries = self._again(told)
        draws = Draws(self.scene.seed, "notice", told)
        trouble = "simulated: no mail" if self._goes_wrong(draws, 0) and tries == 1 else ""
        if not trouble:
            del self._tries[told]
        self._answer(1.0, o.NoticeAnswered, notice_id=effect.notice_id, to=effect.to, trouble=trouble)
