"""One project's reader finds nothing of another's: pages, API, events, reports, actions."""

from __future__ import annotations

import asyncio
import json
import re

import aiohttp
import pytest

from shell.web_place import MINE, THEIRS, Place
from shell.web_scene import SECRET


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
    for path in ("", "/pictures/0", "/report", "/attempts/1/log", "/logs/0"):
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
