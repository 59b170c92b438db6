"""The watcher as a task: hints only make it look sooner, and it writes nothing, ever."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plugins.series_files import write_series
from shell.watching import CONTEXT, SeenRows
from tiltd.daemon.core.observations import FilesObserved
from tiltd.daemon.inotify import FolderHints
from tiltd.daemon.watch import FeedWatch
from tiltd.daemon.watcher import Watcher
from tiltd.plugins.serialem import SerialEmDetector


def watcher(root: Path, scan_seconds: float, *, inotify: bool) -> Watcher:
    watch = FeedWatch("f", str(root), SerialEmDetector({}, CONTEXT), SeenRows(), open_after_seconds=0.3)
    return Watcher(watch, scan_seconds=scan_seconds, inotify=inotify)


class Inbox:
    def __init__(self) -> None:
        self.all: list[FilesObserved] = []
        self.news = asyncio.Event()

    async def put(self, observed: FilesObserved) -> None:
        self.all.append(observed)
        self.news.set()

    async def until(self, want: object) -> FilesObserved:
        while True:
            for observed in self.all:
                if want(observed):  # type: ignore[operator]
                    return observed
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), 20)


def clock() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("inotify", [False, True])
async def test_finds_and_opens_a_series_with_and_without_hints(tmp_path: Path, inotify: bool) -> None:
    inbox = Inbox()
    task = asyncio.create_task(
        watcher(tmp_path, 0.3, inotify=inotify).run(inbox.put, dict, clock, asyncio.Event())
    )
    try:
        assert (await inbox.until(lambda observed: True)).up
        write_series(tmp_path / "s1")
        found = await inbox.until(lambda observed: any(s.series for s in observed.sightings))
        assert found.sightings[0].series_key == "s1/g1_ts_001.mrc"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_wake_up_makes_it_look_long_before_its_time(tmp_path: Path) -> None:
    inbox, wake = Inbox(), asyncio.Event()
    task = asyncio.create_task(watcher(tmp_path, 3600, inotify=False).run(inbox.put, dict, clock, wake))
    try:
        await inbox.until(lambda observed: True)
        write_series(tmp_path)
        wake.set()
        assert (await inbox.until(lambda observed: observed.sightings)).sightings
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_trouble_is_news_once(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    inbox, watching = Inbox(), watcher(tmp_path, 0.2, inotify=False)
    task = asyncio.create_task(watching.run(inbox.put, dict, clock, asyncio.Event()))
    try:
        await inbox.until(lambda observed: "symbolic link" in observed.detail)
        await asyncio.sleep(1.0)
        assert len(inbox.all) == 1 and [code for code, _ in watching.watch.troubles] == ["symlink_loop"]
        (tmp_path / "loop").unlink()
        assert (await inbox.until(lambda observed: observed.detail == "")).up
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_event_is_a_hint(tmp_path: Path) -> None:
    inbox = Inbox()
    task = asyncio.create_task(
        watcher(tmp_path, 3600, inotify=True).run(inbox.put, dict, clock, asyncio.Event())
    )
    try:
        await inbox.until(lambda observed: True)
        await asyncio.sleep(0.5)  # its watches are set after the first look
        write_series(tmp_path)
        assert (await inbox.until(lambda observed: observed.sightings)).sightings
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_hints_follow_folders_and_let_go(tmp_path: Path) -> None:
    hints = FolderHints()
    if hints.descriptor < 0:
        pytest.skip("no inotify here")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    hints.follow([str(tmp_path / "a"), str(tmp_path / "none")])
    assert not hints.drain()
    (tmp_path / "a/x").touch()
    assert hints.drain() and not hints.drain()
    hints.follow([str(tmp_path / "b")])
    hints.drain()
    (tmp_path / "a/y").touch()
    assert not hints.drain()
    hints.close()


AUDITED = """
import json, os, sys
opened, touched = [], []
def hook(event, args):
    if event == "open":
        opened.append([str(args[0]), args[2]])
    elif event.startswith("os.") and event not in ("os.scandir", "os.listdir"):
        touched.append([event, str(args[0]) if args else ""])
    elif event in ("fcntl.flock", "fcntl.lockf", "shutil.copyfile"):
        touched.append([event, ""])
sys.path[:0] = json.loads(sys.argv[2])
from shell.watching import Feed
from pathlib import Path
feed = Feed(Path(sys.argv[1]))
sys.addaudithook(hook)
told = [s for _ in range(6) for s in feed.look().sightings]
print(json.dumps({"series": sum(s.series is not None for s in told), "opened": opened, "touched": touched}))
"""


def _tree(root: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for folder, _, names in os.walk(root):
        for path in (folder, *(f"{folder}/{name}" for name in names)):
            status = os.stat(path)  # noqa: PTH116
            found[path] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return found


def test_read_only_towards_the_microscope(tmp_path: Path, project: Path) -> None:
    """Every open of a whole watch is audited; the feed's folders and files cannot be written to."""
    root = tmp_path / "feed"
    for number in range(3):
        write_series(root / f"s{number}")
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            os.chmod(f"{folder}/{name}", 0o444)  # noqa: PTH101
        os.chmod(folder, 0o555)  # noqa: PTH101
    before = _tree(root)
    paths = json.dumps([str(project / "tests/_path"), str(project / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, str(root), paths], capture_output=True, text=True, check=False
    )
    for folder, _, _ in os.walk(root):
        os.chmod(folder, 0o755)  # noqa: PTH101
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["series"] == 3
    inside = [(path, flags) for path, flags in seen["opened"] if path.startswith(str(root))]
    assert len(inside) >= 6
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    for path, flags in inside:
        assert not flags & writing, path
        assert flags & os.O_NOFOLLOW and flags & os.O_NONBLOCK, path
    assert not seen["touched"]
    for path, figures in before.items():
        if Path(path).is_file():
            assert _tree(root)[path] == figures, path
