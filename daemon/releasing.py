"""Giving scratch back: only when nothing of the attempt is left on the node, and nothing is alive there.

On this machine the daemon looks itself.  On another node the runner's word, or its janitor's, counts; where
neither could speak (the node died, the janitor was killed) a sweep job makes sure.
"""

from __future__ import annotations

import asyncio

from tiltd.plugins.api import ResourceManager

from . import collect, errands, jobfile, sweep
from .alive import is_running
from .clock import Clock
from .config import Settings
from .core import effects as e
from .core.core import Core
from .core.giving_back import left_nothing
from .core.model import TERMINAL, Attempt, Dataset, JobSpec, NodeInfo, RunEnd, State
from .hands import Hands
from .spool import AttemptSeen, Spool

STILL_CLEANING = "its runner is still cleaning up"
CLEANING_SECONDS = 60.0
"""After a job's end its runner, and its janitor, have so long to say that they are done."""
SWEEP_LOST_SECONDS = 3600.0
"""A sweep job of which nothing is heard for so long is given up, and another one sent."""
LOOK_SECONDS, LOOKS = 1.0, 20
UP = ("free", "busy")


class Releasing:
    """Each call costs one attempt's folders; what blocks runs in a worker thread."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        manager: ResourceManager,
        spool: Spool,
        clock: Clock,
        looks: int = LOOKS,
        hands: Hands | None = None,
    ) -> None:
        self._looks = looks
        self._hands = hands or Hands()
        self._core = core
        self._settings = settings
        self._manager = manager
        self._spool = spool
        self._clock = clock

    async def release(self, effect: e.ReleaseScratch) -> str:
        """Why the reservation stays; "" when it can go.  Raises PluginError.  Doing it twice is fine."""
        dataset = self._core.state.datasets.get(effect.dataset_id)
        local = self._settings.resource_manager == "local"
        kept = _is_collected(dataset, effect.attempt_id)
        seen, alive, swept = await self._hands.do(self._tidied, effect.attempt_id, local, kept)
        if alive:
            return STILL_CLEANING
        node = self._core.nodes.get(effect.node)
        given_up = not _is_to_be_rescued(dataset, effect.attempt_id)
        if local:
            path = node.scratch_path if node is not None else ""
            if node is None:
                return ""
            return await self._hands.do(sweep.release, path, effect.attempt_id, alive, given_up)
        if self._is_clean(seen, effect.node):
            if swept:
                await self._hands.do(self._spool.remove, errands.sweep_id(effect.attempt_id))
            return ""
        return await self._remote(effect, _attempt(dataset, effect.attempt_id), node, given_up)

    def _tidied(self, attempt_id: str, local: bool, kept: bool) -> tuple[AttemptSeen, bool, bool]:
        """What its folder shows, whether its runner is alive here, and whether a sweep was prepared.  Unless
        it is alive, or the result is ``kept``, what it staged is removed: nobody will publish it."""
        seen = self._spool.read(attempt_id)
        alive = local and bool(seen.pid) and is_running(seen.pid, seen.pid_started)
        staging = "" if alive or kept else jobfile.staging(self._spool.told(attempt_id))
        if staging:
            collect.discard(staging, attempt_id)
        return seen, alive, self._spool.has(errands.sweep_id(attempt_id))

    # -- on another node -------------------------------------------------------------------------------------

    async def _remote(
        self,
        effect: e.ReleaseScratch,
        attempt: Attempt | None,
        node: NodeInfo | None,
        given_up: bool,
    ) -> str:
        if node is None:
            # Not listed any more, so nothing is placed there; its own figures tell of what is left.
            return "" if self._core.nodes else "the nodes are not known yet"
        if node.state not in UP:
            return f"{effect.node} is {node.state}: what {effect.attempt_id} booked there stays booked"
        ended_at = attempt.ended_at if attempt is not None else None
        if ended_at is not None and self._clock.now() < ended_at + CLEANING_SECONDS:
            return STILL_CLEANING
        return await self._sweep(effect, node, given_up)

    def _is_clean(self, seen: AttemptSeen, node: str) -> bool:
        """Nobody ever claimed it, no run of it was on this node, or each has said that it left nothing."""
        if not seen.claimed_by:
            return True
        if not seen.runs:
            return False
        return left_nothing(seen.runs, node, self._core.nodes)

    async def _sweep(self, effect: e.ReleaseScratch, node: NodeInfo, given_up: bool) -> str:
        errand_id = errands.sweep_id(effect.attempt_id)
        seen = await self._hands.do(self._spool.read, errand_id)
        if seen.end is not None:
            return await self._swept(node, errand_id, seen.end)
        if seen.prepared and await self._hands.do(self._age_seconds, errand_id) > SWEEP_LOST_SECONDS:
            await self._hands.do(self._spool.remove, errand_id)
            return f"nothing was heard of the sweep of {node.name}; another one is sent"
        if seen.claimed_by:
            return f"{node.name} is being swept by job {seen.claimed_by}"
        spec = await self._hands.do(self._prepare, effect.attempt_id, node, given_up)
        job_id = await self._manager.submit(spec)
        for _ in range(self._looks):  # most often it is done in seconds
            await asyncio.sleep(LOOK_SECONDS)
            end = (await self._hands.do(self._spool.read, errand_id)).end
            if end is not None:
                return await self._swept(node, errand_id, end)
        return f"job {job_id} is to see that nothing of {effect.attempt_id} is left on {node.name}"

    async def _swept(self, node: NodeInfo, errand_id: str, end: RunEnd) -> str:
        await self._hands.do(self._spool.remove, errand_id)
        return "" if end.outcome == "success" else f"the sweep of {node.name}: {end.detail}"

    def _prepare(self, attempt_id: str, node: NodeInfo, given_up: bool) -> JobSpec:
        document = errands.sweep_document(attempt_id, node.scratch_path, given_up, self._clock.now())
        folder = self._spool.prepare(document["attempt_id"], document)
        policy = self._core.policy.resources
        runner = self._spool.install_runner()
        return errands.spec(document, node.name, runner, folder, policy.queue, policy.account)

    def _age_seconds(self, errand_id: str) -> float:
        """Since it was prepared, which stands in its nonce."""
        nonce = str((self._spool.document(errand_id) or {}).get("nonce", ""))
        try:
            return self._clock.now() - float(nonce.rpartition("@")[2])
        except ValueError:
            return float("inf")


def _attempt(dataset: Dataset | None, attempt_id: str) -> Attempt | None:
    attempts = dataset.attempts if dataset is not None else ()
    return next((attempt for attempt in attempts if attempt.attempt_id == attempt_id), None)


def _is_to_be_rescued(dataset: Dataset | None, attempt_id: str) -> bool:
    """Is the result that this attempt left on scratch still wanted?"""
    return dataset is None or (dataset.rescue == attempt_id and dataset.state not in TERMINAL)


def _is_collected(dataset: Dataset | None, attempt_id: str) -> bool:
    """Is this the attempt whose staged result is being verified, or waits for a person?"""
    attempt = dataset.attempt if dataset is not None and dataset.state is State.COLLECTING else None
    return attempt is not None and attempt.attempt_id == attempt_id
