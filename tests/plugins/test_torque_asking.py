"""Three values: a job is listed, or proved unknown, or nothing is known of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugins.torque_recorded import Answer, Desk, late, listed, ran
from tiltd.daemon.core.model import Job
from tiltd.plugins import torque_jobs
from tiltd.plugins.api import Unreachable
from tiltd.plugins.torque_xml import Fields

NAME, OTHER = "TS_01-3fa2c1d0.1.1.a1", "TS_02-5c1be9aa.1.1.a1"
ACCEPTED = ran(out="7.head\n")
NOTHING = listed()
DOWN = ran(111, err="qstat: cannot connect to server head (errno=111) Connection refused\n")


async def test_absent_is_what_the_server_itself_does_not_know(tmp_path: Path) -> None:
    unknown = ran(153, err="qstat: Unknown Job Id Error 7.head\n")
    desk = Desk(tmp_path, {"qstat": [NOTHING, unknown]})
    desk.manager.expect(["7.head"])
    seen = await desk.manager.jobs()
    assert seen.complete and seen.jobs == ()
    assert desk.told.called("qstat") == [["qstat", "-x"], ["qstat", "-x", "7.head"]]


@pytest.mark.parametrize(
    "second",
    [DOWN, late(), ran(0), ran(153, err="qstat: Unknown Job Id Error 8.head\n"), ran(1, err="who knows\n")],
)
async def test_missing_from_the_list_alone_is_unknown(second: Answer, tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qstat": [NOTHING, second]})
    desk.manager.expect(["7.head"])
    [job] = (await desk.manager.jobs()).jobs
    assert (job.job_id, job.state) == ("7.head", "unknown")


async def test_what_was_listed_as_completed_may_be_forgotten(tmp_path: Path) -> None:
    """The earlier C is the second witness, and what is proved once is not asked for at every look."""
    ended = listed(("7.head", NAME, "C"), ("8.head", NAME, "R"))
    unknown = ran(153, err="qstat: Unknown Job Id Error 8.head\n")
    desk = Desk(tmp_path, {"qstat": [ended, NOTHING, unknown, NOTHING, listed(("8.head", NAME, "R")), DOWN]})
    desk.manager.expect(["7.head", "8.head"])
    assert len((await desk.manager.jobs()).jobs) == 2
    for _ in range(2):
        desk.manager.expect(["7.head", "8.head"])
        assert (await desk.manager.jobs()).jobs == ()
    assert [call[2:] for call in desk.told.called("qstat")] == [[], [], ["8.head"], []]
    assert [job.job_id for job in (await desk.manager.jobs()).jobs] == ["8.head"], "it came back"


async def test_a_list_that_forgot_a_job_is_mended_by_asking_for_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qstat": [NOTHING, listed(("7.head", NAME, "R"))]})
    desk.manager.expect(["7.head"])
    [job] = (await desk.manager.jobs()).jobs
    assert (job.job_id, job.state) == ("7.head", "running")


async def test_a_job_just_submitted_is_expected_at_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qsub": [ACCEPTED], "qstat": [NOTHING, DOWN, NOTHING, NOTHING]})
    desk.manager.expect([])
    await desk.manager.submit(desk.spec(NAME))
    desk.manager.expect([])  # the answer has not reached the core yet
    [job] = (await desk.manager.jobs()).jobs
    assert job.state == "unknown"


async def test_a_list_that_was_cut_short_is_not_complete(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qstat": [listed(("7.head", NAME, "R"), end=False)]})
    desk.manager.expect(["7.head", "8.head"])
    seen = await desk.manager.jobs()
    assert not seen.complete and [job.job_id for job in seen.jobs] == ["7.head"]
    assert len(desk.told.calls) == 1, "a server in trouble is not asked more"


BARE = "<Job_Owner>%s@head</Job_Owner><ctime>5</ctime>"


@pytest.mark.parametrize(
    ("row", "complete"),
    [
        (BARE % "someone", True),
        (BARE % "tomography", False),
        ("<Job_Id>9.head</Job_Id><Job_Name>n</Job_Name><job_state>R</job_state>" + BARE % "", False),
        ("<Job_Id>9.head</Job_Id><Job_Name>n</Job_Name><job_state>R</job_state>", False),
        ("<Job_Id>nine</Job_Id><Job_Name>n</Job_Name><job_state>R</job_state>" + BARE % "tomography", False),
        ("<Job_Id>nine</Job_Id><Job_Name>n</Job_Name><job_state>R</job_state>" + BARE % "someone", True),
    ],
)
async def test_a_record_that_lacks_what_matters_may_be_ours(row: str, complete: bool, tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qstat": [ran(out=f"<Data><Job>{row}</Job></Data>")]})
    seen = await desk.manager.jobs()
    assert seen.complete is complete and seen.jobs == ()


async def test_a_record_that_stands_there_again_to_the_letter_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Completed jobs are listed for minutes; what is new in a record is seen all the same."""
    read: list[tuple[str, str]] = []
    real = torque_jobs.job

    def noted(fields: Fields, name: str) -> Job:
        read.append((fields["Job_Id"], fields["job_state"]))
        return real(fields, name)

    monkeypatch.setattr(torque_jobs, "job", noted)
    running = listed(("1.head", NAME, "C"), ("2.head", OTHER, "R"))
    over = listed(("1.head", NAME, "C"), ("2.head", OTHER, "C"))
    desk = Desk(tmp_path, {"qstat": [running, running, over, over]})
    looks = [await desk.manager.jobs() for _ in range(4)]
    assert read == [("1.head", "C"), ("2.head", "R"), ("2.head", "C")]
    states = [[job.state.value for job in seen.jobs] for seen in looks]
    assert states == [["completed", "running"]] * 2 + [["completed", "completed"]] * 2
    assert all(seen.complete for seen in looks)


RUNS = (
    f"<Data><Job><Job_Id>7.head</Job_Id><Job_Name>{NAME}.jad3e9d</Job_Name>"
    "<resources_used><walltime>%s</walltime></resources_used><job_state>%s</job_state>"
    "<Job_Owner>tomography@head</Job_Owner><Walltime><Remaining>%s</Remaining></Walltime>"
    "<comment>%s</comment></Job></Data>"
)


async def test_of_a_job_that_runs_what_counts_up_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = torque_jobs.job

    def noted(fields: Fields, name: str) -> Job:
        read.append(fields["comment"])
        return real(fields, name)

    monkeypatch.setattr(torque_jobs, "job", noted)
    rows = [("00:01", "R", 99, "a"), ("00:12", "R", 9, "a"), ("00:12", "R", 9, "b"), ("00:12", "C", 9, "b")]
    desk = Desk(tmp_path, {"qstat": [ran(out=RUNS % row) for row in rows]})
    desk.manager.expect(["7.head"])
    looks = [(await desk.manager.jobs()).jobs[0] for _ in rows]
    assert read == ["a", "b", "b"], "the second look told nothing new"
    assert [(job.state.value, job.comment) for job in looks] == [
        ("running", "a"), ("running", "a"), ("running", "b"), ("completed", "b"),
    ]  # fmt: skip


async def test_what_was_damaged_is_damaged_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, {"qstat": [ran(out=f"<Data><Job>{BARE % 'tomography'}</Job></Data>")] * 2})
    assert [(await desk.manager.jobs()).complete for _ in range(2)] == [False, False]


async def test_commands_that_are_not_there_are_no_answer(tmp_path: Path) -> None:
    manager = Desk(tmp_path, {}).manager
    for question in (manager.jobs, manager.nodes):
        with pytest.raises(Unreachable, match=r"cannot start (qstat|pbsnodes).*\[torque\] path"):
            await question()
    with pytest.raises(Unreachable, match="maui = false"):
        await manager.reasons("7.head")
    assert await Desk(tmp_path, {}, maui=False).manager.reasons("7.head") == ()


async def test_an_old_torque_prints_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="empty_is_no_jobs"):
        await Desk(tmp_path, {"qstat": [ran(0)]}).manager.jobs()
    seen = await Desk(tmp_path, {"qstat": [ran(0)]}, empty_is_no_jobs=True).manager.jobs()
    assert seen.complete and seen.jobs == ()


async def test_unknown_letters_are_unknown_states(tmp_path: Path) -> None:
    rows = [(f"{number}.head", f"n-1.1.1.a{number}", letter) for number, letter in enumerate("QWTHRESCX?", 1)]
    desk = Desk(tmp_path, {"qstat": [listed(*rows)]})
    states = [job.state.value for job in (await desk.manager.jobs()).jobs]
    assert states == [
        *["queued"] * 3,
        "held",
        *["running"] * 2,
        "suspended",
        "completed",
        *["unknown"] * 2,
    ]
