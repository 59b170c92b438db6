"""What a step may ask of the runner: figures and times, a word of success, witnesses, an orderly end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shell.runner_site import MAKE_RESULT, RunnerSite, python, running, wait_until
from tiltd.daemon.core.model import RunEnd


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunnerSite:
    monkeypatch.setenv("TILTD_TEST_MARK", str(tmp_path))
    return RunnerSite(tmp_path)


def ended(site: RunnerSite, *steps: dict[str, Any], status: int = 0) -> RunEnd:
    site.prepare(*steps)
    assert site.run() == status, site.log()
    end = site.seen().end
    assert end is not None
    return end


def patterns(*texts: str, **more: str) -> list[dict[str, str]]:
    found = [{"pattern": text} for text in texts]
    return found + [{"pattern": pattern, "step": step} for step, pattern in more.items()]


def test_times_are_told_with_minutes_and_tenths_and_add_up(site: RunnerSite) -> None:
    took = r"in +(?P<minutes>\d+):(?P<seconds>\d+)\.(?P<tenths>\d+)"
    lines = ["running track", "in 00:04.10", "running align", "in 01:02.5", "running track", "in 00:03.1"]
    code = "\n".join(f"print({line!r}, flush=True)" for line in lines)
    end = ended(site, python(code, patterns=patterns(r"running (?P<step>\w+)", took)))
    told = [json.loads(line) for line in (site.folder / "progress").read_text().splitlines() if line]
    parts = [(line["step"], line["part"], line.get("part_seconds")) for line in told if "part" in line]
    assert parts == [
        ("work: track", "began", None),
        ("work: track", "ended", 5.0),
        ("work: align", "began", None),
        ("work: align", "ended", 62.5),
        ("work: track", "began", None),
        ("work: track", "ended", 3.1),
    ]
    assert end.measured.step_seconds["track"] == 8.1
    assert end.measured.step_seconds["align"] == 62.5


def test_a_part_that_tells_no_time_is_timed(site: RunnerSite) -> None:
    code = (
        "print('begin', flush=True); time.sleep(0.4); print('two', flush=True); time.sleep(0.1); sys.exit(1)"
    )
    end = ended(site, python(code, patterns=patterns(r"^(?P<step>two)", setup="^begin")), status=1)
    assert 0.2 < end.measured.step_seconds["setup"] < 5.0
    assert "two" in end.measured.step_seconds


def test_figures_are_read_from_the_output_and_those_of_the_file_win(site: RunnerSite) -> None:
    code = (
        "print('residual 0.9 over 12'); print('residual 0.205 over 20')\n"
        "open(o + b'/figures.json', 'w').write('{\"points\": 19, \"views\": 41}')"
    )
    wanted = r"residual (?P<figure_residual>[\d.]+) over (?P<figure_points>\d+)"
    end = ended(site, python(code, patterns=patterns(wanted)))
    assert end.figures == {"residual": 0.205, "points": 19.0, "views": 41.0}


def test_figures_of_a_failed_run_are_kept(site: RunnerSite) -> None:
    code = "print('residual 2.9', flush=True); sys.exit(1)"
    end = ended(site, python(code, patterns=patterns(r"residual (?P<figure_residual>[\d.]+)")), status=1)
    assert end.figures == {"residual": 2.9}


@pytest.mark.parametrize(("line", "outcome"), [("Completed dataset x", "success"), ("QUIT", "failed")])
def test_exit_zero_may_not_be_enough(site: RunnerSite, line: str, outcome: str) -> None:
    step = python(
        f"sys.stdout.write({line!r})", success_pattern="^Completed dataset "
    )  # no newline at the end
    end = ended(site, step, MAKE_RESULT | {"name": "after"}, status=int(outcome == "failed"))
    assert end.outcome == outcome
    assert ("after" in end.measured.step_seconds) == (outcome == "success")
    if outcome == "failed":
        assert (end.reason, end.exit_status, end.step) == ("not completed", 0, "work")


def test_a_failed_step_leaves_what_its_files_tell(site: RunnerSite) -> None:
    code = (
        "os.mkdir(i + b'/made')\n"
        "with open(i + b'/made/chunks.out', 'wb') as f:\n"
        "    for n in range(100): f.write(b'CHUNK ERROR: No space %d \\xff\\n' % n)\n"
        "os.symlink('/etc/passwd', i + b'/made/link.out')\n"
        "print('ERROR: all dropped'); print('nothing'); sys.exit(1)"
    )
    witness = {"files": ["input/made/*.out"], "patterns": ["ERROR", "root"]}
    end = ended(site, python(code, witness=witness), status=1)
    assert end.notes[0] == "work.log: ERROR: all dropped"
    told = [note for note in end.notes if note.startswith("chunks.out: ")]
    assert len(told) == 16 and "No space 0 " in told[0] and "No space 99 " in told[-1]
    assert not any("link.out" in note or "nothing" in note for note in end.notes)


def test_notes_never_make_the_end_too_long_to_be_read(site: RunnerSite) -> None:
    code = (
        "import json; open(o + b'/notes.json', 'w').write(json.dumps(['\u00b5' * 500] * 200))\n"
        "print('ERROR here'); sys.exit(1)"
    )
    end = ended(site, python(code, witness={"files": [], "patterns": ["ERROR"]}), status=1)
    assert 20 < len(end.notes) < 200 and end.reason == "exit 1"
    assert (site.folder / "end").stat().st_size < 150_000


def test_a_successful_step_leaves_no_witness(site: RunnerSite) -> None:
    end = ended(site, python("print('ERROR: never mind')", witness={"files": [], "patterns": ["ERROR"]}))
    assert end.notes == ()


QUITS = python(
    "import signal; signal.signal(signal.SIGTERM, lambda *a: os._exit(9)); open(s + b'/going', 'w')\n"
    "while not os.path.exists(i + b'/quit'): time.sleep(0.02)\n"
    "open(sys.argv[4], 'a').write(open(i + b'/quit').read())"
)


@pytest.mark.parametrize("kind", ["obeys", "ignores"])
def test_a_step_is_asked_to_quit_before_it_is_signalled(site: RunnerSite, kind: str) -> None:
    told = site.root / "told"
    step = QUITS | {"argv": [*QUITS["argv"], str(told)]}
    file = "{input}/quit" if kind == "obeys" else "{input}/other"
    site.prepare(step | {"quit": {"file": file, "text": "Q\n", "seconds": 2.0 if kind == "obeys" else 0.3}})
    process = site.start()
    wait_until(lambda: (site.job_scratch / "going").exists())
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert (told.read_text() if told.exists() else "") == ("Q\n" if kind == "obeys" else "")
    assert site.clean()
    mark = f"TILTD_TEST_MARK={site.root}"
    wait_until(lambda: len(running(mark)) <= 1)
    end = site.seen().end
    assert end is not None and end.outcome == "terminated"


def test_progress_tells_the_part_that_runs(site: RunnerSite) -> None:
    code = "print('running tilt', flush=True)"
    ended(site, python(code, patterns=patterns(r"running (?P<step>\w+)")))
    told = [json.loads(line) for line in (site.folder / "progress").read_text().splitlines() if line]
    assert any(line["step"] == "work: tilt" for line in told)
