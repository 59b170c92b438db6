"""Every kind of fact comes back from the journal as it was written, hostile names and all."""

from __future__ import annotations

import json
import math
import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltd.daemon import upcasters
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.model import Dataset, Record
from tiltd.daemon.journal import decode_dataset, decode_fact, encode
from tiltd.daemon.upcasters import STEPS, TooNew, upcast

HOSTILE = "-rf $(x)\n\"'\\\x00\x1b[31m é 断 \U0001f52c \udcff\ud800"
"""Control characters, quotes, a leading dash, and bytes that are no UTF-8 as lone surrogates."""
texts = st.one_of(st.just(HOSTILE), st.text(st.characters(), max_size=8))
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(),
    bool: st.booleans(),
    type(None): st.none(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that stands in a fact; a type that it does not know fails the test."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.deferred(lambda: records(kind))
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values(one) for one in inside))
    if origin is typing.Literal:
        return st.sampled_from(inside)
    if origin is tuple and inside[-1] is Ellipsis:
        return st.lists(values(inside[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(one) for one in inside))
    if origin is dict:
        return st.dictionaries(values(inside[0]), values(inside[1]), max_size=2)
    if isinstance(kind, type) and issubclass(kind, str) and kind is not str:
        return st.sampled_from(list(kind))  # type: ignore[call-overload]
    return PLAIN[kind]


def records(kind: type[Record]) -> st.SearchStrategy[Any]:
    fields = {name: values(hint) for name, hint in typing.get_type_hints(kind).items()}
    return st.builds(kind, **{field.name: fields[field.name] for field in msgspec.structs.fields(kind)})


def texts_filled(kind: Any, text: str, number: float = 0.1) -> Any:
    """One value of a type with ``text`` in every text field of it and ``number`` in every one for a float,
    however deep."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind)
        return kind(
            **{one.name: texts_filled(hints[one.name], text, number) for one in msgspec.structs.fields(kind)}
        )
    if origin in (typing.Union, types.UnionType):
        return texts_filled(next(one for one in inside if one is not type(None)), text, number)
    if origin is typing.Literal:
        return inside[0]
    if origin is tuple:
        return tuple(texts_filled(one, text, number) for one in inside if one is not Ellipsis)
    if origin is dict:
        return {texts_filled(inside[0], text, number): texts_filled(inside[1], text, number)}
    if isinstance(kind, type) and issubclass(kind, str) and kind is not str:
        return next(iter(kind))  # type: ignore[call-overload]
    return {str: text, int: 7, float: number, bool: True}[kind]


def back(fact: f.Fact) -> f.Fact:
    """Written and read as the journal does it; what is written has to be a text for SQLite."""
    kind = type(fact).__name__
    body = encode(fact)
    body.encode("utf-8")
    assert "\0" not in body
    return decode_fact(kind, f.VERSIONS[kind], body)


@pytest.mark.parametrize("kind", list(f.FACTS))
def test_lone_surrogates_survive_in_every_text_of_every_kind(kind: str) -> None:
    fact = texts_filled(f.FACTS[kind], HOSTILE)
    again = back(fact)
    assert again == fact
    assert type(again) is f.FACTS[kind]


def test_every_kind_is_filled_down_to_the_last_text() -> None:
    """Else the test above would test less than it says: each text in what is written is the hostile one."""
    document = json.loads(encode(texts_filled(f.DatasetAdopted, HOSTILE)))
    adopted = document["record"]
    assert adopted["series"]["fingerprint"]["files"][0]["relative_path"] == HOSTILE
    assert adopted["attempts"][0]["end"]["log_tail"] == [HOSTILE]
    assert adopted["labels"] == {HOSTILE: HOSTILE}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_fact_comes_back_as_it_was_written(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(set(f.FACTS) - {"DatasetAdopted", "DatasetRecalled", "Placed"})))
    fact = data.draw(records(f.FACTS[kind]))
    assert repr(back(fact)) == repr(fact), "what is no number is not even equal to itself"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 1e16, 5e-324, 2.0**70])
@pytest.mark.parametrize("text", ["", "plain", "é 断 \0\x1f\x7f\u2028", HOSTILE])
def test_every_number_and_every_text_survive_together(number: float, text: str) -> None:
    """Whichever encoder writes it: the quick one refuses half a character, and writes null for NaN."""
    for kind in f.FACTS:
        fact = texts_filled(f.FACTS[kind], text, number)
        assert repr(back(fact)) == repr(fact)
    dataset = texts_filled(Dataset, text, number)
    assert repr(decode_dataset(encode(dataset))) == repr(dataset)


def test_a_number_larger_than_any_machine_word_survives() -> None:
    fact = msgspec.structs.replace(texts_filled(f.ResultCollected, "x"), result_bytes=2**70)
    assert back(fact) == fact


def test_what_has_nothing_special_is_written_by_the_quick_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> str:
        raise AssertionError("five times the cost")

    monkeypatch.setattr("tiltd.daemon.as_json.json.dumps", slow)
    for kind in f.FACTS:
        encode(texts_filled(f.FACTS[kind], "é 断 null"))
    with pytest.raises(AssertionError, match="five times"):
        encode(texts_filled(f.FeedMet, "\ud800"))


@pytest.mark.parametrize("kind", list(f.FACTS))
def test_what_is_stored_names_its_kind_and_stands_alone(kind: str) -> None:
    fact = texts_filled(f.FACTS[kind], "x")
    assert json.loads(encode(fact))["kind"] == kind
    assert f.VERSIONS[kind] >= 1


def test_every_kind_of_fact_is_in_the_table_of_kinds() -> None:
    here = {
        name
        for name, thing in vars(f).items()
        if isinstance(thing, type) and issubclass(thing, f.Fact) and thing not in (f.Fact, f.DatasetFact)
    }
    assert here == set(f.FACTS) == set(f.VERSIONS)
    assert set(f.DATASET_FACTS) == {
        name for name in here if "dataset_id" in f.FACTS[name].__struct_fields__
    } - {"BreakerProbed", "OperatorActed"}


def test_a_fact_without_its_newer_optional_fields_is_read() -> None:
    """A field that is added with a default needs no new version."""
    body = json.loads(encode(texts_filled(f.DatasetCompleted, "x")))
    del body["stat_signature"], body["partial"]
    fact = decode_fact("DatasetCompleted", 1, json.dumps(body))
    assert isinstance(fact, f.DatasetCompleted)
    assert (fact.stat_signature, fact.partial) == ("", False)


# -- versions ------------------------------------------------------------------------------------


def test_a_document_is_lifted_step_by_step() -> None:
    steps = {
        ("JobEnded", 1): lambda old: {**old, "steps": [*old["steps"], "1 to 2"]},
        ("JobEnded", 2): lambda old: {**old, "steps": [*old["steps"], "2 to 3"]},
        ("Placed", 1): lambda old: {},
    }
    versions = {"JobEnded": 3, "Placed": 2}
    for version, expected in ((1, ["1 to 2", "2 to 3"]), (2, ["2 to 3"]), (3, [])):
        lifted = upcast("JobEnded", version, {"steps": []}, steps=steps, versions=versions)
        assert lifted == {"steps": expected}


def test_a_stored_fact_goes_through_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if version 1 of a fact had called its field by another name."""
    fact = texts_filled(f.FeedMet, "x")
    old = json.loads(encode(fact))
    old["why"] = old.pop("reason")

    def rename(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "reason": document["why"]}

    defaults = {"steps": {("FeedMet", 1): rename}, "versions": {"FeedMet": 2}}
    monkeypatch.setattr(upcasters.upcast, "__kwdefaults__", defaults)
    assert decode_fact("FeedMet", 1, json.dumps(old)) == fact
    assert decode_fact("FeedMet", 2, encode(fact)) == fact


@pytest.mark.parametrize(
    ("kind", "version", "known"), [("JobEnded", 99, "1"), ("MoonPhase", 1, "no such kind")]
)
def test_what_a_later_release_wrote_is_refused_with_a_sentence(kind: str, version: int, known: str) -> None:
    with pytest.raises(TooNew) as refused:
        decode_fact(kind, version, "{}")
    assert str(refused.value) == (
        f"the journal holds {kind} version {version}, this tiltd knows {known}: "
        "run the release that wrote it, or a later one"
    )


def test_every_older_version_has_its_step() -> None:
    """Who raises a version writes the step from the one before it, and none is left over."""
    versions = {**f.VERSIONS, upcasters.SNAPSHOT: upcasters.SNAPSHOT_VERSION}
    wanted = {(kind, old) for kind, version in versions.items() for old in range(1, version)}
    assert set(STEPS) == wanted
