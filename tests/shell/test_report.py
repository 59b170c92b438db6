"""The page beside a result: what it tells; that it loads and runs nothing; that it withholds no result."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shell.collect_bench import HOSTILE, NONCE, Bench, attempt, dataset
from tiltd.daemon import report
from tiltd.daemon.core.model import Failure, Measured, Problem, Verdict
from tiltd.daemon.manifest import FromJobFiles, manifest
from tiltd.daemon.report.gather import gather
from tiltd.daemon.report.svg import Bar, bars, curve, ticks

PICTURE = b"\x89PNG\r\n\x1a\n and so on"
MARKUP = "\"' onload=alert(1) '\"><script>alert(1)</script><img src=http://evil.example/x onerror=x>&amp;"
CURVE = {"title": "Residual", "x": "tilt", "y": "pixels", "points": [[-60, 0.5], [0, 0.2], [60, 0.7]]}


class Read(HTMLParser):
    """What a browser would make of a page: tags, everything that could load or run, and the words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loading: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)
        self.close()
        assert self.open == [], "tags that are not closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in {"meta", "img", "line", "polyline", "circle"}:
            self.open.append(tag)
        for name, value in attributes:
            if name.startswith("on") or name in {"src", "href", "xlink:href", "action", "data", "srcdoc"}:
                self.loading.append(str(value))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"line", "polyline", "circle"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def record(**more: Any) -> dict[str, Any]:
    ran = attempt()
    assert ran.end is not None
    measured = Measured(
        stage_in_seconds=3.5,
        run_seconds=97.0,
        stage_out_seconds=2.0,
        step_seconds={"validate": 0.4, "xcorr": 5.0, "tilt": 23.2, "batchruntomo": 97.0, "bundle": 1.1},
    )
    end = msgspec.structs.replace(ran.end, measured=measured)
    verdict = Verdict(verdict="good", quality={"residual_mean_px": 0.205})
    told = FromJobFiles(step_names=("validate", "batchruntomo", "bundle"))
    made = manifest(dataset(ran), ran, end, verdict, (), (), 5000.0, told)
    return json.loads(json.dumps(made | more))  # type: ignore[no-any-return]


def page_of(folder: Path, **more: Any) -> str:
    return report.page(record(**more), gather(str(folder), [path.name for path in folder.iterdir()]))


def test_the_page_tells_what_was_decided_and_measured(tmp_path: Path) -> None:
    (tmp_path / "central.png").write_bytes(PICTURE)
    (tmp_path / "curves.json").write_text(json.dumps({"format": 1, "curves": [CURVE]}))
    read = Read(page_of(tmp_path))
    words = re.sub(r"\s+", " ", read.words)
    for told in (
        "good", "krios1", "TS-1.1.1", "rule default, version p1", "node n1", "n1",
        "xcorr", "23.2 s", "copy to the node", "3.5 s", "copy to the destination",
        "residual mean px 0.205", "Residual", "Tilt angles", "3, -3 to 3 degrees",
        "1970-01-01 00:15:50 UTC", "binning = 2",
    ):  # fmt: skip
        assert told in words, told
    assert read.loading == [f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"]


def test_the_parts_of_a_step_stand_below_it(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    names = re.findall(r'class="end">([a-z ]+)<', page)
    assert names[-7:] == [
        "copy to the node", "validate", "batchruntomo", "xcorr", "tilt", "bundle", "copy to the destination",
    ]  # fmt: skip
    assert page.count('"bar faint"') == 1 and page.index('"bar faint"') > page.index(">batchruntomo<")


@pytest.mark.parametrize("special", [*"&<>\"'\\\n\x1b\u202e", "\udce9"], ids=ascii)
def test_one_special_character_alone_is_escaped(special: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, tilt_series_name=f"a{special}b", feed="é 断")
    heading = page[page.index("<h1>") : page.index("</h1>")]
    assert f"a{special}b" not in page and "feed <b>é 断</b>" in page
    assert re.match(r"<h1>a(&[a-z0-9#]+;|\\[\\a-z0-9]+)b ", heading)


def test_hostile_names_are_words_and_nothing_else(tmp_path: Path) -> None:
    bad = {"title": MARKUP, "x": MARKUP, "y": MARKUP, "points": [[0, 1], [1, 2]]}
    (tmp_path / "curves.json").write_text(json.dumps({"curves": [bad]}))
    (tmp_path / f"{MARKUP.replace('/', '_')}.png").write_bytes(PICTURE)
    hostile = record(
        tilt_series_name=MARKUP + HOSTILE,
        series_key=MARKUP + HOSTILE,
        feed=MARKUP,
        labels={MARKUP: MARKUP},
        options={MARKUP: MARKUP},
        verdict=MARKUP,
        quality={MARKUP: 1.0},
        problems=[{"code": MARKUP, "detail": MARKUP}],
        files=[{"name": MARKUP + HOSTILE, "size_bytes": 5, "sha256": MARKUP}],
    )
    hostile["attempt"]["nodes"] = [MARKUP]
    hostile["attempt"]["job_id"] = MARKUP
    hostile["attempt"]["measured"]["step_seconds"] = {MARKUP + HOSTILE: 3.0}
    hostile["attempts"][0] |= {"nodes": [MARKUP], "texts": {MARKUP: f"{MARKUP}\n{HOSTILE}"}}
    page = report.page(hostile, gather(str(tmp_path), [path.name for path in tmp_path.iterdir()]))
    read = Read(page)
    assert not read.tags & {"script", "iframe", "object", "embed", "link", "base", "form", "a", "image"}
    assert all(value.startswith("data:image/png;base64,") for value in read.loading)
    assert "\\udc" not in page and "\\xe9" in page, "a byte that is no UTF-8 is shown, not hidden"
    assert page.encode("utf-8")
    assert "default-src 'none'" in page


def test_nothing_in_the_page_names_another_place(tmp_path: Path) -> None:
    assert not re.search(r"https?://|url\(|@import|//[a-z]", page_of(tmp_path))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[", b"[]", b"3", b'{"curves": 3}', b'{"curves": [3]}', b'{"curves": [{"points": []}]}',
        b'{"curves": [{"title": "t", "points": [[1, 2, 3]]}]}', b"[" * 100_000,
        b'{"curves": [{"title": "t", "points": [[NaN, 1], [1, Infinity], [1e300, 0]]}]}',
        b'{"curves": [{"title": "t", "points": [["x", 1]]}]}', b" " * (2 << 20),
    ],
)  # fmt: skip
def test_curves_that_are_none_are_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "curves.json").write_bytes(content)
    assert gather(str(tmp_path), ["curves.json"]).curves == ()


def test_curves_and_pictures_are_bounded(tmp_path: Path) -> None:
    long = CURVE | {"title": "t" * 1000, "points": [[number, 1] for number in range(5000)]}
    (tmp_path / "curves.json").write_text(json.dumps({"curves": [long] * 10}))
    names = ["curves.json"]
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(PICTURE)
        names.append(f"{number}.png")
    (tmp_path / "0.png").write_bytes(PICTURE + bytes(3 << 20))
    (tmp_path / "1.png").write_bytes(b"GIF89a")
    (tmp_path / "secret").write_bytes(PICTURE)
    (tmp_path / "2.png").unlink()
    (tmp_path / "2.png").symlink_to(tmp_path / "secret")
    found = gather(str(tmp_path), names)
    assert len(found.curves) == 8 and len(found.curves[0].points) == 2000
    assert len(found.curves[0].title) == 100
    assert [picture.name for picture in found.pictures] == ["3.png", "4.png", "5.png"]
    assert gather(str(tmp_path), ["../secret.png", "gone.png", "curves.json"]).pictures == ()


def test_thumbnails_come_first(tmp_path: Path) -> None:
    (tmp_path / "thumbnails").mkdir()
    shots = ["central.png", "thumbnails/xz.png", "thumbnails/zy.png", "thumbnails/xy.png"]
    names = [*shots, "imod/other.png"]
    for name in shots:
        (tmp_path / name).write_bytes(PICTURE)
    found = gather(str(tmp_path), names)
    assert [picture.name for picture in found.pictures] == [
        "thumbnails/xy.png", "thumbnails/zy.png", "thumbnails/xz.png", "central.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 1.0, [0.0, 0.5, 1.0]),
        (-60.0, 60.0, [-50.0, 0.0, 50.0]),
        (0.14, 0.41, [0.2, 0.3, 0.4]),
        (3.0, 3.0, [3.0]),
        (0.0, 1.2e7, [0.0, 5e6, 1e7]),
    ],
)
def test_ticks_are_round(low: float, high: float, found: list[float]) -> None:
    assert ticks(low, high, 4) == found


def test_points_lie_where_their_values_are() -> None:
    drawn = curve(((0.0, 0.0), (5.0, 1.0), (10.0, 0.5)), "x", "y", "t")
    places = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1) and x2 > x0
    assert y0 - y1 == pytest.approx(2 * (y0 - y2), abs=0.2) and y1 < y0, "up is less in SVG"


def test_the_same_angles_are_drawn_by_what_they_are_of(tmp_path: Path) -> None:
    whole = record()
    for kind, words in (("stack", "section of the stack"), ("frames", "tilt, as acquired")):
        page = page_of(tmp_path, input=whole["input"] | {"kind": kind})
        assert words in page and page == page_of(tmp_path, input=whole["input"] | {"kind": kind})
        assert "3: 3</title>" in page
        page = page_of(tmp_path, input=whole["input"] | {"kind": kind, "tilt_angles_deg": [-3.0, 0.0, 4.0]})
        assert "3: 4</title>" in page and "3: 3</title>" not in page


def test_bars_are_as_long_as_their_values() -> None:
    widths = [
        float(w)
        for w in re.findall(
            r'width="([\d.]+)"', bars([Bar(name=n, value=v, words="") for n, v in (("a", 10), ("b", 5))], "t")
        )
    ]
    assert widths[0] == pytest.approx(2 * widths[1])


def test_a_page_stands_beside_a_result(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.stage(**{"central.png": PICTURE})
    assert bench.collect().trouble == ""
    page = (bench.final / "report.html").read_text(encoding="utf-8")
    assert base64.b64encode(PICTURE).decode() in page and "residual px" in page
    told = bench.manifest()
    assert "report.html" not in {file["name"] for file in told["files"]} and told["unlisted"] == []
    assert (bench.final / "report.html").stat().st_mode & 0o777 == 0o644
    assert not list(bench.final.glob("*.new"))


def test_a_report_of_the_pipelines_own_is_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.stage(**{"report.html": b"mine"})
    assert bench.collect().trouble == ""
    assert (bench.final / "report.html").read_bytes() == b"mine"


def test_a_page_that_cannot_be_made_withholds_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path)
    bench.stage()
    monkeypatch.setattr(report, "page", lambda *_: 1 / 0)
    assert bench.collect().result_path == str(bench.final)
    assert not (bench.final / "report.html").exists()


def test_a_bad_result_waits_with_its_report(tmp_path: Path) -> None:
    """Nothing is published; the page lies where the result waits, and the sentence says where."""
    bench = Bench(tmp_path)
    bench.stage(**{"central.png": PICTURE})
    problem = Problem(code="residual", detail="the views moved by 9 pixels")
    bench.verdict = Verdict(verdict="bad", quality={"residual_px": 9.0}, problems=(problem,))
    answer = bench.collect()
    assert (answer.verdict, answer.result_path) == ("bad", "") and not bench.final.exists()
    assert answer.problems[0] == problem
    assert str(bench.staging) in answer.problems[1].detail and "report.html" in answer.problems[1].detail
    page = (bench.staging / "report.html").read_text(encoding="utf-8")
    assert "the views moved by 9 pixels" in page and base64.b64encode(PICTURE).decode() in page
    bench.verdict = Verdict(verdict="doubtful", problems=(problem,))
    assert bench.collect().result_path == str(bench.final), "accepted later, it is published"
    assert bench.manifest()["unlisted"] == []


def test_what_each_attempt_came_to(tmp_path: Path) -> None:
    base = record()["attempts"][0]
    tries = [
        base
        | {"failure": {"failure_class": "node", "reason": "r", "detail": "the node died", "remedy": "-"}},
        base | {"outcome": "stranded"},
        base | {"kind": "rescue", "outcome": ""},
    ]
    words = Read(page_of(tmp_path, attempts=tries)).words
    for told in ("node: r", "the node died", "could not deliver it", "brought the result from its node"):
        assert told in words


def test_a_bad_result_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.verdict = Verdict(verdict="bad")
    answer = bench.collect()
    assert answer.verdict == "bad" and "is not in" in answer.problems[0].detail


def test_every_attempt_and_its_directives_are_kept(tmp_path: Path) -> None:
    failure = Failure(
        failure_class="scratch",
        reason="disk full",
        detail="No space left on device",
        remedy="more",
        change={"scratch_factor": 1.5},
    )
    first, second = attempt(1, failure=failure), attempt(2)
    bench = Bench(tmp_path)
    bench.stage()
    bench.staging.rename(bench.staging.with_name(".tiltd-TS-1.1.1.a2"))
    texts = {
        first.attempt_id: {"directives.adoc": "a = 1\n"},
        second.attempt_id: {"directives.adoc": "a = <2>\n"},
    }
    assert bench.collect(dataset(first, second), told=FromJobFiles(texts=texts)).trouble == ""
    told = bench.manifest()["attempts"]
    assert [each["texts"]["directives.adoc"] for each in told] == ["a = 1\n", "a = <2>\n"]
    assert told[0]["failure"]["change"] == {"scratch_factor": 1.5} and told[1]["failure"] is None
    page = (bench.final / "report.html").read_text(encoding="utf-8")
    assert "a = &lt;2&gt;" in page and "disk full" in page


def test_the_checksums_of_a_bad_result_are_its_own_runs(tmp_path: Path) -> None:
    """Another run's staged files are not shown as this one's."""
    bench = Bench(tmp_path)
    bench.stage()
    bench.verdict = Verdict(verdict="bad")
    answer = bench.collect(nonce=hashlib.sha256(NONCE.encode()).hexdigest())
    assert not (bench.staging / "report.html").exists()
    assert "the result waits in" in answer.problems[0].detail
