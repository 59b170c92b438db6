"""The whole way with the real daemon: files of a microscope, batchruntomo (replayed), a published result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from plugins.replaying import OPTIONS, TESTS, make_imod
from shell.daemon_process import POLICY, DaemonProcess, Site, running
from tiltd.daemon.microscope import SCENARIOS, Optics, Session
from tiltd.plugins.mrc import read_header

OPTICS = Optics(width_px=64, height_px=64, noise_counts=2.0, max_shift_px=1.0)
ALIGNFRAMES = f"{{python}} '{TESTS / 'standin' / 'alignframes.py'}' -list {{frames_list}} -tilt {{angles}}"


KEEP = """
[[rule]]
name = "few-files"
when = { name = "TS_*" }
set.options = { keep = "aligned_stack" }
"""


def make_site(folder: Path, case: str, detector: str, **options: object) -> Site:
    imod = make_imod(folder / "imod", case)
    feed = folder / "incoming"
    feed.mkdir()
    told = "".join(f"{key} = {json.dumps(value)}\n" for key, value in (OPTIONS | options).items())
    more = f"""
[[feed]]
name = "krios1"
path = "{feed}"
detector = "{detector}"
pipeline = "batchruntomo"
destination = "{folder}/results/{{project}}/{{series}}"
scan_seconds = 0.2
[feed.options]
{told}
[imod]
dir = "{imod}"
"""
    return Site(folder, feeds=(), more=more, policy=POLICY + KEEP)


def shoot(site: Site, scenario: str, name: str) -> dict[Path, str]:
    folder = site.folder / "incoming" / "p" / "s"
    folder.mkdir(parents=True, exist_ok=True)
    for _, action in SCENARIOS[scenario](Session(folder=folder, name=name, optics=OPTICS, tilt_count=41)):
        action()
    return contents(site)


def contents(site: Site) -> dict[Path, str]:
    files = [path for path in (site.folder / "incoming").rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def metric(daemon: DaemonProcess, start: str) -> list[str]:
    _, text = daemon.site.client.text("/metrics")
    return [line for line in text.splitlines() if line.startswith(start)]


def test_frames_of_tomography_5_become_a_tomogram_with_its_report(tmp_path: Path) -> None:
    site = make_site(tmp_path, "full_2cpu", "tomo5", frames=f"{ALIGNFRAMES} -output {{stack}}")
    with running(site) as daemon:
        before = shoot(site, "tomo5", "Position_10_3")
        daemon.delivered("Position_10_3", seconds=60)
        daemon.settled()
        told = site.client.get("datasets", "Position_10_3")["dataset"]
        assert contents(site) == before, "the feed is only read"
        _, shown = site.client.text(f"/datasets/{told['dataset_id']}")
        assert shown.count('alt="thumbnails/') == 3, "its slices are on the page"
    result = tmp_path / "results" / "p" / "Position_10_3"
    header = read_header((result / "Position_10_3.rec").read_bytes()[:1024])
    assert (header.nx, header.ny, header.nz) == (64, 64, 24)  # type: ignore[union-attr]
    assert sorted(path.name for path in (result / "thumbnails").iterdir()) == ["xy.png", "xz.png", "zy.png"]
    kept = {path.name for path in (result / "imod").iterdir()}
    assert {"align.log", "stack.xf", "tilt.com", "batchDirective.adoc"} <= kept
    assert not {"stack.ali", "stack.preali", "stack_full.rec", "stack.st"} & kept

    manifest = json.loads((result / "manifest.json").read_text())
    assert (manifest["verdict"], told["verdict"]) == ("good", "good")
    assert manifest["quality"]["residual_mean_px"] == 0.205 and manifest["quality"]["views_aligned"] == 41
    assert told["quality"] == manifest["quality"]
    (ran,) = manifest["attempts"]
    assert "comparam.tilt.tilt.THICKNESS = 24" in ran["texts"]["batch.adoc"]
    assert (
        manifest["attempt"]["step_names"][0] == "frames"
        and "tilt" in manifest["attempt"]["measured"]["step_seconds"]
    )

    page = (result / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3
    for words in (
        "Residual of the alignment",
        "Tilt angles",
        "autofidseed",
        "residual mean px",
        "batch.adoc",
    ):
        assert words in page, words


def test_a_tomogram_without_usable_beads_waits_for_a_person(tmp_path: Path) -> None:
    site = make_site(tmp_path, "e_few_beads", "serialem")
    with running(site) as daemon:
        shoot(site, "dose-symmetric", "TS_01")
        daemon.wait(lambda: daemon.held("TS_01") == ["quality"], 60)
        (staging,) = site.staged()
        assert not site.published()
        assert str(staging) in daemon.why("TS_01") and "2.92 pixels" in daemon.why("TS_01")
        assert "2.92 pixels" in (staging / "report.html").read_text(encoding="utf-8")
        daemon.act("release", datasets=["TS_01"])
        daemon.delivered("TS_01", seconds=30)
        row = daemon.rows()["TS_01"]
        assert row["verdict"] == "doubtful" and row["why"].startswith("doubtful: residual")
        assert metric(daemon, 'tiltd_verdicts_total{pipeline="batchruntomo",verdict="bad"}')
    assert "look at it" in site.log_text()
    (result,) = site.published()
    kept = {path.name for path in (result / "imod").iterdir()}
    assert kept == {"stack.ali", "batchDirective.adoc", "batchruntomo.log"}, "what is kept is policy"
    assert "doubtful" in (result / "report.html").read_text(encoding="utf-8")
