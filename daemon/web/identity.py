"""Request -> Principal: the kernel's word on the unix socket; over TCP a token, a session, a trusted proxy,
or (for reading, from this machine) nothing at all.

Whatever was tried and is wrong is a refusal, never a step down to the next way.  Wrong tokens empty a bucket
of the address that they come from; while it is empty nothing is looked up for that address.  The same wrong
token again is no guess: a program that was left with an old one keeps nobody else out.
"""

from __future__ import annotations

import hmac
import ipaddress
import pwd
import socket
import struct
from collections import OrderedDict
from collections.abc import Callable

import structlog
from aiohttp import web

from tiltd.daemon.config import AccessSettings, Settings
from tiltd.daemon.text import shown
from tiltd.daemon.tokens import SECRET_BYTES_MIN, Token, TokenError, TokenFile, hash_of

from .access import Principal, projects_of
from .limits import Buckets
from .refusal import Refusal
from .sessions import Sessions

COOKIE = "tiltd_session"
GUESSES, GUESSES_PER_SECOND = 10.0, 1 / 30
TRIED_MAX = 1024
TOKEN_CHARACTERS_MAX = 200
USER_CHARACTERS_MAX = 200
SECRET_HEADER = "X-Tiltd-Proxy-Secret"
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
SIGN_IN = "sign in with a token, or send it as 'Authorization: Bearer TOKEN'; `tiltd token add` makes one"


class Identity:
    """One for all doors.  ``unix`` tells whether the request came through the socket."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        self.access: AccessSettings = settings.access
        self.tokens = TokenFile(settings.tokens_file)
        self.sessions = Sessions(now)
        self.guesses = Buckets(GUESSES, GUESSES_PER_SECOND, now)
        self._tried: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._now = now
        self._proxies = [ipaddress.ip_network(each) for each in self.access.proxy_from]
        self._groups = {group.name: group for group in self.access.groups}
        self._secret = self._proxy_secret()
        self._log = structlog.get_logger("tiltd.access")
        if not self._secret and any(network.is_loopback for network in self._proxies):
            self._log.warning(
                "every user of this machine can claim to be the proxy of proxy_from; set proxy_secret_file"
            )

    def _proxy_secret(self) -> bytes:
        path = self.access.proxy_secret_file
        if path is None:
            return b""
        try:
            secret = path.read_bytes().split(b"\n", 1)[0].strip()
        except OSError as error:
            raise OSError(f"proxy_secret_file {path} cannot be read: {error.strerror}") from None
        if len(secret) < SECRET_BYTES_MIN:
            raise OSError(f"proxy_secret_file {path}: its first line must have {SECRET_BYTES_MIN} characters")
        return secret

    # -- the ways to come -----------------------------------------------------------------------------------

    def of(self, request: web.Request) -> Principal:
        """Raises Refusal: 401 without (or with wrong) credentials, 403 for what they do not allow, 429."""
        if is_unix(request):
            name = peer_name(request)
            return Principal(name=name, via="socket", acts=True, anchor=f"socket:{name}")
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _principal(self._token(request, secret.strip()), anchor="")
        if self.from_proxy(request):  # which may have its own use for that header
            return self._vouched(request)
        if scheme:
            raise Refusal(401, f"tiltd knows bearer tokens only: {SIGN_IN}")
        return self._signed_in(request) or self._nobody(request)

    def sign_in(self, request: web.Request, secret: str) -> str:
        """A session's id for a good token.  Raises Refusal."""
        token = self._token(request, secret.strip())
        self._log.info("signed in", token=token.name, address=self.address(request))
        return self.sessions.begin(token.sha256)

    def _token(self, request: web.Request, secret: str) -> Token:
        address = self.address(request)
        sha256 = hash_of(secret) if 0 < len(secret) <= TOKEN_CHARACTERS_MAX else ""
        tried = (address, sha256) in self._tried
        if not tried and (wait := self.guesses.empty_for(address)):
            raise Refusal(
                429,
                f"too many wrong tokens from {address}; try again in {wait:.0f} s",
                retry_after_seconds=wait,
            )
        token = self._find(sha256) if sha256 else None
        if token is None:
            if not tried:
                self._guessed(address, sha256)
            raise Refusal(401, f"this token is not known or has expired; {SIGN_IN}")
        return token

    def _guessed(self, address: str, sha256: str) -> None:
        self.guesses.take(address)
        self._log.warning("a wrong token", address=address)
        if sha256:
            self._tried[address, sha256] = None
        if len(self._tried) > TRIED_MAX:
            self._tried.popitem(last=False)

    def _find(self, sha256: str) -> Token | None:
        try:
            return self.tokens.find(sha256, self._now())
        except TokenError as error:
            self._log.error(str(error))
            raise Refusal(503, "the file of tokens cannot be used; the daemon's log says why") from None

    def _signed_in(self, request: web.Request) -> Principal | None:
        session_id = request.cookies.get(COOKIE, "")
        session = self.sessions.find(session_id)
        token = self._find(session.token_sha256) if session is not None else None
        if token is None:
            self.sessions.end(session_id)
            return None
        return _principal(token, anchor=f"session:{session_id}")

    # -- single sign-on -------------------------------------------------------------------------------------

    def from_proxy(self, request: web.Request) -> bool:
        if not self._proxies:
            return False
        peer = _ip(request.remote)
        return peer is not None and any(peer in network for network in self._proxies)

    def _vouched(self, request: web.Request) -> Principal:
        """Whom the proxy names.  The rights are the most, the projects all those, of the groups named."""
        if self._secret:
            given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, self._secret):
                raise Refusal(401, f"the proxy must send the secret of proxy_secret_file as {SECRET_HEADER}")
        users = request.headers.getall(self.access.proxy_user_header, [])
        if len(users) > 1:
            raise Refusal(400, f"{self.access.proxy_user_header} stands twice in the request")
        user = users[0].strip() if users else ""
        if not user:
            if principal := self._signed_in(request):
                return principal
            raise Refusal(401, f"the proxy named no user in {self.access.proxy_user_header}; {SIGN_IN}")
        if len(user) > USER_CHARACTERS_MAX:
            raise Refusal(400, "the user's name is too long")
        named = ",".join(request.headers.getall(self.access.proxy_groups_header, []))
        mine = [self._groups[name] for each in named.split(",") if (name := each.strip()) in self._groups]
        if not mine:
            raise Refusal(403, f"{shown(user)} is in none of the groups that tiltd.toml lets in")
        return Principal(
            name=shown(user),
            via="proxy",
            acts=any(group.rights == "act" for group in mine),
            projects=projects_of([project for group in mine for project in group.projects]),
            anchor=f"proxy:{user}",
        )

    # -- without credentials --------------------------------------------------------------------------------

    def _nobody(self, request: web.Request) -> Principal:
        """Reading is open to this machine (or everyone, or nobody).  A request that was passed on by a proxy
        nobody told us of is not from this machine, whatever its address."""
        allowed = self.access.open == "everyone" or (
            self.access.open == "loopback"
            and is_loopback(request.remote)
            and not any(header in request.headers for header in FORWARDED)
        )
        if not allowed:
            raise Refusal(401, f"who are you? {SIGN_IN}")
        return Principal(name="anyone", via="open", anchor="open")

    def address(self, request: web.Request) -> str:
        """Whose guesses are counted: the peer, or whom a trusted proxy passed on."""
        remote = request.remote or "socket"
        if self.from_proxy(request):
            passed_on = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
            found = _ip(passed_on)
            return str(found) if found is not None else remote
        return remote

    def is_https(self, request: web.Request) -> bool:
        return self.from_proxy(request) and request.headers.get("X-Forwarded-Proto", "") == "https"


def _principal(token: Token, anchor: str) -> Principal:
    return Principal(
        name=token.name,
        via="token",
        acts=token.rights == "act",
        projects=projects_of(token.projects),
        anchor=anchor,
    )


def is_unix(request: web.Request) -> bool:
    connection = request.get_extra_info("socket")
    return connection is not None and connection.family == socket.AF_UNIX


def is_loopback(address: str | None) -> bool:
    found = _ip(address)
    return found is not None and found.is_loopback


def _ip(address: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def peer_name(request: web.Request) -> str:
    """The user at the other end of the unix socket, as the kernel tells (SO_PEERCRED)."""
    if not is_unix(request):
        raise Refusal(403, "this is done on tiltd's own unix socket only")
    connection = request.get_extra_info("socket")
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
