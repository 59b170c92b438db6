"""``tiltd notices``, its trial, and what ``tiltd check`` says of the channels; the examples of the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shell.daemon_process import POLICY, DaemonProcess, Site
from shell.town import Town
from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.cli.notices import _about
from tiltd.daemon.config import Settings
from tiltd.daemon.core.model import Policy
from tiltd.policy.policy import Known, load

RULES = """
[[notice]]
name = "all"
events = ["delivered", "failed"]
to = ["anna@example.org", "chat"]
[[notice]]
name = "daily"
how = "digest"
when = { project = "p" }
to = "anna@example.org"
"""


def configured(folder: Path, town: Town, *, port: int = 0, **site: Any) -> Site:
    more = f"""
[notices.email]
host = "127.0.0.1"
port = {port or town.office.port}
tls = "none"
from = "tiltd@example.org"
[[notices.webhook]]
name = "chat"
url = "{town.receiver.url}"
style = "slack"
"""
    return Site(folder, policy=POLICY + RULES, more=more, **site)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = dispatch(list(words))
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_trial_reaches_everybody_whom_the_policy_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Town().open() as town:
        config = str(configured(tmp_path, town).config)
        code, text = said(capsys, "notices", "test", "--config", config)
        assert code == 0 and "ok    anna@example.org" in text and "ok    chat" in text
        assert [mail["Subject"] for _, mail in town.office.mails] == [
            "[tiltd] this is a trial: tiltd can reach you here"
        ]
        assert "trial" in town.receiver.bodies[0]["text"]
        town.office.refused = {"ben@example.org": "550 nobody of that name"}
        code, text = said(
            capsys, "notices", "test", "--config", config, "--to", "ben@example.org", "--to", "nosuch"
        )
        assert code == 1 and "FAIL  ben@example.org" in text and "nobody of that name" in text
        assert "FAIL  nosuch: tiltd.toml has no webhook of the name nosuch" in text
        assert len(town.office.mails) == 1


def test_check_tells_whether_the_channels_can_be_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Town().open() as town:
        config = str(configured(tmp_path, town).config)
        _, text = said(capsys, "check", "--config", config)
        assert re.search(r"^ok    notices by e-mail: 127.0.0.1:\d+ answers unencrypted$", text, re.M)
        assert re.search(r"^ok    notices to chat: 127.0.0.1:\d+ can be reached", text, re.M)
        assert town.office.mails == town.receiver.bodies == [], "nothing was sent"
    code, text = said(capsys, "check", "--config", config)
    assert (
        code == 1 and "FAIL  notices by e-mail: the mail server" in text and "FAIL  notices to chat" in text
    )
    assert "very-secret" not in text


def test_a_rule_for_a_channel_that_there_is_not_is_a_fault_of_the_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path, policy=POLICY + RULES)
    code, text = said(capsys, "check", "--config", str(site.config))
    assert code == 1 and "[notices.email]" in text and '"chat" is no webhook of tiltd.toml' in text


@pytest.mark.slow
def test_what_does_not_get_through_is_listed_with_the_reason_and_goes_out_when_the_server_is_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Town().open() as town:
        port = town.office.port
    site = configured(tmp_path, town, port=port)
    daemon = DaemonProcess(site).start()
    site.feed("TS_1.mrc")
    daemon.delivered("TS_1")
    socket = ("--socket", str(site.socket))
    daemon.wait(lambda: all(e["trouble"] for e in site.client.get("notices")["due"]))
    code, text = said(capsys, "notices", *socket)
    assert code == 0 and "cannot be used" in text and "cannot be reached" in text
    assert "anna@example.org" in text and "1 came in, 1 delivered, 0 need a person" in text
    _, metrics = site.client.text("/metrics")
    assert 'tiltd_notices_due{channel="email"} 1.0' in metrics and "tiltd_notices_digests 1.0" in metrics
    assert re.search(r'^tiltd_notices_failures_total\{channel="webhook"\} [1-9]', metrics, re.M)
    with Town.at(port, town.receiver.port).open() as back:
        daemon.wait(lambda: not site.client.get("notices")["due"], 30.0)
        assert len(back.office.mails) == len(back.receiver.bodies) == 1
    code, text = said(capsys, "notices", "--json", *socket)
    lately = json.loads(text)["lately"]
    assert {(each["to"], each["sent"]) for each in lately} >= {("anna@example.org", True), ("chat", True)}
    _, metrics = site.client.text("/metrics")
    assert 'tiltd_notices_sent_total{channel="email"} 1.0' in metrics
    daemon.stop()


@pytest.mark.parametrize(
    ("notice_id", "told"),
    [
        (r"digest:all\x00krios1\x00\x00s9@1795392068", "digest: all, krios1, s9"),
        (
            r"gathered:delivered\x00\x00krios1\x00p@1795392013:anna@example.org",
            "gathered: delivered, krios1, p",
        ),
        ("delivered:TS_01-c1486400.2.1", "delivered: TS_01-c1486400.2.1"),
        ("breaker:node:n1@1795392013", "breaker: node:n1"),
    ],
)
def test_what_was_told_is_listed_in_words(notice_id: str, told: str) -> None:
    assert _about(notice_id) == told


def test_the_examples_of_the_page_are_right(project: Path, tmp_path: Path) -> None:
    page = (project / "docs" / "notices.md").read_text("utf-8")
    settings_text, policy_text = re.findall(r"```toml\n(.*?)```", page, re.S)
    (tmp_path / "tiltd.toml").write_text(settings_text)
    settings = Settings.load(tmp_path / "tiltd.toml")
    assert settings.notices.email is not None and settings.notices.names == ["team-chat"]
    found = load(
        [("30-notices.toml", policy_text)], known=Known(webhooks=settings.notices.names, sends_mail=True)
    )
    assert isinstance(found, Policy) and len(found.notice_rules) == 4
