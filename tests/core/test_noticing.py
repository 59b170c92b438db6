"""Who is told what and when: at once, gathered by cause, or in the digest of a session."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from core.scene import Bench, node, sighting
from tiltd.daemon.core import effects as e
from tiltd.daemon.core import facts as f
from tiltd.daemon.core import observations as o
from tiltd.daemon.core.digests import ITEMS_MAX, Board
from tiltd.daemon.core.model import (
    CivilTime,
    Condition,
    Dataset,
    Digest,
    Failure,
    Notice,
    NoticeItem,
    NoticePolicy,
    NoticeRule,
    Policy,
    RetryPolicy,
)
from tiltd.daemon.core.noticing import DUE_MAX
from tiltd.daemon.core.outstanding import SENT_AT_ONCE
from tiltd.daemon.core.state import CoreState, replay
from tiltd.policy.notices import default_events

ANNA, BEN = "anna@lab-a.example", "ben@lab-b.example"
LAB_A = {"project": "lab-a", "session": "s1"}
LAB_B = {"project": "lab-b", "session": "s2"}
ANEW = RetryPolicy()
FAIL_AT_ONCE = RetryPolicy(attempts_max=1)


def rule(*to: str, events: tuple[str, ...] = (), how: Any = "at once", **when: str) -> NoticeRule:
    conditions = tuple(Condition(key=key, patterns=(text,)) for key, text in when.items())
    named = events or default_events(how)
    return NoticeRule(name=f"for {to[0]}", to=to, events=named, conditions=conditions, how=how)


def bench(*rules: NoticeRule, retry: RetryPolicy = ANEW, **notices: Any) -> Bench:
    policy = Policy(version="test", notice_rules=rules, retry=retry, notices=NoticePolicy(**notices))
    return Bench(node(cores=64), policy=policy)


def deliver(bench: Bench, name: str = "TS", labels: dict[str, str] = LAB_A, **changes: Any) -> None:
    attempt_id = bench.running(name, labels=labels)
    bench.end(attempt_id)
    said: dict[str, Any] = {"result_path": f"/results/{name}", "verdict": "good"} | changes
    bench.tell(o.CollectAnswered, attempt_id=attempt_id, **said)


def fail(bench: Bench, name: str = "TS", labels: dict[str, str] = LAB_A, reason: str = "crash") -> None:
    attempt_id = bench.running(name, labels=labels)
    bench.end(attempt_id, "failed", reason, detail=f"{name} crashed")
    bench.jobs()
    bench.jobs()


def named(bench: Bench, name: str) -> Dataset:
    return next(each for each in bench.core.state.datasets.values() if each.tilt_series_name == name)


def due(bench: Bench, to: str = "") -> list[Notice]:
    """Every notice that ever was due (to this destination)."""
    told = [fact.notice for fact in bench.facts if isinstance(fact, f.NoticeDue)]
    return [notice for notice in told if not to or to in notice.to]


def sends(bench: Bench, to: str) -> list[str]:
    return [x.notice_id for x in bench.effects if isinstance(x, e.SendNotice) and x.to == to]


def digest_of(bench: Bench, to: str) -> Digest:
    (notice,) = [notice for notice in due(bench, to) if notice.event == "digest"]
    assert notice.digest is not None
    return notice.digest


def folds(bench: Bench) -> None:
    """A restart knows what is due, gathered and put by, and asks for the same again."""
    again = replay(bench.facts)
    assert again == bench.core.state
    assert CoreState.restore(again.snapshot(0)) == again
    assert bench.core.performing.under_way == bench.core.outstanding()


# -- at once -------------------------------------------------------------------------------------------------


def test_without_a_rule_a_delivered_series_is_no_notice() -> None:
    scene = bench()
    deliver(scene)
    assert not {"NoticeDue", "NoticePutBy"} & {type(fact).__name__ for fact in scene.facts}


def test_the_end_of_a_run_is_told_to_who_asked_for_it_once() -> None:
    scene = bench(rule(ANNA, events=("delivered",)))
    deliver(scene)
    (notice,) = due(scene)
    assert notice.to == (ANNA,), "telling.py has its own line in the log"
    assert "is delivered" in notice.summary and notice.name == "TS" and notice.project == "lab-a"
    assert sends(scene, ANNA) == [notice.notice_id]
    scene.tell(o.NoticeAnswered, notice_id=notice.notice_id, to=ANNA)
    scene.wait(10_000.0)
    assert sends(scene, ANNA) == [notice.notice_id] and scene.core.state.notices == {}
    folds(scene)


def test_a_failure_goes_to_the_log_and_to_each_destination_by_itself() -> None:
    scene = bench(rule(ANNA, "chat"), retry=FAIL_AT_ONCE)
    fail(scene)
    (notice,) = due(scene)
    assert set(notice.to) == {"log", ANNA, "chat"} and notice.remedy
    scene.tell(o.NoticeAnswered, notice_id=notice.notice_id, to="log")
    scene.tell(o.NoticeAnswered, notice_id=notice.notice_id, to="chat")
    assert scene.core.state.notices[notice.notice_id].to == (ANNA,)
    folds(scene)


def test_a_doubtful_result_is_told_once_and_says_why() -> None:
    scene = bench(rule(ANNA, events=("delivered", "doubtful")))
    deliver(scene, verdict="doubtful")
    assert [notice.event for notice in due(scene, ANNA)] == ["doubtful"]


def test_a_project_hears_of_its_own_series_and_of_nothing_else() -> None:
    rules = (
        rule(ANNA, project="lab-a"),
        rule(BEN, project="lab-b"),
        rule("lab-a-digest", how="digest", project="lab-a"),
    )
    scene = bench(*rules, retry=FAIL_AT_ONCE)
    for number in range(4):  # the third opens a breaker, whose sentence names the last series
        fail(scene, f"A{number}", LAB_A)
        fail(scene, f"B{number}", LAB_B)
    deliver(scene, "A9", LAB_A)
    scene.wait(60_000.0)
    assert {"breaker"} < {notice.event for notice in due(scene)}
    assert due(scene, ANNA) and due(scene, BEN) and due(scene, "lab-a-digest")
    told = {to: repr(due(scene, to)) for to in (ANNA, BEN, "lab-a-digest")}
    for foreign in ("B0", "B1", "B2", "B3", "lab-b", "s2"):
        assert foreign not in told[ANNA] and foreign not in told["lab-a-digest"]
    for foreign in ("A0", "A1", "A2", "A3", "A9", "lab-a", "s1"):
        assert foreign not in told[BEN]


# -- one cause is one notice ---------------------------------------------------------------------------------


def test_what_follows_of_one_cause_is_gathered_into_one_notice() -> None:
    scene = bench(rule(ANNA, events=("held",)))
    names = [f"T{number:02}" for number in range(12)]
    for name in names:
        deliver(scene, name, verdict="bad", trouble="noise", result_path="")
    scene.wait(2000.0)
    told = due(scene, ANNA)
    held = [item.name for notice in told for item in notice.items] + [n.name for n in told if not n.items]
    count = sum(max(1, len(notice.items) + notice.more) for notice in told)
    assert count == 12 and set(held) <= set(names), "none is lost"
    spans = [b.due_at - a.due_at for a, b in pairwise(told)]
    assert spans and min(spans) >= 900.0, "and no destination hears of it twice within the time"
    assert len(due(scene, "log")) == 12, "the log has each of them"
    folds(scene)


def test_a_node_that_breaks_many_series_is_one_notice() -> None:
    scene = bench(rule(ANNA))
    for number in range(12):
        scene.see(sighting(f"T{number}", labels=LAB_A))
    for _ in range(8):
        scene.wait(301.0)
        while live := [d.attempts[-1] for d in scene.core.state.datasets.values() if d.live_attempt]:
            attempt_id = live[0].attempt_id
            scene.tell(
                o.SubmitAnswered,
                attempt_id=attempt_id,
                permanent=True,
                trouble="refused",
                failure=Failure(failure_class="environment", reason="no_python", detail="no python3"),
            )
    opened = [fact.scope for fact in scene.facts if isinstance(fact, f.BreakerOpened)]
    told = [notice.event for notice in due(scene, ANNA)]
    assert opened == ["node:n1"] and told == ["breaker"]
    assert len([fact for fact in scene.facts if isinstance(fact, f.AttemptFailed)]) >= 3


def test_with_no_time_to_gather_each_is_told_by_itself() -> None:
    scene = bench(rule(ANNA, events=("delivered",)), gather_seconds=0.0)
    deliver(scene, "T1")
    deliver(scene, "T2")
    assert [notice.name for notice in due(scene, ANNA)] == ["T1", "T2"]


def test_a_destination_that_is_away_holds_up_only_itself_and_its_queue_is_bounded() -> None:
    scene = bench(rule(ANNA, "chat", events=("delivered",)), gather_seconds=0.0)
    scene.core.desk.begin(scene.now)
    dataset_id = scene.arrive("TS", labels=LAB_A)
    dataset = named(scene, "TS")
    for number in range(DUE_MAX + 30):
        scene.core.desk.begin(scene.now)
        scene.core.desk.notice("delivered", f"number {number}", f"{dataset_id}:{number}", dataset)
        for effect in scene.core.performing.difference()[0]:
            if isinstance(effect, e.SendNotice) and effect.to == "chat":
                scene.core.handle(o.NoticeAnswered(at=scene.now, notice_id=effect.notice_id, to="chat"))
    mine = [effect for effect in scene.core.outstanding() if isinstance(effect, e.SendNotice)]
    assert {effect.to for effect in mine} == {ANNA} and len(mine) == SENT_AT_ONCE
    assert len(scene.core.state.notices) == DUE_MAX
    (gathered,) = scene.core.state.board.gathered.values()
    assert len(gathered.items) + gathered.more == 30, "what does not fit is told later, and none is lost"


# -- trouble -------------------------------------------------------------------------------------------------


def test_a_notice_is_tried_again_for_its_time_and_then_given_up_with_the_reason() -> None:
    scene = bench(rule(ANNA, events=("delivered",)), give_up_seconds=7200.0)
    deliver(scene)
    (notice,) = due(scene)
    while ANNA in (known := scene.core.state.notices.get(notice.notice_id, replace(notice, to=()))).to:
        assert known.due_at + 9000.0 > scene.now, "it is never given up"
        scene.tell(o.NoticeAnswered, notice_id=notice.notice_id, to=ANNA, trouble="no route to host")
        scene.wait(301.0)
    (up,) = [fact for fact in scene.facts if isinstance(fact, f.NoticeGivenUp)]
    assert (up.to, up.reason) == (ANNA, "no route to host") and up.at - notice.due_at >= 7200.0
    assert len(sends(scene, ANNA)) > 20
    folds(scene)


def test_what_is_refused_for_good_is_given_up_at_once() -> None:
    scene = bench(rule(ANNA, "chat", events=("delivered",)))
    deliver(scene)
    (notice,) = due(scene)
    scene.tell(o.NoticeAnswered, notice_id=notice.notice_id, to=ANNA, trouble="no such user", permanent=True)
    assert scene.core.state.notices[notice.notice_id].to == ("chat",)
    assert [fact.to for fact in scene.facts if isinstance(fact, f.NoticeGivenUp)] == [ANNA]


def test_a_journal_from_before_there_were_destinations_is_read() -> None:
    state = replay([f.NoticeDue(at=1.0, notice=Notice(notice_id="x", event="failed", summary="it failed"))])
    assert state.notices["x"].to == ("log",)
    state.apply(f.NoticeSent(at=2.0, notice_id="x"))
    assert state.notices == {}


# -- the digest of a session ---------------------------------------------------------------------------------


def test_the_digest_of_a_session_says_what_came_what_is_done_and_what_needs_a_person() -> None:
    scene = bench(rule(ANNA, how="digest", project="lab-a"), retry=FAIL_AT_ONCE)
    for number in range(3):
        deliver(scene, f"T{number}", quality={"residual_nm": 0.5 + number})
    deliver(scene, "D", verdict="doubtful", quality={"residual_nm": 5.0})
    fail(scene, "F")
    deliver(scene, "other", LAB_B)
    assert not due(scene, ANNA)
    folds(scene)
    scene.wait(7500.0)
    digest = digest_of(scene, ANNA)
    assert (digest.feed, digest.project, digest.session) == ("a", "lab-a", "s1")
    assert (digest.came_in, digest.delivered, digest.doubtful, digest.failed) == (5, 4, 1, 1)
    spread = digest.quality["residual_nm"]
    assert (spread.count, spread.least, spread.most, spread.total) == (4, 0.5, 5.0, 9.5)
    assert {(item.event, item.name) for item in digest.items} == {("doubtful", "D"), ("failed", "F")}
    assert all(item.remedy for item in digest.items)
    assert 300.0 < digest.longest_seconds < 310.0
    assert digest.median_seconds == pytest.approx(301.0, rel=0.03)
    assert scene.core.state.board.digests == {}
    folds(scene)
    scene.wait(100_000.0)
    digest_of(scene, ANNA)  # once


def test_a_median_is_that_of_the_values() -> None:
    scene = bench(rule(ANNA, how="digest"))
    for number, late in enumerate((0.0, 100.0, 5000.0)):
        attempt_id = scene.running(f"T{number}", labels=LAB_A)
        scene.end(attempt_id)
        scene.now += late
        scene.tell(o.CollectAnswered, attempt_id=attempt_id, result_path="/r", verdict="good")
    scene.wait(9000.0)
    assert digest_of(scene, ANNA).median_seconds == pytest.approx(401.0, rel=0.03)


def test_a_digest_waits_for_what_is_under_way_but_not_for_ever() -> None:
    scene = bench(rule(ANNA, how="digest"), digest_wait_seconds=36_000.0)
    attempt_id = scene.running("T1", labels=LAB_A)
    deliver(scene, "T2")
    since_at = scene.now
    scene.wait(30_000.0)
    assert not due(scene, ANNA)
    scene.wait(20_000.0)
    digest = digest_of(scene, ANNA)
    assert (digest.came_in, digest.delivered, digest.under_way) == (2, 1, 1)
    assert due(scene, ANNA)[0].due_at - since_at == pytest.approx(43_200.0, abs=700.0)
    scene.end(attempt_id)
    scene.tell(o.CollectAnswered, attempt_id=attempt_id, result_path="/r", verdict="good")
    scene.wait(10_000.0)
    late = due(scene, ANNA)[1].digest
    assert late is not None and (late.came_in, late.delivered) == (0, 1)


def test_what_was_mended_needs_nobody_any_more() -> None:
    scene = bench(rule(ANNA, how="digest"))
    deliver(scene, "T1", verdict="bad", trouble="noise", result_path="")
    deliver(scene, "T2", verdict="bad", trouble="noise", result_path="")
    released = named(scene, "T1").dataset_id
    scene.tell(o.OperatorAsked, action="release", dataset_id=released, by="anna", request_id="r")
    scene.tell(o.CollectAnswered, attempt_id=f"{released}.a1", result_path="/r", verdict="bad")
    scene.wait(9000.0)
    digest = digest_of(scene, ANNA)
    assert [item.name for item in digest.items] == ["T2"] and digest.delivered == 1


def test_what_failed_and_was_delivered_by_a_later_run_needs_nobody_any_more() -> None:
    board = Board()

    def put_by(event: str, dataset_id: str) -> None:
        item = NoticeItem(event=event, at=1.0, summary=event, dataset_id=dataset_id)
        board.apply(f.NoticePutBy(at=1.0, item=item, feed="a", digests={"r": (ANNA,)}))

    put_by("failed", "T1-00000000.1.1")
    put_by("failed", "T10-00000000.1.1")
    put_by("held", "T1-00000000.1.1")
    put_by("delivered", "T1-00000000.1.2")
    (digest,) = board.digests.values()
    assert [item.dataset_id for item in digest.items] == ["T10-00000000.1.1"]


def test_what_is_held_when_the_session_ends_stands_in_it_though_no_notice_was_made_of_it() -> None:
    scene = bench(rule(ANNA, how="digest"))
    for name in ("P", "Q"):
        scene.running(name, labels=LAB_A)
        scene.core.desk.hold(
            named(scene, name), "input_changing" if name == "P" else "operator", "as it was said"
        )
    deliver(scene, "T1")
    scene.wait(9000.0)
    assert [item.name for item in digest_of(scene, ANNA).items] == ["P"], "an operator knows what he holds"


def test_a_series_that_broke_off_came_in_though_it_is_not_complete() -> None:
    known = bench(rule(ANNA, how="digest")).core.policy
    stale = replace(known.completeness, planned_tilts=61, stale_seconds=1000.0)
    scene = Bench(node(), policy=replace(known, completeness=stale))
    scene.see(sighting("B", labels=LAB_A))
    scene.wait(1500.0)
    scene.wait(9000.0)
    digest = digest_of(scene, ANNA)
    assert (digest.came_in, digest.incomplete, [item.name for item in digest.items]) == (0, 1, ["B"])
    assert due(scene, ANNA)[-1].summary == "session s1: 1 came in, 0 delivered, 1 need a person"


def test_a_digest_tells_of_the_series_of_its_rule_alone_where_there_is_no_project() -> None:
    mine, other = {"group": "a"}, {"group": "b"}
    scene = bench(rule(ANNA, how="digest", **{"labels.group": "a"}))
    for name, labels in (("M", mine), ("N", other)):
        scene.running(name, labels=labels)
        scene.core.desk.hold(named(scene, name), "input_changing", "it changes")
    deliver(scene, "T1", mine)
    deliver(scene, "T2", other)
    scene.wait(9000.0)
    digest = digest_of(scene, ANNA)
    assert (digest.came_in, digest.delivered, digest.under_way) == (2, 1, 0)
    assert [item.name for item in digest.items] == ["M"]


def test_digests_go_out_at_the_hour_too_but_not_what_came_within_it() -> None:
    scene = bench(rule(ANNA, how="digest"), digest_hours=(18,), zone="UTC")
    scene.now = 17 * 3600.0
    deliver(scene, "T1")

    def civil(hour: int) -> None:
        times = (CivilTime(zone="UTC", hour=hour, weekday=0, valid_until_at=(hour + 1) * 3600.0),)
        scene.tell(o.CivilTimeObserved, civil=times)

    scene.now = 17.5 * 3600.0
    civil(17)
    assert not due(scene, ANNA)
    scene.now = 18 * 3600.0 + 0.01
    civil(18)
    assert digest_of(scene, ANNA).delivered == 1
    deliver(scene, "T2")
    civil(18)
    assert len(due(scene, ANNA)) == 1, "it came within this hour"


def test_a_digest_is_bounded_however_many_need_a_person() -> None:
    scene = bench(rule(ANNA, how="digest"))
    scene.arrive("TS", labels=LAB_A)
    dataset = named(scene, "TS")
    for number in range(ITEMS_MAX + 25):
        other = replace(dataset, dataset_id=f"T{number}-00000000.1.1")
        scene.core.desk.notice("failed", "it failed", other.dataset_id, other)
    (digest,) = scene.core.state.board.digests.values()
    assert (len(digest.items), digest.more, digest.failed) == (ITEMS_MAX, 25, ITEMS_MAX + 25)


# -- the facility --------------------------------------------------------------------------------------------


def test_a_node_that_goes_down_is_told_to_who_asks_for_it() -> None:
    scene = bench(rule("chat", events=("node_down",)))
    scene.see_nodes(node(state="down"))
    scene.see_nodes(node(state="down"))
    assert [notice.summary for notice in due(scene, "chat")] == ["the node n1 is down"]


@pytest.mark.parametrize("asked", [True, False])
def test_a_server_and_a_feed_out_of_reach_are_told_after_a_while_and_once(asked: bool) -> None:
    events = ("server_down", "feed_down") if asked else ("failed",)
    scene = bench(rule("chat", events=events))
    scene.see()
    scene.see_nodes()
    for _ in range(20):
        scene.now += 60.0
        scene.tell(o.ServerUnreachable, detail="connection refused")
        scene.tell(o.FilesObserved, feed="a", up=False, detail="stale file handle")
        told = [(notice.event, notice.due_at) for notice in due(scene, "chat")]
        assert not told or min(at for _, at in told) >= 360.0, "one failed look is no news"
    assert [event for event, _ in told] == (["server_down", "feed_down"] if asked else [])


def test_a_server_that_never_answered_since_the_start_is_not_told_again_by_every_restart() -> None:
    scene = bench(rule("chat", events=("feed_down",)))
    for _ in range(20):
        scene.now += 60.0
        scene.tell(o.FilesObserved, feed="a", up=False, detail="stale file handle")
    assert not due(scene)


def test_results_without_room_are_told() -> None:
    scene = bench(rule("chat", events=("destination_full",)))
    scene.tell(o.DestinationsObserved, free_bytes={"a": 10**15})
    scene.tell(o.DestinationsObserved, free_bytes={"a": 0})
    scene.arrive("TS", labels=LAB_A)
    for _ in range(10):
        scene.now += 60.0
        scene.tell(o.DestinationsObserved, free_bytes={"a": 0})
    (notice,) = due(scene, "chat")
    assert notice.feed == "a" and "no room" in notice.summary


def test_a_microscope_that_falls_silent_in_the_middle_of_a_series_is_told_once_until_it_grows() -> None:
    scene = bench(rule("chat", events=("quiet",)))
    for name in ("T1", "T2"):
        scene.arrive(name, labels=LAB_A)  # 41 tilts are usual here

    def grow(sections: int) -> None:
        series = sighting("Q").series
        assert series is not None
        short = replace(series, tilt_angles_deg=series.tilt_angles_deg[:sections])
        scene.see(sighting("Q", str(sections), labels=LAB_A, section_count=sections, series=short))

    grow(10)
    scene.wait(60.0)
    grow(11)
    grown_at = scene.now
    scene.wait(3000.0)
    (notice,) = due(scene, "chat")
    assert notice.name == "Q" and notice.due_at - grown_at == pytest.approx(1200.0, abs=1.0)


def test_holds_that_no_room_tells_of_are_told_if_a_rule_asks() -> None:
    scene = bench(rule("chat", events=("held",)))
    scene.see(sighting("TS", labels=LAB_A))
    scene.see(gone=("TS.mrc",))
    scene.wait(300.0)
    (notice,) = due(scene, "chat")
    assert "vanished" in notice.summary and "bring its files back" in notice.remedy


def test_names_of_any_bytes_survive_the_journal() -> None:
    evil = {"project": 'a"\r\n\x00<b>\udce9', "session": "s\udcff\n|"}
    scene = bench(rule(ANNA, "chat"), rule(ANNA, how="digest"), retry=FAIL_AT_ONCE)
    for number in range(3):
        fail(scene, f"F{number}", evil)
    assert scene.core.state.board.gathered and scene.core.state.board.digests
    snapshot = scene.core.state.snapshot(7)
    stored = json.dumps(msgspec.to_builtins(snapshot))
    assert CoreState.restore(msgspec.convert(json.loads(stored), type(snapshot))) == scene.core.state
    scene.wait(60_000.0)
    told = [notice for notice in due(scene, ANNA) if notice.event == "digest"]
    assert told and told[0].notice_id.isprintable()
    assert msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(told[0]))), Notice) == told[0]
