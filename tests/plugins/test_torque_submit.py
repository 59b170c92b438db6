"""Exactly once, as far as the plugin goes: what is unclear is looked for, and never submitted again."""

# ruff: noqa: ASYNC240 - the files are tiny and nothing else runs in the loop
from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from plugins.pretend_server import Killed
from plugins.torque_recorded import Answer, Desk, late, listed, ran
from tiltd.daemon.core.model import JobSpec
from tiltd.plugins.api import Permanent, Temporary, Unsure
from tiltd.plugins.commandline import NotStarted
from tiltd.plugins.torque import printed_id

NAME = "TS_01-3fa2c1d0.1.1.a1"
ACCEPTED = ran(out="7.head\n")
NOTHING = listed()
DOWN = ran(111, err="qstat: cannot connect to server head (errno=111) Connection refused\n")


def _refused(code: int) -> Answer:
    return ran(code, err=f"qsub: submit error (code {code})\n")


async def _unsure(desk: Desk, spec: JobSpec) -> Unsure:
    with pytest.raises(Unsure) as caught:
        await desk.manager.submit(spec)
    return caught.value


def test_the_id_is_the_last_one_that_stands_alone() -> None:
    assert printed_id(b"welcome, 7 jobs run\n1.old\n 12.head \n\nhave a nice day\n") == "12.head"
    assert printed_id(b"job 12.head accepted\n\xff\n") == ""


# -- unclear outcomes ------------------------------------------------------------------------------------

UNCLEAR: dict[str, Answer] = {
    "killed by its time-out": late(),
    "killed after it printed the id": late(out="7.head\n"),
    "killed from outside": ran(-9),
    "nothing printed": ran(0),
    "no id printed": ran(0, out="welcome to the cluster\n"),
    "server time-out": _refused(237),
    "socket": _refused(248),
    "protocol": _refused(185),
    "end of file": _refused(67),
    "a code that nobody knows": _refused(99),
    "sent again, then refused": ran(111, err="Trying again\nqsub: cannot connect\n"),
    "sent again, then full": ran(228, err="Trying again\nqsub: submit error\n"),
}


@pytest.mark.parametrize("how", UNCLEAR)
async def test_an_unclear_outcome_adopts_the_job_that_is_there(how: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [UNCLEAR[how]], "qstat": [listed(("7.head", NAME, "Q"))]})
    spec = desk.spec(NAME)
    assert await desk.manager.submit(spec) == "7.head"
    assert await desk.manager.submit(spec) == "7.head"
    assert [call[0] for call in desk.told.calls] == ["qsub", "qstat"]


@pytest.mark.parametrize("how", UNCLEAR)
async def test_an_unclear_outcome_is_never_submitted_again(how: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [UNCLEAR[how]], "qstat": [NOTHING]})
    spec = desk.spec(NAME)
    assert not (await _unsure(desk, spec)).absent, "it may be on its way still"
    desk.now += 9
    assert not (await _unsure(desk, spec)).absent
    desk.now += 2
    assert (await _unsure(desk, spec)).absent
    assert len(desk.told.called("qsub")) == 1


async def test_without_an_answer_nothing_is_known_of_it(tmp_path: Path) -> None:
    answers = [DOWN, late(), ran(0, out="garbage"), ran(0), listed(("7.head", NAME, "R"))]
    desk = Desk(tmp_path, {"qsub": [late()], "qstat": answers})
    spec = desk.spec(NAME)
    for _ in range(4):
        assert not (await _unsure(desk, spec)).absent
        desk.now += 100
    assert await desk.manager.submit(spec) == "7.head"
    assert len(desk.told.called("qsub")) == 1


async def test_absence_is_not_read_from_a_list_that_was_cut_short(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [late()], "qstat": [listed(("1.head", "other.a1", "R"), end=False)]})
    spec = desk.spec(NAME)
    for _ in range(3):
        desk.now += 100
        assert not (await _unsure(desk, spec)).absent


@pytest.mark.parametrize("whose", [{"owner": "someone@head"}, {"mark": ".jabcdef"}, {"mark": ""}])
async def test_a_job_of_that_name_that_is_not_ours_is_not_adopted(
    whose: dict[str, str], tmp_path: Path
) -> None:
    """Another account's, and that of another daemon of this account (a trial beside production)."""
    theirs = listed(("7.head", NAME, "Q"), **whose)  # type: ignore[arg-type]
    desk = Desk(tmp_path, {"qsub": [late()], "qstat": [theirs], "qdel": [ran(0)]})
    spec = desk.spec(NAME)
    await _unsure(desk, spec)
    seen = await desk.manager.jobs()
    assert seen.jobs == () and seen.foreign_counts == {"queued": 1}
    assert not desk.told.called("qdel")


# -- crashes ---------------------------------------------------------------------------------------------


async def test_a_daemon_that_died_before_it_heard_looks_first(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {})
    spec = desk.spec(NAME)
    Path(spec.attempt_folder, "job.sh").write_text("#!/bin/sh\n")
    desk.restart({"qsub": [ACCEPTED], "qstat": [listed(("7.head", NAME, "Q"))]})
    assert await desk.manager.submit(spec) == "7.head"
    assert not desk.told.called("qsub")


async def test_a_daemon_that_died_before_qsub_gives_the_attempt_up(tmp_path: Path) -> None:
    """Nobody can tell whether it called qsub: the attempt is revoked, and another one placed."""
    desk = Desk(tmp_path, {})
    spec = desk.spec(NAME)
    Path(spec.attempt_folder, "job.sh").write_text("")
    desk.restart({"qsub": [ACCEPTED], "qstat": [NOTHING]})
    assert not (await _unsure(desk, spec)).absent
    desk.now += 11
    assert (await _unsure(desk, spec)).absent
    assert not desk.told.called("qsub")


async def test_what_was_accepted_or_claimed_needs_no_command(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [ACCEPTED]})
    spec = desk.spec(NAME)
    for _ in range(2):
        assert await desk.manager.submit(spec) == "7.head"
    assert len(desk.told.calls) == 1
    Path(spec.attempt_folder, "job.json").rename(Path(spec.attempt_folder, "claimed.8.head"))
    assert await desk.manager.submit(spec) == "8.head", "who claimed it counts"
    desk.restart({})
    assert await desk.manager.submit(spec) == "8.head"
    assert not desk.told.calls


async def test_settings_that_refuse_a_job_do_not_disown_one_that_was_submitted(tmp_path: Path) -> None:
    """The settings were changed between the submission and the daemon's next start."""
    desk = Desk(tmp_path, {"qsub": [Killed()]})
    spec = desk.spec(NAME)
    with pytest.raises(Killed):
        await desk.manager.submit(spec)
    desk.settings = {"queue": "no queue"}
    desk.restart({"qstat": [listed(("7.head", NAME, "R"))]})
    assert await desk.manager.submit(spec) == "7.head"
    with pytest.raises(Permanent, match="the queue"):
        await desk.manager.submit(desk.spec("other-1.1.1.a1"))


async def test_a_pause_does_not_keep_what_was_submitted_from_being_found(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [late(), DOWN], "qstat": [NOTHING, listed(("7.head", NAME, "R"))]})
    spec = desk.spec(NAME)
    await _unsure(desk, spec)
    desk.now += 6
    with pytest.raises(Temporary):
        await desk.manager.submit(desk.spec("other-1.1.1.a1"))
    assert await desk.manager.submit(spec) == "7.head"


async def test_a_submission_that_is_given_up_leaves_its_intent(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [asyncio.CancelledError()], "qstat": [NOTHING]})
    spec = desk.spec(NAME)
    with pytest.raises(asyncio.CancelledError):
        await desk.manager.submit(spec)
    await _unsure(desk, spec)
    assert len(desk.told.called("qsub")) == 1


async def test_a_revoked_attempt_is_not_submitted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [ACCEPTED]})
    spec = desk.spec(NAME)
    Path(spec.attempt_folder, "job.json").rename(Path(spec.attempt_folder, "revoked"))
    with pytest.raises(Permanent, match="revoked"):
        await desk.manager.submit(spec)
    assert not desk.told.calls


async def test_a_revoked_attempt_is_not_submitted_though_a_late_preparation_came(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [ACCEPTED]})
    spec = desk.spec(NAME)
    Path(spec.attempt_folder, "revoked").write_text("{}")
    with pytest.raises(Permanent, match="revoked"):
        await desk.manager.submit(spec)
    assert not desk.told.calls and not Path(spec.attempt_folder, "job.sh").exists()


async def test_a_spool_that_cannot_be_read_or_written_submits_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [ACCEPTED]})
    spec = desk.spec(NAME)
    Path(spec.attempt_folder, "job.json").unlink()
    Path(spec.attempt_folder).rmdir()
    with pytest.raises(Temporary, match="cannot prepare a submission"):
        await desk.manager.submit(spec)
    assert not desk.told.calls


async def test_a_qsub_that_is_not_there_has_submitted_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [NotStarted("cannot start qsub"), ACCEPTED]})
    spec = desk.spec(NAME)
    with pytest.raises(Temporary, match="cannot start qsub"):
        await desk.manager.submit(spec)
    assert await desk.manager.submit(spec) == "7.head"


# -- two jobs of one name --------------------------------------------------------------------------------


async def _tidied(desk: Desk) -> list[str]:
    await desk.manager.jobs()
    await asyncio.gather(*filter(None, [desk.manager._tidying._task]))
    return [call[1] for call in desk.told.called("qdel")]


async def test_of_two_the_older_is_kept_and_the_other_deleted(tmp_path: Path) -> None:
    two = listed(("12.head", NAME, "Q"), ("9.head", NAME, "Q"))  # ctime counts, not the place in the list
    desk = Desk(tmp_path, {"qsub": [late()], "qstat": [two], "qdel": [ran(0)]})
    assert await desk.manager.submit(desk.spec(NAME)) == "12.head"
    assert set(await _tidied(desk)) == {"9.head"}


@pytest.mark.parametrize("states", ["QQ", "RQ", "QR", "RR"])
async def test_of_two_the_one_that_claimed_is_kept(states: str, tmp_path: Path) -> None:
    two = listed(("8.head", NAME, states[0]), ("9.head", NAME, states[1]))
    desk = Desk(tmp_path, {"qsub": [late()], "qstat": [two], "qdel": [ran(0)]})
    spec = desk.spec(NAME)
    Path(spec.attempt_folder, "job.json").rename(Path(spec.attempt_folder, "claimed.9.head"))
    assert await desk.manager.submit(spec) == "9.head"
    assert await _tidied(desk) == ["8.head"]


async def test_of_two_that_run_and_have_not_claimed_none_is_deleted(tmp_path: Path) -> None:
    """One of them is about to: the other then ends by itself."""
    two = listed(("8.head", NAME, "R"), ("9.head", NAME, "R"))
    desk = Desk(tmp_path, {"qsub": [late()], "qstat": [two], "qdel": [ran(0)]})
    assert await desk.manager.submit(desk.spec(NAME)) == "8.head"
    assert await _tidied(desk) == []


async def test_a_second_one_that_comes_late_is_deleted(tmp_path: Path) -> None:
    """qsub said "Trying again" and gave one id; the server had taken both."""
    two = listed(("7.head", NAME, "Q"), ("8.head", NAME, "Q"))
    sent = ran(0, out="7.head\n", err="Trying again\n")
    desk = Desk(tmp_path, {"qsub": [sent], "qstat": [two], "qdel": [ran(0)]})
    assert await desk.manager.submit(desk.spec(NAME)) == "7.head"
    assert await _tidied(desk) == ["8.head"]


async def test_a_late_job_of_a_revoked_attempt_is_deleted(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qstat": [listed(("7.head", NAME, "Q"))], "qdel": [ran(0)]})
    spec = desk.spec(NAME)
    Path(spec.attempt_folder, "job.json").rename(Path(spec.attempt_folder, "revoked"))
    assert await _tidied(desk) == ["7.head"]


@pytest.mark.parametrize("state", ["Q", "R"])
async def test_a_single_job_is_never_deleted(state: str, tmp_path: Path) -> None:
    """Neither one whose folder is gone, nor one that waits, nor one that ended and was started anew."""
    names = listed(
        ("7.head", NAME, state), ("6.head", "gone-12345678.1.1.a1", state), ("5.head", "hand", state)
    )
    desk = Desk(tmp_path, {"qstat": [names], "qdel": [ran(0)]})
    desk.spec(NAME)
    assert await _tidied(desk) == []
    again = listed(("5.head", NAME, "C"), ("7.head", NAME, state))
    desk.restart({"qstat": [again], "qdel": [ran(0)]})
    assert await _tidied(desk) == []


# -- trouble with the server -----------------------------------------------------------------------------


async def test_trouble_pauses_all_submissions_longer_each_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [_refused(214), _refused(111), _refused(33), ACCEPTED]})
    one, two = desk.spec("a-1.1.1.a1"), desk.spec("b-1.1.1.a1")
    for pause in (5.0, 10.0, 20.0):
        with pytest.raises(Temporary) as caught:
            await desk.manager.submit(one)
        assert caught.value.delay_seconds == pause
        with pytest.raises(Temporary, match="nothing is submitted for"):
            await desk.manager.submit(two)
        desk.now += pause
    assert await desk.manager.submit(two) == "7.head"
    assert len(desk.told.called("qsub")) == 4


async def test_who_waits_for_its_turn_hears_of_the_trouble(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [_refused(111)]}, submit_at_once=2)
    desk.told.answer_seconds = 0.05
    specs = [desk.spec(f"s{number}-1.1.1.a1") for number in range(10)]
    ends = await asyncio.gather(*map(desk.manager.submit, specs), return_exceptions=True)
    assert all(isinstance(end, Temporary) for end in ends) and len(desk.told.called("qsub")) == 2


async def test_a_full_queue_stops_what_is_for_that_queue_only(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [_refused(228), ACCEPTED]})
    with pytest.raises(Temporary) as caught:
        await desk.manager.submit(desk.spec("a-1.1.1.a1", queue="small"))
    assert caught.value.delay_seconds == 30.0
    with pytest.raises(Temporary, match="as many jobs in the queue"):
        await desk.manager.submit(desk.spec("b-1.1.1.a1", queue="small"))
    assert await desk.manager.submit(desk.spec("c-1.1.1.a1", queue="large")) == "7.head"
    assert len(desk.told.called("qsub")) == 2


async def test_the_pauses_of_a_queue_that_stays_full_end_at_two_minutes(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [_refused(228)]})
    pauses = []
    for _ in range(6):
        with pytest.raises(Temporary) as caught:
            await desk.manager.submit(desk.spec("a-1.1.1.a1", queue="small"))
        pauses.append(caught.value.delay_seconds)
        desk.now += pauses[-1]
    assert pauses == [30.0, 60.0, 120.0, 120.0, 120.0, 120.0]


async def test_twenty_unclear_submissions_share_one_look(tmp_path: Path) -> None:
    names = [f"s{number}-1.1.1.a1" for number in range(20)]
    jobs = listed(*((f"{number}.head", name, "Q") for number, name in enumerate(names, start=1)))
    desk = Desk(tmp_path, {"qstat": [jobs], "qsub": [late()]})
    desk.told.answer_seconds = 0.1
    specs = [desk.spec(name) for name in names]
    for spec in specs:
        Path(spec.attempt_folder, "job.sh").write_text("")
    found = await asyncio.gather(*map(desk.manager.submit, specs))
    assert found == [f"{number}.head" for number in range(1, 21)]
    assert len(desk.told.called("qstat")) <= 3, "one may have begun before the last of them came"
