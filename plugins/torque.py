"""Resource manager ``torque``: Torque's commands, with Maui asked for its reasons only.

Exactly once stands on three things: the intent to submit is durable in the attempt's folder before ``qsub``
is called; a submission with an unclear outcome is looked for by its name and owner before anything else is
done; and of two jobs of one name only one can claim the attempt, so that the other is harmless and deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any

from tiltd.daemon.clock import Clock
from tiltd.daemon.core.model import JobSpec, NodeInfo
from tiltd.daemon.text import shown
from tiltd.plugins import maui, torque_errors, torque_intent, torque_script, torque_site
from tiltd.plugins.api import (
    CommandCount,
    Context,
    Finding,
    JobsSeen,
    Permanent,
    Temporary,
    Unreachable,
    Unsure,
)
from tiltd.plugins.commandline import BackOff, CommandLine, NotStarted, Ran, Rule, TokenBucket
from tiltd.plugins.torque_asking import Asking, Ours
from tiltd.plugins.torque_intent import Trace
from tiltd.plugins.torque_jobs import JOB_ID, owner_of
from tiltd.plugins.torque_settings import read
from tiltd.plugins.torque_tidying import Tidying, best

_log = logging.getLogger(__name__)
MAUI_SECONDS = 10.0
COMMANDS_AT_ONCE = 32
"""All kinds together: submissions and deletions that hang, eight each, must leave room for questions."""
FULL_SECONDS = 30.0
ACCEPTED_MAX = 10_000
"""Ids by name are remembered for so many submissions; any other is found in the list of jobs."""
SECOND_LOOK_SECONDS = 0.1


class TorqueManager:
    """``settings`` is the table ``[torque]``.  Costs: one ``qsub`` a submission, one ``qstat -x`` a look at
    all jobs, one ``pbsnodes -x`` a look at the nodes; a look that is under way serves all who ask meanwhile.

    Raises Permanent for settings that cannot be used.
    """

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self.settings = read(settings)
        self.clock: Callable[[], float] = Clock().now
        self.owner = self.settings.owner or owner_of(context.owner)
        environment = dict(self.settings.environment)
        if self.settings.server:
            environment["PBS_DEFAULT"] = self.settings.server
        self.commands = CommandLine(self.settings.path, environment, at_once=COMMANDS_AT_ONCE)
        self._options = self.settings.options()
        self._back_off = BackOff(self._now)
        self._full_queues: dict[str, BackOff] = {}
        self._in_worker = context.in_worker or asyncio.to_thread
        self._mark = torque_script.mark(context.journal_id)
        ours = Ours(owner=self.owner, mark=self._mark)
        self._asking = Asking(self.settings, self.commands, ours, self._now)
        self._tidying = Tidying(os.path.join(context.spool_folder, "attempts"), self._delete)
        self._gate = asyncio.Semaphore(self.settings.submit_at_once)
        self._bucket = TokenBucket(self.settings.submits_per_second, self.settings.submit_at_once)
        self._names: dict[str, tuple[asyncio.Lock, int]] = {}
        self._unclear_at: dict[str, float] = {}
        self._missed_at: dict[str, float] = {}
        self._accepted: dict[str, str] = {}
        self._made_at = self._now()

    def _now(self) -> float:
        return self.clock()

    # -- the protocol ----------------------------------------------------------------------------------

    async def submit(self, spec: JobSpec) -> str:
        """See the protocol.  Raises Permanent for what Torque will never take, Temporary when it certainly
        has not taken it now, and Unsure when nobody knows: then the next call looks before it acts."""
        async with self._alone(spec.job_name):
            script, command, obstacle = self._rendered(spec)
            if obstacle or spec.job_name in self._unclear_at or spec.job_name in self._accepted:
                if obstacle and spec.papers_laid:
                    await self._withdraw(spec)
                trace = await self._begin(spec, "")
            else:
                async with self._gate:
                    if (pausing := self._pausing(spec)) is not None:
                        if spec.papers_laid:
                            await self._withdraw(spec)
                        raise pausing  # trouble came while it waited for its turn
                    trace = torque_intent.UNTOUCHED if spec.papers_laid else await self._begin(spec, script)
                    ran = await self._run(spec, command) if trace.untouched else None
                if ran is not None:
                    return await self._judged(spec, ran)
            if job_id := trace.claimed_by or self._accepted.get(spec.job_name, ""):
                return self._handed_out(spec, job_id)
            if trace.revoked or not trace.prepared:
                raise Permanent(f"{shown(spec.attempt_folder)} was revoked, or has no job.json")
            if trace.intended or obstacle is None:
                return await self._look_for(spec, "an earlier submission may have happened")
            raise obstacle

    def papers(self, spec: JobSpec) -> Mapping[str, bytes]:
        """The script, whose being there means that a job may exist; see :mod:`torque_intent`."""
        try:
            script = torque_script.script(spec, self._options)
        except Permanent:  # as ``submit`` will tell
            return {}
        return {} if self._pausing(spec) else {torque_intent.SCRIPT: script.encode("ascii")}

    async def jobs(self) -> JobsSeen:
        listing = await self._asking.jobs_since(self._now())
        self._tidying.look(listing, self._asking.expected)
        return JobsSeen(
            jobs=tuple(listing.jobs.values()),
            complete=listing.complete,
            asked_at=listing.asked_at,
            foreign_counts=listing.foreign_counts,
        )

    async def nodes(self) -> Sequence[NodeInfo]:
        """The nodes that have all ``properties`` of ``[torque]``."""
        return await self._asking.nodes()

    async def cancel(self, job_id: str) -> None:
        """``qdel``, as often as it is asked for.  Raises Temporary while the node cannot be reached."""
        if not JOB_ID.fullmatch(job_id):
            raise Permanent(f"{shown(job_id)!r} is no id of a Torque job")
        argv = [self.settings.qdel, job_id]
        ran = await self.commands.run(argv, timeout_seconds=self.settings.timeout_seconds)
        rule = self.commands.judge(ran, torque_errors.QDEL, torque_errors.QDEL_OTHERWISE)
        if rule.kind == "permanent":
            raise Permanent(_sentence(f"qdel {job_id}", rule, ran))
        if rule.kind not in ("done", "gone"):
            raise Temporary(_sentence(f"qdel {job_id}", rule, ran), delay_seconds=10.0)

    # -- beside it -------------------------------------------------------------------------------------

    def expect(self, job_ids: Collection[str]) -> None:
        self._asking.expect(job_ids)

    def counts(self) -> Sequence[CommandCount]:
        return self.commands.counts()

    async def examine(self) -> Sequence[Finding]:
        return await torque_site.examine(self.settings, self.commands, self._asking.nodes, self._now)

    async def reasons(self, job_id: str) -> Sequence[str]:
        """What Maui says of the job: why it does not run, and when it may.  Never a state.

        Raises Unreachable when Maui's tools cannot be started or do not answer.
        """
        if not self.settings.maui or not JOB_ID.fullmatch(job_id):
            return ()
        checked, start = await asyncio.gather(
            self._maui(self.settings.checkjob, job_id), self._maui(self.settings.showstart, job_id)
        )
        estimate = maui.showstart_words(start)
        said = [f"checkjob: {words}" for words in maui.checkjob_words(checked)]
        return (*said, *([f"showstart: {estimate}"] if estimate else []))

    async def _maui(self, command: str, job_id: str) -> str:
        try:
            ran = await self.commands.run([command, maui.number(job_id)], timeout_seconds=MAUI_SECONDS)
        except NotStarted as error:
            raise Unreachable(f"{error}; set [torque] maui = false where there is no Maui") from error
        self.commands.count(command, "ok" if ran.exit_code == 0 else "failed", ran.seconds)
        if ran.killed:
            raise Unreachable(f"Maui's {ran.command} did not answer within {MAUI_SECONDS:.0f} s")
        return ran.out.decode("utf-8", "replace") if ran.exit_code == 0 else ""

    # -- submitting ------------------------------------------------------------------------------------

    def _rendered(self, spec: JobSpec) -> tuple[str, list[str], Permanent | Temporary | None]:
        """The script, unless it was laid, the command that submits it, and what keeps it from being submitted
        now, unless it was submitted before."""
        path = os.path.join(spec.attempt_folder, torque_intent.SCRIPT)
        try:
            script = "" if spec.papers_laid else torque_script.script(spec, self._options)
            arguments = torque_script.qsub_arguments(spec, self._options, path, self._mark)
        except Permanent as error:
            return "", [], error
        return script, [self.settings.qsub, *arguments], self._pausing(spec)

    def _pausing(self, spec: JobSpec) -> Temporary | None:
        longest = max(self._back_off, self._full(spec), key=BackOff.left_seconds)
        if (pause := longest.left_seconds()) > 0:
            return Temporary(f"nothing is submitted for {pause:.0f} s: {longest.why}", pause)
        return None

    async def _begin(self, spec: JobSpec, script: str) -> Trace:
        try:
            trace: Trace = await self._in_worker(torque_intent.begin, spec.attempt_folder, script)
            return trace
        except OSError as error:
            raise Temporary(
                f"cannot prepare a submission in {shown(spec.attempt_folder)}: {error.strerror}", 30.0
            ) from error

    async def _run(self, spec: JobSpec, command: list[str]) -> Ran:
        """The intent is written.  From here on a submission may have happened."""
        self._unclear_at[spec.job_name] = self._now()
        await self._bucket.take()
        try:
            return await self.commands.run(command, timeout_seconds=self.settings.submit_timeout_seconds)
        except NotStarted:
            await self._nothing_happened(spec)
            raise

    async def _judged(self, spec: JobSpec, ran: Ran) -> str:
        rule = self.commands.judge(ran, torque_errors.QSUB, torque_errors.QSUB_OTHERWISE)
        job_id = printed_id(ran.out)
        if job_id and rule.kind == "done":
            self._back_off.success()
            self._full(spec).success()
            return self._handed_out(spec, job_id)
        what = f"qsub of {spec.job_name} ({torque_script.resources(spec, self._options)})"
        sentence = _sentence(what, rule, ran)
        if rule.kind in ("done", "unsure") or torque_errors.SENT_AGAIN in ran.err or job_id:
            self._unclear_at[spec.job_name] = self._now()
            self._back_off.trouble(sentence)
            return await self._look_for(spec, sentence)
        error: Permanent | Temporary = Permanent(sentence)
        if rule.kind != "permanent":
            paused = self._full(spec) if rule.kind == "wait" else self._back_off
            error = Temporary(sentence, paused.trouble(sentence))
        await self._nothing_happened(spec)
        raise error

    def _full(self, spec: JobSpec) -> BackOff:
        """A full queue stops what is for that queue, and nothing else."""
        queue = spec.queue or self._options.queue
        return self._full_queues.setdefault(queue, BackOff(self._now, FULL_SECONDS, 4 * FULL_SECONDS))

    async def _nothing_happened(self, spec: JobSpec) -> None:
        await self._withdraw(spec)
        self._forget(spec.job_name)

    async def _withdraw(self, spec: JobSpec) -> None:
        await self._in_worker(torque_intent.withdraw, spec.attempt_folder)

    def _forget(self, name: str) -> None:
        self._unclear_at.pop(name, None)
        self._missed_at.pop(name, None)

    async def _look_for(self, spec: JobSpec, why: str) -> str:
        """Adopt the job by its name and owner.  Raises Unsure, ``absent`` once the list has had its time."""
        unclear_at = self._unclear_at.setdefault(spec.job_name, self._made_at)
        try:
            listing = await self._asking.jobs_since(self._now())
        except Temporary as error:
            raise Unsure(f"{why}; whether {spec.job_name} is there cannot be told: {error}") from error
        if jobs := listing.named(spec.job_name):
            trace = await self._begin(spec, "")
            chosen = best(jobs, trace.claimed_by)
            self._tidying.look(listing, self._asking.expected)
            _log.info("the job %s is found by its name, %s: %s", chosen.job_id, spec.job_name, why)
            return self._handed_out(spec, chosen.job_id)
        if not listing.complete:
            raise Unsure(f"{why}; the list of jobs came cut short, so nothing is known of {spec.job_name}")
        # Once is a hint: a list may lack a job for a moment, and a submission may be on its way still.
        missed_at = self._missed_at.setdefault(spec.job_name, listing.asked_at)
        if listing.asked_at < max(unclear_at + self.settings.settle_seconds, missed_at + SECOND_LOOK_SECONDS):
            raise Unsure(f"{why}; {spec.job_name} is not in the list of jobs, or not yet")
        raise Unsure(f"{why}; {spec.job_name} is not in the list of jobs", absent=True)

    def _handed_out(self, spec: JobSpec, job_id: str) -> str:
        self._forget(spec.job_name)
        self._asking.handed_out(job_id)
        self._accepted[spec.job_name] = job_id
        if len(self._accepted) > ACCEPTED_MAX:
            del self._accepted[next(iter(self._accepted))]
        return job_id

    async def _delete(self, job_id: str) -> None:
        with contextlib.suppress(Temporary, Permanent):  # the next look finds it again
            await self.cancel(job_id)

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """One submission of a name at a time; the second finds what the first has left."""
        lock, waiting = self._names.get(name, (asyncio.Lock(), 0))
        self._names[name] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._names[name]
            if waiting == 1:
                del self._names[name]
            else:
                self._names[name] = (lock, waiting - 1)


def printed_id(out: bytes) -> str:
    """The last job id that stands alone on a line of what qsub printed: a banner may come before it."""
    words = [line.strip() for line in out.decode("utf-8", "replace").splitlines()]
    return next((word for word in reversed(words) if JOB_ID.fullmatch(word)), "")


def _sentence(what: str, rule: Rule, ran: Ran) -> str:
    said = f" ({ran.said})" if ran.said else ""
    code = "" if ran.killed else f", code {ran.exit_code}"
    remedy = f"; {rule.remedy}" if rule.remedy else ""
    return f"{what}: {rule.meaning}{code}{said}{remedy}"
