"""Signed-in browsers, in memory: a restart of the daemon has everybody sign in again."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

from tiltd.daemon.core.model import Record

SESSIONS_MAX = 1000
SESSION_SECONDS = 12 * 3600.0


class Session(Record):
    """Stands for the token by its hash: once that is revoked or has expired, so has the session."""

    token_sha256: str
    expires_at: float


class Sessions:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: OrderedDict[str, Session] = OrderedDict()
        self._key = secrets.token_bytes(32)

    def begin(self, token_sha256: str) -> str:
        """A new session's id, for the cookie; the oldest goes when there are too many."""
        session_id = secrets.token_urlsafe(32)
        self._known[session_id] = Session(token_sha256=token_sha256, expires_at=self._now() + SESSION_SECONDS)
        if len(self._known) > SESSIONS_MAX:
            self._known.popitem(last=False)
        return session_id

    def find(self, session_id: str) -> Session | None:
        session = self._known.get(session_id)
        if session is not None and session.expires_at <= self._now():
            del self._known[session_id]
            return None
        return session

    def end(self, session_id: str) -> None:
        self._known.pop(session_id, None)

    def csrf(self, anchor: str) -> str:
        """What a form of this visit has to bring back.  A page of another site cannot read it."""
        return hmac.new(self._key, anchor.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def csrf_is_good(self, anchor: str, given: str) -> bool:
        wanted = self.csrf(anchor)
        return hmac.compare_digest(wanted.encode("ascii"), given.encode("utf-8", "replace"))
