"""Effect -> plugin or file system -> exactly one observation in answer.  Time-outs; never raises.

Of each kind a few run at once, and the others wait in the order in which they came.  What blocks runs in a
worker thread.  Every effect can be done twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from msgspec.structs import replace

from tiltd.plugins.api import Permanent, PluginError, Temporary, Unsure

from . import collect, importing, jobfile, manifest
from .clock import Clock
from .commits import Commits
from .config import FeedSettings, Settings
from .core import effects as e
from .core import observations as o
from .core.core import Core
from .core.destination import result_folder
from .core.model import (
    Attempt,
    Dataset,
    Failure,
    JobSpec,
    Outcome,
    RunEnd,
    Verdict,
)
from .durable import Durably
from .hands import Hands
from .plugged import Plugged
from .posting import Posting
from .preparing import Preparing
from .releasing import STILL_CLEANING, Releasing
from .spool import Spool

AT_ONCE: dict[type[e.Effect], int] = {
    e.SubmitJob: 8,
    e.RevokeAttempt: 8,
    e.FenceAttempt: 8,
    e.CancelJob: 8,
    e.CollectResult: 8,
    e.ImportSeries: 1,
    e.ReleaseScratch: 4,
    e.SendNotice: 1000,  # each channel has a gate of its own, in ``posting.py``
}
VERIFYING = 2
"""So many results are read at once, however many wait for the disk to publish theirs."""
TIMEOUT_SECONDS: dict[type[e.Effect], float] = {
    e.SubmitJob: 120.0,
    e.RevokeAttempt: 120.0,
    e.FenceAttempt: 120.0,
    e.CancelJob: 120.0,
    e.CollectResult: 3600.0,
    e.ImportSeries: 6 * 3600.0,
    e.ReleaseScratch: 600.0,
    e.SendNotice: 3600.0,
}


class Perform:
    """The hands of the daemon.  ``put`` takes the answers; ``replied`` those to operators."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        plugged: Plugged,
        spool: Spool,
        clock: Clock,
        put: Callable[[o.Observation], Awaitable[None]],
        replied: Callable[[e.Reply], None],
        hands: Hands,
    ) -> None:
        self._core = core
        self._settings = settings
        self._manager = plugged.manager
        self._pipelines = plugged.pipelines
        self._posting = Posting(plugged.notifiers, settings.state_dir, lambda: core.state.notices)
        self._spool = spool
        self._clock = clock
        self._put = put
        self._replied = replied
        self._waiting: dict[type[e.Effect], deque[e.Effect]] = {kind: deque() for kind in AT_ONCE}
        self._busy = dict.fromkeys(AT_ONCE, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._buckets: dict[str, importing.TokenBucket] = {}
        self._hands = hands
        self._commits = Commits(hands)
        self._verifying = asyncio.Semaphore(VERIFYING)
        self._preparing = Preparing(core, settings, plugged.pipelines, spool, plugged.manager)
        self._releasing = Releasing(core, settings, plugged.manager, spool, clock, hands=self._hands)
        self._stopping = False
        self._log = structlog.get_logger("tiltd.perform")
        self._handlers: dict[type[e.Effect], Callable[[Any], Awaitable[o.Answer]]] = {
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
        """Begin; the answer comes into the inbox, exactly once."""
        if isinstance(effect, e.Reply):
            self._replied(effect)
            return
        kind = type(effect)
        self._waiting[kind].append(effect)
        if self._busy[kind] < AT_ONCE[kind]:
            self._busy[kind] += 1
            task = asyncio.create_task(self._work(kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Let what is under way end, then cancel it: all of it can be done again."""
        self._stopping = True
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=seconds)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _work(self, kind: type[e.Effect]) -> None:
        """One effect of this kind after another, as long as some wait."""
        waiting = self._waiting[kind]
        try:
            while waiting:
                await self._perform(waiting.popleft())
        finally:
            self._busy[kind] -= 1

    async def _perform(self, effect: e.Effect) -> None:
        # Whatever is logged on the way, by a plugin too, tells which dataset it is about.  Effects of a kind,
        # which come here one after another, have all the same keys.
        structlog.contextvars.bind_contextvars(**_about(effect))
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS[type(effect)]):
                answer = await self._handlers[type(effect)](effect)
        except (PluginError, TimeoutError, OSError) as error:
            answer = self._troubled(effect, error)
        except Exception as error:
            # A bug, ours or a plugin's, must not take the daemon down, nor go unseen.
            self._log.exception("an effect failed by a bug", effect=str(effect))
            answer = self._troubled(effect, Temporary(f"a bug in tiltd or a plugin: {error!r}"))
        if answer.trouble and answer.trouble != STILL_CLEANING:
            self._log.warning(answer.trouble, effect=type(effect).__name__)
        await self._put(answer)

    def _troubled(self, effect: e.Effect, error: Exception) -> o.Answer:
        """The answer of the effect's own kind that says what went wrong."""
        sentence = str(error) or f"{type(effect).__name__} took too long"
        permanent = isinstance(error, Permanent)
        retry_seconds = error.delay_seconds if isinstance(error, Temporary) else 0.0
        common: dict[str, Any] = {
            "at": self._clock.now(),
            "trouble": sentence,
            "permanent": permanent,
            "retry_seconds": retry_seconds,
        }
        match effect:
            case e.SubmitJob():
                unknown = isinstance(error, Unsure | TimeoutError)
                absent = isinstance(error, Unsure) and error.absent
                return o.SubmitAnswered(
                    attempt_id=effect.attempt_id, unknown=unknown, absent=absent, **common
                )
            case e.RevokeAttempt():
                return o.RevokeAnswered(attempt_id=effect.attempt_id, **common)
            case e.FenceAttempt():
                return o.FenceAnswered(attempt_id=effect.attempt_id, **common)
            case e.CancelJob():
                return o.CancelAnswered(attempt_id=effect.attempt_id, **common)
            case e.CollectResult():
                return o.CollectAnswered(attempt_id=effect.attempt_id, **common)
            case e.ImportSeries():
                return o.ImportAnswered(dataset_id=effect.dataset_id, **common)
            case e.ReleaseScratch():
                return o.ReleaseAnswered(attempt_id=effect.attempt_id, node=effect.node, **common)
            case e.SendNotice():
                return o.NoticeAnswered(notice_id=effect.notice_id, to=effect.to, **common)
        raise AssertionError(effect)

    def _find(self, effect: e.SubmitJob | e.CollectResult) -> tuple[Dataset, Attempt]:
        dataset = self._core.state.datasets.get(effect.dataset_id)
        attempt = dataset.attempt if dataset is not None else None
        if dataset is None or attempt is None or attempt.attempt_id != effect.attempt_id:
            raise Temporary(f"{effect.attempt_id} is no longer the newest attempt of its dataset")
        return dataset, attempt

    def _destination(self, dataset: Dataset) -> str:
        """As a template.  A feed that is gone from the settings keeps its datasets waiting."""
        try:
            return dataset.destination or self._settings.feed(dataset.feed).destination
        except KeyError:
            raise Temporary(
                f"the feed {dataset.feed} is no longer in tiltd.toml; put it back to have this go on", 300.0
            ) from None

    # -- submitting ---------------------------------------------------------------------------------------

    async def _submit(self, effect: e.SubmitJob) -> o.Answer:
        dataset, attempt = self._find(effect)
        assert dataset.series is not None
        place = self._destination(dataset)
        final = result_folder(place, dataset)
        found = await self._commits.do(place, self._result_or_spec, dataset, attempt, final)
        if isinstance(found, manifest.Published):
            return o.SubmitAnswered(
                at=self._clock.now(),
                attempt_id=attempt.attempt_id,
                result_path=found.path,
                result_bytes=found.result_bytes,
            )
        job_id = await self._manager.submit(found)
        return o.SubmitAnswered(at=self._clock.now(), attempt_id=attempt.attempt_id, job_id=job_id)

    def _result_or_spec(
        self, dataset: Dataset, attempt: Attempt, final: str
    ) -> Durably[manifest.Published | JobSpec]:
        """The result of this very series if it is there already, else the attempt made ready to be run."""
        found = collect.look_for_result(final, dataset)
        return found if found is not None else (yield from self._preparing.spec(dataset, attempt, final))

    async def _revoke(self, effect: e.RevokeAttempt) -> o.Answer:
        revoked, claimed_by = await self._hands.do(self._spool.revoke, effect.attempt_id)
        return o.RevokeAnswered(
            at=self._clock.now(), attempt_id=effect.attempt_id, revoked=revoked, claimed_by=claimed_by
        )

    async def _fence(self, effect: e.FenceAttempt) -> o.Answer:
        await self._hands.do(self._spool.fence, effect.attempt_id)
        return o.FenceAnswered(at=self._clock.now(), attempt_id=effect.attempt_id)

    async def _cancel(self, effect: e.CancelJob) -> o.Answer:
        await self._manager.cancel(effect.job_id)
        return o.CancelAnswered(at=self._clock.now(), attempt_id=effect.attempt_id)

    # -- results --------------------------------------------------------------------------------------------

    async def _collect(self, effect: e.CollectResult) -> o.Answer:
        dataset, attempt = self._find(effect)
        place = self._destination(dataset)
        final, verdict = result_folder(place, dataset), self._judge(dataset, attempt)
        async with self._verifying:
            work = await self._commits.begin(
                place, self._collected, dataset, attempt, final, verdict, self._clock.now()
            )
        return await self._commits.finish(work)

    def _collected(
        self, dataset: Dataset, attempt: Attempt, final: str, verdict: Verdict, at: float
    ) -> Durably[o.Answer]:
        document = self._spool.told(attempt.attempt_id)
        return (
            yield from collect.collect(
                dataset,
                attempt,
                final,
                str(document.get("nonce", "")),
                jobfile.expected_results(document),
                self._settings.publish,
                verdict,
                at,
                jobfile.staging(document),
                told_by(self._spool, dataset, attempt),
            )
        )

    def _judge(self, dataset: Dataset, attempt: Attempt) -> Verdict:
        """The pipeline's word on a run that succeeded; a person's word beats a bad one."""
        end = self._end_of_run(dataset, attempt)
        pipeline = self._pipelines.get(dataset.pipeline)
        if pipeline is None or end is None:
            failure = Failure(
                failure_class="config",
                reason="no_pipeline",
                detail=f"the pipeline {dataset.pipeline} is not installed, its result cannot be judged",
            )
            return Verdict(verdict="failed", failure=failure)
        verdict = pipeline.judge(Outcome(end=end, options=dataset.options, series=dataset.series))
        if verdict.verdict == "bad" and dataset.accepted_quality:
            return Verdict(verdict="doubtful", quality=verdict.quality, problems=verdict.problems)
        return verdict

    @staticmethod
    def _end_of_run(dataset: Dataset, attempt: Attempt) -> RunEnd | None:
        """For a rescue: the end of the run that computed the result, taken as the success it was."""
        for other in dataset.attempts:
            if other.attempt_id == attempt.rescues_attempt_id and other.end is not None:
                return replace(other.end, outcome="success", reason="", detail="", exit_status=0)
        return attempt.end

    async def _import(self, effect: e.ImportSeries) -> o.Answer:
        dataset = self._core.state.datasets.get(effect.dataset_id)
        if dataset is None or dataset.series is None:
            raise Temporary(f"{effect.dataset_id} is not waiting to be imported any more")
        feed = self._settings.feed(dataset.feed)
        assert feed.import_dir is not None
        return await asyncio.to_thread(  # for hours: no hand is kept for it
            importing.import_series,
            dataset.dataset_id,
            dataset.series,
            str(feed.path),
            str(feed.import_dir),
            self._bucket(feed),
            self._clock.now(),
            lambda: self._stopping,
        )

    def _bucket(self, feed: FeedSettings) -> importing.TokenBucket:
        """One per feed: imports at the same time share its rate."""
        if feed.name not in self._buckets:
            self._buckets[feed.name] = importing.TokenBucket(feed.import_bytes_per_second)
        return self._buckets[feed.name]

    async def _release(self, effect: e.ReleaseScratch) -> o.Answer:
        """The runner and its janitor clean; this makes sure, and removes what a failed attempt staged."""
        trouble = await self._releasing.release(effect)
        return o.ReleaseAnswered(
            at=self._clock.now(), attempt_id=effect.attempt_id, node=effect.node, trouble=trouble
        )

    async def _notify(self, effect: e.SendNotice) -> o.Answer:
        notice = self._core.state.notices.get(effect.notice_id)
        if notice is not None and effect.to in notice.to:
            await self._posting.post(notice, effect.to)
        return o.NoticeAnswered(at=self._clock.now(), notice_id=effect.notice_id, to=effect.to)


def told_by(spool: Spool, dataset: Dataset, attempt: Attempt) -> manifest.FromJobFiles:
    """Of every attempt whose job file is still in the spool; the steps are those of the run itself."""
    return manifest.FromJobFiles(
        texts={each.attempt_id: spool.texts(each.attempt_id) for each in dataset.attempts},
        step_names=jobfile.step_names(spool.told(attempt.rescues_attempt_id or attempt.attempt_id)),
    )


def _about(effect: e.Effect) -> dict[str, str]:
    """As which every line of the log tells it."""
    keys = {"dataset_id": "dataset", "attempt_id": "attempt_id", "notice_id": "notice_id", "to": "to"}
    return {key: str(getattr(effect, name)) for name, key in keys.items() if hasattr(effect, name)}
