"""Small readers: hosts, cores in use, node states, sizes; the error table; which of two jobs is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltd.daemon.core.model import Job, JobState
from tiltd.plugins import torque_errors
from tiltd.plugins.torque_intent import Trace
from tiltd.plugins.torque_jobs import JOB_FIELDS, JOB_ID, NODE_FIELDS, hosts, job, node, node_state, slots
from tiltd.plugins.torque_settings import TorqueSettings
from tiltd.plugins.torque_tidying import best, superfluous

HOSTS = {
    "core-014/0-1,3-4": ("core-014",),
    "core-014/3+core-014/2+core-014/1": ("core-014",),
    "core-014/0-3+core-012/0-3": ("core-014", "core-012"),
    "n1+n2": ("n1", "n2"),
    "": (),
    "/0": (),
}


@pytest.mark.parametrize("text", HOSTS)
def test_hosts(text: str) -> None:
    assert hosts(text) == HOSTS[text]


SLOTS = {
    "2/76.torque-head": 1,
    "0-7/78.torque-head": 8,
    "0-1,3-4/68.torque-head": 4,
    "0-1,3-4/68.head,5/69.head,7-7/70.head": 6,
    "0/12.head, 1/12.head, 2/13.head": 3,
    "0/12.head, 0/13.head": 1,
    "": 0,
    "x/1.head,-1/2.head,5-2/3.head,1-999999999/4.head": 0,
}


@pytest.mark.parametrize("text", SLOTS)
def test_cores_in_use(text: str) -> None:
    assert slots(text) == SLOTS[text]


STATES = {
    "free": "free",
    "job-exclusive": "busy",
    "busy": "busy",
    "job-exclusive,busy": "busy",
    "offline": "offline",
    "job-exclusive,offline": "offline",
    "down": "down",
    "down,offline": "down",
    "down,job-exclusive": "down",
    "state-unknown": "unknown",
    "free,who-knows": "unknown",
    "": "unknown",
}


@pytest.mark.parametrize("words", STATES)
def test_what_keeps_jobs_away_longest_counts(words: str) -> None:
    assert node_state(words) == STATES[words]


def test_a_node_of_which_little_is_known() -> None:
    seen = node({"name": "n1", "state": "free", "np": "what"}, TorqueSettings())
    assert (seen.cores, seen.memory_bytes, seen.scratch_total_bytes, seen.observed_at) == (1, 0, 0, 0.0)
    assert "size[fs=" in seen.comment and seen.floating


def test_scratch_that_is_not_reported_is_what_the_settings_say() -> None:
    site = TorqueSettings.model_validate(
        {"node": [{"names": "n*", "scratch_bytes": "100GB", "mode": "pinned"}]}
    )
    seen = node({"name": "n1", "state": "free", "np": "8"}, site)
    assert (seen.scratch_total_bytes, seen.scratch_free_bytes) == (10**11, 10**11) and not seen.floating
    told = node({"name": "n1", "state": "free", "np": "8", "status": "size=5kb:3kb"}, site)
    assert (told.scratch_total_bytes, told.scratch_free_bytes) == (3072, 3072), "never more than there is"


words = st.text(max_size=30) | st.sampled_from(
    ["1.h", "C", "R", "Q", "0", "-11", "1795360093", "9" * 30, "kb", ","]
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(JOB_FIELDS), words), st.dictionaries(st.sampled_from(NODE_FIELDS), words)
)
def test_no_value_makes_them_raise(fields: dict[str, str], of_node: dict[str, str]) -> None:
    seen = job(fields | {"Job_Id": "1.h"}, "n")
    assert seen.exit_status is None or seen.state is JobState.COMPLETED
    assert seen.comment.isprintable() and seen.native_state.isprintable()
    place = node(of_node, TorqueSettings())
    assert 0 <= place.cores_free <= place.cores and 0 <= place.scratch_free_bytes <= place.scratch_total_bytes
    assert place.comment.isprintable()


@pytest.mark.parametrize("text", ["7.head", "7", "2100[].head", "2100[3].head", "0.a-b.example.org"])
def test_ids(text: str) -> None:
    assert JOB_ID.fullmatch(text)


@pytest.mark.parametrize(
    "text", ["", "head.7", "-7.head", "7.head\n", "7.he ad", "7.", "7.../x", "7;x", "٧.head", "7.-x"]
)
def test_what_is_no_id(text: str) -> None:
    assert not JOB_ID.fullmatch(text)


# Torque's numbers, as the notes on its behaviour sort them.
PERMANENT = (172, 175, 190, 189, 168, 27, 177, 208, 1, 2)
WAIT = (200, 228)
RETRY = (214, 111, 33, 160, 173, 187, 29)
UNSURE = (237, 248, 185, 67)
SORTED = [
    *(("permanent", code) for code in PERMANENT),
    *(("wait", code) for code in WAIT),
    *(("retry", code) for code in RETRY),
    *(("unsure", code) for code in UNSURE),
]


@pytest.mark.parametrize(("kind", "code"), SORTED)
def test_the_error_table(kind: str, code: int) -> None:
    assert torque_errors.QSUB[code].kind == kind


def test_what_every_code_means_is_said_with_a_remedy() -> None:
    for table in (torque_errors.QSUB, torque_errors.QDEL, torque_errors.QUESTION):
        for code, rule in table.items():
            assert rule.meaning and rule.reason.isidentifier()
            assert rule.remedy or rule.kind in ("done", "gone", "unsure"), code
    assert torque_errors.QSUB_OTHERWISE.kind == "unsure", "what nobody knows may have happened"


def one(job_id: str, state: str = "queued", submitted_at: float = 5.0, **more: Any) -> Job:
    return Job(
        job_id=job_id, job_name="n", owner="o", state=JobState(state), submitted_at=submitted_at, **more
    )


def test_of_two_submitted_in_the_same_second_the_lower_number_is_the_older() -> None:
    assert best([one("100.h"), one("99.h")], "").job_id == "99.h"
    assert best([one("100.h", submitted_at=4.0), one("99.h")], "").job_id == "100.h"
    assert best([one("99.h", "completed"), one("100.h")], "").job_id == "100.h"
    assert best([one("99.h"), one("100.h", "completed")], "100.h").job_id == "100.h"


def test_the_claimant_is_known_by_its_number() -> None:
    """A job's own idea of its server's name may be a longer one."""
    assert best([one("99.h"), one("100.h")], "100.h.example.org").job_id == "100.h"
    assert list(superfluous([one("99.h"), one("100.h")], Trace(claimed_by="100.h.example.org"))) == ["99.h"]


def test_what_is_over_is_not_deleted() -> None:
    over = [one("1.h", "completed"), one("2.h", "completed")]
    assert list(superfluous(over, Trace(revoked=True))) == []
    assert list(superfluous([*over, one("3.h")], Trace(prepared=True))) == []
    assert list(superfluous([one("3.h"), one("4.h")], Trace(claimed_by="1.h"))) == ["4.h"]


def test_a_revoked_attempt_that_was_prepared_again_is_let_alone() -> None:
    assert list(superfluous([one("1.h")], Trace(revoked=True, prepared=True))) == []
    assert list(superfluous([one("1.h", "running")], Trace(revoked=True))) == ["1.h"]
