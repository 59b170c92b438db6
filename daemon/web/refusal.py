"""A request that is answered with a sentence, and the JSON of answers."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web


class Refusal(Exception):
    """A request that is answered with a sentence.  ``more`` is added to the JSON."""

    def __init__(self, status: int, sentence: str, **more: Any) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.more = status, sentence, more


def answer(value: Any, status: int = 200) -> web.Response:
    """JSON in ASCII, so that names with lone surrogates pass."""
    return web.Response(
        text=json.dumps(value, ensure_ascii=True), status=status, content_type="application/json"
    )
