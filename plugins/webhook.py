"""Notifier ``webhook``: one POST of JSON, as it is, or as Slack or Mattermost want it.

The address is a secret (whoever has it may post), so no sentence of this module contains it, only its host.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from tiltd.daemon.core.model import Notice
from tiltd.daemon.text import one_line, shown
from tiltd.plugins.api import Context, Permanent, Temporary

from .notice_text import plain

MEND_SECONDS = 900.0
ANSWER_BYTES = 2000
SECRET_BYTES_MAX = 10_000
BODY_REFUSED = frozenset({400, 413, 422})
"""This message will not be taken as it is; for other answers of 4xx there is something to be mended."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")


class WebhookNotifier:
    """Settings: those of one ``[[notices.webhook]]``."""

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self._name = str(settings["name"])
        self._url = str(settings.get("url", ""))
        self._url_file = settings.get("url_file")
        self._style = str(settings.get("style", "json"))
        self._seconds = float(settings.get("timeout_seconds", 30.0))
        self._page_url = str(settings.get("page_url", ""))

    async def notify(self, notice: Notice) -> None:
        """Raises Temporary or Permanent, with the receiver's own word."""
        body = body_of(notice, self._style, self._page_url)
        await self._post(body, notice.sent_id)

    async def probe(self) -> str:
        """Can a connection be made?  Nothing is posted: a webhook cannot be asked without being told."""
        parts = urlsplit(await self._address())
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(self._seconds):
                _, writer = await asyncio.open_connection(parts.hostname, port)
        except (OSError, TimeoutError) as error:
            raise Temporary(f"{parts.hostname}:{port} cannot be reached: {_said(error)}") from None
        writer.close()
        return f"{parts.hostname}:{port} can be reached; 'tiltd notices test --to {self._name}' posts to it"

    async def _address(self) -> str:
        url = self._url
        if self._url_file:
            try:
                url = await asyncio.to_thread(_first_line, str(self._url_file))
            except OSError as error:
                sentence = f"url_file of the webhook {self._name} cannot be read: {error.strerror}"
                raise Temporary(sentence, MEND_SECONDS) from None
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            usable = False
        if not usable:
            raise Temporary(f"the webhook {self._name} has no http or https address", MEND_SECONDS)
        return url

    async def _post(self, body: Mapping[str, Any], sent_id: str) -> None:
        url = await self._address()
        host = urlsplit(url).hostname
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "tiltd",
            "Idempotency-Key": _header(sent_id),
        }
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
                session.post(
                    url, data=json.dumps(body).encode(), headers=headers, allow_redirects=False
                ) as answer,
            ):
                said = (await answer.content.read(ANSWER_BYTES)).decode("utf-8", "replace")
                status, retry_after = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Temporary(f"the webhook {self._name} ({host}) cannot be reached: {_said(error)}") from None
        self._judge(status, f"{host} answers {status} {shown(said.strip()[:120])}".strip(), retry_after)

    def _judge(self, status: int, said: str, retry_after: str) -> None:
        sentence = f"the webhook {self._name}: {said}"
        if 200 <= status < 300:
            return
        if status in BODY_REFUSED:
            raise Permanent(sentence)
        if status == 429 or status >= 500:
            raise Temporary(sentence, min(3600.0, float(retry_after)) if retry_after.isdecimal() else 0.0)
        raise Temporary(f"{sentence}; is its address still right?", MEND_SECONDS)


def body_of(notice: Notice, style: str, page_url: str = "") -> dict[str, Any]:
    """The JSON to post.  ``text`` is what people read: in it no name can call a channel or make a link."""
    text = plain(notice, page_url)
    if style == "slack":
        return {"text": slack_text(text), "mrkdwn": False, "unfurl_links": False}
    if style == "mattermost":
        return {"text": mattermost_text(text)}
    told = msgspec.to_builtins(notice)
    del told["to"], told["cause"], told["quiet_until_at"]
    if told["digest"] is not None:
        del told["digest"]["to"]
    return {"text": text, **_printable(told)}


def _printable(value: Any) -> Any:
    """Names as they are shown: receivers may refuse halves of characters."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, dict):
        return {one_line(key): _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def slack_text(text: str) -> str:
    """Slack's three characters; what stands in ``<...>`` would be a link or call a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def mattermost_text(text: str) -> str:
    """Markdown switched off, addresses aside; a space of no width parts ``@`` from what would be called."""
    words = (
        word if word.startswith(("http://", "https://")) else _MARKDOWN.sub(r"\\\1", word)
        for word in re.split(r"(\s+)", text)
    )
    return "".join(words).replace("@", "@\u200b")


def _first_line(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(SECRET_BYTES_MAX).split(b"\n", 1)[0].strip().decode("utf-8", "replace")


def _header(sent_id: str) -> str:
    """Fit for a header, and still one of its own."""
    return "".join(letter if letter.isascii() and letter.isprintable() else "_" for letter in sent_id)[-300:]


def _said(error: BaseException) -> str:
    """aiohttp's sentences name hosts; one about the address itself would name that."""
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return "its address is no address"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return shown(str(error)[:200]) or type(error).__name__
