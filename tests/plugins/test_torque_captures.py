"""Every recorded answer of qsub, qstat, pbsnodes, qdel, checkjob and showstart, and what follows from it.

Where the recorded XML is well-formed, Python's own parser is the witness for what was read from it.
"""

# ruff: noqa: ASYNC240 - the files are tiny and nothing else runs in the loop
from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from plugins.torque_recorded import Desk, Recorded, ids, listed, ran, recorded
from plugins.torque_tables import ACCEPTED, DELETED, LISTS, MAUI, NO_ANSWERS, NODES, NOT_DELETED, REFUSED
from tiltd.daemon.core.model import Job, JobState
from tiltd.plugins.api import Unreachable, Unsure

QSTAT, QSUB, QDEL, PBSNODES = (recorded(family) for family in ("qstat", "qsub", "qdel", "pbsnodes"))
CHECKJOB, SHOWSTART = recorded("checkjob"), recorded("showstart")
EMPTY = ran(out='<?xml version="1.0"?>\n<Data></Data>\n')


def test_every_recording_is_in_a_table() -> None:
    assert {*LISTS, *itertools.chain(*NO_ANSWERS.values())} == QSTAT.keys()
    assert {*ACCEPTED, *REFUSED} == QSUB.keys() and not ACCEPTED.keys() & REFUSED.keys()
    assert {*DELETED, *NOT_DELETED} == QDEL.keys()
    assert set(NODES) == {name for name, one in PBSNODES.items() if b"<Node>" in one.out}


# -- qstat -----------------------------------------------------------------------------------------------


async def _jobs(folder: Path, one: Recorded) -> tuple[Job, ...]:
    manager = Desk(folder, {"qstat": [ran(one.code, one.out, one.err)]}).manager
    manager.expect(ids(one.out))
    seen = await manager.jobs()
    assert seen.complete and seen.foreign_counts == {}
    return seen.jobs


@pytest.mark.parametrize("name", LISTS)
async def test_a_list_is_read(name: str, tmp_path: Path) -> None:
    assert "".join(job.native_state for job in await _jobs(tmp_path, QSTAT[name])) == LISTS[name]


def _witness(text: str) -> list[tuple[object, ...]]:
    """What Python's XML parser reads of well-formed documents."""
    rows: list[tuple[object, ...]] = []
    for document in text.split('<?xml version="1.0"?>')[1:]:
        for job in ElementTree.fromstring(document):
            done = job.findtext("job_state") == "C"
            hosts = [part.split("/")[0] for part in (job.findtext("exec_host") or "").split("+") if part]
            status = job.findtext("exit_status") if done else None
            rows.append(
                (
                    job.findtext("Job_Id"),
                    job.findtext("Job_Name"),
                    (job.findtext("Job_Owner") or "").split("@")[0],
                    job.findtext("queue"),
                    float(job.findtext("ctime") or 0),
                    int(status) if status is not None else None,
                    float(job.findtext("comp_time") or job.findtext("mtime") or 0) if done else None,
                    int(job.findtext("start_count") or 0),
                    tuple(dict.fromkeys(hosts)) if job.findtext("job_state") in "RESC" else (),
                )
            )
    return rows


@pytest.mark.parametrize("name", sorted(set(LISTS) - {"qsub_ctrl_x", "qsub_latin1_x"}))
async def test_it_is_what_an_xml_parser_reads(name: str, tmp_path: Path) -> None:
    read = [
        (
            job.job_id,
            job.job_name,
            job.owner,
            job.queue,
            job.submitted_at,
            job.exit_status,
            job.ended_at,
            job.start_count,
            job.exec_host,
        )
        for job in await _jobs(tmp_path, QSTAT[name])
    ]
    assert read == _witness(QSTAT[name].out.decode("utf-8"))


@pytest.mark.parametrize("name", ["qsub_ctrl_x", "qsub_latin1_x"])
async def test_what_an_xml_parser_refuses_is_read_all_the_same(name: str, tmp_path: Path) -> None:
    with pytest.raises((ElementTree.ParseError, UnicodeDecodeError)):
        _witness(QSTAT[name].out.decode("utf-8"))
    [job] = await _jobs(tmp_path, QSTAT[name])
    assert (job.job_name, job.state) == ("quick", JobState.HELD)


async def test_a_foreign_job_with_control_characters_changes_nothing(tmp_path: Path) -> None:
    """It stands in the middle of one document, between ours."""
    ours = QSTAT["qstat_x_all"].out
    foreign = QSTAT["qsub_ctrl_x"].out.replace(b"tomography@", b"someone@")
    odd = QSTAT["qsub_latin1_x"].out.replace(b"tomography@", b"else@")
    bodies = [re.search(b"<Job>.*</Job>", text, re.S).group() for text in (foreign, odd)]  # type: ignore[union-attr]
    at = ours.index(b"<Job>", 9000)
    mixed = ours[:at] + b"".join(bodies) + ours[at:]
    alone = Desk(tmp_path, {"qstat": [ran(out=ours)]}).manager
    beside = Desk(tmp_path, {"qstat": [ran(out=mixed)]}).manager
    for manager in (alone, beside):
        manager.expect(ids(ours))
    seen = await beside.jobs()
    assert seen.jobs == (await alone.jobs()).jobs and seen.complete
    assert seen.foreign_counts == {"held": 2}


@pytest.mark.parametrize(
    ("said", "name"), [(said, name) for said, names in NO_ANSWERS.items() for name in names]
)
async def test_nothing_is_concluded_from_no_answer(said: str, name: str, tmp_path: Path) -> None:
    one = QSTAT[name]
    with pytest.raises(Unreachable, match=said):
        await Desk(tmp_path, {"qstat": [ran(one.code, one.out, one.err)]}).manager.jobs()


async def test_ends_are_named(tmp_path: Path) -> None:
    async def of(name: str) -> tuple[int | None, str]:
        [job] = await _jobs(tmp_path, QSTAT[name])
        return job.exit_status, job.ending

    assert await of("qstat_x_completed_walltime") == (-11, "walltime")
    assert await of("qstat_x_qdel_inprogress") == (271, "deleted")
    assert await of("keep_completed_early") == (None, "deleted"), "deleted before it ran"
    assert await of("job_kill9_qstat_x") == (137, "signal 9")
    assert await of("job_nointerp_qstat_x") == (127, "exit 127")
    states = {job.ending for job in await _jobs(tmp_path, QSTAT["qstat_x_states"]) if job.ending}
    assert states == {"deleted", "signal 10"}


async def test_the_exit_status_of_a_job_that_runs_again_is_not_believed(tmp_path: Path) -> None:
    """Recorded after qrerun: R, start_count 2, and the first run's exit status 0."""
    assert b"<exit_status>0<" in QSTAT["qrerun_qstat_x"].out
    [job] = await _jobs(tmp_path, QSTAT["qrerun_qstat_x"])
    assert (job.state, job.exit_status, job.start_count, job.ended_at) == (JobState.RUNNING, None, 2, None)


async def test_a_failed_start_leaves_a_queued_job_that_never_started(tmp_path: Path) -> None:
    """Recorded with a dead mom: Q, although there may be a start time."""
    [job] = await _jobs(tmp_path, QSTAT["status_todead_x"])
    assert (job.state, job.started_at, job.exec_host) == (JobState.QUEUED, None, ())


async def test_output_that_could_not_be_delivered_is_said(tmp_path: Path) -> None:
    [job] = await _jobs(tmp_path, QSTAT["job_undeliverable_qstat_x"])
    assert job.comment.startswith("Unable to copy files back") and job.ending == "exit 3"


# -- qsub ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACCEPTED)
async def test_an_accepted_job_has_its_id(name: str, tmp_path: Path) -> None:
    one = QSUB[name]
    desk = Desk(tmp_path, {"qsub": [ran(one.code, one.out, one.err)]})
    assert await desk.manager.submit(desk.spec()) == ACCEPTED[name]
    assert len(desk.told.calls) == 1


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_says_whether_to_try_again(name: str, tmp_path: Path) -> None:
    kind, said = REFUSED[name]
    one = QSUB[name]
    out = one.out if name != "qsub_maxuserqueuable" else b""  # two ids of the calls before, in one recording
    desk = Desk(tmp_path, {"qsub": [ran(one.code, out, one.err)], "qstat": [EMPTY]})
    spec = desk.spec()
    with pytest.raises(kind, match=said) as caught:
        await desk.manager.submit(spec)
    assert type(caught.value) is kind and spec.job_name in str(caught.value)
    left = Path(spec.attempt_folder, "job.sh").exists()
    assert left is (kind is Unsure), "only what may have happened leaves its intent"


# -- qdel, pbsnodes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DELETED))
async def test_a_deletion_that_has_nothing_left_to_do_is_one(name: str, tmp_path: Path) -> None:
    one = QDEL[name]
    await Desk(tmp_path, {"qdel": [ran(one.code, one.out, one.err)]}).manager.cancel("23.torque-head")


@pytest.mark.parametrize("name", NOT_DELETED)
async def test_a_deletion_that_failed_says_so(name: str, tmp_path: Path) -> None:
    kind, said = NOT_DELETED[name]
    one = QDEL[name]
    with pytest.raises(kind, match=said) as caught:
        await Desk(tmp_path, {"qdel": [ran(one.code, one.out, one.err)]}).manager.cancel("23.torque-head")
    assert type(caught.value) is kind


@pytest.mark.parametrize("name", PBSNODES)
async def test_nodes_are_read_or_unreachable(name: str, tmp_path: Path) -> None:
    one = PBSNODES[name]
    desk = Desk(tmp_path, {"pbsnodes": [ran(one.code, one.out, one.err)]})
    if name not in NODES:
        with pytest.raises(Unreachable, match="pbsnodes"):
            await desk.manager.nodes()
        return
    mib = 1 << 20
    found = [
        (n.name, n.state, n.cores, n.cores_free, n.scratch_free_bytes // mib, n.scratch_total_bytes // mib)
        for n in await desk.manager.nodes()
    ]
    assert found == NODES[name]


async def test_a_node_tells_its_own_time_memory_and_properties(tmp_path: Path) -> None:
    one = PBSNODES["pbsnodes_x_down"]
    desk = Desk(tmp_path, {"pbsnodes": [ran(one.code, one.out, one.err)]})
    first, second, third = await desk.manager.nodes()
    assert (first.properties, first.memory_bytes) == (("tomography",), 24684092 * 1024)
    assert (first.observed_at, third.observed_at) == (1795360558.0, 1795360378.0)
    assert "disk full" in first.comment and "size[fs=/scratch]" in second.comment and "down" in third.comment


async def test_nodes_without_the_sites_property_are_not_ours(tmp_path: Path) -> None:
    one = PBSNODES["pbsnodes_x"]
    answers = {"pbsnodes": [ran(one.code, one.out, one.err)]}
    assert len(await Desk(tmp_path, answers, properties=["tomography"]).manager.nodes()) == 3
    assert await Desk(tmp_path, answers, properties=["tomography", "gpu"]).manager.nodes() == []


# -- Maui ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKJOB)
async def test_mauis_own_words(name: str, tmp_path: Path) -> None:
    one, start = CHECKJOB[name], SHOWSTART["showstart_behind"]
    answers = {"checkjob": [ran(one.code, one.out, one.err)], "showstart": [ran(0, start.out)]}
    desk = Desk(tmp_path, answers)
    words = await desk.manager.reasons("79.torque-head")
    assert words[-1] == "showstart: earliest start in 00:09:54, on Sun Nov 22 15:18:51"
    assert [call[1] for call in desk.told.calls] == ["79", "79"], "Maui knows jobs by their number"
    assert any(MAUI[name] in word for word in words) if MAUI[name] else len(words) == 1
    assert all(word.startswith("checkjob: ") for word in words[:-1])
    assert all(word.isprintable() and len(word) <= 320 for word in words)


async def test_no_estimate_is_no_word(tmp_path: Path) -> None:
    unknown, start = CHECKJOB["checkjob_unknown"], SHOWSTART["showstart_unknown"]
    answers = {"checkjob": [ran(1, "", unknown.err)], "showstart": [ran(1, "", start.err)]}
    assert await Desk(tmp_path, answers).manager.reasons("1.head") == ()


async def test_maui_never_ends_a_job(tmp_path: Path) -> None:
    """Recorded with the server down: Maui still answers.  The list of jobs is Torque's alone."""
    desk = Desk(tmp_path, {"qstat": [listed(("7.head", "x", "R"))]})
    assert [job.native_state for job in (await desk.manager.jobs()).jobs] == ["R"]
    assert [call[0] for call in desk.told.calls] == ["qstat"]
