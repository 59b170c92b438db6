from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import structlog

from tiltd.daemon import logs
from tiltd.daemon.clock import Clock
from tiltd.daemon.text import one_line, shown


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("TS_01", "TS_01"),
        ("Zelle 3 (kalt) ä 日", "Zelle 3 (kalt) ä 日"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\udcff.mrc", "\\xff.mrc"),
        ("\ud83d", "\\ud83d"),
        ("\u202egnp", "\\u202egnp"),
        ("a\\nb", "a\\\\nb"),
        ("$(reboot); `x`", "$(reboot); `x`"),
        ("", ""),
    ],
)
def test_a_name_is_one_printable_line(name: str, line: str) -> None:
    assert shown(name) == line
    assert shown(name).isprintable()
    shown(name).encode("utf-8")


def test_every_character_becomes_printable() -> None:
    for code in range(0x11_0000):
        assert shown(chr(code)).isprintable()


def test_the_clock_does_not_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    before = clock.now()
    assert abs(before - time.time()) < 1.0
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0.0 <= clock.now() - before < 1.0


@pytest.fixture
def quiet() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.basicConfig(force=True, handlers=[])


@pytest.mark.usefixtures("quiet")
def test_one_event_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("json", "info")
    log = structlog.get_logger("tiltd")
    log.info("found", name="a\n2026 [error] forged \udcff")
    log.debug("not told")
    logging.getLogger("aiohttp").warning("careful\nnow")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert json.loads(lines[0])["name"] == "a\\n2026 [error] forged \\xff"
    assert json.loads(lines[1])["event"] == "careful\\nnow"


@pytest.mark.usefixtures("quiet")
def test_one_event_is_one_line_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("console", "warning")
    structlog.get_logger("tiltd").warning("found", name="a\nb\x1b[31m")
    structlog.get_logger("tiltd").info("not told")
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line
    assert "a\\nb" in line


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("style", ["json", "console"])
def test_a_traceback_is_one_line_too(
    capsys: pytest.CaptureFixture[str], style: Literal["json", "console"]
) -> None:
    logs.set_up(style, "info")
    with structlog.contextvars.bound_contextvars(dataset="x-1.1.1"):
        for log in (structlog.get_logger("tiltd"), logging.getLogger("aiohttp")):
            try:
                raise ValueError("a\n2026 [error] forged")
            except ValueError:
                log.exception("a bug")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "x-1.1.1" in line and "test_text_clock_logs.py" in line and "ValueError" in line


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("style", ["json", "console"])
def test_journald_is_told_the_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: Literal["json", "console"]
) -> None:
    with open(tmp_path / "stream", "w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setattr(sys, "stderr", stream)
        for ours in (True, False):
            monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + (not ours)}")
            logs.set_up(style, "info")
            structlog.get_logger("tiltd").warning("careful")
            structlog.get_logger("tiltd").info("well")
            logging.getLogger("aiohttp").error("wrong")
        stream.flush()
    begins = [line[:3] for line in (tmp_path / "stream").read_text().splitlines()]
    assert begins[:3] == ["<4>", "<6>", "<3>"] and "<" not in "".join(begins[3:])


def test_a_sentence_keeps_names_that_are_escaped_already() -> None:
    sentence = f"cannot read {shown('a' + chr(10))!s}"
    assert one_line(sentence) == sentence
    assert one_line("a\nb\\c\x1b") == "a\\nb\\c\\x1b"
