"""The stand-in's commands print what the recorded ones printed, with the same exit codes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from standin.cluster_scene import Scene
from tiltd.daemon.standin.torque import client
from tiltd.daemon.standin.torque.faults import Fault
from tiltd.daemon.standin.torque.records import Answer

GOLDEN = Path(__file__).parents[1] / "golden" / "torque"


def recorded(name: str) -> Answer:
    """What the real one answered."""
    rc = int((GOLDEN / f"{name}.rc").read_text())
    return Answer(rc, (GOLDEN / f"{name}.out").read_bytes(), (GOLDEN / f"{name}.err").read_bytes())


def typed(name: str, folder: Path) -> list[str]:
    """The recorded command, its script in ``folder`` in place of the home."""
    words = shlex.split((GOLDEN / f"{name}.cmd").read_text())
    return [word.replace("~", str(folder), 1) if word.startswith("~") else word for word in words]


def shape(text: bytes) -> str:
    """Names and order stay, figures do not."""
    plain = text.decode("utf-8", "surrogateescape")
    plain = re.sub(r"<sessions>|sessions=[\d ]+,", "", plain)
    plain = re.sub(r"macaddr=[\w:]+", "macaddr=M", plain)
    plain = re.sub(r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \w{3} [ \d]\d", "DAY", plain)
    plain = re.sub(r"-?\d[\d.:]*", "N", plain)
    return re.sub(r" +", " ", plain)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    for name in ("sleep", "quick", "env", "trap", "exit3"):
        (tmp_path / f"{name}.pbs").write_text("#!/bin/bash\n#PBS -j oe\n#PBS -l nodes=1:ppn=2\nsleep 20\n")
    (tmp_path / "crlf.pbs").write_bytes(b"#!/bin/bash\r\nsleep 1\r\n")
    return Scene(tmp_path)


REFUSED = [
    "qsub_unknown_queue", "qsub_disabled_queue", "qsub_exceed_limit_mem", "qsub_exceed_limit_walltime",
    "qsub_ppn64", "qsub_unknown_host", "qsub_unknown_property", "qsub_bad_l_name", "qsub_bad_l_syntax",
    "qsub_bad_mem", "qsub_bad_walltime", "qsub_depend_bad", "qsub_missing_script", "job_crlf",
    "qstat_unknown", "qstat_wrongserver", "qstat_badid", "keep_completed_after", "qdel_unknown",
    "qhold_unknown", "qrls_unknown", "pbsnodes_unknown", "checkjob_unknown", "showstart_unknown",
    "qstat_x_empty", "qstat_empty", "qstat_f_empty", "pbsnodes_l",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_refused_in_the_same_words(scene: Scene, name: str, tmp_path: Path) -> None:
    command, *argv = typed(name, tmp_path)
    assert scene.type(command, *argv) == recorded(name)


USAGE = [
    "qsub_bad_option", "qsub_name_space", "qsub_name_newline", "qsub_name_utf8", "qsub_prio_out",
    "qsub_nonreadable_cwd_script", "qsub_W_stuff",
]  # fmt: skip


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_is_told_in_the_same_first_line(scene: Scene, name: str, tmp_path: Path) -> None:
    command, *argv = typed(name, tmp_path)
    answer, real = scene.type(command, *argv), recorded(name)
    assert (answer.rc, answer.err.splitlines()[0]) == (real.rc, real.err.splitlines()[0])
    assert not scene.batch.jobs


def test_full_queues_are_refused_in_the_same_words(scene: Scene, tmp_path: Path) -> None:
    for name in ("qsub_maxqueuable_1", "qsub_maxqueuable_2"):
        assert scene.type(*typed(name, tmp_path)).rc == 0
    assert scene.type(*typed("qsub_maxqueuable_3", tmp_path)) == recorded("qsub_maxqueuable_3")
    limited = ("qsub", "-q", "limited", "-h", str(tmp_path / "sleep.pbs"))
    answers = [scene.type(*limited) for _ in range(3)]
    real = recorded("qsub_maxuserqueuable")
    assert (answers[-1].rc, answers[-1].err) == (real.rc, real.err)


@pytest.mark.parametrize("kind", ["down", "noauth"])
def test_a_server_that_is_away_is_told_in_the_same_words(scene: Scene, kind: str) -> None:
    scene.submit("-h", "-l", "nodes=1:ppn=4")
    scene.commands.faults.add(Fault("*", "down" if kind == "down" else "unauthorised", times=-1))
    for name in sorted(path.stem for path in GOLDEN.glob(f"{kind}_q*.cmd")):
        if typed(name, Path("/"))[0] in client.DOWN_RC:
            assert scene.type(*typed(name, Path("/"))) == recorded(name), name
    if kind == "down":
        assert scene.type("pbsnodes", "-x") == recorded("down_pbsnodes")
        assert shape(scene.type("showq").out) == shape(recorded("down_showq").out)


def test_a_server_that_goes_down_answers_but_takes_nothing(scene: Scene, tmp_path: Path) -> None:
    scene.commands.faults.add(Fault("*", "shutting_down", times=-1))
    assert scene.type(*typed("shutting_qsub", tmp_path)) == recorded("shutting_qsub")
    assert scene.type("qstat", "-x") == recorded("qstat_x_empty")


def element_names(xml: bytes) -> list[bytes]:
    """In order; inside resources_used and Resource_List the real one has no order of its own."""
    found = re.split(rb"</?(resources_used|Resource_List)>", xml)
    parts = [re.findall(rb"<(\w+)>", part) for part in found]
    return [name for number, part in enumerate(parts) for name in (sorted(part) if number % 4 == 2 else part)]


def test_a_running_job_is_shown_as_recorded(scene: Scene, tmp_path: Path) -> None:
    scene.batch.next_number = 3
    command, *argv = typed("qsub_full_options", tmp_path)
    assert scene.type(command, *argv, folder="/home/tomography/jobs").out == b"3.torque-head\n"
    scene.time.advance(1.5)
    shown = scene.type("qstat", "-x", "3.torque-head").out
    real = recorded("qstat_x_one_running").out
    assert shape(shown.replace(str(tmp_path).encode(), b"/home/tomography")) == shape(real)


HISTORIES = ["qstat_x_completed_walltime", "qrerun_qstat_x", "job_undeliverable_qstat_x", "qdel_63"]


@pytest.mark.parametrize("name", HISTORIES)
def test_what_became_of_a_job_is_shown_with_the_same_elements(scene: Scene, name: str) -> None:
    resources = ["-l", "nodes=1:ppn=2"]
    if name in ("qstat_x_completed_walltime", "job_undeliverable_qstat_x"):
        resources += ["-l", "walltime=30"]
    job = scene.running("-N", "x", "-j", "oe" if "undeliv" not in name else "n", *resources)
    if name == "qstat_x_completed_walltime":
        scene.time.advance(100.0)
    elif name == "qrerun_qstat_x":
        scene.batch.rerun(job)
        scene.time.advance(2.0)
    elif name == "qdel_63":
        assert scene.type("qdel", job.job_id) == recorded("qdel_running2")
        scene.time.advance(1.0)
    else:
        scene.idle.undeliverable = True
        scene.end(job, 3)
    real = recorded(name if name != "qdel_63" else "qstat_x_after_qdel").out.splitlines()[1]
    shown = scene.type("qstat", "-x", job.job_id).out.splitlines()[1]
    assert element_names(shown) == element_names(real)
    status = {"qdel_63": b"271", "qrerun_qstat_x": b"0", "qstat_x_completed_walltime": b"-11"}
    assert b"<exit_status>" + status.get(name, b"3") + b"<" in shown


@pytest.mark.parametrize(
    ("options", "letter"), [(("-h",), "H"), (("-a", "202611222200"), "W"), (("-q", "stopped"), "Q")]
)
def test_a_job_that_waits_is_shown_with_the_same_elements(
    scene: Scene, options: tuple[str, ...], letter: str
) -> None:
    job = scene.submit("-N", "x", *options)
    assert job.state == letter
    jobs = re.findall(rb"<Job>.*?</Job>", recorded("qstat_x_all").out)
    real = next(each for each in jobs if b"<job_state>%s<" % letter.encode() in each)
    names = [name for name in element_names(real) if name != b"Execution_Time"]
    shown = element_names(scene.type("qstat", "-x").out)[1:]
    assert shown == [name for name in names if name not in (b"mem", b"file")]


def test_foreign_bytes_come_out_raw_as_recorded(scene: Scene, tmp_path: Path) -> None:
    scene.submit("-h", "-v", "D=a\x01b")
    scene.submit("-h", "-v", "D=Z\udcfcrich")
    scene.submit("-h", "-v", "A=line1\nline2")
    out = scene.type("qstat", "-x").out
    for name in ("qsub_ctrl_x", "qsub_latin1_x", "qsub_v_newline_x"):
        real = recorded(name).out
        part = re.search(rb"LANG=C.UTF-8,(.*?),PBS_O_WORKDIR", real, re.S)
        assert part is not None and b"," + part[1] + b"," in out


def test_nodes_are_shown_as_recorded(scene: Scene) -> None:
    scene.running("-l", "nodes=core-015:ppn=1")
    scene.time.advance(60.0)
    assert shape(scene.type("pbsnodes", "-x").out) == shape(recorded("pbsnodes_x").out)
    job = scene.running("-l", "nodes=core-014:ppn=8")
    scene.time.advance(60.0)
    exclusive = scene.type("pbsnodes", "-x", "core-014").out
    assert shape(exclusive) == shape(recorded("pbsnodes_x_exclusive").out)
    scene.end(job, 0)
    scene.batch.node_lost(scene.batch.nodes["core-014"], dies=True)
    scene.time.advance(150.0)
    assert b"<state>free</state>" in scene.type("pbsnodes", "-x", "core-014").out
    scene.time.advance(110.0)
    assert b"<state>down</state>" in scene.type("pbsnodes", "-x", "core-014").out
    assert scene.type("pbsnodes", "-l").out.split() == [b"core-014", b"down"]


def test_a_job_is_listed_in_one_line_as_recorded(scene: Scene) -> None:
    scene.batch.next_number = 3
    scene.running("-N", "vol_01", "-l", "nodes=1:ppn=4")
    assert scene.type("qstat", "3") == recorded("qstat_shortid")


def test_known_and_unknown_ids_are_answered_each_by_itself(scene: Scene) -> None:
    for _ in range(5):
        scene.submit("-h")
    ids = ["3.torque-head", "424242.torque-head", "4.torque-head"]
    answer, real = scene.type("qstat", "-x", *ids), recorded("qstat_mixed_known_unknown")
    assert (answer.rc, answer.err) == (real.rc, real.err)
    assert answer.out.count(b"<?xml") == real.out.count(b"<?xml") == 2


# -- what happens ------------------------------------------------------------------------------------------


def test_maui_says_why_a_job_waits(scene: Scene) -> None:
    scene.running("-l", "nodes=core-014:ppn=8,walltime=600")
    behind = scene.submit("-l", "nodes=core-014:ppn=4,walltime=600")
    scene.time.advance(3.0)
    said = scene.type("checkjob", str(behind.number)).out.decode()
    real = recorded("checkjob_behind").out.decode()
    for line in ("State: Idle", "Rejection Reasons: [HostList     :    2][State        :    1]"):
        assert line in said
    assert sorted(re.findall(r"\[\w+ +: +\d+\]", said)) == sorted(re.findall(r"\[\w+ +: +\d+\]", real))
    start = scene.type("showstart", str(behind.number)).out
    assert shape(start) == shape(recorded("showstart_behind").out)


def test_scratch_is_dedicated_for_each_processor(scene: Scene) -> None:
    """4 x 1500 MB on nodes of 4096 MB never starts, and nothing but Maui says so; 2 x 1500 MB does."""
    never = scene.submit("-l", "nodes=1:ppn=4,file=1500mb")
    runs = scene.submit("-l", "nodes=1:ppn=2,file=1500mb")
    second = scene.submit("-l", "nodes=core-012:ppn=2,file=1500mb")
    scene.time.advance(2.0)
    assert (never.state, runs.state, second.state) == ("Q", "R", "Q")
    assert b"job is deferred.  Reason:  NoResources" in scene.type("checkjob", str(never.number)).out
    scene.end(runs, 0)
    scene.time.advance(2.0)
    assert second.state == "R"


def test_a_node_that_dies_and_comes_back_tells_zero(scene: Scene) -> None:
    """The status of a job whose mom was killed is no proof of anything."""
    job = scene.running("-l", "nodes=core-012:ppn=1")
    scene.batch.node_lost(scene.batch.nodes["core-012"], dies=True)
    scene.time.advance(300.0)
    assert job.state == "R"
    assert scene.type("qdel", job.job_id).err == b"qdel: Server could not connect to MOM 0.torque-head\n"
    waiting = scene.submit("-l", "nodes=core-012:ppn=1")
    scene.batch.node_back(scene.batch.nodes["core-012"])
    assert (job.state, job.exit_status) == ("C", 0)
    scene.time.advance(2.0)
    assert waiting.state == "R"


def test_a_job_on_an_unreachable_node_ends_when_it_is_back(scene: Scene) -> None:
    job = scene.running("-l", "nodes=core-012:ppn=1")
    scene.batch.node_lost(scene.batch.nodes["core-012"], dies=False)
    scene.end(job, 7)
    assert job.state == "R"
    scene.batch.node_back(scene.batch.nodes["core-012"])
    scene.time.advance(1.0)
    assert (job.state, job.exit_status) == ("C", 7)


def test_completed_jobs_are_forgotten(scene: Scene) -> None:
    job = scene.running()
    scene.end(job, 0)
    scene.time.advance(299.0)
    assert scene.type("qstat", job.job_id).rc == 0
    scene.time.advance(2.0)
    assert scene.type("qstat", job.job_id).rc == 153


def test_a_dependent_job_follows_its_parent(scene: Scene) -> None:
    parent = scene.running()
    good = scene.submit("-W", f"depend=afterok:{parent.job_id}")
    scene.end(parent, 0)
    scene.time.advance(2.0)
    bad = scene.submit("-W", f"depend=afterok:{good.job_id}")
    scene.end(good, 1)
    assert (good.state, bad.state, bad.exit_status) == ("C", "C", 271)


# -- faults ------------------------------------------------------------------------------------------------


def test_every_fault_of_a_submission_does_what_it_says(scene: Scene) -> None:
    made = {}
    for kind in ("hang", "credential", "lost_reply", "accepted_then_hang", "sent_again", "garbage", "empty"):
        before = len(scene.batch.jobs)
        scene.commands.faults.add(Fault("qsub", kind))  # type: ignore[arg-type]
        answer = scene.type("qsub", stdin=b"sleep 1\n")
        made[kind] = (len(scene.batch.jobs) - before, answer.rc, answer.hang, bool(answer.out))
    assert made == {
        "hang": (0, 0, True, False),
        "credential": (0, 173, False, False),
        "lost_reply": (1, 237, False, False),
        "accepted_then_hang": (1, 0, True, True),
        "sent_again": (2, 0, False, True),
        "garbage": (1, 0, False, True),
        "empty": (1, 0, False, False),
    }
    assert scene.type("qsub", stdin=b"sleep 1\n").rc == 0


def test_a_submission_can_be_accepted_when_nobody_waits_any_more(scene: Scene) -> None:
    scene.commands.faults.add(Fault("qsub", "accepted_late", seconds=90.0))
    assert scene.type("qsub", stdin=b"sleep 1\n").hang
    assert not scene.batch.jobs
    scene.time.advance(91.0)
    assert len(scene.batch.jobs) == 1


def test_an_answer_can_be_cut_short(scene: Scene) -> None:
    scene.submit("-h")
    whole = scene.type("qstat", "-x").out
    scene.commands.faults.add(Fault("qstat", "cut_short"))
    cut = scene.type("qstat", "-x").out
    assert whole.startswith(cut) and b"</Data>" not in cut
