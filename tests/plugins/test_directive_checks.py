"""What batchruntomo refuses, or finds out minutes later, is told before anything is submitted.

The recorded runs say what it refuses: each case's own directive file is judged, and the keys that we refuse
are those that it refused.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.imod_scene import FOLDER, GOLDEN, TABLE, book_of, recorded, series_of
from tiltd.daemon.core.model import Placement
from tiltd.plugins.api import Context, Permanent
from tiltd.plugins.batchruntomo import BatchruntomoPipeline
from tiltd.plugins.imod.csv_table import read_table
from tiltd.plugins.imod.directives import parse
from tiltd.plugins.imod.known import KNOWN
from tiltd.plugins.imod.settings import ImodSettings

SIDES = {"TS_S": 320, "TS_001": 512, "TS_few": 512, "TS_none": 512, "TS_big": 1024}
SEEDING = "runtime.Fiducials.any.seedingMethod"
TRACKING = "runtime.Fiducials.any.trackingMethod"
TRIM = "runtime.Trimvol.any."


def errors(faults):
    return {fault.key for fault in faults if fault.severity == "error"}


def refused_by_batchruntomo(case):
    """Keys in the recorded list of incorrect directives."""
    lines = (GOLDEN / case / "stdout.timed").read_text().splitlines()
    told = [re.sub(r"^\s*[\d.]+\s", "", line) for line in lines]
    return {
        line.rsplit(": ", 1)[1]
        for line in told
        if re.match(r"(Unknown directive|Directive) from .*: \S+$", line)
    }


@pytest.mark.parametrize(
    "case",
    ["e_bad_directive", "e_bad_directives_many", "n_empty_bool", "e_no_equals", "v_validate_bad"],
)
def test_what_batchruntomo_refused_is_refused_beforehand(case):
    text = (GOLDEN / case / "batch.adoc").read_text()
    faults = recorded(case).checked(text, "batch.adoc", False)
    assert errors(faults) == refused_by_batchruntomo(case)
    lines = text.splitlines()
    for fault in faults:
        assert fault.key.split(" ")[0] in lines[fault.line - 1]


@pytest.mark.parametrize("case", ["v_validate_ok", "full_big_2cpu", "p_ctf_simple", "p_gold3d_filter"])
def test_what_ran_is_not_refused(case):
    text = (GOLDEN / case / "batch.adoc").read_text()
    assert recorded(case).checked(text, "batch.adoc", False) == ()
    assert errors(recorded(case).ready(series_of(320), {}, cores=2).faults) == set()
    assert errors(recorded(case, table="").ready(series_of(320), {}, cores=2).faults) == set()


@pytest.mark.parametrize(
    ("case", "key"),
    [
        ("p_seeding0", SEEDING),
        ("p_trim_toobig", TRIM + "thickness"),
        ("n_fidless_erasegold", "runtime.AlignedStack.any.eraseGold"),
        ("e_no_pixel_noscan", "setupset.copyarg.pixel"),
        ("e_pixel_text", "setupset.copyarg.pixel"),
    ],
)
def test_recorded_runs_that_failed_late_are_refused_beforehand(case, key):
    ready = recorded(case).ready(series_of(320), {})
    assert key in errors(ready.faults)
    with pytest.raises(Permanent, match=re.escape(key)):
        recorded(case).checked_ready(series_of(320), {})


def test_recorded_directives_that_made_etomo_fail_are_mended():
    """scanHeader with pixel size and rotation: a NullPointerException of eTomo."""
    ready = recorded("n_etomo_npe").ready(series_of(320), {})
    assert ready.effective.text("setupset.scanHeader") == "0"
    assert errors(ready.faults) == set()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("e_scope_template_missing", "setupset.scopeTemplate is 'krios.adoc', but none of"),
        ("e_scope_template_relpath", "a file name or an absolute path"),
        ("e_scope_template_abs_missing", "'/nonexistent/krios.adoc', but it was not there"),
    ],
)
def test_recorded_templates_that_were_not_there(case, words):
    with pytest.raises(Permanent, match=re.escape(words)):
        recorded(case).ready(series_of(320), {})


# -- one trap after the other --------------------------------------------------------------------------------


def ready_with(changes, cores=2, **series):
    """The recorded good directives with some changed; "-" takes one away."""
    text = (GOLDEN / "full_big_2cpu" / "batch.adoc").read_text()
    for key, value in changes.items():
        text = "\n".join(line for line in text.splitlines() if not line.startswith(f"{key} "))
        text += f"\n{key} = {value}\n" if value != "-" else "\n"
    book = book_of({"b.adoc": text}, settings=ImodSettings(directive_file="b.adoc"))
    return book.ready(series_of(320, **series), {}, cores=cores)


PATCH = "comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY"
COUNT = "comparam.autofidseed.autofidseed.TargetNumberOfBeads"
THICKNESS = "comparam.tilt.tilt.THICKNESS"
BINNED = "runtime.Reconstruction.any.binnedThickness"
SURFACES = "comparam.align.tiltalign.SurfacesToAnalyze"
FIDUCIALLESS = "runtime.Fiducials.any.fiducialless"
GOLD3D = "runtime.AlignedStack.any.eraseGold"
LEAVE = "comparam.sirtsetup.sirtsetup.LeaveIterations"
SIRT = "runtime.Reconstruction.any.useSirt"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({SEEDING: "2"}, SEEDING),
        ({SEEDING: "-"}, SEEDING),
        ({TRACKING: "3"}, TRACKING),
        ({TRACKING: "1"}, PATCH),
        ({TRACKING: "1", PATCH: "400,400"}, PATCH),
        ({TRACKING: "2"}, "runtime.RAPTOR.any.numberOfMarkers"),
        ({COUNT: "0"}, COUNT),
        ({"setupset.copyarg.gold": "0"}, "setupset.copyarg.gold"),
        ({"runtime.BeadTracking.any.numberOfRuns": "0"}, "runtime.BeadTracking.any.numberOfRuns"),
        ({THICKNESS: "-", SURFACES: "1"}, THICKNESS),
        ({THICKNESS: "-", TRACKING: "1", PATCH: "96,96"}, THICKNESS),
        ({THICKNESS: "0"}, THICKNESS),
        ({BINNED: "90"}, BINNED),
        ({"comparam.prenewst.newstack.BinByFactor": "0"}, "comparam.prenewst.newstack.BinByFactor"),
        ({"runtime.AlignedStack.any.binByFactor": "-2"}, "runtime.AlignedStack.any.binByFactor"),
        ({"runtime.GoldErasing.any.binning": "0"}, "runtime.GoldErasing.any.binning"),
        ({GOLD3D: "2", SURFACES: "1"}, "runtime.GoldErasing.any.thickness"),
        ({SIRT: "1"}, LEAVE),
        ({SIRT: "1", LEAVE: ""}, LEAVE),
        ({"runtime.AlignedStack.any.correctCTF": "1"}, "setupset.copyarg.defocus"),
        ({"runtime.Trimvol.any.reorient": "3"}, "runtime.Trimvol.any.reorient"),
        ({TRIM + "sizeInX": "400"}, TRIM + "sizeInX"),
        ({TRIM + "sizeInX": "39"}, TRIM + "sizeInX"),
        ({TRIM + "sizeInY": "-1"}, TRIM + "sizeInY"),
        ({TRIM + "thickness": "3"}, TRIM + "thickness"),
        ({"setupset.scanHeader": "0"}, "setupset.copyarg.rotation"),
        ({"setupset.copyarg.pixel": "0"}, "setupset.copyarg.pixel"),
    ],
)
def test_each_trap(changes, key):
    assert key in errors(ready_with(changes).faults)


@pytest.mark.parametrize(
    "changes",
    [
        {SEEDING: "-", TRACKING: "1", PATCH: "96,96"},
        {SEEDING: "-", FIDUCIALLESS: "1"},
        {SEEDING: "3"},
        {THICKNESS: "-"},
        {THICKNESS: "-", BINNED: "90"},
        {COUNT: "-", "comparam.autofidseed.autofidseed.TargetDensityOfBeads": "20"},
        {GOLD3D: "2"},
        {SIRT: "1", LEAVE: "2 4 6"},
        {TRIM + "thickness": "0.8", TRIM + "sizeInX": "320"},
        {"setupset.copyarg.gold": "0", TRACKING: "1", PATCH: "96,96"},
    ],
)
def test_what_is_all_right(changes):
    assert errors(ready_with(changes).faults) == set()


def test_what_is_no_number_is_told_once():
    ready = ready_with({THICKNESS: "abc", "setupset.copyarg.gold": "ten"})
    told = [fault.key for fault in ready.faults if fault.severity == "error"]
    assert sorted(told) == [THICKNESS, "setupset.copyarg.gold"]


def test_without_tracking_one_core_is_used_however_many_there_are():
    """With -cpus, fiducialless alignment failed in splittilt (a recorded run)."""
    ready = recorded("p_fidless").ready(series_of(320), {}, cores=2)
    assert ready.one_core and errors(ready.faults) == set()
    assert "only one of the 2 cores" in next(f.sentence for f in ready.faults if f.key == FIDUCIALLESS)
    assert not recorded("full_big_2cpu").ready(series_of(320), {}, cores=2).one_core


def test_doubts_do_not_stop_a_run():
    told = {fault.key for fault in ready_with({"setupset.copyarg.gold": "1"}).faults}
    assert told == {"setupset.copyarg.gold", "setupset.copyarg.rotation"}
    differs = ready_with({}, pixel_spacing_angstrom=5.0, tilt_axis_deg=84.0).faults
    assert [(fault.key, fault.severity) for fault in differs] == [("setupset.copyarg.pixel", "warning")]
    assert "0.5 nm, but directive file" in differs[0].sentence


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("comparam.tilt.tilt.THICKNES = 100", "did you mean comparam.tilt.tilt.THICKNESS"),
        (
            "runtime.Trimvol.any.Reorient = 1",
            "upper and lower case; did you mean runtime.Trimvol.any.reorient",
        ),
        ("comparam.tilt.tilt.THICKNESS = 100.5", "one whole number"),
        ("setupset.copyarg.pixel = 1e999", "one number"),
        ("setupset.copyarg.pixel = 0_7", "one number"),
        ("comparam.tilt.tilt.RADIAL = 0.35", "two numbers, such as"),
        ("comparam.xcorr_pt.tiltxcorr.SizeOfPatchesXandY = 10,20,30", "two whole numbers"),
        ("setupset.copyarg.skip = one,two", "a list of numbers"),
        ("setupset.copyarg.dual = yes", "0 or 1"),
        ("comparam.align.tiltalign.ResidualReportCriterion = 3", "in a template only"),
        ("trimvol.reorient = 1", "directives begin with setupset, comparam, runtime"),
        ("setupset.copyarg.name = " + "x" * 3000, "3000 characters"),
    ],
)
def test_a_wrong_line_and_what_to_do_about_it(line, words):
    (fault,) = book_of({}).checked(line, "f.adoc", False)
    assert (fault.line, fault.severity) == (1, "error")
    assert words in fault.sentence


def test_templates_have_their_own_rules():
    text = "setupset.scanHeader = 1\nsetupset.userTemplate = x.adoc\nsetupset.copyarg.Cs = 2.7\n"
    faults = book_of({}).checked(text, "t.adoc", True)
    assert [fault.line for fault in faults] == [1, 2]
    assert "in a directive file only" in faults[0].sentence
    assert "inside a template" in faults[1].sentence


def test_values_with_either_separator_and_axes_are_known():
    text = (
        "comparam.tilt.tilt.RADIAL = 0.35,0.05\ncomparam.tilta.tilt.THICKNESS = 100\n"
        "runtime.Trimvol.b.reorient = 2\nsetupset.copyarg.skip = 1,4-6\n"
        "comparam.prenewst.newstack.ModeToOutput =\n"
    )
    assert book_of({}).checked(text, "f", False) == ()


def test_an_unusual_choice_is_a_doubt():
    (fault,) = book_of({}).checked("comparam.align.tiltalign.MagOption = 4", "f", False)
    assert fault.severity == "warning" and "3 (groups of views)" in fault.sentence


def test_without_the_installations_table_only_what_is_sure_is_a_fault():
    book = book_of({}, table="")
    text = "comparam.tilt.tilt.FakeSIRTiterations = 5\ncomparam.tilt.tilt.THICKNESS = x\n"
    unknown, wrong = book.checked(text, "f", False)
    assert (unknown.severity, wrong.severity) == ("warning", "error")
    assert "directives_csv" in unknown.sentence


# -- the table -----------------------------------------------------------------------------------------------


def test_the_table_is_read_by_its_headings():
    table = read_table(TABLE, "x.csv", KNOWN)
    entry = table.entries["comparam.tilt.tilt.RADIAL"]
    assert (entry.type, entry.batch, entry.template, entry.section) == (
        "2 Float",
        True,
        True,
        "Reconstruction",
    )
    assert entry.notes == "a note, with a comma"
    assert entry.definition == "test words: radial filter: cut and fall-off, cycles a pixel"
    assert table.entries["runtime.Trimvol.any.reorient"].choices[2] == ("2", "turned around x")
    assert table.complete and not KNOWN.complete


def test_an_older_table_without_labels_and_choices_will_do():
    text = (
        "Title,,,,,,\nDirective,Definition,Type,Batch,Tmplt,eTomo,Notes\n,,,,,,\nsetupset.x,X,Bool,Y,,SO,\n"
    )
    (entry,) = read_table(text, "old.csv").entries.values()
    assert (entry.key, entry.type, entry.batch, entry.template) == ("setupset.x", "Bool", True, False)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "Directive,Type\nnothing here,\n"])
def test_what_is_no_table_is_said_to_be_none(text):
    with pytest.raises(ValueError, match="no table of directives"):
        read_table(text, "x.csv")
    book = book_of({}, table=text or "no")
    assert book.table is KNOWN and "no table of directives" in book.table_trouble


def test_every_directive_that_we_know_has_its_words():
    for entry in KNOWN.entries.values():
        assert entry.definition and (entry.batch or entry.template), entry.key
        assert not entry.choices or entry.type in ("Int", "Bool"), entry.key


def test_explained_by_the_whole_key_or_its_end():
    book = book_of({})
    whole = book.explained("comparam.tilt.tilt.THICKNESS")
    assert whole == book.explained("THICKNESS") == book.explained("tilt.thickness")
    assert "type     Int: a whole number" in "\n".join(whole)
    choices = "\n".join(book.explained("trackingMethod"))
    assert "1: patches" in choices and "directive file or template" in choices
    with pytest.raises(Permanent, match=r"may be .*xcorr_pt"):
        book.explained("FilterRadius2")
    with pytest.raises(Permanent, match=r"did you mean comparam\.tilt\.tilt\.THICKNESS"):
        book.explained("comparam.tilt.tilt.THICKNES")
    with pytest.raises(Permanent, match=r"did you mean comparam\.xcorr"):
        book.explained("FilterRadius")
    with pytest.raises(Permanent, match=r"'nonsense' is not in directives\.csv$"):
        book.explained("nonsense")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("comparam.tilt.nosuch.THICKNESS", ["comparam.tilt.tilt.THICKNESS"]),
        ("runtime.Fiducals.any.trackingMethod", ["runtime.Fiducials.any.trackingMethod"]),
        ("setupset.copyarg.pixelsize", ["setupset.copyarg.pixel"]),
        ("runtime.Preprocessing.any.noSuchThing", []),
        ("comparam.tilt.tilt.BOGUS", []),
    ],
)
def test_what_is_suggested_is_alike_in_its_last_part(key: str, nearest: list[str]) -> None:
    assert book_of({}).table.near(key) == nearest


def test_a_file_of_the_shelf_is_named_where_it_lies():
    text = "runtime.Fiducials.any.seedingMethod = x\n"
    book = book_of({"b.adoc": text}, settings=ImodSettings(directive_file="b.adoc"))
    with pytest.raises(Permanent, match=rf"{FOLDER}/b.adoc:1: runtime.Fiducials.any.seedingMethod is 'x'"):
        book.checked_ready(series_of(320), {})
    assert parse(text, "b").directives


def test_the_pipeline_gives_no_cpus_without_tracking():
    pipeline = BatchruntomoPipeline({}, Context(state_folder="", spool_folder="", journal_id="j", owner="o"))
    text = (GOLDEN / "full_big_2cpu" / "batch.adoc").read_text()
    options = {each.key: each.value for each in parse(text, "b").directives}
    placement = Placement(
        nodes=("n1",),
        cores=4,
        threads=4,
        memory_bytes=0,
        scratch_bytes=0,
        walltime_seconds=1,
        queue="",
        rule="r",
        policy_version="v",
    )

    def arguments(**more):
        steps = pipeline.steps(series_of(320), options | more, placement).steps
        return next(step.argv for step in steps if step.name == "batchruntomo")

    assert arguments()[arguments().index("-cpus") + 1] == "4"
    assert "-cpus" not in arguments(**{FIDUCIALLESS: "1"})


def test_a_directive_file_is_checked_with_its_templates_for_what_fails_late() -> None:
    template = "runtime.Fiducials.any.trackingMethod=1\ncomparam.tilt.tilt.THICKNESS=100\n"
    book = book_of({"t.adoc": template})
    named = "setupset.userTemplate=t.adoc\n"
    (late,) = book.checked(named, "b.adoc", False)
    assert (late.key, late.severity, late.file) == (PATCH, "warning", "b.adoc")
    assert book.checked(named + f"{PATCH}=96,96\n", "b.adoc", False) == ()
    (gone,) = book.checked("\nsetupset.userTemplate=u.adoc\n", "b.adoc", False)
    assert (gone.severity, gone.line) == ("warning", 2) and "none of /site/templates" in gone.sentence


def test_the_files_of_a_run_tell_who_set_what() -> None:
    ready = recorded("full_big_2cpu").ready(
        series_of(320, tilt_axis_deg=84.0), {THICKNESS: 90}, origins={THICKNESS: "feed krios1"}
    )
    lines = ready.batch_text.splitlines()
    at = lines.index("# feed krios1")
    assert lines[at + 1] == f"{THICKNESS} = 90"
    assert lines[lines.index("setupset.copyarg.rotation = 84") - 1] == "# dataset tilt axis of the mdoc"
    assert lines.index("# directive file /site/templates/batch.adoc") < at


def test_a_lone_directive_file_is_blamed_for_what_it_sets_only() -> None:
    book = book_of({})
    assert book.checked("comparam.tilt.tilt.THICKNESS=100\n", "b", False) == ()
    (late,) = book.checked((GOLDEN / "p_seeding0" / "batch.adoc").read_text(), "b", False)
    assert (late.key, late.line, late.severity) == (SEEDING, 18, "warning")


odd = st.sampled_from(
    ["", "0", "1", "2", "-1", "nan", "inf", "1e400", "1.2.3", "²,²", "a,b", "1,2,3", "9" * 30, "0x10"]
)
BOOK = recorded("full_big_2cpu")
values = st.one_of(odd, st.text(max_size=12), st.integers(), st.floats(), st.booleans())


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(KNOWN.entries)), values, min_size=1, max_size=25))
def test_no_value_is_a_bug(options: dict[str, object]) -> None:
    """Whatever people write, it is taken or refused with a sentence; no file has a line too many."""
    try:
        ready = BOOK.ready(series_of(320), options, cores=4)  # type: ignore[arg-type]
    except Permanent:
        return
    assert ready.demand.scratch_bytes > 0 and ready.demand.walltime_seconds > 0
    keys = [line.split(" =")[0] for line in ready.batch_text.splitlines() if not line.startswith("#")]
    assert set(keys) <= {*ready.effective.directives, "setupset.userTemplate"}
    assert len(keys) == len(set(keys))
