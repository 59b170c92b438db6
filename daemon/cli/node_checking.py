"""``tiltd check``: what the resource manager tells of its site, and with ``--submit`` a job on every node.

The job goes the whole way that jobs go, as the user who asks: spool, resource manager, runner, scratch.  It
looks at what a run will need there, tells it through the spool, and is then ended from outside, as a job that
is withdrawn: its scratch must be clean a moment later.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tiltd.daemon import errands, registry
from tiltd.daemon.config import Settings
from tiltd.daemon.core.model import NodeInfo, Placement
from tiltd.daemon.sample import SAMPLE
from tiltd.daemon.spool import Spool
from tiltd.daemon.told import lines
from tiltd.plugins.api import Context, Examiner, Permanent, Pipeline, PluginError, ResourceManager

from .probing import Check, bad, good

LOOK_SECONDS = 0.2
CLEANED_SECONDS = 60.0
SCRATCH_BYTES = 64_000_000
OLD_SECONDS = 86400.0
_ERRAND = re.compile(r"check-[A-Za-z0-9_-]+-([0-9]{9,11})-[0-9]+")
UP = ("free", "busy")
_PLACEMENT = Placement(
    nodes=("n",),
    cores=1,
    threads=1,
    memory_bytes=0,
    scratch_bytes=0,
    walltime_seconds=1.0,
    queue="",
    rule="",
    policy_version="",
)


def manager_of(settings: Settings) -> ResourceManager:
    """Made for this one question.  Raises RegistryError."""
    context = Context(
        state_folder=str(settings.state_dir),
        spool_folder=str(settings.spool_dir),
        journal_id="check",
        owner=getpass.getuser(),
    )
    name = settings.resource_manager
    made: ResourceManager = registry.make("resource_manager", name, settings.table(name), context)
    return made


async def examine_site(manager: ResourceManager) -> list[Check]:
    """What the resource manager itself can tell."""
    if not isinstance(manager, Examiner):
        return []
    return [Check(found.what, found.ok, found.detail) for found in await manager.examine()]


async def examine_nodes(
    settings: Settings, manager: ResourceManager, names: Sequence[str], seconds: float
) -> AsyncIterator[Check]:
    """A job on each node that is up, or on those named; all at once.  Gives each node's findings as soon as
    its job is over, at the latest ``seconds`` after it was submitted and a minute for the end."""
    try:
        nodes = {node.name: node for node in await manager.nodes()}
    except PluginError as error:
        yield bad("nodes", str(error))
        return
    await asyncio.to_thread(_forget_old, Spool(settings.spool_dir))
    for name in sorted(set(names) - set(nodes)):
        yield bad(f"node {name}", f"there is no such node; known are {', '.join(sorted(nodes)) or 'none'}")
    chosen = [node for name, node in sorted(nodes.items()) if name in names or not names]
    for node in chosen:
        if node.state not in UP:
            yield bad(f"node {node.name}", f"it is {node.state}; no job is sent there")
    asking = [
        asyncio.create_task(NodeCheck(settings, manager, node, seconds).run())
        for node in chosen
        if node.state in UP
    ]
    for told in asyncio.as_completed(asking):
        for check in await told:
            yield check


def _forget_old(spool: Spool) -> None:
    """Folders of examinations that were broken off, a day later."""
    for errand_id in spool.attempts():
        found = _ERRAND.fullmatch(errand_id)
        if found is not None and time.time() - int(found[1]) > OLD_SECONDS:
            spool.remove(errand_id)


class NodeCheck:
    """One node, one job.  What blocks is short: a folder of the spool."""

    def __init__(self, settings: Settings, manager: ResourceManager, node: NodeInfo, seconds: float) -> None:
        self._settings = settings
        self._manager = manager
        self._node = node
        self._seconds = seconds
        self._spool = Spool(settings.spool_dir)
        word = re.sub(r"[^A-Za-z0-9_-]+", "_", node.name)[:64]
        self._errand_id = f"check-{word}-{int(time.time())}-{os.getpid()}"

    async def run(self) -> list[Check]:
        """Every finding, in words; whatever comes, no job and no folder is left behind."""
        try:
            folder, job_id, began = await self._submit()
        except (PluginError, OSError) as error:
            return [bad(self._what("submission"), str(error))]
        try:
            checks = [good(self._what("submission"), f"job {job_id}, as user {getpass.getuser()}")]
            checks += await self._follow(folder, job_id, began)
            return [*checks, await self._end(job_id)]
        except (PluginError, OSError) as error:
            return [*checks, bad(self._what("spool"), str(error))]
        finally:
            self._spool.remove(self._errand_id)

    def _what(self, what: str) -> str:
        return f"{self._node.name}: {what}"

    async def _submit(self) -> tuple[Path, str, float]:
        publish = self._settings.publish
        programs, modules = needed(self._settings)
        document = errands.check_document(
            self._errand_id,
            self._node.scratch_path,
            SCRATCH_BYTES,
            time.time(),
            feeds=[(feed.name, str(feed.import_dir or feed.path_on_nodes)) for feed in self._settings.feeds],
            destinations=sorted({fixed_part(feed.destination) for feed in self._settings.feeds}),
            programs=programs,
            modules=modules,
            output={
                "dir_mode": f"{publish.dir_mode:04o}",
                "file_mode": f"{publish.file_mode:04o}",
                "group": publish.group,
            },
        )
        folder = self._spool.prepare(self._errand_id, document)
        spec = errands.spec(document, self._node.name, self._spool.install_runner(), folder)
        began = time.monotonic()
        return Path(folder), await self._manager.submit(spec), began

    async def _follow(self, folder: Path, job_id: str, began: float) -> list[Check]:
        """Until everything is told, or its end, or the time is over."""
        checks: list[Check] = []
        started, told = False, 0
        while time.monotonic() - began < self._seconds:
            progress = await asyncio.to_thread(lines, f"{folder}/progress")
            if progress and not started:
                started = True
                checks.append(self._started(progress[0], began))
            found = [line for line in progress if line.get("phase") == "check"]
            for line in found[told:]:
                if line.get("what") == "echo":
                    (folder / "echo").touch()
                else:
                    checks.append(self._finding(line))
            told = len(found)
            if any(line.get("phase") == "wait" for line in progress):
                return checks
            if (end := self._spool.read(self._errand_id).end) is not None:
                detail = end.detail or end.reason or end.outcome
                return [*checks, bad(self._what("job"), f"it ended before it had told all: {detail}")]
            await asyncio.sleep(LOOK_SECONDS)
        word = "told all" if started else "started"
        return [*checks, bad(self._what("job"), f"{job_id} has not {word} within {self._seconds:.0f} s")]

    def _started(self, claim: dict[str, Any], began: float) -> Check:
        waited = time.monotonic() - began
        skew = abs(time.time() - float(claim.get("at") or 0.0))
        if skew > self._seconds:
            return bad(self._what("clock"), f"it differs by {skew:.0f} s from this machine's: set the clocks")
        return good(self._what("start"), f"its first word came {waited:.1f} s after the submission")

    def _finding(self, line: dict[str, Any]) -> Check:
        what, ok, detail = str(line.get("what")), line.get("ok") is True, str(line.get("detail"))
        if not ok and what.startswith("module "):
            manager = self._settings.resource_manager
            detail += f"; let python in [{manager}] name an interpreter that can, or install it there"
        return Check(self._what(what), ok, detail)

    async def _end(self, job_id: str) -> Check:
        """Take the job away; a runner that has claimed must leave its scratch clean."""
        revoked, _ = self._spool.revoke(self._errand_id)
        began = time.monotonic()
        await self._manager.cancel(job_id)
        if revoked:
            return bad(self._what("cleanup"), "it never ran, so there was nothing to clean")
        while time.monotonic() - began < CLEANED_SECONDS:
            runs = (await asyncio.to_thread(self._spool.read, self._errand_id)).runs
            if runs and all(run.cleaned for run in runs):
                took = time.monotonic() - began
                return good(self._what("cleanup"), f"its scratch was clean {took:.1f} s after it was ended")
            await asyncio.sleep(LOOK_SECONDS)
        return bad(
            self._what("cleanup"),
            f"nothing says that its scratch is clean {CLEANED_SECONDS:.0f} s after it was ended; look at "
            f"{self._node.scratch_path}/{self._errand_id}",
        )


def needed(settings: Settings) -> tuple[list[str], list[str]]:
    """Programs and Python modules that the pipelines of the feeds start, as far as they can be told."""
    programs: dict[str, None] = {}
    modules: dict[str, None] = {}
    context = Context(
        state_folder=str(settings.state_dir), spool_folder=str(settings.spool_dir), journal_id="", owner=""
    )
    for feed in settings.feeds:
        try:
            pipeline: Pipeline = registry.make(
                "pipeline", feed.pipeline, settings.table(feed.pipeline), context
            )
            steps = pipeline.steps(SAMPLE, dict(feed.options), _PLACEMENT).steps
        except (registry.RegistryError, Permanent):
            continue  # said by the other checks
        for step in steps:
            if step.argv[:2] == ("{python}", "-m"):
                # The built-in ones guard their main; its imports are what the node has to have.
                own = step.argv[2].startswith("tiltd.")
                modules[f"{step.argv[2]}.__main__" if own else step.argv[2]] = None
            else:
                programs[step.argv[0]] = None
    return list(programs), list(modules)


def fixed_part(template: str) -> str:
    """The folder above a destination's first placeholder."""
    return template.split("{", 1)[0].rpartition("/")[0] or "/"
