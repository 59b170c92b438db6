"""Who may see and do what: tokens, sessions, proxies, projects; forged, guessed and crooked requests."""

from __future__ import annotations

import asyncio
import json
import os
import re
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from shell.web_scene import SECRET, XSS, facility
from tiltd.daemon.tokens import Token, TokenError, TokenFile, hash_of
from tiltd.daemon.web import Servers
from tiltd.daemon.web.access import Principal
from tiltd.daemon.web.limits import Buckets

MINE = "TS_04-00000004.1.1"
THEIRS = f"{SECRET}_04-00000004.1.1"
Opened = Callable[..., Awaitable["Place"]]


class Place:
    """Servers over TCP, with tokens of every kind."""

    def __init__(self, daemon: Any, servers: Servers) -> None:
        self.daemon, self.servers = daemon, servers
        assert servers.room is not None
        self.room = servers.room
        self.tokens = self.room.identity.tokens
        self.base = f"http://127.0.0.1:{servers.port}"
        self.own = self.tokens.add("apo", "read", ["apoferritin"], 1.0)
        self.own_act = self.tokens.add("apo-act", "act", ["apoferritin"], 1.0)
        self.all_read = self.tokens.add("reader", "read", [], 1.0)
        self.all_act = self.tokens.add("ada", "act", ["*"], 1.0)

    async def ask(
        self, method: str, path: str, token: str = "", headers: dict[str, str] | None = None, **more: Any
    ) -> tuple[int, str, Any]:
        headers = dict(headers or {}) | ({"Authorization": f"Bearer {token}"} if token else {})
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            address = URL(self.base + path, encoded=True)
            async with session.request(
                method, address, headers=headers, allow_redirects=False, **more
            ) as response:
                return response.status, (await response.read()).decode("utf-8", "replace"), response.headers

    async def get(self, path: str, token: str = "", **headers: str) -> tuple[int, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text, _ = await self.ask("GET", path, token, named)
        return status, text

    async def act(self, body: Any, token: str, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, text, _ = await self.ask("POST", "/api/v1/actions", token, named, json=body)
        return status, json.loads(text)

    async def signed_in(self, token: str) -> tuple[dict[str, str], str]:
        """The cookie's header, and what the forms of that visit bring back."""
        _, page = await self.get("/login", Accept="text/html")
        fields = {"csrf": csrf(page), "token": token, "to": "/nodes"}
        status, _, headers = await self.ask("POST", "/login", data=fields)
        assert (status, headers["Location"]) == (303, "/nodes")
        cookie = {"Cookie": headers["Set-Cookie"].partition(";")[0]}
        _, page, _ = await self.ask("GET", "/", headers=cookie)
        return cookie, csrf(page)


def csrf(page: str) -> str:
    found = re.search(r'name="csrf" value="([0-9a-f]{64})"', page)
    assert found, page
    return found[1]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    running: list[Servers] = []

    async def begin(access: str = "") -> Place:
        daemon = facility(tmp_path, access)
        servers = Servers(daemon)
        await servers.start()
        running.append(servers)
        return Place(daemon, servers)

    yield begin
    for servers in running:
        await servers.stop()


@pytest.fixture
async def place(opened: Opened) -> Place:
    return await opened()


# -- one project's reader finds nothing of another's ---------------------------------------------------------


def addresses(place: Place) -> list[str]:
    """Every address that can be read, with our own and the other's names wherever a name stands."""
    found = []
    for route in place.room.routes():
        if route.method != "GET" or route.path.endswith("/events") or "{version" in route.path:
            continue
        path = re.sub(r"\{number:[^}]*\}+", "1", route.path)
        names = [MINE, "TS_06", "TS_11", THEIRS, f"{SECRET}_06", f"{SECRET}_13", SECRET[:5], "montage.mrc"]
        found += [re.sub(r"\{name:[^}]*\}", name, path) for name in names] if "{name" in path else [path]
    found += ["/datasets?text=" + SECRET[:4], "/api/v1/datasets?limit=10000", "/datasets?state=failed"]
    found += [f"/api/v1/datasets?project={SECRET}", f"/datasets?project={SECRET}", "/datasets?held=yes"]
    return list(dict.fromkeys(found))


async def test_one_projects_reader_finds_nothing_of_anothers(place: Place) -> None:
    told = 0
    for path in addresses(place):
        for accept in ("text/html", "application/json"):
            status, text = await place.get(path, place.own, Accept=accept)
            assert status in (200, 403, 404), (path, status)
            # What they typed themselves is told back.
            for typed in (THEIRS, f"{SECRET}_06", f"{SECRET}_13", f"project={SECRET}"):
                text = text.replace(typed, "") if typed in path else text
            if f"project={SECRET}" in path:
                text = text.replace(f'value="{SECRET}"', "")
            assert SECRET not in text.lower(), (path, text)
            told += "apoferritin" in text
    assert told > 10, "the reader sees its own"


async def test_who_sees_all_sees_both(place: Place) -> None:
    seen = [path for path in addresses(place) if SECRET in (await place.get(path, place.all_read))[1]]
    assert len(seen) > 15, seen


async def test_anothers_dataset_is_answered_like_one_that_is_not(place: Place) -> None:
    for path in (
        "/api/v1/datasets/{}",
        "/api/v1/datasets/{}/facts",
        "/api/v1/datasets/{}/directives",
        "/api/v1/why/{}",
    ):
        theirs = await place.get(path.format(THEIRS), place.own)
        none = await place.get(path.format("nothing"), place.own)
        assert theirs == (404, none[1].replace("nothing", THEIRS))
    for path in ("", "/pictures/0", "/report", "/attempts/1/log"):
        status, _ = await place.get(f"/datasets/{THEIRS}{path}", place.own)
        assert status == 404
    assert (await place.get(f"/datasets/{MINE}/attempts/1/log", place.own))[0] == 200
    assert (await place.get("/datasets/TS_11/pictures/0", place.own))[0] == 200


async def test_bookings_name_ones_own_series_and_sum_up_all(place: Place) -> None:
    told = {}
    for token in (place.own, place.all_read):
        nodes = json.loads((await place.get("/api/v1/nodes", token))[1])["nodes"]
        told[token] = next(node for node in nodes if node["name"] == "n1")
    own, everything = told[place.own], told[place.all_read]
    assert [each["attempt_id"] for each in own["bookings"]] == own["attempts"] == [f"{MINE}.a0", f"{MINE}.a1"]
    assert [each["plight"] for each in own["bookings"]] == ["leaked", "live"]
    assert own["bookings"][0]["why"] == [f"{MINE}.a0 cannot be swept: n1 is down"]
    assert own["bookings"][1]["why"] == []
    assert len(everything["bookings"]) == 5
    for sums in (own, everything):
        assert (sums["cores_reserved"], sums["scratch_reserved_bytes"]) == (2, 50_000_000_000)
        assert sums["scratch_leaked_bytes"] == 30_000_000_000


async def test_a_report_is_shown_as_a_strangers_page(place: Place) -> None:
    status, text, headers = await place.ask("GET", "/datasets/TS_11/report", place.own)
    assert status == 200 and "The report on TS_11" in text
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert (await place.get("/datasets/TS_06/report", place.own))[0] == 404
    assert "Its report" in (await place.get("/datasets/TS_11", place.own))[1]


async def test_directives_are_told_with_who_set_them(place: Place) -> None:
    status, text = await place.get(f"/api/v1/datasets/{MINE}/directives", place.own)
    body = json.loads(text)
    assert status == 200 and body["dataset_id"] == MINE
    assert body["directives"][0]["value"] == "10 TS_04" and body["faults"][0]["line"] == 3
    page = (await place.get(f"/datasets/{MINE}", place.own, Accept="text/html"))[1]
    assert "setupset.copyarg.gold" in page and "<img src=x" not in page
    status, text = await place.get("/api/v1/datasets/TS_01/directives", place.own)
    assert status == 422 and "not complete yet" in text


async def test_the_page_asks_the_scheduler_once_a_minute(place: Place) -> None:
    manager = place.daemon.plugged.manager
    for words in (["checkjob: too few cores"], ["something else"]):
        manager.words = words
        page = (await place.get("/datasets/TS_05", place.own, Accept="text/html"))[1]
        assert "checkjob: too few cores for 4711.server" in page
    assert "something else" in (await place.get("/api/v1/why/TS_05", place.own))[1]


async def test_nobody_acts_on_anothers_datasets(place: Place) -> None:
    assert (await place.act({"action": "hold", "datasets": [THEIRS]}, place.own_act))[0] == 404
    _, body = await place.act(
        {"action": "hold", "selection": {"state": "ready,running,arriving"}}, place.own_act
    )
    assert {result["dataset_id"][:2] for result in body["results"]} == {"TS", "x-"}
    assert {asked.dataset_id[:2] for asked in place.daemon.asked} == {"TS", "x-"}
    status, body = await place.act({"action": "close_breaker", "reason": "node:n2"}, place.own_act)
    assert status == 403
    for path in ("/api/v1/policy/reload", "/api/v1/prune"):
        assert (await place.ask("POST", path, place.own_act, json={}))[0] == 403


async def test_events_are_of_ones_own_projects(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltd.daemon.web.hub.GATHER_SECONDS", 0.05)
    datasets = place.daemon.core.state.datasets
    heard: dict[str, str] = {}

    async def listen(who: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        address = f"{place.base}/api/v1/events"
        async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as stream:
            assert stream.headers["Content-Type"].startswith("text/event-stream")
            await stream.content.readuntil(b"hello\n\n")
            ready.release()
            heard[who] = (await stream.content.readuntil(b"}\n\n")).decode()

    ready = asyncio.Semaphore(0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(listen("own", place.own))
        group.create_task(listen("all", place.all_read))
        await ready.acquire()
        await ready.acquire()
        place.servers.changed([datasets[THEIRS]])
        place.servers.changed([datasets[MINE]])
    assert SECRET not in heard["own"] and MINE in heard["own"]
    assert THEIRS in heard["all"] and MINE in heard["all"]


async def test_a_revoked_token_hears_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tiltd.daemon.web.hub.HEARTBEAT_SECONDS", 0.05)
    headers = {"Authorization": f"Bearer {place.own}"}
    address = f"{place.base}/api/v1/events"
    async with (
        asyncio.timeout(10),
        aiohttp.ClientSession() as session,
        session.get(address, headers=headers) as stream,
    ):
        await stream.content.readuntil(b"hello\n\n")
        place.tokens.revoke("apo")
        await stream.content.read()
    assert (await place.get("/api/v1/status", place.own))[0] == 401


# -- reading and acting are two ------------------------------------------------------------------------------


async def test_reading_is_open_here_and_acting_is_not(place: Place) -> None:
    assert (await place.get("/api/v1/status"))[0] == 200
    assert (await place.get("/metrics"))[0] == 200
    status, body = await place.act({"action": "hold", "datasets": [MINE]}, place.all_read)
    assert status == 403 and "may read, not act" in body["error"]
    status, body = await place.act({"action": "hold", "datasets": [MINE]}, place.all_act)
    assert status == 200 and body["results"][0]["ok"]
    asked = place.daemon.asked[0]
    assert (asked.by, asked.via, asked.dataset_id) == ("ada", "token", MINE)


async def test_results_are_removed_by_the_socket_only(place: Place) -> None:
    status, text, _ = await place.ask("POST", "/api/v1/prune", place.all_act, json={"what": ["spool"]})
    assert status == 403 and "unix socket" in text
    assert place.daemon.pruned == []


async def test_some_projects_see_no_metrics_and_no_policy(place: Place) -> None:
    for path in ("/metrics", "/policy", "/api/v1/notices"):
        assert (await place.get(path, place.own))[0] == 403
        assert (await place.get(path, place.all_read))[0] == 200


async def test_nothing_is_open_when_nobody_may(opened: Opened) -> None:
    place = await opened('open = "nobody"')
    for path in ("/", "/api/v1/status", "/metrics", "/api/v1/events", "/datasets/TS_11/pictures/0"):
        assert (await place.get(path))[0] == 401, path
    assert await place.get("/readyz") == (200, '{"ready": true, "reasons": []}')
    assert (await place.get("/healthz"))[0] == 200
    assert (await place.get("/", place.own))[0] == 200


async def test_what_a_proxy_passed_on_is_not_from_this_machine(place: Place) -> None:
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        status, text, _ = await place.ask("GET", "/api/v1/status", headers={header: "10.1.2.3"})
        assert status == 401 and "who are you" in text


async def test_every_route_says_what_it_needs(place: Place) -> None:
    """Without credentials, where nothing is open, only these answer."""
    free = {route.path for route in place.room.routes() if route.need == "nothing"}
    assert free == {
        "/healthz", "/readyz", "/login", "/favicon.ico", "/static/{version:[0-9a-f]{8}}/{name:[a-z.]+}",
    }  # fmt: skip
    acting = {route.path for route in place.room.routes() if route.method == "POST"} - {"/login", "/logout"}
    needs = {route.path: route.need for route in place.room.routes() if route.method == "POST"}
    assert {path for path in acting if needs[path] not in ("act", "act_whole")} == {"/policy"}


# -- tokens --------------------------------------------------------------------------------------------------


def test_the_file_has_no_token_in_it(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    secret = file.add("grafana", "read", ["p1", "p2"], 5.0, expires_at=9.0)
    text = (tmp_path / "tokens.json").read_text()
    assert secret not in text and secret.removeprefix("tiltd_") not in text
    assert stat.S_IMODE((tmp_path / "tokens.json").stat().st_mode) == 0o600
    found = file.find(hash_of(secret), 8.0)
    assert found is not None and (found.name, found.projects) == ("grafana", ("p1", "p2"))
    assert file.find(hash_of(secret), 9.0) is None
    assert file.find(hash_of(secret + "x"), 8.0) is None


def test_tokens_are_named_once_and_revoked(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    secret = file.add("ada", "act", [], 1.0)
    with pytest.raises(TokenError, match="already"):
        file.add("ada", "read", [], 1.0)
    with pytest.raises(TokenError, match="no name for a token"):
        file.add("a\nb", "read", [], 1.0)
    assert file.find(hash_of(secret), 2.0) == Token(
        name="ada", sha256=hash_of(secret), rights="act", projects=("*",), created_at=1.0
    )
    assert TokenFile(file.path).revoke("ada") and not file.revoke("ada")
    assert file.find(hash_of(secret), 2.0) is None


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "tokens.json")
    secret = file.add("ada", "act", [], 1.0)
    file.path.chmod(0o620)
    with pytest.raises(TokenError, match="others may write"):
        file.find(hash_of(secret), 2.0)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 2, "tokens": []}', '{"format": 1}', "{" * 10_000])
async def test_a_broken_file_lets_nobody_in_and_stops_nobody_else(place: Place, content: str) -> None:
    place.tokens.path.write_text(content)
    os.utime(place.tokens.path, (1, 1))
    status, text = await place.get("/api/v1/status", place.all_act)
    assert status == 503 and "file of tokens" in text and "json" not in text
    assert (await place.get("/api/v1/status"))[0] == 200


async def test_guessing_is_stopped(place: Place) -> None:
    answers = [(await place.get("/api/v1/status", f"guess-{n}"))[0] for n in range(14)]
    assert answers == [401] * 10 + [429] * 4
    status, _, headers = await place.ask("GET", "/api/v1/status", place.all_act)
    assert status == 429 and 0 < int(headers["Retry-After"]) <= 30, "not even a good one is looked up"
    _, page = await place.get("/login", Accept="text/html")
    status, _, _ = await place.ask("POST", "/login", data={"csrf": csrf(page), "token": "x"})
    assert status == 429
    assert (await place.get("/api/v1/status"))[0] == 200, "who guesses nothing is not kept out"


async def test_no_token_is_told_to_the_log(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    await place.get("/api/v1/status", place.all_act)
    await place.get("/api/v1/status", "wrong-" + place.all_act)
    await place.signed_in(place.all_act)
    out = "".join(capsys.readouterr())
    assert "a wrong token" in out and place.all_act not in out


@pytest.mark.parametrize("scheme", ["Basic YTpi", "Bearer", "Bearer ", "Digest x", "x" * 5000])
async def test_crooked_credentials_are_refused_and_never_a_step_down(place: Place, scheme: str) -> None:
    status, _, headers = await place.ask("GET", "/api/v1/status", headers={"Authorization": scheme})
    assert status == 401 and "Bearer" in headers["WWW-Authenticate"]


# -- sessions and forged requests ----------------------------------------------------------------------------


async def test_signing_in_and_out(place: Place) -> None:
    cookie, token = await place.signed_in(place.own_act)
    status, text, _ = await place.ask("GET", "/datasets", headers=cookie)
    assert status == 200 and "apo-act" in text and SECRET not in text
    status, _, headers = await place.ask("POST", "/logout", headers=cookie, data={"csrf": token})
    assert (status, headers["Location"]) == (303, "/login")
    _, text, _ = await place.ask("GET", "/", headers=cookie)
    assert "apo-act" not in text


async def test_the_cookie_is_kept_from_scripts_and_other_sites(place: Place) -> None:
    _, page = await place.get("/login", Accept="text/html")
    data = {"csrf": csrf(page), "token": place.all_act}
    _, _, headers = await place.ask("POST", "/login", data=data)
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(headers["Set-Cookie"].split("; "))


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nX: y", "é"]
)
async def test_signing_in_leads_nowhere_else(place: Place, to: str) -> None:
    _, page = await place.get("/login", Accept="text/html")
    data = {"csrf": csrf(page), "token": place.all_act, "to": to}
    status, _, headers = await place.ask("POST", "/login", data=data)
    assert (status, headers["Location"]) == (303, "/")


@pytest.mark.parametrize(
    "path", [f"/datasets/{MINE}/act", "/act", "/breaker", "/policy/reload", "/policy", "/logout"]
)
@pytest.mark.parametrize("given", ["", "0" * 64, "login"])
async def test_a_form_without_its_secret_is_refused(place: Place, path: str, given: str) -> None:
    cookie, _ = await place.signed_in(place.all_act)
    if given == "login":
        given = csrf((await place.get("/login", Accept="text/html"))[1])
    fields = {"csrf": given, "action": "hold", "dataset": MINE}
    status, text, _ = await place.ask("POST", path, headers=cookie, data=fields)
    assert status == 403 and "not tiltd's own" in text
    assert place.daemon.asked == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
async def test_what_began_on_another_site_is_refused(place: Place, headers: dict[str, str]) -> None:
    cookie, token = await place.signed_in(place.all_act)
    fields = {"csrf": token, "action": "hold"}
    status, text, _ = await place.ask("POST", f"/datasets/{MINE}/act", headers=cookie | headers, data=fields)
    assert status == 403 and "another site" in text
    body = {"action": "hold", "datasets": [MINE]}
    connector = aiohttp.UnixConnector(str(place.daemon.settings.socket))
    address = "http://localhost/api/v1/actions"
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(address, json=body, headers=headers) as response,
    ):
        assert response.status == 403, "not even through a socket that was forwarded to a browser"
    assert place.daemon.asked == []


async def test_the_api_wants_a_session_to_bring_its_secret(place: Place) -> None:
    cookie, token = await place.signed_in(place.all_act)
    body = {"action": "hold", "datasets": [MINE]}
    status, _, _ = await place.ask("POST", "/api/v1/actions", headers=cookie, json=body)
    assert status == 403
    with_it = cookie | {"X-CSRF-Token": token}
    assert (await place.ask("POST", "/api/v1/actions", headers=with_it, json=body))[0] == 200


async def test_an_action_from_the_page(place: Place) -> None:
    cookie, token = await place.signed_in(place.all_act)
    path = f"/datasets/{MINE}/act"
    fields = {"csrf": token, "action": "hold", "reason": XSS}
    status, _, headers = await place.ask("POST", path, headers=cookie, data=fields)
    assert (status, headers["Location"]) == (303, f"/datasets/{MINE}")
    _, page, _ = await place.ask("GET", f"/datasets/{MINE}", headers=cookie)
    assert "hold done" in page
    assert "hold done" not in (await place.ask("GET", f"/datasets/{MINE}", headers=cookie))[1], "told once"
    fields = {"csrf": token, "action": "rerun", "option.binning": "8", "option.align": "false", "reason": ""}
    await place.ask("POST", path, headers=cookie, data=fields)
    fields = {"csrf": token, "action": "prioritize", "priority": "-5"}
    await place.ask("POST", path, headers=cookie, data=fields)
    asked = [(each.action, each.reason, each.options, each.priority) for each in place.daemon.asked]
    assert asked == [
        ("hold", XSS, {}, 0),
        ("rerun", "", {"binning": 8, "align": False}, 0),
        ("prioritize", "", {}, -5),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "close_breaker"},
        {"action": "burn"},
        {},
        {"action": "rerun", "option.nothing": "1"},
        {"action": "rerun", "option.binning": "x"},
        {"action": "rerun", "option.align": "maybe"},
        {"action": "prioritize", "priority": "1e3"},
        {"action": "hold", "reason": "x" * 1001},
    ],
)
async def test_a_crooked_form_is_a_sentence(place: Place, fields: dict[str, str]) -> None:
    cookie, token = await place.signed_in(place.all_act)
    path = f"/datasets/{MINE}/act"
    status, text, _ = await place.ask("POST", path, headers=cookie, data={"csrf": token} | fields)
    assert status == 400 and "error" in text
    assert place.daemon.asked == []


async def test_an_expired_session_is_nobody(place: Place) -> None:
    cookie, _ = await place.signed_in(place.all_act)
    place.tokens.revoke("ada")
    _, text, _ = await place.ask("GET", "/", headers=cookie)
    assert "reading only" in text


# -- single sign-on ------------------------------------------------------------------------------------------

PROXY = """
proxy_from = ["127.0.0.1/32"]
proxy_secret_file = "{secret}"
[[access.group]]
name = "apo-users"
projects = ["apoferritin"]
[[access.group]]
name = "staff"
rights = "act"
"""


@pytest.fixture
async def behind(opened: Opened, tmp_path: Path) -> Place:
    (tmp_path / "secret").write_text("a-long-shared-secret\n")
    return await opened(PROXY.format(secret=tmp_path / "secret"))


def vouched(user: str, groups: str, **more: str) -> dict[str, str]:
    found = {"X-Forwarded-User": user, "X-Forwarded-Groups": groups}
    return found | {"X-Tiltd-Proxy-Secret": "a-long-shared-secret"} | more


async def test_whom_the_proxy_names(behind: Place) -> None:
    status, text, _ = await behind.ask("GET", "/datasets", headers=vouched("eve", "x, apo-users"))
    assert status == 200 and "eve, reading only" in text and SECRET not in text
    status, text, _ = await behind.ask("GET", "/datasets", headers=vouched("ada", "staff"))
    assert status == 200 and SECRET in text
    body = {"csrf": csrf(text), "action": "hold"}
    status, _, _ = await behind.ask(
        "POST", f"/datasets/{MINE}/act", headers=vouched("ada", "staff"), data=body
    )
    assert status == 303 and (behind.daemon.asked[0].by, behind.daemon.asked[0].via) == ("ada", "proxy")
    status, _, _ = await behind.ask(
        "POST", f"/datasets/{MINE}/act", headers=vouched("bob", "staff"), data=body
    )
    assert status == 403, "a form is its reader's own"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (vouched("eve", "others"), 403),
        (vouched("eve", ""), 403),
        (vouched("", "staff"), 401),
        (vouched("eve", "staff", **{"X-Tiltd-Proxy-Secret": "guess"}), 401),
        ({"X-Forwarded-User": "eve", "X-Forwarded-Groups": "staff"}, 401),
        ({}, 401),
        (vouched("x" * 300, "staff"), 400),
    ],
)
async def test_whom_it_does_not(behind: Place, headers: dict[str, str], status: int) -> None:
    assert (await behind.ask("GET", "/api/v1/status", headers=headers))[0] == status


async def test_the_cookie_stays_on_https_behind_a_proxy_that_speaks_it(behind: Place) -> None:
    token = behind.all_act
    headers = vouched("", "", **{"X-Forwarded-Proto": "https", "X-Forwarded-Host": "tiltd.example.org"})
    _, page, _ = await behind.ask("GET", "/login", headers=headers | {"Accept": "text/html"})
    origin = {"Origin": "https://tiltd.example.org", "Sec-Fetch-Site": "same-origin"}
    data = {"csrf": csrf(page), "token": token}
    status, _, answered = await behind.ask("POST", "/login", headers=headers | origin, data=data)
    assert status == 303 and "Secure" in answered["Set-Cookie"]


async def test_a_name_given_twice_is_refused(behind: Place) -> None:
    headers = [*vouched("eve", "staff").items(), ("X-Forwarded-User", "ada")]
    address = f"{behind.base}/api/v1/status"
    async with aiohttp.ClientSession() as session, session.get(address, headers=headers) as response:
        assert response.status == 400


async def test_nobody_else_is_believed_to_be_the_proxy(opened: Opened) -> None:
    place = await opened('open = "nobody"\nproxy_from = ["10.9.9.9"]\n[[access.group]]\nname = "staff"')
    assert (await place.ask("GET", "/api/v1/status", headers=vouched("ada", "staff")))[0] == 401


# -- names, paths, amounts -----------------------------------------------------------------------------------

CROOKED = [
    "..", "../..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/etc/passwd", "%2Fetc%2Fpasswd", "a%00b", "%ff%fe", "C:%5Cx", "....//....//etc", "%252e%252e%252f",
]  # fmt: skip


@pytest.mark.parametrize("crooked", CROOKED)
async def test_no_parameter_leads_to_a_file(place: Place, crooked: str) -> None:
    (Path(place.daemon.settings.state_dir) / "passwd").write_text("root:x:0")
    paths = [f"/datasets/{crooked}", f"/datasets/{crooked}/pictures/0", f"/datasets/TS_11/pictures/{crooked}"]
    paths += [f"/datasets/TS_11/attempts/{crooked}/log", f"/static/00000000/{crooked}", f"/static/{crooked}"]
    paths += [f"/api/v1/datasets/{crooked}", f"/api/v1/why/{crooked}", f"/api/v1/datasets/{crooked}/facts"]
    paths += [f"/datasets?project={crooked}", f"/api/v1/ignored?feed={crooked}", f"/{crooked}"]
    for path in paths:
        status, text = await place.get(path, place.all_read)
        assert status in (200, 400, 404), (path, status)
        assert "root:" not in text and "Traceback" not in text
        assert status != 200 or "?" in path or crooked in ("..", "../.."), path


async def test_a_picture_is_a_picture_in_the_folder_itself(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "TS_11"
    (folder / "a.png").symlink_to("/etc/passwd")
    (folder / "b.png").write_text("<script>no picture</script>")
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(17 << 20))
    (folder / "d.png").mkdir()
    assert [(await place.get(f"/datasets/TS_11/pictures/{n}"))[0] for n in range(5)] == [
        200,
        404,
        404,
        404,
        404,
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", "{" * 9999, '{"files": [1]}', '{"files": {"a": 1}}', '{"files": null}']
)
async def test_a_manifest_that_is_none_costs_its_list_only(
    place: Place, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "results" / "TS_11" / "manifest.json"
    assert "tomogram.mrc" in (await place.get("/datasets/TS_11"))[1]
    path.write_text(content)
    status, text = await place.get("/datasets/TS_11")
    assert status == 200 and "tomogram.mrc" not in text


async def test_a_file_server_that_hangs_costs_the_pictures_and_not_the_page(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = threading.Event()
    monkeypatch.setattr("tiltd.daemon.web.page_data.FILE_SECONDS", 0.05)
    monkeypatch.setattr("tiltd.daemon.web.files.pictures", lambda path: hung.wait(30) and [])
    try:
        async with asyncio.timeout(5):
            status, text = await place.get("/datasets/TS_11")
            assert status == 200 and "/pictures/0" not in text and "tomogram.mrc" in text
            for _ in range(6):
                assert (await place.get("/datasets/TS_11/pictures/0"))[0] == 404
            assert (await place.get("/datasets/TS_04"))[0] == 200
    finally:
        hung.set()


async def test_a_log_is_no_link(place: Place) -> None:
    log = place.daemon.settings.spool_dir / "attempts" / f"{MINE}.a1" / "runner.log"
    status, text, headers = await place.ask("GET", f"/datasets/{MINE}/attempts/1/log")
    assert status == 200 and XSS in text and headers["Content-Type"] == "text/plain; charset=utf-8"
    log.unlink()
    log.symlink_to("/etc/passwd")
    assert (await place.get(f"/datasets/{MINE}/attempts/1/log"))[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "[", "a b"])
async def test_a_name_that_is_not_ours_reads_nothing(place: Place, host: str) -> None:
    status, text, _ = await place.ask("GET", "/api/v1/status", headers={"Host": host})
    assert status in (400, 421) and "states" not in text


async def test_a_name_that_is_not_ours_is_no_way_round_the_proxy(behind: Place) -> None:
    headers = vouched("ada", "staff", Host="evil.example")
    assert (await behind.ask("GET", "/api/v1/status", headers=headers))[0] == 421


async def test_a_token_under_any_name_and_the_heads_of_pages(place: Place) -> None:
    host = {"Host": "fully.qualified.example"}
    assert (await place.ask("GET", "/metrics", place.all_read, headers=host))[0] == 200
    assert (await place.ask("GET", "/healthz", headers=host))[0] == 200
    for path in ("/", "/api/v1/status", "/metrics"):
        assert (await place.ask("HEAD", path))[:2] == (200, "")
    assert (await place.ask("HEAD", "/api/v1/events"))[0] == 405


async def test_a_secret_of_the_proxy_that_cannot_be_read_is_a_sentence(
    opened: Opened, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("short\n")
    with pytest.raises(OSError, match="16 characters"):
        await opened(PROXY.format(secret=tmp_path / "secret"))
    (tmp_path / "secret").unlink()
    with pytest.raises(OSError, match="cannot be read"):
        await opened(PROXY.format(secret=tmp_path / "secret"))


async def test_names_of_ours(opened: Opened) -> None:
    place = await opened('hosts = ["tiltd.example.org"]')
    for host in ("tiltd.example.org", "localhost:8080", "127.0.0.1", "[::1]:9178"):
        assert (await place.ask("GET", "/api/v1/status", headers={"Host": host}))[0] == 200


async def test_too_often_is_told_when_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.room.guard._reads, "burst", 3.0)
    monkeypatch.setattr(place.room.guard._reads, "per_second", 0.01)
    answers = [await place.ask("GET", "/api/v1/feeds", place.own) for _ in range(5)]
    assert [status for status, _, _ in answers] == [200] * 3 + [429] * 2
    assert int(answers[-1][2]["Retry-After"]) > 60
    assert (await place.get("/api/v1/feeds", place.all_read))[0] == 200, "others are not kept waiting"


def test_buckets_fill_again_and_forget() -> None:
    now = [0.0]
    buckets = Buckets(2.0, 0.5, lambda: now[0])
    assert [buckets.take("a"), buckets.take("a"), buckets.take("a")] == [0.0, 0.0, 2.0]
    assert buckets.empty_for("a") == 2.0 and buckets.empty_for("b") == 0.0
    now[0] = 2.0
    assert buckets.take("a") == 0.0 and buckets.take("a") > 0
    for number in range(5000):
        buckets.take(f"k{number}")
    assert len(buckets._left) <= 4096


async def test_sizes_are_bounded(place: Place) -> None:
    cookie, token = await place.signed_in(place.all_act)
    big = "x" * 1_100_000
    assert (await place.ask("POST", "/policy", headers=cookie, data={"csrf": token, "candidate": big}))[
        0
    ] == 413
    fields = [("csrf", token)] + [("dataset", MINE)] * 3000
    assert (await place.ask("POST", "/act", headers=cookie, data=fields))[0] == 400
    assert (await place.get("/datasets?text=" + "x" * 400))[0] == 400
    assert (await place.get("/datasets?text=" + "x" * 9000))[0] == 400
    status, _, _ = await place.ask("GET", "/", headers={"X-Long": "x" * 9000})
    assert status == 400


@pytest.mark.parametrize(
    "path", ["/", "/datasets", "/nope", "/api/v1/status", "/login", "/static/00000000/x.css"]
)
async def test_headers_of_every_answer(place: Place, path: str) -> None:
    _, _, headers = await place.ask("GET", path, headers={"Accept": "text/html"})
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"


async def test_what_comes_from_outside_is_escaped_on_every_page(place: Place) -> None:
    hostile = quote("x-00000009.1.1")
    paths = ["/", "/datasets", f"/datasets/{hostile}", f"/datasets/{MINE}", "/acts", "/errors", "/nodes"]
    paths += [f"/datasets?text={quote(XSS)}", f"/datasets?project={quote(XSS)}", f"/{quote(XSS)}"]
    for path in paths:
        _, page = await place.get(path, place.all_act, Accept="text/html")
        assert "<script>document" not in page and "<img src=x" not in page, path
        assert "style=" not in page and "onclick" not in page and "javascript:" not in page, path


async def test_a_candidate_is_judged_and_kept_nowhere(place: Place) -> None:
    cookie, token = await place.signed_in(place.all_read)
    before = place.daemon.core.policy
    fields = {"csrf": token, "mode": "over", "candidate": "[resources]\nmemory_factor = 2.5\n"}
    status, page, _ = await place.ask("POST", "/policy", headers=cookie, data=fields)
    assert status == 200 and "resources.memory_factor" in page and "2.5" in page and "<b>Good:</b>" in page
    fields["candidate"] = f"[resources]\nmemory_fctor = 2\n[[rule]]\nname = '''{XSS}'''"
    _, page, _ = await place.ask("POST", "/policy", headers=cookie, data=fields)
    assert "<b>Refused:</b>" in page and "candidate.toml:2" in page and "<script>document" not in page
    fields["candidate"] = '[[test]]\nname = "t"\ndataset = { size = "1GB" }\nexpect = { cores = 99 }\n'
    _, page, _ = await place.ask("POST", "/policy", headers=cookie, data=fields)
    assert "1 of 2 tests fail" in page
    assert place.daemon.core.policy is before and place.daemon.asked == []


def test_a_principal_that_sees_some_sees_nothing_without_a_project() -> None:
    some = Principal(name="x", via="token", projects=frozenset({"p"}))
    assert [some.sees_project(each) for each in ("p", "q", "")] == [True, False, False]
    assert Principal(name="x", via="token").sees_project("")
