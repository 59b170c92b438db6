"""Sessions and forged requests: what a browser is tricked into does nothing."""

from __future__ import annotations

import aiohttp
import pytest

from shell.web_place import MINE, Place, csrf
from shell.web_scene import SECRET, XSS


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
