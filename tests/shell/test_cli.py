from __future__ import annotations

import asyncio
import io
import json
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from shell.fake_daemon import HOSTILE, NOW, FakeDaemon, dataset, fake_daemon
from tiltd.daemon.cli.acting import option
from tiltd.daemon.cli.commands import COMMANDS
from tiltd.daemon.cli.dispatch import dispatch, parser_of
from tiltd.daemon.core.model import Problem, Reservation, State
from tiltd.daemon.web import Servers

OUR_OWN = [name for name, command in COMMANDS.items() if command.module.startswith("tiltd.daemon.cli")]


class Cli:
    def __init__(self, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
        self.daemon, self._capsys = daemon, capsys

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        socket = str(self.daemon.settings.socket)
        code = await asyncio.to_thread(dispatch, [*words, "--socket", socket])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err


@pytest.fixture
async def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Cli]:
    daemon = fake_daemon(tmp_path)
    servers = Servers(daemon)
    await servers.start()
    yield Cli(daemon, capsys)
    await servers.stop()


async def test_list_is_aligned_and_escapes_names(cli: Cli) -> None:
    code, out, _ = await cli("list")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 8
    assert lines[0].split() == ["DATASET", "NAME", "FEED", "STATE", "SINCE", "NODE", "WHY"]
    column = lines[0].index("FEED")
    assert all(line[column:].startswith("krios1") for line in lines[1:])
    assert "TS 'x'\\n\\xff$(reboot)" in out
    assert HOSTILE not in out


async def test_list_selects_and_prints_json(cli: Cli) -> None:
    code, out, _ = await cli("list", "--state", "failed", "--json")
    assert code == 0
    assert [d["dataset_id"] for d in json.loads(out)["datasets"]] == ["c-1.1.1"]


async def test_list_of_what_was_ignored(cli: Cli) -> None:
    code, out, _ = await cli("list", "--ignored")
    assert code == 0
    assert out.splitlines()[1].split() == ["krios1", "a/montage.mrc", "montage", "6", "pieces"]


async def test_show_and_why(cli: Cli) -> None:
    code, out, _ = await cli("show", "TS_03")
    assert code == 0
    assert "c-1.1.1  failed since 1970-01-01 00:00:10Z" in out
    assert "What to do: ask for more" in out
    assert "1970-01-01 00:00:01Z  DatasetCancelled" in out
    code, out, _ = await cli("why", HOSTILE)
    assert (code, out) == (0, "h-1.1.1  ready\n  h-1.1.1 waits at 10000\n")


async def test_what_is_doubtful_about_a_result_is_shown(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "report.html").touch()
    rows = cli.daemon.reader.rows  # type: ignore[attr-defined]
    rows["d-1.1.1"] = msgspec.structs.replace(
        rows["d-1.1.1"],
        verdict="doubtful",
        result_path=str(tmp_path / "r"),
        quality={"residual_mean_px": 0.5},
        problems=(Problem(code="few_points", detail=f"only 3 beads in {HOSTILE}"),),
    )
    _, out, _ = await cli("list")
    assert [line for line in out.splitlines() if "d-1.1.1" in line and "doubtful: few_points" in line]
    _, out, _ = await cli("show", "d-1.1.1")
    assert f"  result    {tmp_path}/r (0B, doubtful)" in out
    assert f"  report    {tmp_path}/r/report.html" in out
    assert "  doubtful  few_points: only 3 beads in TS" in out and HOSTILE not in out
    assert "  quality   residual_mean_px 0.5" in out
    assert "Look at it: only 3 beads" in out
    _, out, _ = await cli("list", "--json")
    (row,) = [row for row in json.loads(out)["datasets"] if row["dataset_id"] == "d-1.1.1"]
    assert (row["verdict"], row["quality"]) == ("doubtful", {"residual_mean_px": 0.5})


async def test_status_and_nodes(cli: Cli) -> None:
    code, out, _ = await cli("status")
    assert code == 0
    assert "is ready" in out
    assert "3 ready" in out
    cli.daemon.reasons = ["the journal's disk is full"]
    code, out, _ = await cli("status")
    assert code == 1
    assert "NOT ready" in out
    assert "the journal's disk is full" in out
    _, out, _ = await cli("nodes")
    assert out.splitlines()[1].split()[:4] == ["here", "free", "4", "0"]
    assert len(out.splitlines()) == 2


async def test_nodes_tells_who_booked_what_and_why_it_stays(cli: Cli) -> None:
    cli.daemon.core.state.ledger.book(
        Reservation(
            attempt_id="gone-1.1.1.a1",
            node="here",
            reserved_bytes=3_000_000_000,
            cores=2,
            memory_bytes=0,
            reserved_at=NOW - 7200.0,
        )
    )
    _, out, _ = await cli("nodes")
    lines = out.splitlines()
    assert lines[1].split()[-3:] == ["3GB", "3GB", "1"], "booked, leaked, attempts"
    assert lines[4].split() == ["here", "gone-1.1.1.a1", "2", "3GB", "2h", "leaked"]
    assert lines[5] == "gone-1.1.1.a1 on here: here is down"


@pytest.mark.parametrize("verb", ["hold", "release", "retry", "rerun", "cancel"])
async def test_acting_on_one_dataset(cli: Cli, verb: str) -> None:
    code, out, _ = await cli(verb, "TS_02")
    assert (code, out) == (0, f"{verb} done\n")
    assert [(a.action, a.dataset_id) for a in cli.daemon.asked] == [(verb, "b-1.1.1")]


async def test_a_refused_action_is_exit_code_1(cli: Cli) -> None:
    code, _, err = await cli("accept", "TS_02")
    assert (code, err) == (1, "accept done\n")


async def test_rerun_sets_options(cli: Cli) -> None:
    options = [word for each in ("binning=4", "dose=1.5", "flip=true", "a=b=c") for word in ("--set", each)]
    await cli("rerun", "TS_02", *options)
    assert cli.daemon.asked[0].options == {"binning": 4, "dose": 1.5, "flip": True, "a": "b=c"}


async def test_many_need_yes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, _, err = await cli("cancel", "--session", "s1")
    assert code == 1
    assert "add --yes" in err
    assert cli.daemon.asked == []
    code, out, _ = await cli("cancel", "--session", "s1", "--dry-run")
    assert code == 0
    assert "would cancel" in out
    assert cli.daemon.asked == []
    code, _, _ = await cli("cancel", "--session", "s1", "--yes")
    assert code == 0
    assert {a.dataset_id for a in cli.daemon.asked} == {"a-1.1.1", "b-1.1.1", "h-1.1.1", "c-1.1.1", "e-1.1.1"}


async def test_very_many_are_done_in_parts_with_progress(cli: Cli) -> None:
    live = cli.daemon.core.state.datasets
    live |= {f"m{i}-1.1.1": dataset(f"m{i}-1.1.1", f"M{i}", feed="krios2") for i in range(450)}
    code, out, err = await cli("hold", "--feed", "krios2", "--yes")
    assert code == 0
    assert err.split("\n")[-2] == "450 of 450"
    assert out.count("hold done") == len(cli.daemon.asked) == 450


async def test_an_empty_selection_is_exit_code_4(cli: Cli) -> None:
    code, _, err = await cli("hold", "--project", "none", "--yes")
    assert code == 4
    assert "empty" in err


@pytest.mark.parametrize("words", [("hold",), ("hold", "TS_02", "--session", "s1"), ("prune",)])
async def test_wrong_usage_is_exit_code_2(cli: Cli, words: tuple[str, ...]) -> None:
    assert (await cli(*words))[0] == 2
    assert cli.daemon.asked == []


async def test_a_breaker_is_closed_by_its_scope(cli: Cli) -> None:
    code, _, _ = await cli("release", "--breaker", "node:n04")
    assert code == 0
    assert (cli.daemon.asked[0].action, cli.daemon.asked[0].reason) == ("close_breaker", "node:n04")


async def test_not_found_and_ambiguous_are_exit_code_4(cli: Cli) -> None:
    code, _, err = await cli("show", "nothing")
    assert code == 4
    assert "no dataset has the id" in err
    code, _, err = await cli("show", "TS_01")
    assert code == 4
    assert "a-1.1.1" in err
    assert "e-1.1.1" in err


async def test_prune_shows_and_removes(cli: Cli) -> None:
    spool = cli.daemon.settings.spool_dir / "attempts"
    for attempt in ("d-1.1.1.a1", "c-1.1.1.a1", "a-1.1.1.a1", "unknown-1.1.1.a1"):
        (spool / attempt).mkdir(parents=True)
        (spool / attempt / "runner.log").write_text("x" * 2000)
    code, out, _ = await cli("prune", "--spool", "--older-than", "1h")
    assert code == 0
    assert "1 of 1 would be removed (2kB)" in out
    assert (spool / "d-1.1.1.a1").exists()
    code, out, _ = await cli("prune", "--attempts", "--older-than", "1h", "--yes")
    assert code == 0
    assert sorted(p.name for p in spool.iterdir()) == ["a-1.1.1.a1", "unknown-1.1.1.a1"]
    noted = [(asked.action, asked.via, asked.told) for asked in cli.daemon.asked]
    assert noted == [("prune", "socket", "to be removed: 2 attempt")], "what was only shown is no act"
    code, out, _ = await cli("prune", "--spool", "--older-than", "3h", "--yes")
    assert "0 of 0" in out


async def test_what_cannot_be_noted_is_not_removed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(asked: object) -> tuple[bool, str]:
        return False, "the journal's disk is full"

    monkeypatch.setattr(cli.daemon, "ask", full)
    attempt = cli.daemon.settings.spool_dir / "attempts" / "d-1.1.1.a1"
    attempt.mkdir(parents=True)
    code, _, err = await cli("prune", "--spool", "--older-than", "1h", "--yes")
    assert code != 0 and "nothing was removed: the journal's disk is full" in err
    assert attempt.exists()


async def test_a_reload_is_noted_with_who_asked_and_what_came_of_it(cli: Cli) -> None:
    await cli("policy", "reload")
    (asked,) = cli.daemon.asked
    assert (asked.action, asked.via, asked.ok) == ("reload_policy", "socket", False)
    assert asked.told.startswith("the policy was refused, version ") and " stays: " in asked.told


async def test_prune_spares_what_may_still_be_needed(cli: Cli) -> None:
    """In the working set, parked and not ended, or with scratch still booked."""
    rows = cli.daemon.reader.rows
    rows["a-1.1.1"] = dataset("a-1.1.1", state=State.DELIVERED)
    rows["p-1.1.1"] = dataset("p-1.1.1", state=State.ARRIVING)
    booked = Reservation(
        attempt_id="d-1.1.1.a1", node="here", reserved_bytes=1, cores=1, memory_bytes=1, reserved_at=0.0
    )
    cli.daemon.core.state.ledger.book(booked)
    spool = cli.daemon.settings.spool_dir / "attempts"
    for attempt in ("a-1.1.1.a1", "p-1.1.1.a1", "d-1.1.1.a1", "odd name", "..a1"):
        (spool / attempt).mkdir(parents=True)
    code, out, _ = await cli("prune", "--attempts", "--older-than", "1h", "--yes")
    assert code == 0
    assert "0 of 0" in out
    assert len(list(spool.iterdir())) == 5


async def test_prune_of_the_journal_leaves_the_living(cli: Cli) -> None:
    code, _, _ = await cli("prune", "--journal", "--older-than", "1h", "--yes")
    assert code == 0
    assert sorted(cli.daemon.pruned) == ["c-1.1.1", "d-1.1.1", "d-1.1.3", "e-1.1.1"]


async def test_a_result_without_its_own_manifest_stays(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "tomo"
    folder.mkdir()
    (folder / "precious.mrc").write_text("x")
    rows = cli.daemon.reader.rows
    rows["c-1.1.1"] = msgspec.structs.replace(rows["c-1.1.1"], result_path=str(folder))
    code, out, _ = await cli("prune", "--results", "TS_03", "--yes")
    assert code == 1
    assert "manifest" in out
    assert (folder / "precious.mrc").exists()


def test_without_a_daemon_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["status"], ["show", "x"], ["hold", "x"], ["prune", "--spool"], ["nodes"]):
        assert dispatch([*words, "--socket", str(tmp_path / "none.sock")]) == 3
        err = capsys.readouterr().err
        assert f"nobody answers at {tmp_path / 'none.sock'}" in err
        assert "tiltd run" in err


def test_the_socket_is_found_by_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiltd.toml").write_text('state_dir = "/srv/x"\n')
    monkeypatch.setenv("TILTD_CONFIG", str(tmp_path / "tiltd.toml"))
    assert dispatch(["list"]) == 3
    assert "/srv/x/tiltd.sock" in capsys.readouterr().err
    monkeypatch.delenv("TILTD_CONFIG")
    monkeypatch.chdir(tmp_path)
    assert dispatch(["list"]) == 3
    assert "/srv/x/tiltd.sock" in capsys.readouterr().err
    assert dispatch(["list", "--config", "/nowhere.toml"]) == 3
    assert "/nowhere.toml: cannot be read" in capsys.readouterr().err


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["stauts"]) == 2
    assert "did you mean 'status'?" in capsys.readouterr().err
    assert dispatch([]) == 2
    assert dispatch(["--help"]) == 0
    assert dispatch(["--version"]) == 0


@pytest.mark.parametrize("name", OUR_OWN)
def test_every_command_has_help_with_examples_that_parse(name: str) -> None:
    command = COMMANDS[name]
    text = parser_of(command).format_help()
    assert "examples:" in text
    for example in command.examples:
        words = shlex.split(example)
        assert words[:2] == ["tiltd", name]
        parser_of(command).parse_args(words[2:])


def test_a_wrong_option_is_exit_code_2() -> None:
    with pytest.raises(SystemExit) as left:
        dispatch(["list", "--colour"])
    assert left.value.code == 2
    with pytest.raises(SystemExit) as left:
        dispatch(["rerun", "x", "--set", "novalue"])
    assert left.value.code == 2


@pytest.mark.parametrize(
    ("text", "value"), [("a=1", 1), ("a=1.5", 1.5), ("a=false", False), ("a=", ""), ("a=x y", "x y")]
)
def test_options(text: str, value: object) -> None:
    assert option(text) == ("a", value)
    assert type(option(text)[1]) is type(value)


def test_help_imports_little() -> None:
    code = (
        "import sys; from tiltd.daemon.cli.dispatch import dispatch; dispatch(['--help']);"
        "heavy = {'pydantic', 'aiohttp', 'numpy', 'asyncio', 'msgspec', 'structlog'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = code.replace("['--help']", "['list', '--socket', '/none']").replace("'msgspec', ", "")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
