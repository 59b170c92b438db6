from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from msgspec.structs import replace
from yarl import URL

from shell.fake_daemon import HOSTILE, FakeDaemon, dataset, fake_daemon
from tiltd.daemon.core.model import Attempt, Placement, ResourceRequest, State
from tiltd.daemon.web import Servers
from tiltd.daemon.web.server import AddressInUse, unix_socket
from tiltd.plugins.api import Unreachable


class Site:
    def __init__(self, daemon: FakeDaemon, servers: Servers, session: aiohttp.ClientSession) -> None:
        self.daemon, self.servers, self.session = daemon, servers, session

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(URL(f"http://tiltd{path}", encoded=True)) as response:
            return response.status, await response.json(content_type=None)

    async def post(self, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post("http://tiltd/api/v1/actions", data=data) as response:
            return response.status, await response.json()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    daemon = fake_daemon(tmp_path)
    servers = Servers(daemon)
    await servers.start()
    connector = aiohttp.UnixConnector(str(tmp_path / "tiltd.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Site(daemon, servers, session)
    await servers.stop()
    assert not (tmp_path / "tiltd.sock").exists()


async def test_the_socket_is_for_owner_and_group(site: Site, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "tiltd.sock").stat().st_mode) == 0o660


async def test_status(site: Site) -> None:
    status, body = await site.get("/api/v1/status")
    assert status == 200
    assert body["states"] == {"ready": 3}
    assert body["held"] == {"operator": 1}
    assert body["oldest_waiting"]["seconds"] == 1000.0


async def test_a_refused_policy_stands_in_the_status(site: Site) -> None:
    site.daemon.policy_refused = ["policy.toml:2: completeness.quiet_min: no span of time"]
    _, body = await site.get("/api/v1/status")
    assert body["policy_refused"] == site.daemon.policy_refused


async def test_datasets_come_from_memory_and_journal(site: Site) -> None:
    _, body = await site.get("/api/v1/datasets")
    assert {d["dataset_id"] for d in body["datasets"]} == {
        "a-1.1.1",
        "b-1.1.1",
        "h-1.1.1",
        "c-1.1.1",
        "d-1.1.1",
        "d-1.1.3",
        "e-1.1.1",
    }
    why = {d["dataset_id"]: d["why"] for d in body["datasets"]}
    assert why["a-1.1.1"] == "waits: scratch"
    assert why["b-1.1.1"] == "held: operator"
    assert why["c-1.1.1"] == "memory: oom"


async def test_memory_is_newer_than_the_journal(site: Site) -> None:
    site.daemon.reader.rows["a-1.1.1"] = dataset("a-1.1.1", state=State.FAILED)
    _, body = await site.get("/api/v1/datasets?state=failed")
    assert {d["dataset_id"] for d in body["datasets"]} == {"c-1.1.1"}
    _, body = await site.get("/api/v1/datasets")
    assert [d["state"] for d in body["datasets"] if d["dataset_id"] == "a-1.1.1"] == ["ready"]


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("state=failed", {"c-1.1.1"}),
        ("state=ready&name=TS_0*", {"a-1.1.1", "b-1.1.1"}),
        ("project=p2", {"d-1.1.1", "d-1.1.3"}),
        ("feed=krios2", set()),
        ("name=" + quote(HOSTILE, errors="surrogateescape"), {"h-1.1.1"}),
    ],
)
async def test_selections(site: Site, query: str, ids: set[str]) -> None:
    _, body = await site.get(f"/api/v1/datasets?{query}")
    assert {d["dataset_id"] for d in body["datasets"]} == ids


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("state=redy", "states are arriving, ready"),
        ("limit=0", "limit must be"),
        ("limit=99999999", "limit must be"),
        ("colour=red", "unknown parameter 'colour'"),
        ("&".join(f"a{i}=1" for i in range(99)), "too many parameters"),
    ],
)
async def test_a_wrong_question_gets_a_sentence(site: Site, query: str, words: str) -> None:
    status, body = await site.get(f"/api/v1/datasets?{query}")
    assert status == 400
    assert words in body["error"]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a-1.1.1", "a-1.1.1"),
        ("TS_02", "b-1.1.1"),
        ("c-1", "c-1.1.1"),
        ("TS_04", "d-1.1.3"),
        (HOSTILE, "h-1.1.1"),
    ],
)
async def test_names(site: Site, name: str, found: str) -> None:
    status, body = await site.get("/api/v1/datasets/" + quote(name, safe="", errors="surrogateescape"))
    assert status == 200, body
    assert body["dataset"]["dataset_id"] == found


async def test_a_name_of_several_series_gives_candidates(site: Site) -> None:
    status, body = await site.get("/api/v1/datasets/TS_01")
    assert status == 409
    assert {c["dataset_id"] for c in body["candidates"]} == {"a-1.1.1", "e-1.1.1"}


@pytest.mark.parametrize("name", ["nothing", "..%2F..%2Fetc", "%00", "%FF"])
async def test_an_unknown_name_is_404(site: Site, name: str) -> None:
    status, body = await site.get(f"/api/v1/datasets/{name}")
    assert status == 404
    assert "no dataset has the id" in body["error"]


async def test_facts_and_why(site: Site) -> None:
    _, body = await site.get("/api/v1/datasets/c-1.1.1/facts")
    assert body["facts"][0]["sequence"] == 7
    assert body["facts"][0]["kind"] == "DatasetCancelled"
    _, body = await site.get("/api/v1/why/TS_02")
    assert body["lines"] == ["b-1.1.1 waits at 10000"]
    _, body = await site.get("/api/v1/why/TS_03")
    assert "What to do: ask for more" in body["lines"]
    _, body = await site.get("/api/v1/why/montage.mrc")
    assert "krios1/a/montage.mrc is no tilt series: montage" in body["lines"][0]


async def test_why_gives_the_schedulers_own_words_on_a_queued_job(site: Site) -> None:
    live = site.daemon.core.state.datasets
    placement = Placement(
        nodes=("core-014",),
        cores=4,
        threads=4,
        memory_bytes=1,
        scratch_bytes=1,
        walltime_seconds=60.0,
        queue="",
        rule="",
        policy_version="0",
    )
    attempt = Attempt(
        attempt_id="b-1.1.1.a1",
        number=1,
        kind="run",
        placement=placement,
        request=ResourceRequest(),
        placed_at=1.0,
        job_id="79.head",
    )
    live["b-1.1.1"] = replace(live["b-1.1.1"], attempts=(attempt,), state=State.QUEUED)

    async def lines() -> list[str]:
        _, body = await site.get("/api/v1/why/b-1.1.1")
        return list(body["lines"][1:])

    assert await lines() == ["checkjob: too few cores for 79.head"]
    site.daemon.plugged.manager.words = Unreachable("Maui's checkjob did not answer")
    assert await lines() == ["Its scheduler did not tell why: Maui's checkjob did not answer."]
    live["b-1.1.1"] = replace(live["b-1.1.1"], state=State.RUNNING)
    assert await lines() == [], "a job that runs waits for nobody"


async def test_nodes_feeds_ignored(site: Site) -> None:
    _, body = await site.get("/api/v1/nodes")
    assert body["nodes"][0]["scratch_reserved_bytes"] == 0
    _, body = await site.get("/api/v1/feeds")
    assert body["feeds"][0]["states"] == {"ready": 3}
    _, body = await site.get("/api/v1/ignored?feed=krios1")
    assert body["ignored"] == [
        {"feed": "krios1", "series_key": "a/montage.mrc", "reason": "montage", "detail": "6 pieces"}
    ]


async def test_an_action_is_asked_in_the_name_of_the_peer(site: Site) -> None:
    status, body = await site.post({"action": "hold", "datasets": ["TS_02", "TS_03"], "reason": "no"})
    assert status == 200
    assert [r["ok"] for r in body["results"]] == [True, True]
    first, second = site.daemon.asked
    assert first.by == second.by == pwd.getpwuid(os.getuid()).pw_name
    assert (first.dataset_id, first.reason, first.record) == ("b-1.1.1", "no", None)
    assert second.record is not None
    assert second.record.dataset_id == "c-1.1.1"
    assert first.request_id != second.request_id


async def test_a_refused_action_says_so(site: Site) -> None:
    _, body = await site.post({"action": "accept", "datasets": ["TS_02"]})
    assert body["results"][0]["ok"] is False


async def test_a_dry_run_asks_nothing(site: Site) -> None:
    _, body = await site.post({"action": "cancel", "selection": {"project": "p2"}, "dry_run": True})
    assert {r["dataset_id"] for r in body["results"]} == {"d-1.1.1", "d-1.1.3"}
    assert site.daemon.asked == []


async def test_a_rerun_knows_the_latest_run(site: Site) -> None:
    await site.post({"action": "rerun", "datasets": ["d-1.1.1"], "options": {"binning": 2}})
    assert site.daemon.asked[0].latest_run == 3
    assert site.daemon.asked[0].options == {"binning": 2}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        ([], "JSON object"),
        ({"action": "burn", "datasets": ["x"]}, "action must be one of"),
        ({"action": "hold"}, "either datasets"),
        ({"action": "hold", "datasets": "x"}, "list of ids"),
        ({"action": "hold", "selection": {}}, "at least one"),
        ({"action": "hold", "selection": {"state": 3}}, "texts"),
        ({"action": "hold", "datasets": [], "options": {"a": []}}, "options must be"),
        ({"action": "hold", "datasets": [], "by": "root"}, "unknown field 'by'"),
    ],
)
async def test_a_wrong_action_is_a_sentence(site: Site, body: Any, words: str) -> None:
    status, answer = await site.post(body)
    assert status == 400
    assert words in answer["error"]
    assert site.daemon.asked == []


async def test_a_large_body_is_refused(site: Site) -> None:
    status, answer = await site.post(b" " * 1_100_000)
    assert status == 413
    assert "larger than" in answer["error"]


async def test_tcp_reads_only(site: Site) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{site.servers.port}") as session:
        async with session.get("/metrics") as response:
            assert response.status == 200
            assert "tiltd_datasets" in await response.text()
            assert response.headers["X-Content-Type-Options"] == "nosniff"
        async with session.get("/api/v1/status") as response:
            assert response.status == 200
        for path, body in (
            ("actions", {"action": "hold", "datasets": ["TS_02"]}),
            ("prune", {"what": ["spool"], "dry_run": False}),
            ("policy/reload", {}),
        ):
            async with session.post(f"/api/v1/{path}", json=body) as response:
                assert response.status == 403
                assert "may read, not act" in (await response.json())["error"]
        async with session.post("/api/v1/status") as response:
            assert response.status == 405
            assert "error" in await response.json()
    assert site.daemon.asked == []


async def test_health_and_readiness(site: Site) -> None:
    assert await site.get("/healthz") == (200, {"ok": True})
    assert (await site.get("/readyz"))[0] == 200
    site.daemon.reasons = ["the journal's disk is full"]
    assert await site.get("/readyz") == (503, {"ready": False, "reasons": ["the journal's disk is full"]})


async def test_a_bug_costs_one_request(site: Site) -> None:
    site.daemon.core.why = None
    status, body = await site.get("/api/v1/why/TS_02")
    assert status == 500
    assert "bug of its own" in body["error"]
    assert (await site.get("/healthz"))[0] == 200


async def test_a_second_daemon_is_refused_and_harms_nothing(site: Site) -> None:
    second = Servers(site.daemon)
    with pytest.raises(AddressInUse, match="another tiltd answers"):
        await second.start()
    await second.stop()
    assert (await site.get("/healthz"))[0] == 200


async def test_a_port_in_use_is_a_sentence_and_leaves_no_socket(tmp_path: Path) -> None:
    daemon = fake_daemon(tmp_path)
    taken = socket.create_server(("127.0.0.1", daemon.settings.listen.port))
    with taken, pytest.raises(AddressInUse, match="change port in"):
        await Servers(daemon).start()
    assert not daemon.settings.socket.exists()


async def test_a_socket_in_use_is_told(site: Site) -> None:
    with pytest.raises(AddressInUse, match="another tiltd answers"):
        await asyncio.to_thread(unix_socket, site.daemon.settings.socket)


def test_a_stale_socket_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    unix_socket(path).close()
    unix_socket(path).close()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(AddressInUse, match="is no socket"):
        unix_socket(path)
    with pytest.raises(AddressInUse, match="too long"):
        unix_socket(tmp_path / ("x" * 120))
