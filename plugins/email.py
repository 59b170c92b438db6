"""Notifier ``email``: one mail to one address, over SMTP.

The ``Message-ID`` follows from the notice and the address: a mail that is sent again, because tiltd died
between the server's word and its own journal, is recognised as the same one by servers and mail readers.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any

import aiosmtplib

from tiltd.daemon.core.model import Notice
from tiltd.daemon.text import shown
from tiltd.plugins.api import Context, Permanent, PluginError, Temporary

from .notice_html import html
from .notice_text import plain, subject

PORTS = {"starttls": 587, "tls": 465, "none": 25}
MEND_SECONDS = 900.0
"""What an administrator has to mend is tried again so seldom."""
GREY_SECONDS = 300.0
BYE_SECONDS = 5.0
ANSWER_MAX = 200
SECRET_BYTES_MAX = 10_000


class EmailNotifier:
    """Settings: those of ``[notices.email]``.  The password is read anew for each mail, and told nowhere."""

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self._host = str(settings["host"])
        self._tls = str(settings.get("tls", "starttls"))
        self._port = int(settings.get("port") or PORTS[self._tls])
        self._user = str(settings.get("user", ""))
        self._password_file = settings.get("password_file")
        self._ca_file = settings.get("ca_file")
        self._sender = str(settings["sender"])
        self._seconds = float(settings.get("timeout_seconds", 30.0))
        self._page_url = str(settings.get("page_url", ""))
        self._journal_id = context.journal_id
        self.where = f"{self._host}:{self._port}"

    async def notify(self, notice: Notice) -> None:
        """To ``notice.to[0]``.  Raises Temporary or Permanent, with the server's own word."""
        (address,) = notice.to
        message = message_of(notice, address, self._sender, self._journal_id, self._page_url)
        async with self._told(), self._connected() as client:
            await client.sendmail(parseaddr(self._sender)[1], [address], message.as_bytes())

    async def probe(self) -> str:
        """Speak to the server, log in where there is a user, send nothing.  Raises as ``notify``."""
        async with self._told(), self._connected() as client:
            await client.noop()
        how = {"starttls": "with STARTTLS", "tls": "with TLS", "none": "unencrypted"}[self._tls]
        return f"{self.where} answers {how}" + (f", {shown(self._user)} may log in" if self._user else "")

    def _told(self) -> _Told:
        return _Told(f"the mail server {self.where}", 4 * self._seconds)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        """Connected and logged in.  A server that does not say good-bye has taken the mail all the same."""
        client = await self._client()
        try:
            await client.connect()
            yield client
            with suppress(Exception):
                async with asyncio.timeout(BYE_SECONDS):
                    await client.quit()
        finally:
            client.close()

    async def _client(self) -> aiosmtplib.SMTP:
        context, password = await asyncio.to_thread(self._read)
        return aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._user or None,
            password=password or None,
            local_hostname=_own_name(),
            timeout=self._seconds,
            use_tls=self._tls == "tls",
            start_tls=self._tls == "starttls",
            tls_context=context,
        )

    def _read(self) -> tuple[ssl.SSLContext | None, str]:
        try:
            context = None
            if self._tls != "none":
                context = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
            return context, secret_in(self._password_file) if self._user and self._password_file else ""
        except OSError as error:
            what = "notices.email.password_file or ca_file cannot be read"
            raise Temporary(f"{what}: {error.strerror or type(error).__name__}", MEND_SECONDS) from None


def secret_in(path: object) -> str:
    """The first line of a file.  Raises OSError."""
    with Path(str(path)).open("rb") as file:
        return file.read(SECRET_BYTES_MAX).split(b"\n", 1)[0].strip().decode("utf-8", "replace")


def message_of(
    notice: Notice, address: str, sender: str, journal_id: str = "", page_url: str = ""
) -> EmailMessage:
    """The whole mail, the same for the same notice and address whenever it is made.  Plain text first."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = address
    message["Subject"] = subject(notice)
    message["Date"] = format_datetime(datetime.fromtimestamp(notice.due_at, UTC))
    message["Message-ID"] = message_id(notice.sent_id, address, sender, journal_id)
    message["Auto-Submitted"] = "auto-generated"
    message["X-Tiltd-Event"] = notice.event
    message.set_content(plain(notice, page_url), cte="quoted-printable")
    message.add_alternative(html(notice, page_url), subtype="html", cte="quoted-printable")
    return message


def message_id(sent_id: str, address: str, sender: str, journal_id: str) -> str:
    told = "\0".join((journal_id, sent_id, address)).encode("utf-8", "surrogateescape")
    return f"<{hashlib.sha256(told).hexdigest()[:40]}.tiltd@{parseaddr(sender)[1].rpartition('@')[2]}>"


def _own_name() -> str:
    """For EHLO.  ``getfqdn`` would ask the DNS, and may hang."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9.-]{1,200}", name) else "localhost"


class _Told:
    """What goes wrong inside becomes Temporary or Permanent, with one sentence."""

    def __init__(self, who: str, seconds: float) -> None:
        self._who = who
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Temporary(f"{self._who} took more than {self._seconds:g} s") from None
        if error is not None and not isinstance(error, PluginError) and isinstance(error, Exception):
            raise self._trouble(error) from None

    def _trouble(self, error: Exception) -> PluginError:
        match error:
            case aiosmtplib.SMTPRecipientsRefused(recipients=[first, *_]):
                return self._refused(first, "the address")
            case aiosmtplib.SMTPRecipientRefused():
                return self._refused(error, "the address")
            case aiosmtplib.SMTPAuthenticationError():
                return Temporary(
                    f"{self._who} refuses the user or the password: {_said(error)}", MEND_SECONDS
                )
            case aiosmtplib.SMTPSenderRefused():
                return Temporary(f"{self._who} refuses the sender: {_said(error)}", MEND_SECONDS)
            case aiosmtplib.SMTPDataError():
                return self._refused(error, "the message")
            case aiosmtplib.SMTPNotSupported():
                return Temporary(f"{self._who} cannot do what tls asks for: {_said(error)}", MEND_SECONDS)
            case ssl.SSLError():
                return Temporary(f"{self._who}: TLS failed: {_said(error)}", MEND_SECONDS)
            case aiosmtplib.SMTPException() | OSError():
                return Temporary(f"{self._who} cannot be used: {_said(error)}")
        raise error

    def _refused(self, error: aiosmtplib.SMTPResponseException, what: str) -> PluginError:
        """4xx is for now (greylisting, a full mailbox), 5xx for good."""
        sentence = f"{self._who} refuses {what}: {_said(error)}"
        return Permanent(sentence) if error.code >= 500 else Temporary(sentence, GREY_SECONDS)


def _said(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return shown(f"{error.code} {error.message}"[:ANSWER_MAX])
    return shown(str(error)[:ANSWER_MAX]) or type(error).__name__
