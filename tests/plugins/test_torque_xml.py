"""The streaming reader: cut anywhere, damaged anywhere, and never more than was there."""

from __future__ import annotations

import html
import time
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.torque_recorded import ids, recorded
from tiltd.plugins import torque_xml
from tiltd.plugins.torque_xml import Fields, Records, Remembered, field, fields_of, text

NAMES = ("Job_Id", "Job_Name", "job_state", "Variable_List")
QSTAT = {name: one.out for name, one in recorded("qstat").items()}
WHOLE = QSTAT["qstat_x_all"]


def read(*pieces: bytes) -> tuple[list[Fields], Records]:
    found: list[Fields] = []
    records = Records(lambda body, before: found.append(fields_of(body, NAMES)))
    for piece in pieces:
        records.feed(piece)
    return found, records


def pieces(content: bytes, size: int) -> list[bytes]:
    return [content[at : at + size] for at in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 4096])
def test_it_does_not_matter_where_the_pipe_cuts(size: int) -> None:
    found, records = read(*pieces(WHOLE, size))
    expected = [
        {name: " ".join((job.findtext(name) or "").split("\n")) for name in NAMES}
        for job in ElementTree.fromstring(WHOLE)
    ]
    assert found == expected and len(found) == 26 and records.complete


def test_several_documents_one_after_another() -> None:
    found, records = read(QSTAT["qstat_x_states"])
    assert [fields["Job_Id"].partition(".")[0] for fields in found] == [str(n) for n in range(63, 70)]
    assert records.documents == 7 and records.complete


@pytest.mark.parametrize(
    "banner", [b"Welcome!\n", b"** maintenance at 5 <pm> & later **\n", b"\xff\x00\x1b[1m\n"]
)
def test_a_banner_before_it(banner: bytes) -> None:
    found, records = read(banner + WHOLE)
    assert len(found) == 26 and records.complete


def test_nothing_at_all_and_nothing_but_a_banner() -> None:
    assert not read()[1].complete and not read(b" \n")[1].anything
    records = read(b"qstat: not today\n")[1]
    assert records.anything and not records.documents and not records.complete


def test_an_empty_system_is_a_whole_answer() -> None:
    found, records = read(QSTAT["qstat_x_empty"])
    assert found == [] and records.complete


@pytest.mark.parametrize("name", ["qstat_x_one_running", "qstat_x_states"])
def test_cut_short_anywhere_is_never_complete(name: str) -> None:
    content = QSTAT[name].rstrip(b"\n")
    whole, _ = read(content)
    ends = {content.find(b"</Data>", 0) + 7}  # of the first of several documents: whole as far as it goes
    while (at := content.find(b"</Data>", max(ends))) >= 0:
        ends.add(at + 7)
    for cut in range(0, len(content), 3):
        found, records = read(content[:cut])
        assert found == whole[: len(found)], "what is whole is right"
        begun = content[:cut].rfind(b"<Data>") > content[:cut].rfind(b"</Data>")
        assert not (records.complete and begun)


def test_a_record_that_never_ends_costs_itself() -> None:
    one = b"<Job><Job_Id>1.h</Job_Id><job_state>R</job_state></Job>"
    broken = b"<Job><Job_Id>2.h</Job_Id><job_st"
    found, records = read(b"<Data>" + one + broken + one.replace(b"1.h", b"3.h") + b"</Data>")
    assert [fields["Job_Id"] for fields in found] == ["1.h", "3.h"]
    assert not records.complete and records.damaged == 1


def test_a_document_that_begins_in_the_middle_of_another() -> None:
    found, records = read(b"<Data><Job><Job_Id>1.h</Job_Id><Data><Job><Job_Id>2.h</Job_Id></Job></Data>")
    assert [fields["Job_Id"] for fields in found] == ["2.h"] and not records.complete


def test_a_record_beyond_all_measure_is_skipped_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torque_xml, "RECORD_BYTES_MAX", 10_000)
    found: list[Fields] = []
    records = Records(lambda body, before: found.append(fields_of(body, NAMES)))
    records.feed(b"<Data><Job><Job_Id>1.h</Job_Id><Variable_List>")
    for _ in range(1000):
        records.feed(b"x" * 1000)
        assert len(records._buffer) < 12_000
    records.feed(b"</Variable_List></Job><Job><Job_Id>2.h</Job_Id></Job></Data>")
    assert [fields["Job_Id"] for fields in found] == ["2.h"] and records.damaged == 1


def test_values_are_text() -> None:
    assert text(b"a&amp;b&lt;c&gt;&quot;d") == 'a&b<c>"d'
    assert text(b"Z\xfcrich") == text("Zürich".encode()) == "Zürich"
    assert text(b"a\x01b\x1bc") == "abc"
    assert text(b"a&#1;b&#x1b;c") == "abc", "neither by its number"


def test_a_value_cannot_pretend_to_be_a_field() -> None:
    """Torque escapes brackets in values; so a job's variables cannot end it and begin another."""
    forged = html.escape("</Variable_List><job_state>C</job_state></Job><Job><Job_Id>9.h</Job_Id>").encode()
    row = b"<Data><Job><Job_Id>1.h</Job_Id><job_state>R</job_state><Variable_List>" + forged
    found, records = read(row + b"</Variable_List></Job></Data>")
    assert [(fields["Job_Id"], fields["job_state"]) for fields in found] == [
        ("1.h", "R")
    ] and records.complete


raw = st.binary(max_size=30) | st.sampled_from(
    [
        b"<Data>",
        b"</Data>",
        b"<Job>",
        b"</Job>",
        b"<Job_Id>",
        b"</Job_Id>",
        b"<",
        b"&",
        b"\xff",
        b"<?xml version",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(raw, max_size=25), st.integers(1, 40))
def test_noise_neither_raises_nor_depends_on_the_pieces(parts: list[bytes], size: int) -> None:
    content = b"".join(parts)
    at_once, whole = read(content)
    cut, streamed = read(*pieces(content, size))
    assert at_once == cut
    assert (whole.complete, whole.damaged, whole.documents) == (
        streamed.complete,
        streamed.damaged,
        streamed.documents,
    )
    assert len(at_once) <= content.count(b"</Job>")


values = st.text(st.characters(codec="utf-8"), max_size=40) | st.binary(max_size=40)


def escaped(value: str | bytes) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return content.replace(b"&", b"&amp;").replace(b"<", b"&lt;").replace(b">", b"&gt;")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(values, values), max_size=6), st.integers(1, 200), st.integers(0, 400))
def test_what_others_put_into_their_jobs_changes_none_of_ours(
    foreign: list[tuple[str | bytes, str | bytes]], size: int, place: int
) -> None:
    ours = [
        b"<Job><Job_Id>%d.h</Job_Id><Job_Name>n</Job_Name><job_state>Q</job_state></Job>" % n
        for n in range(4)
    ]
    theirs = [
        b"<Job><Job_Id>99.h</Job_Id><Job_Name>%s</Job_Name><Variable_List>%s</Variable_List></Job>"
        % (escaped(name), escaped(variables))
        for name, variables in foreign
    ]
    rows = list(ours)
    for number, row in enumerate(theirs):
        rows.insert((place + 3 * number) % (len(rows) + 1), row)
    found, records = read(*pieces(b"<Data>" + b"".join(rows) + b"</Data>\n", size))
    assert [fields["Job_Id"] for fields in found if fields["Job_Id"] != "99.h"] == [
        f"{n}.h" for n in range(4)
    ]
    assert records.complete and len(found) == len(rows)


class Polls:
    """Answers one after another, each read with what is remembered of the one before."""

    def __init__(self) -> None:
        self.before: Remembered[bytes] = {}

    def read(self, *pieces: bytes) -> tuple[list[bytes], list[bytes], Records[bytes]]:
        """All records in order, and those of them that were read anew."""
        every: list[bytes] = []
        anew: list[bytes] = []

        def take(body: bytes, before: bytes | None) -> bytes:
            every.append(body)
            anew.append(body)
            return body

        records = Records(take, every.append, self.before)
        for piece in pieces:
            records.feed(piece)
        self.before = records.remembered
        return every, anew, records


@pytest.mark.parametrize("size", [1, 7, 100, 4096, 65536])
def test_what_stands_there_again_to_the_letter_is_not_read_again(size: int) -> None:
    polls = Polls()
    first, anew, _ = polls.read(*pieces(WHOLE, size))
    assert len(first) == len(anew) == 26
    again, anew, records = polls.read(*pieces(WHOLE, size))
    assert again == first and anew == [] and records.complete and records.records == 26
    one = ids(WHOLE)[3].encode()
    at = WHOLE.index(b"<job_state>", WHOLE.index(b"<Job_Id>" + one)) + len(b"<job_state>")
    changed, anew, _ = polls.read(*pieces(WHOLE[:at] + b"?" + WHOLE[at + 1 :], size))
    assert len(anew) == 1 and b"<Job_Id>" + one in anew[0] and b"<job_state>?" in anew[0]
    assert [b for a, b in zip(first, changed, strict=True) if a != b] == anew


def test_what_was_not_in_the_last_answer_is_forgotten() -> None:
    polls = Polls()
    polls.read(WHOLE)
    polls.read(QSTAT["qstat_x_empty"])
    assert polls.before == {} and len(polls.read(WHOLE)[1]) == 26


lines = st.sampled_from(
    [
        *(
            b"<Job><Job_Id>%d.h</Job_Id><job_state>%s</job_state></Job>" % (n, s)
            for n in (1, 2)
            for s in (b"R", b"C")
        ),
        b"<Job><Job_Id>1.h</Job_Id><job_state>R</job_state>",
        b"<Job><Job_Id>1.h</Job_Id></Job>",
        b"<Node><Job_Id>1.h</Job_Id><job_state>R</job_state></Node>",
        b"<Job></Job>",
        b"<Job>",
        b"</Job>",
        b"<Data>",
        b"</Data>",
        b"\n",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(lines, max_size=12), min_size=2, max_size=4), st.integers(1, 60))
def test_what_is_remembered_changes_nothing_of_what_is_read(answers: list[list[bytes]], size: int) -> None:
    polls = Polls()
    for answer in (b"".join(parts) for parts in answers):
        every, _, records = polls.read(*pieces(answer, size))
        afresh, _, expected = Polls().read(answer)
        assert every == afresh
        for name in ("complete", "damaged", "documents", "records"):
            assert getattr(records, name) == getattr(expected, name), name


def test_beyond_all_measure_what_is_remembered_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a record that is skipped may look like a whole one."""
    monkeypatch.setattr(torque_xml, "RECORD_BYTES_MAX", 1000)
    one = b"<abcd>123</abcd>"  # 16 bytes, of which so many are kept of a piece
    polls = Polls()
    polls.read(b"<Data><Job>" + one + b"</Job></Data>")
    every, _, records = polls.read(b"<Data><Job>" + b"y" * 2000 + one, b"</Job></Data>")
    assert every == [] and records.damaged == 1


elements = st.sampled_from(
    [b"<a>", b"</a>", b"<ab>", b"</ab>", b"<b>", b"</b>", b"x", b"<", b">", b"\n", b" \xff"]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(elements, max_size=15).map(b"".join))
def test_all_fields_at_once_are_what_they_are_one_by_one(body: bytes) -> None:
    one_by_one = {name: value for name in ("a", "ab", "b") if (value := field(body, name)) is not None}
    assert fields_of(body, ("a", "ab", "b")) == one_by_one


def test_two_thousand_jobs_take_well_under_a_second() -> None:
    """A bound far above what it takes (about 40 ms), to catch a cost that grows with the square."""
    body = WHOLE[WHOLE.index(b"<Job>") : WHOLE.index(b"</Data>")]
    content = b"<Data>" + body * 77 + b"</Data>"
    began = time.process_time()
    found, _ = read(*pieces(content, 65536))
    assert len(found) == 2002 and time.process_time() - began < 2.0
