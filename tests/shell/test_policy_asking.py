"""Questions to the policy: odd words, files that are refused, and files over the site's own policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shell.policy_asking import asked, at_home, nowhere, written
from tiltd.daemon.cli.dispatch import dispatch

__all__ = ["at_home", "nowhere"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--size", "12"], 'did you mean "12GB"?'),
        (["--image-size", "4k"], "as in 4096x4096"),
        (["--tilts", "-4"], "no whole number"),
        (["--tilts", "0"], "1 or more"),
        (["--tilts", "many"], "no whole number"),
        (["--attempt", "0"], "1 or more"),
        (["--waiting", "-1"], "no whole number"),
        (["--pixel-size", "1.35mm"], 'the unknown unit "mm"'),
        (["--policy", ""], "no name of a file"),
    ],
)
def test_a_figure_that_cannot_be_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    with pytest.raises(SystemExit) as left:
        dispatch(["policy", "explain", "--size", "1GB", *words])
    assert left.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize("told", ["1.35", "1.35A", "0.135nm"])
def test_a_pixel_size_has_its_unit_as_in_a_policy(capsys: pytest.CaptureFixture[str], told: str) -> None:
    found = asked(capsys, "explain", "--size", "1GB", "--pixel-size", told, "--json")
    assert found["explanation"]["features"]["pixel_spacing_angstrom"] == pytest.approx(1.35)


def test_explain_says_of_a_feed_that_the_settings_do_not_have(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dispatch(["init", str(tmp_path / "site")])
    capsys.readouterr()
    config = str(tmp_path / "site" / "tiltd.toml")
    found = asked(
        capsys, "explain", "--size", "1GB", "--feed", "microskope", "--config", config, "--json", code=0
    )
    assert found["source"]["asked"] == (
        'by size: "microskope" is no feed of the settings: there are microscope; did you mean "microscope"?'
    )


@pytest.mark.parametrize("question", [["check"], ["test"], ["diff", "a.toml"], ["replay", "--policy"]])
def test_a_file_without_a_name_is_wrong_usage(
    capsys: pytest.CaptureFixture[str], question: list[str]
) -> None:
    """As a script has it whose variable is empty: not this folder."""
    with pytest.raises(SystemExit) as left:
        dispatch(["policy", *question, ""])
    assert left.value.code == 2 and "no name of a file" in capsys.readouterr().err


def test_check_says_so_where_there_is_nothing_to_check(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Good it is, but perhaps the folder is the wrong one."""
    (tmp_path / "empty").mkdir()
    assert "as shipped: there is no *.toml" in asked(capsys, "check", "empty")
    written(tmp_path / "empty" / "a.toml", "")
    assert "as shipped" not in asked(capsys, "check", "empty")
    assert asked(capsys, "check", "empty", "--json")["files"] == ["empty/a.toml"]


@pytest.mark.parametrize(
    "question",
    [
        ["check"],
        ["test"],
        ["explain", "--size", "1GB", "--policy"],
        ["diff", "good.toml"],
        ["replay", "--policy"],
    ],
)
def test_what_is_refused_is_refused_alike_by_every_question(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, question: list[str]
) -> None:
    written(tmp_path / "good.toml", "")
    written(tmp_path / "bad.toml", "[resources]\ncorse = 4\n")
    found = asked(capsys, *question, "bad.toml", "--json", code=1)
    assert not found["ok"]
    assert [(each["file"], each["line"], each["key"]) for each in found["faults"]] == [
        ("bad.toml", 2, "resources.corse")
    ]
    assert dispatch(["policy", *question, "bad.toml"]) == 1
    assert capsys.readouterr().err.startswith("bad.toml:2: resources.corse: unknown key; did you mean")


def test_a_file_is_laid_over_the_site_s_own_policy(
    capsys: pytest.CaptureFixture[str], at_home: Path, tmp_path: Path
) -> None:
    new = written(tmp_path / "20-new.toml", '[[rule]]\nname = "s"\nset = { threads = 3 }\n')
    capsys.readouterr()
    alone = asked(capsys, "explain", "--size", "1GB", "--policy", str(new), "--json")
    assert (alone["cores"], alone["threads"]) == (4, 3)
    over = asked(capsys, "explain", "--size", "1GB", "--policy", str(new), "--site", "--json")
    assert (over["cores"], over["threads"]) == (2, 3)
    assert asked(capsys, "check", str(new), "--site", "--json")["policy_version"] == over["policy_version"]
    values = asked(capsys, "diff", "--site", str(new), "--json", code=1)["values"]
    assert [change["title"] for change in values] == ["rule.s", "rules (order)"]
    assert asked(capsys, "diff", "--site", str(at_home), str(new), "--json", code=1)["values"] == values
    assert dispatch(["policy", "diff", str(new)]) == 2
    assert "name OLD and NEW" in capsys.readouterr().err


def test_a_file_of_the_same_name_stands_in_its_place(
    capsys: pytest.CaptureFixture[str], at_home: Path, tmp_path: Path
) -> None:
    new = written(tmp_path / "10-site.toml", "[limits]\nrunning_max = 8\n")
    values = asked_after_init(capsys, "diff", "--site", str(new), "--json")["values"]
    assert [change["title"] for change in values] == ["limits.running_max", "rule.r", "rules (order)"]


def asked_after_init(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    return asked(capsys, *words, code=1)


def test_the_site_s_own_policy_needs_a_site_and_its_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rules = written(tmp_path / "rules.toml", "")
    assert dispatch(["policy", "check", "--site", str(rules)]) == 2
    assert "--site needs the site's tiltd.toml" in capsys.readouterr().err
    assert dispatch(["init", str(tmp_path)]) == 0
    (tmp_path / "policy.d" / "10-site.toml").unlink()
    (tmp_path / "policy.d").rmdir()
    for words in (["check"], ["check", "--site", str(rules)], ["explain", "--size", "1GB"]):
        capsys.readouterr()
        assert dispatch(["policy", *words]) == 1
        assert "policy.d:1: is no folder" in capsys.readouterr().err


def test_diff_tells_what_of_a_rule_differs_and_what_changes_alike_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rule = '[[rule]]\nname = "{}"\nwhen = {{ feed = "{}" }}\nset = {{ {} }}\n'
    old = written(
        tmp_path / "old.toml", rule.format("a", "x", "cores = 2") + rule.format("b", "x", "cores = 1")
    )
    new = written(
        tmp_path / "new.toml",
        rule.format("a", "y", "priority = 3") + "[completeness]\nquiet_min = '10min'\n",
    )
    text = asked(capsys, "diff", str(old), str(new), code=1)
    assert "  completeness.quiet_min_seconds: 5min -> 10min\n" in text
    assert "  rule.a: matches otherwise, cores 2 -> (not set), priority (not set) -> 3\n" in text
    assert "  rule.b: is gone\n" in text
    examples = text.partition("examples: ")[2].partition("history: ")[0].splitlines()
    assert examples == [
        "24 of 24 come out otherwise",
        "  any feed, 0.5GB, attempt 1, 0 waiting and 23 more: completeness.quiet_min_seconds 5min -> 10min",
    ]


def test_diff_tells_who_would_be_told_otherwise(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    notice = '[[notice]]\nname = "{}"\nto = {}\nevents = {}\n{}'
    old = written(
        tmp_path / "old.toml",
        notice.format("night", '["ada@example.org"]', '["failed"]', "")
        + notice.format("gone", '["eve@example.org"]', '["held"]', "when = { feed = 'elsewhere' }\n"),
    )
    new = written(
        tmp_path / "new.toml",
        notice.format("night", '["ada@example.org", "bob@example.org"]', '["failed", "held"]', "")
        + notice.format("daily", '["eve@example.org"]', '["failed"]', 'how = "digest"\n'),
    )
    text = asked(capsys, "diff", str(old), str(new), code=1)
    assert "  notice.daily: is new\n" in text and "  notice.gone: is gone\n" in text
    told = "to ada@example.org -> ada@example.org bob@example.org, events failed -> failed held\n"
    assert f"  notice.night: {told}" in text
    found = asked(capsys, "diff", str(old), str(new), "--json", code=1)
    assert len(found["examples"]) == found["example_count"]
    assert found["examples"][0]["fields"] == {
        "tells ada@example.org": [["failed"], ["failed", "held"]],
        "tells bob@example.org": [None, ["failed", "held"]],
        "tells eve@example.org in a digest": [None, ["completed", "delivered", "failed"]],
    }
