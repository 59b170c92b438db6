"""The catalogue of messages as data: sound, in the right order, and every line of it kept on the node."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from plugins.conformance_pipelines import make_series
from plugins.replaying import CASES, RECORDINGS
from tiltd.daemon.core.model import FailureClass
from tiltd.plugins.imod import catalogue, repair
from tiltd.plugins.imod.catalogue import CATALOGUE, last_telling, match, notes, read

ENTRY = """
[[error]]
code = "a"
program = "tilt"
pattern = 'went wrong'
class = "input"
cause = "it went wrong"
remedy = "mend it"
"""


def matched(*lines: str, status: int | None = None) -> str:
    found = match(lines, status)
    return found.entry.code if found else ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ENTRY + ENTRY, "the code a comes twice"),
        (ENTRY.replace("cause =", "couse ="), "unknown key couse"),
        (ENTRY.replace('remedy = "mend it"', ""), "remedy is missing"),
        (ENTRY.replace('"input"', '"inptu"'), "'inptu' is no class of failure"),
        (ENTRY.replace('class = "input"', ""), "either a class or note = true"),
        (ENTRY + "note = true", "either a class or note = true"),
        (ENTRY.replace("went wrong'", "went (wrong'"), "is no regular expression"),
    ],
)
def test_a_catalogue_that_is_not_sound_is_refused(text: str, sentence: str) -> None:
    assert read(ENTRY)[0].action == "give up"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        read(text)


def test_every_entry_says_what_to_do() -> None:
    for entry in CATALOGUE:
        assert entry.cause and entry.remedy and entry.action and entry.code == entry.code.lower()
        assert entry.repair in ("", *catalogue.REPAIRS)
    assert {entry.failure_class for entry in CATALOGUE if entry.failure_class} <= set(get_args(FailureClass))


def test_causes_stand_above_their_consequences() -> None:
    assert matched("main.log: ERROR: ALL MACHINES HAVE BEEN DROPPED DUE TO FAILURES") == "machines_failed"
    dropped = "main.log: processchunks ERROR: ALL MACHINES HAVE BEEN DROPPED DUE TO FAILURES"
    full = "processchunks.out: CHUNK ERROR: mrcWriteSectionAny - (system message: No space left on device)"
    assert matched(dropped, full) == "disk_full"
    abort = "main.log: ABORT SET: An error occurred running autofidseed.com"
    assert matched(abort) == "step_failed"
    assert (
        matched(abort, "autofidseed.log: ERROR: imodfindbeads - There are no peaks available") == "no_beads"
    )
    assert matched("a.log: ERROR: tilt -StandardInput: exited with status 139", abort) == "crashed"
    assert matched("a.log: ERROR: tilt -StandardInput: exited with status 137", abort) == "out_of_memory"


def test_a_line_is_told_with_the_log_that_it_stands_in() -> None:
    found = match(["processchunks.out: ssh: connect to host n2 port 22: Connection refused"])
    assert found is not None and (found.file, found.entry.code) == ("processchunks.out", "no_ssh")
    assert found.told == "processchunks.out: ssh: connect to host n2 port 22: Connection refused"
    bare = match(["ERROR: BEADTRACK - READING SEED MODEL FILE"])
    assert bare is not None and bare.told == "ERROR: BEADTRACK - READING SEED MODEL FILE"


def test_an_exit_status_speaks_where_no_line_does() -> None:
    assert matched(status=143) == "terminated"
    assert matched(status=139) == "crashed"
    assert matched(status=137) == "out_of_memory"
    assert matched("nothing of note", status=1) == ""


def test_notes_are_no_failures() -> None:
    line = "x.log: WARNING: stack.rawtlt does not exist yet"
    assert matched(line) == "" and [note.entry.code for note in notes([line, line])] == ["rawtlt_not_yet"]


def test_what_nobody_knows_is_told_by_its_last_telling_lines() -> None:
    lines = ["a.log: all is well", "a.log: ERROR: one", "a.log: cannot two", "a.log: it failed", "a.log: bye"]
    assert last_telling(lines) == tuple(lines[1:4])
    assert last_telling(["hello", ""]) == ("hello",)
    assert last_telling(["processchunks.out: exitCode:4"]) == ()


@pytest.mark.parametrize("case", CASES)
def test_every_line_that_matches_is_one_that_the_node_keeps(case: str) -> None:
    """The runner keeps lines by ``patterns()``; whatever the catalogue knows must be among them."""
    kept = [re.compile(pattern) for pattern in catalogue.patterns()]
    for path in RECORDINGS.joinpath(case).iterdir():
        for raw in path.read_text(errors="replace").splitlines():
            line = raw[9:].strip() if path.name == "stdout.timed" else raw.strip()
            if match([line]):
                assert any(pattern.search(line) for pattern in kept), line


def test_repairs_are_options() -> None:
    found = repair.changes("patch_tracking", make_series(image_size=(1024, 2048)))
    assert found == {
        "option.runtime.Fiducials.any.trackingMethod": "1",
        "option.comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY": "301,602",
    }
    assert repair.changes("patch_tracking", make_series(image_size=(100, 2048))) == {}
    assert repair.changes("patch_tracking", None) == {} == repair.changes("other", make_series())
