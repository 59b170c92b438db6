"""Tokens: who may read or act over TCP, in which projects.  The file holds hashes, never a token.

A token is 256 random bits, so a plain SHA-256 of it can be neither guessed nor looked up; a slow hash is for
passwords.  The file is read again when it changed, and believed only if nobody else may write to it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tiltd.daemon.core.model import Record

FORMAT = 1
FILE_BYTES_MAX = 4_000_000
PREFIX = "tiltd_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
ALL = "*"
SECRET_BYTES_MIN = 16
"""Of the secret by which a reverse proxy proves itself."""

Rights = Literal["read", "act"]


class TokenError(Exception):
    """The file cannot be used; the message names it and says what to do."""


class Token(Record):
    """``projects`` are exact names, or ``*`` for all; ``expires_at`` of 0 is never."""

    name: str
    sha256: str
    rights: Rights
    projects: tuple[str, ...]
    created_at: float
    expires_at: float = 0.0


class _File(Record):
    format: int
    tokens: tuple[Token, ...]


def hash_of(token: str) -> str:
    """Hex SHA-256 of a token's text."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


class TokenFile:
    """Reads and rewrites one file.  Cost: a ``stat`` a question, the file when it changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._signature: tuple[int, int, int, int] | None = None
        self._by_hash: dict[str, Token] = {}

    def read(self) -> tuple[Token, ...]:
        """All tokens; none if there is no file.  Raises TokenError."""
        try:
            with open(self.path, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise TokenError(f"{self.path}: cannot be read: {error.strerror}") from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise TokenError(f"{self.path}: others may write to it, so no token is believed; chmod 600 it")
        try:
            found = msgspec.convert(json.loads(content), _File)
        except (ValueError, RecursionError) as error:
            raise TokenError(
                f"{self.path}: is no file of tokens ({error}); mend it or move it away"
            ) from None
        if found.format != FORMAT:
            raise TokenError(f"{self.path}: has format {found.format}, this tiltd reads {FORMAT}")
        return found.tokens

    def find(self, sha256: str, now: float) -> Token | None:
        """The token with this hash that has not expired.  Raises TokenError."""
        token = self._current().get(sha256)
        return token if token is not None and not 0 < token.expires_at <= now else None

    def _current(self) -> dict[str, Token]:
        try:
            seen = self.path.stat()
        except OSError:
            self._signature, self._by_hash = None, {}
            return {}
        signature = (seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_mode)
        if signature != self._signature:
            self._by_hash = {}
            self._by_hash = {token.sha256: token for token in self.read()}
            self._signature = signature
        return self._by_hash

    def add(
        self, name: str, rights: Rights, projects: Sequence[str], now: float, expires_at: float = 0.0
    ) -> str:
        """Make a token and return it: this once, for the file keeps its hash.  Raises TokenError."""
        if not NAME.fullmatch(name):
            raise TokenError(f"{name!a} is no name for a token: 1 to 64 of A-Z a-z 0-9 . _ @ -")
        with self._locked():
            tokens = self.read()
            if any(token.name == name for token in tokens):
                raise TokenError(f"there is a token {name} already; revoke it first")
            secret = PREFIX + secrets.token_urlsafe(32)
            new = Token(
                name=name,
                sha256=hash_of(secret),
                rights=rights,
                projects=tuple(projects) or (ALL,),
                created_at=now,
                expires_at=expires_at,
            )
            self._write((*tokens, new))
        return secret

    def revoke(self, name: str) -> bool:
        """False if there was none of this name.  Raises TokenError."""
        with self._locked():
            tokens = self.read()
            left = tuple(token for token in tokens if token.name != name)
            if len(left) == len(tokens):
                return False
            self._write(left)
        return True

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            descriptor = os.open(
                self.path.with_name(f".{self.path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600
            )
        except OSError as error:
            raise TokenError(f"{self.path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, tokens: tuple[Token, ...]) -> None:
        text = json.dumps(msgspec.to_builtins(_File(format=FORMAT, tokens=tokens)), indent=1) + "\n"
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            owner = self.path.parent.stat()
            with contextlib.suppress(FileNotFoundError):
                new.unlink()
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                if os.geteuid() == 0:  # made by root for a daemon that is somebody else
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise TokenError(f"{self.path}: cannot be written: {error.strerror}") from None
