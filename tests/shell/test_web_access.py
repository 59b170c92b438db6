"""Who may read, who may act: tokens, guesses, and a proxy that vouches for people."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import aiohttp
import pytest

from shell.web_place import MINE, Opened, Place, csrf, vouched
from shell.web_scene import SECRET
from tiltd.daemon.tokens import Token, TokenError, TokenFile, hash_of

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


async def test_an_old_token_is_no_guess(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A Prometheus that was left with one asks every 15 s for ever, from the address that others use too."""
    answers = {(await place.get("/api/v1/status", "revoked"))[0] for _ in range(30)}
    assert answers == {401}
    assert (await place.get("/api/v1/status", place.all_act))[0] == 200
    assert capsys.readouterr().err.count("a wrong token") <= 1
    assert [(await place.get("/api/v1/status", f"guess-{n}"))[0] for n in range(10)] == [401] * 9 + [429]


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


# -- single sign-on ------------------------------------------------------------------------------------------


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
