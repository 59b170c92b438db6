"""Torque's script goes to the disk with the job file: where it lay before, a job may exist."""

# ruff: noqa: ASYNC240 - the files are tiny and nothing else runs in the loop
from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from plugins.torque_recorded import Desk, listed, ran
from tiltd.daemon.core.model import JobSpec
from tiltd.daemon.durable import at_once
from tiltd.daemon.spool import Spool
from tiltd.plugins.api import Papered, Permanent, Temporary, Unsure

NAME = "TS_01-3fa2c1d0.1.1.a1"
ACCEPTED = ran(out="7.head\n")


class Preparing:
    """As the daemon prepares an attempt, again and again."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.spool = Spool(desk.folder)

    def spec(self, **more: object) -> JobSpec:
        spec = self.desk.spec(NAME, fresh=False, **more)
        laid = at_once(self.spool.preparing(NAME, {"format": 1}, self.desk.manager.papers(spec)))
        return replace(spec, papers_laid=laid)

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.spool.folder(NAME).iterdir())


def prepared(folder: Path, answers: dict[str, list[object]], **settings: object) -> Preparing:
    (folder / "attempts").mkdir()
    return Preparing(Desk(folder, answers, **settings))  # type: ignore[arg-type]


async def test_it_is_there_before_qsub_and_nothing_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = prepared(tmp_path, {"qsub": [ACCEPTED]})
    assert isinstance(preparing.desk.manager, Papered)
    spec = preparing.spec()
    assert spec.papers_laid and preparing.names == ["end", "job.json", "job.sh", "progress"]
    assert f"{spec.runner_path} {spec.attempt_folder}" in Path(spec.attempt_folder, "job.sh").read_text()
    monkeypatch.setattr(preparing.desk.manager, "_in_worker", None)
    assert await preparing.desk.manager.submit(spec) == "7.head"
    (call,) = preparing.desk.told.called("qsub")
    assert call[-1] == f"{spec.attempt_folder}/job.sh"


async def test_whoever_prepares_it_again_may_have_submitted_it(tmp_path: Path) -> None:
    preparing = prepared(tmp_path, {})
    assert preparing.spec().papers_laid, "then the daemon died"
    preparing.desk.restart({"qsub": [ACCEPTED], "qstat": [listed(("7.head", NAME, "Q"))]})
    spec = preparing.spec()
    assert not spec.papers_laid
    assert await preparing.desk.manager.submit(spec) == "7.head"
    assert not preparing.desk.told.called("qsub")


async def test_one_that_died_between_the_two_gives_the_attempt_up(tmp_path: Path) -> None:
    preparing = prepared(tmp_path, {})
    preparing.spec()
    preparing.desk.restart({"qsub": [ACCEPTED], "qstat": [listed()]})
    with pytest.raises(Unsure):
        await preparing.desk.manager.submit(preparing.spec())
    preparing.desk.now += 11
    with pytest.raises(Unsure) as caught:
        await preparing.desk.manager.submit(preparing.spec())
    assert caught.value.absent and not preparing.desk.told.called("qsub")


async def test_a_refusal_takes_it_away_and_the_next_call_submits(tmp_path: Path) -> None:
    preparing = prepared(tmp_path, {"qsub": [ran(228, err="qsub: submit error\n"), ACCEPTED]})
    with pytest.raises(Temporary):
        await preparing.desk.manager.submit(preparing.spec())
    assert "job.sh" not in preparing.names
    preparing.desk.now += 30
    assert await preparing.desk.manager.submit(preparing.spec()) == "7.head"


async def test_in_a_pause_none_is_laid_and_one_that_was_goes(tmp_path: Path) -> None:
    refused = ran(111, err="qsub: cannot connect to server head (errno=111) Connection refused\n")
    preparing = prepared(tmp_path, {"qsub": [refused, ACCEPTED]})
    laid = preparing.spec()
    with pytest.raises(Temporary):
        await preparing.desk.manager.submit(preparing.desk.spec("other-1.1.1.a1"))
    with pytest.raises(Temporary, match="nothing is submitted for"):
        await preparing.desk.manager.submit(laid)
    assert "job.sh" not in preparing.names
    assert not preparing.spec().papers_laid and "job.sh" not in preparing.names
    preparing.desk.now += 5
    assert await preparing.desk.manager.submit(preparing.spec()) == "7.head"


async def test_trouble_while_it_waits_for_its_turn_takes_it_away(tmp_path: Path) -> None:
    refused = ran(111, err="qsub: cannot connect to server head (errno=111) Connection refused\n")
    preparing = prepared(tmp_path, {"qsub": [refused, ACCEPTED]}, submit_at_once=1)
    preparing.desk.told.answer_seconds = 0.05
    first = asyncio.create_task(preparing.desk.manager.submit(preparing.desk.spec("other-1.1.1.a1")))
    await asyncio.sleep(0)
    with pytest.raises(Temporary, match="nothing is submitted for"):
        await preparing.desk.manager.submit(preparing.spec())
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], Temporary)
    assert "job.sh" not in preparing.names and len(preparing.desk.told.called("qsub")) == 1


async def test_what_can_never_be_submitted_is_told_and_leaves_no_trace(tmp_path: Path) -> None:
    preparing = prepared(tmp_path, {"qsub": [ACCEPTED]})
    with pytest.raises(Permanent):
        await preparing.desk.manager.submit(preparing.spec(queue="a b"))
    assert "job.sh" not in preparing.names
    assert await preparing.desk.manager.submit(preparing.spec()) == "7.head"
