"""A real SMTP server (aiosmtpd) and a real receiver of webhooks (aiohttp), which answer as the test says."""

from __future__ import annotations

import asyncio
import email
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

PASSWORD = "correct horse"


class PostOffice:
    """``mails`` are those that were taken, by (recipient, message).  ``answers``: what is said to the next
    messages instead; ``refused``: addresses that there are not; ``silent``: takes a mail, says nothing;
    ``thinks_seconds``: so long before it says that it was taken."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, EmailMessage]] = []
        self.raw: list[bytes] = []
        self.answers: list[str] = []
        self.refused: dict[str, str] = {}
        self.silent = False
        self.thinks_seconds = 0.0
        self.port = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answers:
            return self.answers.pop(0)
        self.raw.append(envelope.content)
        message = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.mails += [(address, message) for address in envelope.rcpt_tos]
        if self.silent:
            await asyncio.sleep(3600)
        await asyncio.sleep(self.thinks_seconds)
        return "250 taken"

    @asynccontextmanager
    async def open(
        self, *, certificate: Path | None = None, implicit: bool = False, login: bool = False
    ) -> AsyncIterator[PostOffice]:
        """On a port of this machine.  ``certificate``: a PEM file with its key; ``implicit``: TLS from the
        first byte instead of STARTTLS."""
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)

        def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            fine = isinstance(data, LoginPassword) and data.password == PASSWORD.encode()
            return AuthResult(success=fine, handled=False)

        def protocol() -> SMTP:
            return SMTP(
                self,
                hostname="post.example",
                tls_context=None if implicit else context,
                require_starttls=context is not None and not implicit,
                authenticator=authenticate if login else None,
                auth_required=login,
                auth_require_tls=not implicit,
                enable_SMTPUTF8=False,
            )

        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol, "127.0.0.1", self.port, ssl=context if implicit else None)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()


class Receiver:
    """``bodies`` are what was posted, ``answers`` what is said to the next: (status, headers)."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks/very-secret"

    async def _take(self, request: web.Request) -> web.Response:
        status, headers = self.answers.pop(0) if self.answers else (200, {})
        if 200 <= status < 300:
            self.bodies.append(json.loads(await request.text()))
            self.headers.append(dict(request.headers))
        return web.Response(status=status, headers=headers, text="no such hook" if status >= 400 else "ok")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Receiver]:
        app = web.Application()
        app.router.add_post("/hooks/very-secret", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()
