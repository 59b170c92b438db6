"""Which effects are started, and when one is repeated."""

from __future__ import annotations

import pytest

from core.scene import SITE, Bench, sighting
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import State
from tiltd.daemon.core.performing import BACKOFF_SECONDS, REPEAT_SECONDS
from tiltd.daemon.simulate.scene import SimulatedPipeline

ID = "TS-c46098f8.1.1"
ATTEMPT = f"{ID}.a1"
SUBMIT = e.SubmitJob(attempt_id=ATTEMPT, dataset_id=ID)
NOTICE = "partial:x"


def reserved() -> Bench:
    bench = Bench()
    bench.arrive()
    assert bench.effects == [SUBMIT]
    bench.effects.clear()
    return bench


def noticed() -> Bench:
    bench = Bench()
    bench.core.desk.begin(bench.now)
    bench.core.desk.notice("partial", "it is partial", "x")
    bench.see_nodes()
    return bench


def trouble(bench: Bench, **fields: object) -> None:
    bench.tell(o.SubmitAnswered, attempt_id=ATTEMPT, trouble="qsub does not answer", **fields)


def pause(bench: Bench, *, most_seconds: float = 5000.0) -> float:
    """Seconds until the effect is started again."""
    since_at = bench.now
    while not bench.effects and bench.now < since_at + most_seconds:
        at = bench.core.next_wake_at
        assert at is not None, "nobody asks to be woken"
        bench.now = max(bench.now, at)
        bench.tell(o.TimeReached)
    assert bench.effects == [SUBMIT]
    bench.effects.clear()
    return bench.now - since_at


def test_an_effect_is_started_once_however_long_its_answer_takes() -> None:
    bench = reserved()
    bench.wait(10_000.0)
    bench.see(sighting("TS", stat_signature="touched"))
    assert bench.effects == []
    assert bench.core.performing.under_way == bench.core.outstanding() == {SUBMIT}


def test_after_trouble_it_is_repeated_with_growing_pauses() -> None:
    bench = reserved()
    pauses = []
    for _ in range(len(BACKOFF_SECONDS) + 2):
        trouble(bench)
        assert bench.effects == []
        pauses.append(pause(bench))
    assert pauses == pytest.approx([*BACKOFF_SECONDS, BACKOFF_SECONDS[-1], BACKOFF_SECONDS[-1]])


def test_no_news_of_others_repeats_it_sooner() -> None:
    bench = reserved()
    for _ in range(4):
        trouble(bench)
        pause(bench)
    trouble(bench)
    for _ in range(100):
        bench.now += 1.0
        bench.see(sighting("TS", stat_signature=f"touched {bench.now}"))
        bench.see_nodes()
    assert bench.effects == []


def test_trouble_is_told_until_it_is_over() -> None:
    bench = reserved()
    trouble(bench)
    pause(bench)
    trouble(bench)
    assert bench.core.performing.troubles(ID) == ["SubmitJob: qsub does not answer (tried 2 times)"]
    assert bench.core.performing.troubles(ID)[0] in bench.core.why(ID, bench.now)
    bench.tell(o.SubmitAnswered, attempt_id=ATTEMPT, job_id="7")
    assert bench.core.performing.troubles(ID) == []


def test_an_answer_without_trouble_begins_the_pauses_afresh() -> None:
    bench = Bench()
    bench.running()
    bench.ask("cancel", ID)
    cancel = e.CancelJob(attempt_id=ATTEMPT, dataset_id=ID, job_id="job")
    seen = []
    for told in ("no", "no", "", "no"):
        assert cancel in bench.effects
        bench.effects.clear()
        bench.tell(o.CancelAnswered, attempt_id=ATTEMPT, trouble=told)
        since_at = bench.now
        while not bench.effects:
            bench.now = bench.core.next_wake_at or bench.now
            bench.tell(o.TimeReached)
        seen.append(bench.now - since_at)
    assert seen == pytest.approx([BACKOFF_SECONDS[0], BACKOFF_SECONDS[1], REPEAT_SECONDS, BACKOFF_SECONDS[0]])


@pytest.mark.parametrize(("wish", "expected"), [(1000.0, 1000.0), (0.5, BACKOFF_SECONDS[0])])
def test_a_plugins_own_wish_for_a_longer_pause_is_kept(wish: float, expected: float) -> None:
    bench = reserved()
    trouble(bench, retry_seconds=wish)
    assert pause(bench) == pytest.approx(expected)


def test_a_series_that_meets_a_full_queue_a_dozen_times_comes_again_when_it_was_told_each_time() -> None:
    bench = reserved()
    pauses = []
    for _ in range(12):
        trouble(bench, retry_seconds=120.0)
        pauses.append(pause(bench))
    assert pauses == pytest.approx([120.0] * 12)


def test_an_effect_that_is_not_wanted_any_more_is_not_repeated() -> None:
    bench = reserved()
    trouble(bench)
    bench.ask("cancel", ID)
    bench.effects.clear()
    bench.wait(10_000.0)
    assert SUBMIT not in bench.effects
    assert {type(effect) for effect in bench.core.performing.under_way} == {e.RevokeAttempt}


def test_an_effect_that_is_wanted_again_is_started_again() -> None:
    bench = Bench()
    bench.running()
    bench.end(ATTEMPT)
    collect = e.CollectResult(attempt_id=ATTEMPT, dataset_id=ID)
    bench.ask("hold", ID)
    assert collect not in bench.core.performing.under_way
    bench.effects.clear()
    bench.ask("release", ID)
    assert collect in bench.effects


@pytest.mark.parametrize("fields", [{"job_id": "7"}, {"trouble": "no", "permanent": True}])
def test_an_answer_that_comes_twice_or_late_is_nothing_new(fields: dict[str, object]) -> None:
    bench = reserved()
    bench.tell(o.SubmitAnswered, attempt_id=ATTEMPT, job_id="7")
    before = bench.core.state.snapshot(0)
    step = bench.tell(o.SubmitAnswered, attempt_id=ATTEMPT, **fields)
    assert (step.facts, step.effects) == ((), ())
    assert bench.core.state.snapshot(0) == before
    assert bench.core.performing.under_way == frozenset()


@pytest.mark.parametrize(
    "answer",
    [
        o.SubmitAnswered(at=400.0, attempt_id="nosuch.1.1.a1", job_id="7"),
        o.RevokeAnswered(at=400.0, attempt_id="nosuch.1.1.a1", revoked=True),
        o.FenceAnswered(at=400.0, attempt_id="nosuch"),
        o.CancelAnswered(at=400.0, attempt_id=""),
        o.CollectAnswered(at=400.0, attempt_id=f"{ID}.a9", result_path="/results/x"),
        o.ImportAnswered(at=400.0, dataset_id="nosuch.1.1", path="/import/x"),
        o.ReleaseAnswered(at=400.0, attempt_id=f"{ID}.a9", node="n1"),
        o.NoticeAnswered(at=400.0, notice_id="nosuch"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_an_answer_about_what_nobody_knows_is_nothing(answer: o.Answer) -> None:
    bench = reserved()
    before = bench.core.state.snapshot(0)
    assert bench.take(answer).facts == ()
    assert bench.core.state.snapshot(0) == before
    assert bench.core.performing.under_way == {SUBMIT}


def test_nothing_is_kept_of_a_finished_dataset() -> None:
    bench = Bench()
    bench.running()
    bench.end(ATTEMPT)
    bench.tell(o.CollectAnswered, attempt_id=ATTEMPT, result_path="/results/TS", verdict="good")
    bench.release(ATTEMPT)
    assert bench.core.state.datasets == {}
    bench.see_nodes()
    assert not bench.core.performing._started


def test_after_a_restart_everything_outstanding_is_started_again() -> None:
    before = reserved()
    trouble(before)
    core = Core(SITE, before.core.policy, {"simulated": SimulatedPipeline()}, before.core.state)
    step = core.recover(before.now)
    assert set(step.effects) == core.outstanding() == {SUBMIT}
    assert step.facts == ()


# -- notices -------------------------------------------------------------------------------------------------


def test_a_notice_is_sent_once_and_repeated_after_trouble() -> None:
    bench = noticed()
    send = e.SendNotice(notice_id=NOTICE)
    assert bench.effects == [send]
    bench.see_nodes()
    bench.tell(o.NoticeAnswered, notice_id=NOTICE, trouble="no mail server")
    assert bench.effects == [send]
    bench.wait(BACKOFF_SECONDS[0] + 1.0)
    assert bench.effects == [send, send]
    bench.tell(o.NoticeAnswered, notice_id=NOTICE)
    assert (bench.kinds().count("NoticeSent"), bench.core.state.notices) == (1, {})
    bench.tell(o.NoticeAnswered, notice_id=NOTICE)
    bench.wait(10_000.0)
    assert (bench.kinds().count("NoticeSent"), bench.effects) == (1, [send, send])
    assert bench.core.performing.under_way == frozenset()


def test_a_notice_that_can_never_be_sent_is_given_up() -> None:
    bench = noticed()
    bench.tell(o.NoticeAnswered, notice_id=NOTICE, trouble="no such address", permanent=True)
    assert bench.core.state.notices == {}


def test_the_same_cause_is_told_once_while_it_waits() -> None:
    bench = noticed()
    bench.core.desk.notice("partial", "it is partial, as was said", "x")
    assert [notice.summary for notice in bench.core.state.notices.values()] == ["it is partial"]


# -- releases ------------------------------------------------------------------------------------------------


def test_scratch_is_released_until_it_is_proved_and_then_the_dataset_leaves() -> None:
    bench = Bench()
    bench.running()
    bench.end(ATTEMPT)
    bench.tell(o.CollectAnswered, attempt_id=ATTEMPT, result_path="/results/TS", verdict="good")
    release = e.ReleaseScratch(attempt_id=ATTEMPT, dataset_id=ID, node="n1")
    assert bench.effects.pop() == release
    bench.effects.clear()
    bench.tell(o.ReleaseAnswered, attempt_id=ATTEMPT, node="n1", trouble="the node does not answer")
    assert bench.of(ID).state is State.DELIVERED
    bench.wait(BACKOFF_SECONDS[0] + 1.0)
    assert bench.effects == [release]
    bench.release(ATTEMPT)
    assert bench.core.state.datasets == {}
