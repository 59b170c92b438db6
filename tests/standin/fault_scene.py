"""Seeded stories of faults, told one JSON line each; a program, run by ``test_torque_stories``.

    python fault_scene.py FIRST_SEED COUNT          {seed, faults, deaths, ended, wrong}
    python fault_scene.py submission EVERY          a death at every EVERYth point of a submission

``wrong`` has a sentence for each promise that was broken:

* declared: an attempt was called failed though it had succeeded or was running, or delivered though not;
* duplicate: two runs of one dataset at a time, neither fenced, or two results of it;
* orphan: a job, a scratch folder, a booking or a staging folder that nobody would ever remove;
* over-committed: more bytes on a scratch than there are.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from standin.fault_world import Story
from tiltd.daemon import policy_files, registry
from tiltd.daemon.logs import set_up
from tiltd.daemon.reader import JournalReader
from tiltd.daemon.standin.torque.records import Call
from tiltd.plugins import command as command_pipeline
from tiltd.policy import policy as policy_text

NAMES = ("ts_one", "ts_two", "fails_once")
WINDOW_SECONDS = 60.0
POINTS = 110
"""An undisturbed life of three series has about so many."""


# -- what goes wrong -----------------------------------------------------------------------------------------


def command(kind: str, *names: str, times: int = 3, most_seconds: float = 1.0) -> Callable[[Story], None]:
    """A fault of a command, met a few times from some instant on."""

    def plan(story: Story) -> None:
        chance = story.chance
        story.happen(
            chance.uniform(0.0, WINDOW_SECONDS), "fault", command=chance.choice(names or ("*",)), kind=kind,
            times=chance.randint(1, times), seconds=chance.uniform(1.0, most_seconds),
            rc=chance.choice((237, 248, 185, 67)),
        )  # fmt: skip

    return plan


def job(operation: str, times: int = 2, then: str = "") -> Callable[[Story], None]:
    """Something is done to a job of ours; undone (``then``, to all) two minutes later."""

    def plan(story: Story) -> None:
        for _ in range(story.chance.randint(1, times)):
            story.to_some_job(story.chance.uniform(20.0, WINDOW_SECONDS), operation)
        if then:
            for number in range(30):
                story.happen(WINDOW_SECONDS + 120.0, then, job_id=f"{number}.torque-head")

    return plan


def node(operation: str, **fields: Any) -> Callable[[Story], None]:
    """A node is away for a while: shorter or longer than it takes to be given up."""

    def plan(story: Story) -> None:
        name = story.chance.choice(list(story.batch.nodes))
        at = story.chance.uniform(10.0, WINDOW_SECONDS)
        story.happen(at, operation, node=name, **fields)
        story.happen(at + story.chance.choice((20.0, 90.0, 400.0)), "node_back", node=name)

    return plan


def foreign(story: Story) -> None:
    """Somebody else's job, with bytes in its variables that no XML may have."""
    value = story.chance.choice(("D=a\x01b\x1b[31m", "D=Z\udcfcrich\udcff", "D=]]></Job></Data>\x0c"))
    environment = {"LOGNAME": "somebody", "HOME": "/home/somebody"}
    call = Call("qsub", ("-h", "-N", "theirs", "-v", value), "/", environment, b"sleep 9\n")
    assert story.commands.run(call).rc == 0


def late_markers(story: Story) -> None:
    """What runners write is seen a minute later than what the server says."""
    story.world.marker_delay_seconds = 60.0


FAULTS: dict[str, Callable[[Story], None]] = {
    "none": lambda story: None,
    "down": command("down", times=12),
    "unauthorised": command("unauthorised", times=12),
    "shutting down": command("shutting_down", times=8),
    "credential": command("credential", times=6),
    "no connections": command("no_connections", "qsub", "qstat", times=6),
    "max queued": command("full", "qsub", times=6),
    "hang": command("hang", "qsub", "qstat", "qdel", "pbsnodes"),
    "slow": command("slow", "qsub", "qstat", "pbsnodes", most_seconds=90.0),
    "garbage": command("garbage", "qsub", "qstat", "pbsnodes", times=6),
    "banner": command("banner", "qsub", "qstat", "pbsnodes", times=6),
    "cut short": command("cut_short", "qsub", "qstat", "pbsnodes", times=6),
    "empty": command("empty", "qsub", "qstat", "pbsnodes", times=6),
    "lost reply": command("lost_reply", "qsub"),
    "accepted then hang": command("accepted_then_hang", "qsub"),
    "accepted late": command("accepted_late", "qsub", most_seconds=200.0),
    "sent again": command("sent_again", "qsub"),
    "two of one name": job("again"),
    "forgotten": job("forget"),
    "requeued": job("rerun"),
    "system hold": job("hold", then="release"),
    "deleted by hand": job("delete"),
    "node unreachable": node("node_lost", dies=False),
    "node died, back with 0": node("node_lost", dies=True),
    "foreign job": foreign,
    "late markers": late_markers,
}


# -- a story -------------------------------------------------------------------------------------------------


def tell(root: Path, seed: int) -> dict[str, Any]:
    """The seed's own fault, perhaps two more, and none to two deaths."""
    chance = random.Random(seed)
    names = list(FAULTS)
    chosen = [names[seed % len(names)], *chance.sample(names, chance.randint(0, 2))]
    deaths = [
        chance.randrange(POINTS)
        for _ in range(chance.choice((0, 0, 0, 1, 1, 2) if seed % 2 else (0, 0, 0, 1)))
    ]
    return played(root, seed, chosen, deaths, "floating" if chance.random() < 0.5 else "pinned")


def played(root: Path, seed: int, faults: list[str], deaths: list[int], mode: str) -> dict[str, Any]:
    story = Story(root, seed, mode)
    told: dict[str, Any] = {
        "seed": seed,
        "faults": faults,
        "mode": mode,
        "deaths": 0,
        "ended": True,
        "wrong": [],
    }
    try:
        for fault in faults:
            FAULTS[fault](story)
        for die_at in [*deaths, -1]:
            if not story.live(NAMES, die_at):
                break
            away = story.chance.choice((0.5, 5.0, 60.0, 400.0))
            story.time.advance(away)
        told["wrong"] = list(broken(story))
    except AssertionError as error:
        told |= {"ended": False, "why": str(error)[:3000]}
    told |= {"deaths": story.deaths, "met": story.commands.faults.met, "seconds": story.time.now() - 1.8e9}
    story.close()
    return told


def submission(root: Path, every: int) -> Iterator[dict[str, Any]]:
    """An undisturbed life, then a death at each point from the first effect to the answer to it."""
    for shift, mode in enumerate(("pinned", "floating")):
        first = Story(root, 0, mode)
        assert not first.live(NAMES)
        points = json.loads((first.site.folder / "points").read_text())
        first.close()
        begin, end = points.index("effect SubmitJob"), points.index("answer SubmitAnswered") + 8
        for point in range(begin + shift, end, every):
            yield played(root, 0, ["none"], [point], mode) | {"point": points[point]}


# -- judging -------------------------------------------------------------------------------------------------


def broken(story: Story) -> Iterator[str]:
    """Each broken promise, by a witness who saw what really happened."""
    story.time.advance(600.0)
    world = story.world
    yield from (f"duplicate: {each}" for each in world.duplicates)
    yield from (f"over-committed: {each}" for each in world.overfull)
    reader = JournalReader(story.site.state / "journal.sqlite")
    rows = reader.select()
    published = [path.name for path in story.site.published()]
    if sorted(published) != sorted(NAMES):
        yield f"duplicate: published are {published}"
    for row in rows:
        facts = [fact for _, fact in reader.facts(row.dataset_id)]
        yield from _declared(world.succeeded, world.spans, facts)
    for job in story.batch.jobs.values():
        if job.state != "C" and job.user == "tiltd":
            yield f"orphan: job {job.job_id} {job.name} is {job.state}"
    for each in story.batch.nodes.values():
        if left := os.listdir(each.scratch):
            yield f"orphan: {left} on {each.name}"
    if staged := story.site.staged():
        yield f"orphan: staged are {staged}"


def _declared(
    succeeded: dict[str, float], spans: dict[str, list[list[float]]], facts: list[Any]
) -> Iterator[str]:
    fenced = {fact.attempt_id for fact in facts if type(fact).__name__ == "AttemptFenced"}
    for fact in facts:
        kind = type(fact).__name__
        if kind == "ResultCollected" and fact.attempt_id not in succeeded:
            yield f"declared: {fact.attempt_id} is delivered, and never succeeded"
        if kind not in ("AttemptFailed", "AttemptStopped") or fact.attempt_id in fenced:
            continue
        if succeeded.get(fact.attempt_id, float("inf")) <= fact.at:
            yield f"declared: {fact.attempt_id} had succeeded, {kind} {_reason(fact)}"
        if any(begun <= fact.at < ended for begun, ended in spans.get(fact.attempt_id, ())):
            yield f"declared: {fact.attempt_id} was running, {kind} {_reason(fact)}"


def _reason(fact: Any) -> str:
    failure = getattr(fact, "failure", None)
    return f"{failure.reason}: {failure.detail}" if failure else str(getattr(fact, "intent", ""))


def warm() -> None:
    """What every life would look up anew, and is always the same, is looked up once."""
    registry.factory = functools.lru_cache(registry.factory)
    registry.names = functools.lru_cache(registry.names)
    policy_files._zones()
    policy_text.tomli = SimpleNamespace(loads=functools.lru_cache(policy_text.tomli.loads))
    policy_text.load([("default.toml", policy_files.shipped())])
    for kind in registry.GROUPS:
        for name in registry.names(kind):
            registry.factory(kind, name)
    gc.freeze()


def main(what: str, number: int) -> int:
    """Prints; only what the daemon calls an error is logged."""
    set_up("console", "error")
    os.fsync = lambda descriptor: None
    command_pipeline._SMALL_BYTES = 1_000_000  # ballast of 48 MiB would cost more than all the rest
    warm()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(prefix="tiltd-faults-", dir=memory))
    stories = (
        submission(root, number)
        if what == "submission"
        else (tell(root, int(what) + n) for n in range(number))
    )
    try:
        for told in stories:
            print(json.dumps(told), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
