"""The policy while the daemon runs: noticed on change, judged whole, and handed to the core as one value.

A change is taken once two looks in a row show the same files, so that a file which is just being written is
not read half.  What is refused changes nothing; the last files that were accepted are kept beside the journal
(``ACCEPTED``), and a daemon that starts while the site's files are refused goes on with those.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import structlog

from tiltd.policy.policy import load
from tiltd.policy.rules import zones

from . import policy_files
from .config import Settings
from .core import observations as o
from .core.model import CivilTime, Policy
from .policy_files import Texts

LOOK_SECONDS = 2.0
ACCEPTED = "policy-accepted.json"
Signature = tuple[tuple[str, int, int, int], ...]


class Refused(Exception):
    """``faults``: a sentence each; ``content``: a hash of what was read."""

    def __init__(self, faults: Sequence[str], content: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)
        self.content = content


class Policies:
    """Reads in worker threads, one at a time.  ``refused`` has the faults of the files as they are now."""

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], float],
        put: Callable[[o.Observation], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._now = now
        self._put = put
        self._log = structlog.get_logger("tiltd.policy")
        self._lock = asyncio.Lock()
        self._seen: Signature | None = None
        self._zones_changed = asyncio.Event()
        self._content = ""
        self.refused: tuple[str, ...] = ()
        self.policy = Policy(version="")

    # -- the start -----------------------------------------------------------------------------------------

    def begin(self) -> Policy:
        """The policy to start with.  Raises Refused if the files are, and none were ever accepted."""
        self._seen = policy_files.signature(self._settings)
        try:
            self.policy, texts = read(self._settings)
        except Refused as refused:
            kept = self._kept()
            if kept is None:
                raise
            self.policy = kept
            self._refuse(refused)
        else:
            self._keep(texts)
        return self.policy

    async def loaded(self) -> None:
        """Tell the core what it was started with, and what was refused at the start."""
        await self._put(self._observed(self.policy, "start"))
        if self.refused:
            await self._tell()

    # -- while it runs -------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look at the files every ``LOOK_SECONDS``; take a change once it holds still.  Never ends."""
        changing: Signature | None = None
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            signature = await asyncio.to_thread(policy_files.signature, self._settings)
            if signature == self._seen:
                changing = None
            elif signature == changing:
                await self.reload("change")
                changing = None
            else:
                changing = signature

    async def reload(self, reason: str) -> tuple[str, ...]:
        """Read, judge, test, and only then hand over.  Gives the faults; none means it was accepted."""
        async with self._lock:
            self._seen = await asyncio.to_thread(policy_files.signature, self._settings)
            try:
                policy, texts = await asyncio.to_thread(read, self._settings)
            except Refused as refused:
                self._refuse(refused)
                await self._tell()
                return self.refused
            await asyncio.to_thread(self._keep, texts)
            self.refused, self.policy = (), policy
            await self._put(self._observed(policy, reason))
            self._zones_changed.set()
            self._log.info("the policy was read", reason=reason, version=policy.version)
            return ()

    def _refuse(self, refused: Refused) -> None:
        self.refused, self._content = refused.faults, refused.content
        self._log.error(
            "the policy was refused, the one in force stays",
            version=self.policy.version,
            faults=list(refused.faults),
        )

    async def _tell(self) -> None:
        await self._put(o.PolicyRefused(at=self._now(), content=self._content, faults=self.refused))

    def _observed(self, policy: Policy, reason: str) -> o.PolicyLoaded:
        at = self._now()
        return o.PolicyLoaded(at=at, policy=policy, reason=reason, civil=civil_times(policy, at))

    # -- the hour ------------------------------------------------------------------------------------------

    async def hours(self) -> None:
        """Tell the core when the hour turns in a zone that the policy names.  Never ends."""
        while True:
            self._zones_changed.clear()
            times = civil_times(self.policy, self._now())
            turns_at = min((time.valid_until_at for time in times), default=None)
            try:
                async with asyncio.timeout(
                    None if turns_at is None else max(0.05, turns_at - self._now() + 0.01)
                ):
                    await self._zones_changed.wait()
            except TimeoutError:
                at = self._now()
                await self._put(o.CivilTimeObserved(at=at, civil=civil_times(self.policy, at)))

    # -- what was accepted last ------------------------------------------------------------------------------

    def _keep(self, texts: Texts) -> None:
        path = self._settings.state_dir / ACCEPTED
        new = path.with_suffix(".new")
        try:
            with new.open("w", encoding="ascii") as file:
                json.dump({"format": 1, "files": texts}, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            self._log.warning(f"the accepted policy could not be kept for the next start: {error}")

    def _kept(self) -> Policy | None:
        path = self._settings.state_dir / ACCEPTED
        try:
            files = json.loads(path.read_text(encoding="ascii"))["files"]
            found = load([(str(name), str(text)) for name, text in files])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, Policy) else None


def read(settings: Settings) -> tuple[Policy, Texts]:
    """The policy of the files as they are, and their texts.  Raises Refused."""
    texts, faults = policy_files.site_texts(settings)
    found = load(texts, known=policy_files.known(settings))
    faults += found if isinstance(found, list) else []
    if faults or isinstance(found, list):
        told = [str(fault) for fault in faults]
        raise Refused(told, hashlib.sha256(json.dumps([texts, told]).encode()).hexdigest()[:12])
    return found, texts


def civil_times(policy: Policy, at: float) -> tuple[CivilTime, ...]:
    """Hour and weekday in every zone that the policy names, each with the instant at which its hour turns."""
    return tuple(civil_time(zone, at) for zone in zones(policy))


def civil_time(zone: str, at: float) -> CivilTime:
    """Zones with offsets of half or quarter hours turn at their own full hour; a change of summer time
    happens at one."""
    there = datetime.fromtimestamp(at, UTC).astimezone(ZoneInfo(zone))
    gone_seconds = there.minute * 60 + there.second + there.microsecond / 1e6
    return CivilTime(
        zone=zone, hour=there.hour, weekday=there.weekday(), valid_until_at=at - gone_seconds + 3600.0
    )
