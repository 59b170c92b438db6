"""From a stack in the feed to a published tomogram, or to none: the real daemon, a recorded batchruntomo."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from plugins.replaying import OPTIONS, RECORDINGS, make_imod
from plugins.series_files import header, section
from shell.daemon_process import DaemonProcess, Site, running, wait_until

SIDE_PX, ANGLES = 128, tuple(float(angle) for angle in range(-60, 61, 3))


def write_series(folder: Path, name: str) -> Path:
    """A stack of 41 views with its mdoc, as SerialEM writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.st"
    size = SIDE_PX * SIDE_PX * 2
    content = header(SIDE_PX, SIDE_PX, len(ANGLES), extended_bytes=0)
    path.write_bytes(content + b"".join(bytes([z]) * size for z in range(len(ANGLES))))
    head = f"PixelSpacing = 2.5\nVoltage = 300\nImageFile = {path.name}\nImageSize = {SIDE_PX} {SIDE_PX}\n"
    head += "DataMode = 1\n\n[T =     Tilt axis angle = 85.3, binning = 1  spot = 8  camera = 0]\n\n"
    sections = "".join(section(n, angle, 60.0 * n) for n, angle in enumerate(ANGLES))
    Path(f"{path}.mdoc").write_text(head + sections)
    return path


def make_site(root: Path, case: str, **wishes: Any) -> Site:
    imod = make_imod(root / "imod", case, **wishes)
    options = "".join(f'"{key}" = {value}\n' for key, value in OPTIONS.items())
    site = Site(root, more=f'[imod]\ndir = "{imod}"\n')
    config = site.config.read_text().replace('pipeline = "command"', 'pipeline = "batchruntomo"')
    lines = [line for line in config.splitlines() if not line.startswith("options = ")]
    lines.insert(lines.index("[[local.node]]"), f"[feed.options]\n{options}")
    site.config.write_text("\n".join(lines) + "\n")
    return site


def identity(path: Path) -> tuple[str, int, int]:
    """Content, inode and time of a file that nobody may touch."""
    found = path.stat()
    return hashlib.sha256(path.read_bytes()).hexdigest(), found.st_ino, found.st_mtime_ns


def shown(daemon: DaemonProcess, name: str) -> str:
    """All that is told of a series, as text; nothing before it was found."""
    return json.dumps(daemon.site.client.get("datasets", name)) if name in daemon.rows() else ""


def manifest_of(site: Site) -> tuple[Path, dict[str, Any]]:
    (folder,) = site.published()
    return folder, json.loads((folder / "manifest.json").read_text())


def test_a_series_is_delivered_and_its_stack_is_left_as_it_was(tmp_path: Path) -> None:
    site = make_site(tmp_path, "full_S_2cpu")
    with running(site) as daemon:
        stack = write_series(site.feeds["krios1"] / "p/s", "TS 01")
        before = identity(stack)
        daemon.delivered("TS 01", seconds=30)
        daemon.settled()
        folder, manifest = manifest_of(site)
    assert identity(stack) == before and sorted(os.listdir(stack.parent)) == ["TS 01.st", "TS 01.st.mdoc"]
    assert (folder / "TS_01.rec").stat().st_size == 1024 + SIDE_PX * SIDE_PX * 24 * 2
    assert {"imod", "logs", "thumbnails"} <= set(os.listdir(folder))
    assert manifest["verdict"] == "good" and manifest["quality"]["residual_mean_px"] == 0.231
    assert "setupset.copyarg.userawtlt = 1" in json.dumps(manifest), "its directives stand in the manifest"
    seconds = manifest["attempt"]["measured"]["step_seconds"]
    assert (seconds["tilt"], seconds["track"]) == (14.3, 21.9)


def test_too_few_beads_are_tried_again_with_patches(tmp_path: Path) -> None:
    site = make_site(tmp_path, "e_few_beads_segv", patches=str(RECORDINGS / "full_S_2cpu"))
    with running(site) as daemon:
        write_series(site.feeds["krios1"] / "p/s", "TS_01")
        daemon.delivered("TS_01", seconds=40)
        _, manifest = manifest_of(site)
        story = shown(daemon, "TS_01")
    texts = [json.dumps(attempt["texts"]) for attempt in manifest["attempts"]]
    assert ["trackingMethod = 1" in text for text in texts] == [False, True]
    assert "SizeOfPatchesXandY = 64,64" in texts[1]
    assert "few_beads" in story and "batchruntomo.log: ERROR: autofidseed - Running pickbestseed" in story


def test_a_run_that_is_cancelled_in_a_step_leaves_nothing(tmp_path: Path) -> None:
    site = make_site(tmp_path, "full_S_2cpu", hold="tilt")
    with running(site) as daemon:
        stack = write_series(site.feeds["krios1"] / "p/s", "TS_01")
        before = identity(stack)
        daemon.wait(lambda: "batchruntomo: tilt" in shown(daemon, "TS_01"), 30)
        daemon.act("cancel", datasets=["TS_01"])
        daemon.wait(lambda: daemon.states() == {"TS_01": "cancelled"}, 30)
        daemon.settled()
    wait_until(lambda: not programs_below(tmp_path), 20)
    assert identity(stack) == before and site.published() == [] and site.staged() == []


def programs_below(folder: Path) -> list[str]:
    """Command lines of processes that name this folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in command:
            found.append(command)
    return found
