"""Names, paths and amounts from outside: bounded, escaped, and never a file."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from urllib.parse import quote

import pytest

from shell.web_place import MINE, PROXY, Opened, Place, vouched
from shell.web_scene import XSS
from tiltd.daemon.web.access import Principal
from tiltd.daemon.web.limits import Buckets

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


async def test_pictures_in_the_folder_of_thumbnails_are_shown_and_a_link_is_not_followed(
    place: Place, tmp_path: Path
) -> None:
    """batchruntomo leaves its pictures there."""
    folder, png = tmp_path / "results" / "TS_11" / "thumbnails", b"\x89PNG\r\n\x1a\n" + bytes(9)
    folder.mkdir()
    (folder / "xy.png").write_bytes(png)
    (folder / "zy.png").symlink_to("/etc/passwd")
    assert [(await place.get(f"/datasets/TS_11/pictures/{n}"))[0] for n in range(3)] == [200, 200, 404]
    assert 'alt="thumbnails/xy.png"' in (await place.get("/datasets/TS_11"))[1]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert (await place.get("/datasets/TS_11/pictures/1"))[0] == 404


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


async def test_what_the_programs_of_a_delivered_run_said_is_read_and_no_link_is_followed(
    place: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "results" / "TS_11" / "logs"
    folder.mkdir()
    (folder / "align.log").write_text(f"residual 0.5\n{XSS}")
    (folder / "passwd.log").symlink_to("/etc/passwd")
    (folder / "<img src=x>.log").write_text("odd")
    at = "/datasets/TS_11"
    assert re.findall(r'/logs/(\d+)">([^<]+)<', (await place.get(at))[1]) == [("0", "align.log")]
    status, text, headers = await place.ask("GET", f"{at}/logs/0")
    assert status == 200 and XSS in text and headers["Content-Type"] == "text/plain; charset=utf-8"
    assert [(await place.get(f"{at}/logs/{which}"))[0] for which in ("1", "99", "..%2fx", "-1")] == [404] * 4
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert (await place.get(f"{at}/logs/0"))[0] == 404


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
