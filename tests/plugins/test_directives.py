"""Files of directives are read, merged in batchruntomo's order, and every value knows who set it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.imod_scene import TABLE, book_of, series_of
from tiltd.daemon.core.model import FilePrint, Fingerprint
from tiltd.plugins.api import Permanent
from tiltd.plugins.imod.csv_table import Table
from tiltd.plugins.imod.directives import Directive, Origin, from_options, parse, render
from tiltd.plugins.imod.merge import merge
from tiltd.plugins.imod.settings import ImodSettings, read_settings
from tiltd.plugins.imod.shelf import read_shelf
from tiltd.plugins.imod.validate import HINTS_MAX

THICKNESS = "comparam.tilt.tilt.THICKNESS"
BATCH = (
    "setupset.copyarg.pixel=0.72\nsetupset.copyarg.rotation=84\nsetupset.copyarg.gold=10\n"
    "runtime.Fiducials.any.trackingMethod=0\nruntime.Fiducials.any.seedingMethod=1\n"
    "comparam.autofidseed.autofidseed.TargetNumberOfBeads=20\n"
    f"{THICKNESS}=180\n"
)


def test_lines_comments_blanks_and_carriage_returns():
    parsed = parse(
        "\ufeff# a comment\r\n\r\n  comparam.tilt.tilt.RADIAL =  0.35 0.05 \r\nsetupset.scanHeader=1", "f"
    )
    assert [(d.key, d.value, d.origin.line) for d in parsed.directives] == [
        ("comparam.tilt.tilt.RADIAL", "0.35 0.05", 3),
        ("setupset.scanHeader", "1", 4),
    ]
    assert parsed.faults == ()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("runtime.Preprocessing.any.removeXrays\n", 1, "no '='"),
        ("setupset.scanHeader=1\n=1\n", 2, "begins with '='"),
        ("setupset.copyarg.name=a\x1bb\n", 1, "control characters"),
        ("setupset.copyarg.name=a\udce9\n", 1, "no UTF-8"),
    ],
)
def test_a_line_that_is_no_directive_is_told_with_its_number(text, line, words):
    (fault,) = parse(text, "bad.adoc").faults
    assert (fault.file, fault.line, fault.severity) == ("bad.adoc", line, "error")
    assert words in fault.sentence


def test_a_value_on_the_next_line_is_taken_and_warned_of():
    parsed = parse("setupset.copyarg.ctfnoise=\n   /a/b/\n   c.cfg\nsetupset.scanHeader=1\n", "f")
    assert parsed.last("setupset.copyarg.ctfnoise") == "/a/b/c.cfg"
    assert parsed.last("setupset.scanHeader") == "1"
    assert [fault.severity for fault in parsed.faults] == ["warning", "warning"]
    (fault,) = parse("a.b=\n\n   lonely\n", "f").faults
    assert fault.severity == "error"


def test_the_last_of_a_repeated_key_counts_and_is_warned_of_only_if_it_differs():
    parsed = parse("setupset.a=1\nsetupset.b=1\nsetupset.a=2\nsetupset.b=1\n", "f")
    assert parsed.last("setupset.a") == "2"
    (fault,) = parsed.faults
    assert (fault.key, fault.line, fault.severity) == ("setupset.a", 1, "warning")


keys = st.from_regex(
    r"(setupset|comparam|runtime)\.[A-Za-z]{1,8}\.[A-Za-z]{1,8}\.[A-Za-z]{1,8}", fullmatch=True
)
values = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), max_size=20).filter(
    lambda text: text == text.strip()
)


@given(st.dictionaries(keys, values, max_size=8))
def test_what_is_written_is_read_again(pairs):
    written = render(Directive(key=k, value=v, origin=Origin(layer="feed")) for k, v in pairs.items())
    assert {d.key: d.value for d in parse(written, "f").directives} == pairs


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text):
    parsed = parse(text, "f")
    for each in parsed.directives:
        assert "\n" not in each.key + each.value


def test_an_option_with_a_newline_never_becomes_a_second_directive():
    (directive,) = from_options({THICKNESS: "180\nruntime.Trimvol.any.reorient=2"}, {})
    with pytest.raises(ValueError, match="ends a line"):
        render([directive])
    book = book_of({"b.adoc": BATCH}, settings=ImodSettings(directive_file="b.adoc"))
    options = {THICKNESS: "180\nruntime.Trimvol.any.reorient=2"}
    ready = book.ready(series_of(320), options)
    assert "reorient" not in ready.batch_text
    with pytest.raises(Permanent, match="control characters"):
        book.checked_ready(series_of(320), options)


def test_later_layers_win_and_the_overruled_are_kept_nearest_first():
    def layer(name, value):
        return [Directive(key="k.k", value=value, origin=Origin(layer=name, source="f", line=3))]

    effective = merge(
        [layer("scope template", "1"), layer("user template", "2"), layer("directive file", "3")]
    )
    (row,) = effective.rows()
    assert (row.value, row.origin) == ("3", "directive file f:3")
    assert row.overruled == ("2 (user template f:3)", "1 (scope template f:3)")


FILES = {
    "scope.adoc": "setupset.copyarg.voltage=300\nsetupset.copyarg.Cs=2.7\nsetupset.copyarg.gold=5\n",
    "system.adoc": "setupset.copyarg.gold=6\nsetupset.copyarg.Cs=2.6\ncomparam.tilt.tilt.RADIAL=0.3 0.05\n",
    "user.adoc": "comparam.tilt.tilt.RADIAL=0.4 0.05\nsetupset.copyarg.Cs=2.5\nsetupset.copyarg.pixel=0.5\n",
    "batch.adoc": BATCH.replace("pixel=0.72", "Cs=2.4"),
}
NAMES = {
    "scope_template": "scope.adoc",
    "system_template": "system.adoc",
    "user_template": "user.adoc",
    "directive_file": "batch.adoc",
}


def test_the_documented_order_of_files_dataset_and_people():
    book = book_of(FILES)
    series = series_of(320, pixel_spacing_angstrom=5.4, voltage_kv=200.0, tilt_axis_deg=85.3, binning=2)
    options = NAMES | {"setupset.copyarg.rotation": 86, THICKNESS: 200, "setupset.copyarg.voltage": 120}
    origins = {
        "setupset.copyarg.rotation": "feed krios1",
        THICKNESS: "policy rule thick (site.toml:3)",
        "setupset.copyarg.voltage": "operator",
    }
    ready = book.ready(series, options, origins=origins, root="safe")
    rows = {row.key: row for row in ready.effective.rows()}
    expected = {
        "setupset.copyarg.Cs": ("2.4", "directive file"),
        "setupset.copyarg.gold": ("10", "directive file"),
        "comparam.tilt.tilt.RADIAL": ("0.4 0.05", "user template"),
        "setupset.copyarg.pixel": ("0.54", "dataset"),
        "setupset.copyarg.binning": ("2", "dataset"),
        "setupset.copyarg.userawtlt": ("1", "dataset"),
        "setupset.copyarg.rotation": ("86", "feed"),
        THICKNESS: ("200", "policy"),
        "setupset.copyarg.voltage": ("120", "operator"),
        "setupset.copyarg.name": ("safe", "tiltd"),
        "setupset.scanHeader": ("0", "dataset"),
    }
    assert {key: (rows[key].value, rows[key].layer) for key in expected} == expected
    assert rows["setupset.copyarg.Cs"].overruled == (
        "2.5 (user template /site/templates/user.adoc:2)",
        "2.6 (system template /site/templates/system.adoc:2)",
        "2.7 (scope template /site/templates/scope.adoc:2)",
    )
    assert rows[THICKNESS].origin == "policy rule thick (site.toml:3)"


def test_what_the_series_does_not_know_is_left_to_the_files():
    ready = book_of(FILES).ready(series_of(320), NAMES)
    rows = {row.key: row for row in ready.effective.rows()}
    assert (rows["setupset.copyarg.pixel"].value, rows["setupset.copyarg.pixel"].layer) == (
        "0.5",
        "user template",
    )
    assert rows["setupset.copyarg.voltage"].value == "300"


def test_the_header_is_looked_into_only_where_something_is_missing():
    text = BATCH + "setupset.scanHeader=1\n"
    book = book_of({"b.adoc": text, "n.adoc": text.replace("setupset.copyarg.rotation=84\n", "")})
    both = book.ready(series_of(320), {"directive_file": "b.adoc"})
    assert both.effective.text("setupset.scanHeader") == "0"
    one = book.ready(series_of(320), {"directive_file": "n.adoc"})
    assert one.effective.text("setupset.scanHeader") == "1"
    asked = book.ready(series_of(320), {"directive_file": "b.adoc", "setupset.scanHeader": True})
    assert asked.effective.text("setupset.scanHeader") == "1"


def test_template_only_directives_go_to_a_template_of_their_own():
    criterion = "comparam.align.tiltalign.ResidualReportCriterion"
    book = book_of({"t.adoc": f"{criterion}=3\n", "b.adoc": BATCH + "setupset.datasetDirectory=/home/x\n"})
    names = {"system_template": "t.adoc", "directive_file": "b.adoc"}
    ready = book.checked_ready(series_of(320), names, template_path="/home/t.adoc")
    assert f"{criterion} = 3" in ready.template_text.splitlines()
    assert criterion not in ready.batch_text
    assert "setupset.userTemplate = /home/t.adoc" in ready.batch_text.splitlines()
    assert "datasetDirectory" not in ready.batch_text
    plain = book.checked_ready(series_of(320), {"directive_file": "b.adoc"})
    assert plain.template_text == "" and "Template" not in plain.batch_text


def test_what_no_table_knows_stays_where_it_was_found():
    key = "comparam.tilt.tilt.FakeSIRTiterations"
    book = book_of({"t.adoc": f"{key}=8\n", "b.adoc": BATCH}, table="")
    ready = book.checked_ready(series_of(320), {"user_template": "t.adoc", "directive_file": "b.adoc"})
    assert f"{key} = 8" in ready.template_text.splitlines()
    assert [fault.severity for fault in ready.faults if fault.key == key] == ["warning"]
    by_option = book.checked_ready(series_of(320), {"directive_file": "b.adoc", key: 8})
    assert f"{key} = 8" in by_option.batch_text.splitlines()


def test_a_directive_file_names_its_templates_and_options_win():
    book = book_of(FILES | {"own.adoc": BATCH + "setupset.userTemplate = user.adoc\n"})
    named = book.ready(series_of(320), {"directive_file": "own.adoc"})
    assert named.effective.text("setupset.copyarg.Cs") == "2.5"
    other = book.ready(series_of(320), {"directive_file": "own.adoc", "user_template": "scope.adoc"})
    assert other.effective.text("setupset.copyarg.Cs") == "2.7"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("usr.adoc", "did you mean 'user.adoc'"),
        ("tmpl/user.adoc", "a file name or an absolute path"),
        ("/etc/shadow", "was not there when tiltd started"),
        ("../../etc/shadow", "a file name or an absolute path"),
        ("closed.adoc", "Permission denied"),
    ],
)
def test_a_template_that_cannot_be_had_is_refused_with_a_sentence(name, words):
    book = book_of(FILES, trouble="closed.adoc")
    with pytest.raises(Permanent, match=words):
        book.ready(series_of(320), {"user_template": name})


def test_settings_are_refused_with_the_name_of_the_key():
    with pytest.raises(Permanent, match="did you mean 'templates'"):
        read_settings({"template": "/x"})
    with pytest.raises(Permanent, match="dir is 'opt'; it must be an absolute path"):
        read_settings({"dir": "opt"})
    with pytest.raises(Permanent, match="setup and module"):
        read_settings({"setup": "/x.sh", "module": "imod"})
    with pytest.raises(Permanent, match="must be text"):
        read_settings({"dir": 3})


def test_the_shelf_reads_the_sites_files_and_the_installations_table(tmp_path):
    imod, own, home = tmp_path / "imod", tmp_path / "own", tmp_path / "home"
    for folder in (imod / "com", imod / "SystemTemplate", own / "ScopeTemplate", home / ".etomotemplate"):
        folder.mkdir(parents=True)
    (imod / "com" / "directives.csv").write_text(TABLE)
    (imod / "SystemTemplate" / "cryo.adoc").write_text("setupset.copyarg.Cs=2\n")
    (own / "ScopeTemplate" / "krios.adoc").write_text("setupset.copyarg.voltage=300\n")
    (home / ".etomotemplate" / "me.adoc").write_bytes(b"setupset.copyarg.name=\xff\n")
    elsewhere = tmp_path / "else.adoc"
    elsewhere.write_text("setupset.copyarg.Cs=1\n")
    (own / "b.adoc").write_text(f"setupset.systemTemplate={elsewhere}\n")
    (own / "big.adoc").write_bytes(b"#" * 1_000_001)
    (own / "ignored.txt").write_text("nothing")
    shelf = read_shelf(ImodSettings(dir=str(imod), templates=str(own)), {"HOME": str(home)})
    names = {path.rsplit("/", 1)[-1] for path in shelf.texts}
    assert names == {"cryo.adoc", "krios.adoc", "me.adoc", "b.adoc", "else.adoc"}
    assert "is larger than" in shelf.troubles[str(own / "big.adoc")]
    assert shelf.table == TABLE
    os.mkfifo(own / "pipe.adoc")
    troubles = read_shelf(ImodSettings(templates=str(own)), {}).troubles
    assert troubles[str(own / "pipe.adoc")] == "is no ordinary file", "and reading it did not wait"
    from_environment = read_shelf(ImodSettings(), {"IMOD_DIR": str(imod), "HOME": str(home)})
    assert from_environment.table == TABLE
    assert read_shelf(ImodSettings(), {}).texts == {}


def test_frames_and_stacks_alike_have_their_size_from_the_images():
    file = FilePrint(relative_path="a.eer", size_bytes=10**10, piece_bytes=1, head_sha256="0")
    frames = series_of(320, kind="frames", fingerprint=Fingerprint(files=(file,)))
    book = book_of({"b.adoc": BATCH})
    assert book.ready(frames, {"directive_file": "b.adoc"}).demand.stack_bytes == 320 * 320 * 41 * 2 + 1024


def test_a_file_with_thousands_of_unknown_keys_is_judged_quickly_and_told_briefly(monkeypatch):
    """A search for the nearest key takes milliseconds: it would stop the daemon for a minute."""
    searched = []
    near = Table.near
    monkeypatch.setattr(Table, "near", lambda self, key, count=1: (searched.append(key), near(self, key))[1])
    text = "".join(f"runtime.Fiducials.any.track{n} = 1\n" for n in range(5000))
    book = book_of({"b.adoc": text}, settings=ImodSettings(directive_file="b.adoc"))
    assert len(book.checked(text, "b.adoc", False)) == 5000
    assert len(searched) == HINTS_MAX
    with pytest.raises(Permanent, match="more, see tiltd directives show") as refused:
        book.checked_ready(series_of(320), {})
    assert len(str(refused.value)) < 5000
