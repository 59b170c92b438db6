"""The two questions to the server: which jobs, which nodes.  Never two of a kind at once.

Three values: a job is listed; or it is proved unknown, by a complete list and the server's own "unknown job
id"; or nothing is known of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from tiltd.daemon.core.model import Job, JobState, NodeInfo, Record
from tiltd.plugins import torque_errors, torque_jobs
from tiltd.plugins.api import Temporary, Unreachable
from tiltd.plugins.commandline import CommandLine, Ran
from tiltd.plugins.torque_jobs import JOB_FIELDS, JOB_ID, NODE_FIELDS
from tiltd.plugins.torque_settings import TorqueSettings
from tiltd.plugins.torque_xml import Fields, Records, Remembered, field, fields_of, steady

ANSWER_BYTES_MAX = 256 << 20
IDS_AT_ONCE = 40
"""With ids, qstat makes one connection for each: more of them have to wait for the next look."""
_UNKNOWN = re.compile(r"Unknown Job Id(?: Error)? (\S+)")


class Ours(Record):
    """By what our jobs are known: the account, and the mark at the end of their names."""

    owner: str
    mark: str


class Told(NamedTuple):
    """What the record of a job of our account told, whether the job bears our mark, and by what it is known
    that another record tells the same."""

    job: Job
    marked: bool
    steady: int


class Listing:
    """One answer to ``qstat -x``: our jobs by id, and how many others there are in which state.

    Ours are of our account and bear our journal's mark behind their name, or are among ``expected`` (from
    before the journal was lost).  What else the account runs, be it another tiltd's, is let alone.
    """

    def __init__(self, asked_at: float, ours: Ours, expected: Collection[str] = ()) -> None:
        self.asked_at = asked_at
        self.complete = False
        self.jobs: dict[str, Job] = {}
        self.foreign_counts: dict[str, int] = {}
        self.damaged = 0
        self._ours = ours
        self._expected = expected

    def take(self, body: bytes, before: Told | None = None) -> Told | None:
        """A record: what is returned for one of our account holds as long as the record does.  ``before``:
        what the same job's record told the last time."""
        if before is None:
            owner = torque_jobs.owner_of(field(body, "Job_Owner") or "")
            if owner and owner != self._ours.owner:
                self._foreign(torque_jobs.state(field(body, "job_state") or ""))
                return None
        found = steady(body)
        if before is not None and before.steady == found:  # it runs, as it did
            self.again(before)
            return before
        told = self._read(body, found)
        if told is None:
            self.damaged += 1  # it may be one of ours
            return None
        self.again(told)
        return told

    def again(self, told: Told) -> None:
        job = told.job
        if told.marked or job.job_id in self._expected:
            self.jobs[job.job_id] = job
        else:
            self._foreign(job.state)

    def _read(self, body: bytes, found: int) -> Told | None:
        """A job of our account; nothing where fields are missing."""
        fields, mark = fields_of(body, JOB_FIELDS), self._ours.mark
        whole = JOB_ID.fullmatch(fields.get("Job_Id", "")) and fields.keys() >= {"Job_Name", "job_state"}
        if not whole or not torque_jobs.owner(fields):
            return None
        name = fields["Job_Name"]
        return Told(torque_jobs.job(fields, name.removesuffix(mark)), name.endswith(mark), found)

    def _foreign(self, state: JobState) -> None:
        self.foreign_counts[state.value] = self.foreign_counts.get(state.value, 0) + 1

    def named(self, name: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.job_name == name]


class Asking:
    def __init__(
        self, settings: TorqueSettings, commands: CommandLine, ours: Ours, now: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._commands = commands
        self._ours = ours
        self._now = now
        self._under_way: asyncio.Task[Listing] | None = None
        self._told: frozenset[str] = frozenset()
        self._handed_out: set[str] = set()
        self._over: set[str] = set()
        self._before: Remembered[Told] = {}

    # -- jobs --------------------------------------------------------------------------------------------

    @property
    def expected(self) -> frozenset[str]:
        """Ids that should be listed: what the daemon says is live, and what was given out since."""
        return self._told | self._handed_out

    def expect(self, job_ids: Collection[str]) -> None:
        self._told = frozenset(job_id for job_id in job_ids if JOB_ID.fullmatch(job_id))
        self._handed_out -= self._told
        self._over &= self._told

    def handed_out(self, job_id: str) -> None:
        self._handed_out.add(job_id)

    async def jobs_since(self, at: float) -> Listing:
        """A listing that was asked for at ``at`` or later.  Raises Unreachable."""
        while True:
            if self._under_way is None:
                self._under_way = asyncio.create_task(self._ask(), name="qstat")
            task = self._under_way
            try:
                listing = await asyncio.shield(task)
            finally:
                if task.done() and self._under_way is task:
                    self._under_way = None
            if listing.asked_at >= at:
                return listing

    async def _ask(self) -> Listing:
        expected = self.expected
        listing = Listing(self._now(), self._ours, expected)
        # Where completed jobs are kept, hundreds are listed again and again, to the letter as before.
        records = Records(listing.take, listing.again, self._before)
        ran = await self._run([self._settings.qstat, "-x"], records)
        if ran.exit_code != 0:
            raise Unreachable(self._trouble("qstat -x", ran))
        self._before = records.remembered
        listing.complete = self._whole(records, ran) and not listing.damaged
        if listing.complete:
            await self._confirm(sorted(expected - listing.jobs.keys() - self._over), listing)
        for job in listing.jobs.values():
            if job.state is JobState.COMPLETED:
                self._is_over(job.job_id)
            else:
                self._over.discard(job.job_id)
        return listing

    def _is_over(self, job_id: str) -> None:
        """It was listed as completed, or is not known to the server: no need to ask for it again."""
        self._handed_out.discard(job_id)
        self._over.add(job_id)

    def _whole(self, records: Records[Told], ran: Ran) -> bool:
        """Whether the answer is all there is.  Raises Unreachable for one that is no answer."""
        if records.documents:
            return records.complete
        if records.anything:
            raise Unreachable(f"qstat -x answered without any XML{_quoted(ran)}; nothing is concluded")
        if self._settings.empty_is_no_jobs and not ran.err.strip():
            return True
        raise Unreachable(
            f"qstat -x printed nothing{_quoted(ran)}; nothing is concluded (an old Torque prints nothing "
            "where there is no job: then set [torque] empty_is_no_jobs = true)"
        )

    async def _confirm(self, missing: Sequence[str], listing: Listing) -> None:
        """Ask for what is missing by id.  Only what the server itself does not know is left out."""
        if not missing:
            return
        asked = missing[:IDS_AT_ONCE]
        found = Listing(listing.asked_at, self._ours, asked)
        records = Records(found.take)
        unknown: set[str] = set()
        try:
            ran = await self._run([self._settings.qstat, "-x", *asked], records)
            if ran.exit_code in (0, 153):
                unknown = (
                    set(_UNKNOWN.findall(ran.err.decode("utf-8", "replace"))) if ran.exit_code else set()
                )
                listing.jobs |= {key: job for key, job in found.jobs.items() if key in asked}
        except Temporary:
            pass  # nothing is known of them: said below
        for job_id in missing:
            if job_id in unknown and job_id in asked:
                self._is_over(job_id)
            elif job_id not in listing.jobs:
                listing.jobs[job_id] = Job(
                    job_id=job_id,
                    job_name="",
                    owner=self._ours.owner,
                    state=JobState.UNKNOWN,
                    native_state="?",
                    comment="not in the list, and the server did not say that it does not know it",
                )

    # -- nodes -------------------------------------------------------------------------------------------

    async def nodes(self) -> list[NodeInfo]:
        """Raises Unreachable for no answer and for one that was cut short."""
        seen: list[Fields] = []
        records: Records[None] = Records(lambda body, before: seen.append(fields_of(body, NODE_FIELDS)))
        ran = await self._run([self._settings.pbsnodes, "-x"], records)
        if ran.exit_code != 0:
            raise Unreachable(self._trouble("pbsnodes -x", ran))
        if not records.complete:
            raise Unreachable(f"pbsnodes -x answered with less than a whole document{_quoted(ran)}")
        return list(self._usable(torque_jobs.node(fields, self._settings) for fields in seen))

    def _usable(self, nodes: Iterable[NodeInfo]) -> Iterable[NodeInfo]:
        wanted = set(self._settings.properties)
        return (node for node in nodes if node.name and wanted <= set(node.properties))

    # -- both --------------------------------------------------------------------------------------------

    async def _run(self, argv: list[str], records: Records[Any]) -> Ran:
        try:
            ran = await self._commands.run(
                argv,
                timeout_seconds=self._settings.timeout_seconds,
                max_bytes=ANSWER_BYTES_MAX,
                sink=records.feed,
            )
        except Temporary as error:
            raise Unreachable(f"{error}; is [torque] path right?", error.delay_seconds) from error
        rule = self._commands.judge(ran, torque_errors.QUESTION, torque_errors.QUESTION_OTHERWISE)
        if ran.killed:
            raise Unreachable(f"{rule.meaning} ({ran.seconds:.0f} s); nothing is concluded")
        return ran

    def _trouble(self, what: str, ran: Ran) -> str:
        rule = torque_errors.QUESTION.get(ran.exit_code, torque_errors.QUESTION_OTHERWISE)
        remedy = f"; {rule.remedy}" if rule.remedy else ""
        return f"{what}: {rule.meaning}, code {ran.exit_code}{_quoted(ran)}{remedy}"


def _quoted(ran: Ran) -> str:
    return f" ({ran.said})" if ran.said else ""
