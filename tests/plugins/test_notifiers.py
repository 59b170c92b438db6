"""Mail over a real SMTP server, webhooks over real HTTP: what arrives, what is refused, hostile names."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from plugins.post_office import PASSWORD, PostOffice, Receiver
from tiltd.daemon.core.model import Digest, Notice, NoticeItem, Spread, seconds_class
from tiltd.plugins.api import Context, Permanent, PluginError, Temporary
from tiltd.plugins.email import EmailNotifier, message_of
from tiltd.plugins.notice_html import html
from tiltd.plugins.notice_text import SUBJECT_MAX, TEXT_MAX, plain, subject
from tiltd.plugins.webhook import WebhookNotifier, body_of

CONTEXT = Context(state_folder="", spool_folder="", journal_id="j1", owner="")
EVIL = (
    'x"\r\nBcc: evil@example.org\r\n\r\n<script>alert(1)</script> <!channel> @all [a](http://e) '
    "\udce9\x1b[31m & co"
)
NOTICE = Notice(
    notice_id="failed:TS_01.a1",
    event="failed",
    summary="TS_01-3fa2c1d0.1.1 failed: 3 attempts failed",
    dataset_id="TS_01-3fa2c1d0.1.1",
    name="TS_01",
    project="apoferritin",
    session="2026-11-22",
    feed="krios1",
    due_at=1_795_000_000.0,
    to=("anna@example.org",),
    remedy="'tiltd retry' once it is mended",
)
HOSTILE = replace(NOTICE, summary=f"{EVIL} failed", name=EVIL, project=EVIL, session=EVIL, remedy=EVIL)
ITEM = NoticeItem(
    event="held", at=1.0, summary="TS_07-00000000.1.1 is held: noise", dataset_id="TS_07-00000000.1.1",
    name="TS_07", remedy="look at it",
)  # fmt: skip
DIGEST = replace(
    NOTICE,
    event="digest",
    summary="session 2026-11-22: 41 came in, 39 delivered, 4 need a person",
    dataset_id="",
    name="",
    remedy="",
    digest=Digest(
        rule="daily", to=("anna@example.org",), feed="krios1", project="apoferritin", session="2026-11-22",
        since_at=1_794_960_000.0, came_in=41, delivered=39, doubtful=2, failed=1, under_way=1,
        seconds={seconds_class(720.0): 39}, longest_seconds=2460.0,
        quality={"residual_nm": Spread(count=39, total=19.5, least=0.4, most=1.2)}, items=(ITEM,), more=3,
    ),
)  # fmt: skip


def mailer(office: PostOffice, **settings: Any) -> EmailNotifier:
    known = {"host": "localhost", "port": office.port, "tls": "none", "sender": "tiltd <tiltd@example.org>"}
    return EmailNotifier(known | {"timeout_seconds": 5.0} | settings, CONTEXT)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For localhost, signed by itself."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", str(path), "-out", str(path.with_suffix(".crt"))],
        check=True, capture_output=True,
    )  # fmt: skip
    with path.open("a") as file:
        file.write(path.with_suffix(".crt").read_text())
    return path


# -- mail ----------------------------------------------------------------------------------------------------


async def test_a_mail_says_what_happened_and_what_to_do_in_plain_text_first() -> None:
    async with PostOffice().open() as office:
        await mailer(office, page_url="https://em.example.org/tiltd").notify(NOTICE)
    ((address, mail),) = office.mails
    assert address == mail["To"] == "anna@example.org" and mail["From"] == "tiltd <tiltd@example.org>"
    assert mail["Subject"] == "[tiltd] TS_01-3fa2c1d0.1.1 failed: 3 attempts failed"
    assert mail["Auto-Submitted"] == "auto-generated" and "2026" in mail["Date"]
    parts = list(mail.iter_parts())
    assert [part.get_content_type() for part in parts] == ["text/plain", "text/html"]
    text = parts[0].get_content()
    for line in (
        "Series: TS_01", "Project: apoferritin", "Session: 2026-11-22", "Feed: krios1",
        "What to do: 'tiltd retry' once it is mended",
        "https://em.example.org/tiltd/datasets/TS_01-3fa2c1d0.1.1",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert "tiltd retry" in parts[1].get_content()


async def test_the_same_notice_has_the_same_message_id_and_another_one_another() -> None:
    async with PostOffice().open() as office:
        for notice in (
            NOTICE,
            NOTICE,
            replace(NOTICE, notice_id="other"),
            replace(NOTICE, to=("b@example.org",)),
        ):
            await mailer(office).notify(notice)
    ids = [mail["Message-ID"] for _, mail in office.mails]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    later = message_of(
        replace(NOTICE, due_at=NOTICE.due_at + 60.0), "anna@example.org", "tiltd@example.org", "j1"
    )
    assert later["Message-ID"] not in ids, "it failed again: that is news"
    assert all(each.startswith("<") and each.endswith("@example.org>") for each in ids)
    assert office.raw[0].split(b"boundary")[0] == office.raw[1].split(b"boundary")[0], "the Date as well"


async def test_a_hostile_name_adds_no_header_no_recipient_and_no_markup() -> None:
    async with PostOffice().open() as office:
        await mailer(office).notify(HOSTILE)
    ((address, mail),) = office.mails
    assert address == "anna@example.org" and mail["Bcc"] is None
    assert "\\r\\nBcc" in mail["Subject"] and len(mail.get_all("Subject")) == 1
    assert max(map(len, office.raw[0].splitlines())) <= 998
    text, page = (part.get_content() for part in mail.iter_parts())
    assert "\x1b" not in text + page and "<script" not in page and "&lt;script&gt;" in page
    assert {*mail.keys()} == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Tiltd-Event", "MIME-Version",
        "Content-Type", "X-Peer", "X-MailFrom", "X-RcptTo",
    } - ({"X-Peer", "X-MailFrom", "X-RcptTo"} - {*mail.keys()})  # fmt: skip


def test_subjects_and_texts_have_an_end() -> None:
    long = replace(NOTICE, summary="x" * 100_000)
    assert len(subject(long)) <= SUBJECT_MAX + len("[tiltd] ")
    many = replace(NOTICE, items=(replace(ITEM, summary="y" * 5000),) * 50)
    assert len(plain(many)) <= TEXT_MAX + 100 and "and more" in plain(many)
    assert message_of(long, "a@example.org", "tiltd@example.org").as_bytes()


async def test_starttls_and_a_password(certificate: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(PASSWORD + "\n")
    safe = {
        "tls": "starttls",
        "user": "tiltd",
        "password_file": tmp_path / "password",
        "ca_file": certificate,
    }
    async with PostOffice().open(certificate=certificate, login=True) as office:
        await mailer(office, **safe).notify(NOTICE)
        assert "tiltd may log in" in await mailer(office, **safe).probe()
        (tmp_path / "password").write_text("wrong horse\n")
        with pytest.raises(Temporary, match="user or the password") as told:
            await mailer(office, **safe).notify(NOTICE)
        assert told.value.delay_seconds >= 900.0 and "horse" not in str(told.value)
        (tmp_path / "password").unlink()
        with pytest.raises(Temporary, match=r"password_file .* cannot be read: No such file"):
            await mailer(office, **safe).notify(NOTICE)
        (tmp_path / "password").write_text(PASSWORD)
        with pytest.raises(Temporary, match=r"TLS failed|cannot be used"):
            await mailer(office, **safe | {"ca_file": None}).notify(NOTICE)
    assert len(office.mails) == 1


async def test_tls_from_the_first_byte(certificate: Path) -> None:
    async with PostOffice().open(certificate=certificate, implicit=True) as office:
        await mailer(office, tls="tls", ca_file=certificate).notify(NOTICE)
    assert len(office.mails) == 1


async def test_a_server_without_starttls_is_not_spoken_to_in_the_clear() -> None:
    async with PostOffice().open() as office:
        with pytest.raises(Temporary, match=r"cannot do what tls asks|cannot be used"):
            await mailer(office, tls="starttls").notify(NOTICE)
    assert office.mails == []


@pytest.mark.parametrize(
    ("recipient", "data", "kind"),
    [
        ("550 no such user", "", Permanent),
        ("450 greylisted", "", Temporary),
        ("", "554 we do not like this", Permanent),
        ("", "452 no room", Temporary),
    ],
)
async def test_what_a_server_refuses_is_for_now_or_for_good(
    recipient: str, data: str, kind: type[PluginError]
) -> None:
    async with PostOffice().open() as office:
        office.refused = {"anna@example.org": recipient} if recipient else {}
        office.answers = [data] if data else []
        with pytest.raises(kind, match=(recipient or data)[4:]):
            await mailer(office).notify(NOTICE)
        office.refused = {}
        await mailer(office).notify(NOTICE)
    assert len(office.mails) == 1


async def test_a_server_that_is_away_or_hangs_is_trouble_in_words() -> None:
    office = PostOffice()
    async with office.open():
        pass
    with pytest.raises(Temporary, match=f"the mail server localhost:{office.port} cannot be used"):
        await mailer(office).notify(NOTICE)
    office.silent = True
    async with office.open():
        with pytest.raises(Temporary, match=r"cannot be used|took more than"):
            await mailer(office, timeout_seconds=0.3).notify(NOTICE)


# -- digests -------------------------------------------------------------------------------------------------


def test_what_is_incomplete_came_in_too() -> None:
    assert DIGEST.digest is not None
    broke_off = replace(DIGEST, digest=replace(DIGEST.digest, incomplete=2))
    assert "What came in:    43 tilt series (2 of them incomplete)" in plain(broke_off, "").splitlines()


def test_a_digest_in_words() -> None:
    text = plain(DIGEST, "https://em.example.org")
    for line in (
        "What came in:    41 tilt series",
        "What is done:    39 delivered (2 of them doubtful), 1 failed",
        "It took:         12 min from the last tilt to the tomogram (median), 41 min at most",
        "Quality, residual_nm: 0.5 on average, from 0.4 to 1.2",
        "Under way:       1",
        "Needs a person:  4",
        "* TS_07: TS_07-00000000.1.1 is held: noise",
        "  what to do: look at it",
        "  https://em.example.org/datasets/TS_07-00000000.1.1",
        "* and 3 more",
    ):
        assert line in text.splitlines(), text
    page = html(DIGEST, "https://em.example.org")
    assert "39 delivered" in page and "look at it" in page and "and 3 more" in page


def test_a_digest_of_hostile_names_is_text() -> None:
    assert DIGEST.digest is not None
    evil = replace(DIGEST.digest, items=(replace(ITEM, name=EVIL, summary=EVIL, remedy=EVIL),), quality={})
    notice = replace(DIGEST, project=EVIL, session=EVIL, digest=evil)
    assert "<script" not in html(notice) and "\x1b" not in html(notice) + plain(notice)
    assert "Bcc:" not in [line[:4] for line in plain(notice).splitlines()]


# -- webhooks ------------------------------------------------------------------------------------------------


def hook(receiver: Receiver, **settings: Any) -> WebhookNotifier:
    return WebhookNotifier({"name": "chat", "url": receiver.url, "timeout_seconds": 5.0} | settings, CONTEXT)


async def test_a_webhook_gets_json(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver().open() as receiver:
        await hook(receiver).notify(DIGEST)
    (body,) = receiver.bodies
    assert body["event"] == "digest" and body["digest"]["delivered"] == 39 and "39 delivered" in body["text"]
    assert "anna@example.org" not in json.dumps(body), "who else is told is nobody's business"
    assert receiver.headers[0]["Idempotency-Key"] == NOTICE.sent_id


async def test_slack_and_mattermost_get_text_in_which_no_name_calls_anybody() -> None:
    async with Receiver().open() as receiver:
        for style in ("slack", "mattermost", "json"):
            await hook(receiver, style=style).notify(HOSTILE)
    slack, mattermost, own = receiver.bodies
    assert "<" not in slack["text"] and "&lt;!channel&gt;" in slack["text"] and "&amp; co" in slack["text"]
    assert slack["mrkdwn"] is False
    assert "@all" not in mattermost["text"] and "](" not in mattermost["text"].replace("\\]", "")
    assert "\\<script\\>" in mattermost["text"]
    assert own["name"].isprintable() and "\udce9" not in json.dumps(own, ensure_ascii=False)


def test_links_stay_links() -> None:
    url = "https://em.example.org"
    assert f"{url}/datasets/TS_01-3fa2c1d0.1.1" in body_of(NOTICE, "mattermost", url)["text"]


@pytest.mark.parametrize(
    ("status", "headers", "kind", "delay_seconds"),
    [
        (400, {}, Permanent, None),
        (404, {}, Temporary, 900.0),
        (403, {}, Temporary, 900.0),
        (302, {"Location": "http://169.254.169.254/"}, Temporary, 900.0),
        (429, {"Retry-After": "120"}, Temporary, 120.0),
        (429, {"Retry-After": "soon"}, Temporary, 0.0),
        (503, {}, Temporary, 0.0),
    ],
)
async def test_what_a_receiver_answers(
    status: int, headers: dict[str, str], kind: type[PluginError], delay_seconds: float | None
) -> None:
    async with Receiver().open() as receiver:
        receiver.answers = [(status, headers)]
        with pytest.raises(kind) as told:
            await hook(receiver).notify(NOTICE)
        assert str(status) in str(told.value) and "secret" not in str(told.value)
        assert delay_seconds is None or told.value.delay_seconds == delay_seconds  # type: ignore[attr-defined]
        await hook(receiver).notify(NOTICE)
    assert len(receiver.bodies) == 1


async def test_an_address_from_a_file_and_what_is_wrong_with_it_never_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "url"
    async with Receiver().open() as receiver:
        path.write_text(receiver.url + "\n")
        from_file = hook(receiver, url="", url_file=path)
        await from_file.notify(NOTICE)
        assert "can be reached" in await from_file.probe()
    assert len(receiver.bodies) == 1
    for content in (
        receiver.url,
        "http://nosuchhost.invalid/very-secret",
        "file:///very-secret",
        "http://[x/very-secret",
    ):
        path.write_text(content)
        with pytest.raises(Temporary) as told:
            await from_file.notify(NOTICE)
        assert "very-secret" not in str(told.value)
    path.unlink()
    with pytest.raises(Temporary, match="url_file of the webhook chat cannot be read"):
        await from_file.notify(NOTICE)


async def test_a_receiver_that_never_answers_takes_its_time_and_no_more() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    with pytest.raises(Temporary, match="no answer in time"):
        await WebhookNotifier({"name": "chat", "url": url, "timeout_seconds": 0.2}, CONTEXT).notify(NOTICE)
    server.close()
