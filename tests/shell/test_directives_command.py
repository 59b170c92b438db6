"""``tiltd directives``: what a series is given, what a directive means, what is wrong with a file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from plugins.imod_scene import GOLDEN, book_of, series_of
from shell.fake_daemon import FakeDaemon, dataset, fake_daemon
from tiltd.daemon.cli.checking import examine
from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.web import Servers
from tiltd.plugins.api import Permanent
from tiltd.plugins.imod.settings import ImodSettings

BATCH = (GOLDEN / "full_big_2cpu" / "batch.adoc").read_text()
SITE = """
state_dir = "{root}/state"
[imod]
templates = "{root}/templates"
directive_file = "b.adoc"
directives_csv = "{root}/directives.csv"
[[feed]]
name = "krios1"
path = "{root}/feed"
pipeline = "batchruntomo"
destination = "{root}/results/{{series}}"
[feed.options]
comparam.tilt.tilt.THICKNESS = 300
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("IMOD_DIR", raising=False)
    for name in ("templates", "feed", "results", "state"):
        (tmp_path / name).mkdir()
    (tmp_path / "templates" / "b.adoc").write_text(BATCH)
    (tmp_path / "directives.csv").write_text((GOLDEN / "directives.csv").read_text())
    path = tmp_path / "tiltd.toml"
    path.write_text(SITE.format(root=tmp_path))
    return path


def test_the_table_imod_is_shared_and_dotted_options_need_no_quotes(config: Path) -> None:
    settings = Settings.load(config)
    assert settings.table("batchruntomo")["imod"]["directive_file"] == "b.adoc"
    assert "imod" not in settings.table("wbp")
    assert settings.feeds[0].options == {"comparam.tilt.tilt.THICKNESS": 300}
    config.write_text(config.read_text().replace("[imod]", "[imood]"))
    with pytest.raises(ConfigError, match="imood: unknown key"):
        Settings.load(config)


def test_check_tells_a_wrong_directive_before_any_series_comes(config: Path) -> None:
    def told() -> Any:
        (check,) = (each for each in examine(config) if each.what == "options of feed krios1")
        return check

    assert told().ok
    template = config.parent / "templates" / "b.adoc"
    template.write_text(BATCH + "comparam.tilt.tilt.THICKNES = 3\n")
    assert not told().ok
    assert "b.adoc:42: comparam.tilt.tilt.THICKNES" in told().detail
    assert "did you mean comparam.tilt.tilt.THICKNESS" in told().detail


def test_check_tells_what_it_goes_by_and_what_cannot_be_read(config: Path) -> None:
    def told() -> list[Any]:
        return [each for each in examine(config) if each.what == "directives of batchruntomo"]

    (found,) = told()
    assert found.ok and "directives in" in found.detail and "directives.csv, 1 templates" in found.detail
    (config.parent / "templates" / "big.adoc").write_bytes(b"#" * 1_000_001)
    (config.parent / "directives.csv").write_text("nothing\n")
    own, big, table = told()
    assert own.ok and "tiltd's own table" in own.detail
    assert "big.adoc is larger than" in big.detail and "no table of directives" in table.detail
    config.write_text(config.read_text().replace("/templates", "/templetes"))
    assert any("templetes is no folder" in each.detail for each in told())


def test_explain(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["directives", "explain", "THICKNESS", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "comparam.tilt.tilt.THICKNESS"
    assert "test words: thickness of the tomogram" in out and "type     Int" in out
    assert dispatch(["directives", "explain", "trackingMethod", "--config", str(config), "--json"]) == 0
    assert "runtime.Fiducials.any.trackingMethod" in json.loads(capsys.readouterr().out)["key"]
    assert dispatch(["directives", "explain", "THICKNESSS", "--config", str(config)]) == 4
    assert "THICKNESSS" in capsys.readouterr().err


def test_check_files(config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def check(text: str, *more: str) -> tuple[int, str]:
        path = tmp_path / "given.adoc"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        code = dispatch(["directives", "check", str(path), "--config", str(config), *more])
        return code, capsys.readouterr().out

    assert check(BATCH) == (0, "1 files, 0 faults, 0 warnings\n")
    code, out = check("setupset.scanHeader = yes\n\udcff\x1b[2J\n")
    assert code == 1
    told = "given.adoc:2: \\xff\\x1b[2J has no '='; write key = value, or begin the line with #"
    assert told in out.splitlines()[1]
    assert "given.adoc:1: setupset.scanHeader is 'yes'; a Bool has to be 0 or 1" in out
    assert "\x1b" not in out
    assert check("setupset.scanHeader = 1\n", "--template")[0] == 1
    code, out = check("setupset.scanHeader = yes\n", "--json")
    assert (code, json.loads(out)["faults"][0]["line"]) == (1, 1)
    assert dispatch(["directives", "check", str(tmp_path / "none"), "--config", str(config)]) == 1
    assert "cannot be read: No such file" in capsys.readouterr().out


def test_wrong_usage_is_said(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["directives", "explain", "x", "--config", str(config), "--pipeline", "wbp"]) == 2
    assert "the pipeline wbp takes no directives" in capsys.readouterr().err
    config.write_text("[imod]\ntemplate = '/x'\n")
    assert dispatch(["directives", "explain", "x", "--config", str(config)]) == 2
    assert "unknown key 'template'; did you mean 'templates'" in capsys.readouterr().err


def test_check_judges_the_templates_as_a_reload_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A template with a fault is told although no feed names it; what a feed's options mend is none."""
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "broken.adoc").write_text("runtime.Fiducials.any.seedingMethod=1\nbad line\n")
    (templates / "day.adoc").write_text("setupset.scopeTemplate=/elsewhere/krios.adoc\n")
    config = tmp_path / "tiltd.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\n[imod]\ntemplates = "{templates}"\n'
        f'[[feed]]\nname = "krios1"\npath = "{tmp_path}/in"\npipeline = "batchruntomo"\n'
        f'destination = "{tmp_path}/out/{{series}}"\n'
    )
    assert dispatch(["check", "--config", str(config)]) == 1
    out = capsys.readouterr().out
    assert f"FAIL  directives of batchruntomo: {templates}/broken.adoc:2: bad line has no '='" in out
    assert "/elsewhere" not in out


# -- show ----------------------------------------------------------------------------------------------------


def answer_of(one: Any) -> Any:
    if one.tilt_series_name == "TS_gone":
        raise Permanent("user_template is 'x.adoc', but none has it")
    if one.tilt_series_name == "TS_wbp":
        return None
    options = {"comparam.tilt.tilt.THICKNESS": 300, "runtime.Trimvol.any.reorient": 7}
    origins = {"comparam.tilt.tilt.THICKNESS": "feed krios1", "runtime.Trimvol.any.reorient": "operator"}
    book = book_of({"b.adoc": BATCH}, settings=ImodSettings(directive_file="b.adoc"))
    return book.shown_for(series_of(320), options, origins, 4)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    found = fake_daemon(tmp_path)
    names = ("TS_gone", "TS_wbp", "TS_arriving", "TS_brt")
    rows = [dataset(f"{name}-9.1.1", name, series=series_of(320)) for name in names]
    rows[2] = dataset("TS_arriving-9.1.1", "TS_arriving")
    found.core.state.datasets |= {row.dataset_id: row for row in rows}
    found.core.directives = lambda one: None if one.series is None else answer_of(one)
    servers = Servers(found)
    await servers.start()
    yield found
    await servers.stop()


async def show(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    socket = ["--socket", str(tmp_path / "tiltd.sock")]
    code = await asyncio.to_thread(dispatch, ["directives", "show", *words, *socket])
    told = capsys.readouterr()
    return code, told.out, told.err


async def test_show(daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = await show(tmp_path, capsys, "TS_brt", "--all")
    assert code == 1  # a run would be refused
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "comparam.tilt.tilt.THICKNESS = 300 feed krios1" in lines
    assert "not 220 (directive file /site/templates/b.adoc:38)" in lines
    assert "setupset.copyarg.name = stack tiltd a safe name on scratch, mapped back at the end" in lines
    assert any(
        line.startswith("operator: runtime.Trimvol.any.reorient is 7; it has to be 0, 1 or 2")
        for line in lines
    )
    code, out, _ = await show(tmp_path, capsys, "TS_brt", "--json")
    keys = {row["key"]: row for row in json.loads(out)["directives"]}
    assert keys["comparam.tilt.tilt.THICKNESS"]["layer"] == "feed"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("TS_gone", "user_template is 'x.adoc'"),
        ("TS_wbp", "its pipeline takes none (wbp)"),
        ("TS_arriving", "its files are not complete yet"),
    ],
)
async def test_what_cannot_be_shown(
    daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    code, _, err = await show(tmp_path, capsys, name)
    assert code == 1 and words in err


async def test_an_unknown_series_is_not_found(
    daemon: FakeDaemon, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await show(tmp_path, capsys, "nothing"))[0] == 4
