"""``tiltd errors``: the catalogue for people and for programs."""

from __future__ import annotations

import json

import pytest

from tiltd.daemon.cli.dispatch import dispatch


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = dispatch(["errors", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_all_are_listed_by_program(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = told(capsys)
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert (
        status == 0 and heads == sorted(set(heads)) and {"any", "autofidseed", "processchunks"} <= set(heads)
    )
    assert "do      give more scratch" in out


def test_one_entry_and_a_misspelt_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = told(capsys, "few_beads")
    assert status == 0 and out.startswith("autofidseed\n  few_beads (input)\n") and "track patches" in out
    status, out, err = told(capsys, "fewbeads")
    assert (status, out) == (4, "") and "did you mean 'few_beads'?" in err


def test_which_entry_speaks_of_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = told(capsys, "--match", "CHUNK ERROR: ... No space left on device", "--json")
    assert status == 0
    assert [(error["pipeline"], error["code"]) for error in json.loads(out)["errors"]] == [
        ("batchruntomo", "disk_full")
    ]
    assert told(capsys, "--match", "all is well")[0] == 4


def test_by_class_and_program(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told(capsys, "--class", "scratch", "--json")
    assert {error["failure_class"] for error in json.loads(out)["errors"]} == {"scratch"}
    _, out, _ = told(capsys, "--class", "note", "--program", "tiltalign", "--json")
    assert [error["code"] for error in json.loads(out)["errors"]] == [
        "robust_given_up",
        "rotation_doubted",
        "residual",
    ]


def test_what_a_line_says_is_shown_as_it_can_be_searched_for(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = told(capsys, "no_tilt_angles")
    assert r"FILE .+\.rawtlt DOES NOT EXIST" in out and r"\\" not in out
    _, out, _ = told(capsys, "out_of_memory")
    assert "or exit status 137\n" in out
