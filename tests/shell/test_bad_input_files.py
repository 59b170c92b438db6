"""What microscopes, file servers and people leave in a feed: the daemon stays up, the others are run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from plugins.series_files import mdoc, stack
from shell.daemon_process import Site, running

HOSTILE = [
    b"with blanks  and 'quotes' \"too\"",
    b"two\nlines\r",
    b"--leading-dashes",
    b"-rf",
    b"$(touch pwned)",
    b"`touch pwned`; touch pwned & | > pwned",
    b"{scratch}{input}..",
    b"no-utf8-\xff\xfe-\xe9",
    b"\x1b[31mred\x1b[0m\x07",
    b"%s%n%x \\n \\",
    b"-" + b"long" * 50,
    "Ångström-試料-😀".encode(),
]


def test_hostile_names_are_run_like_others_and_reach_no_shell(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0)
    with running(site) as daemon:
        for name in HOSTILE:
            site.feed(name + b".mrc", folder="p/s")
        site.feed("plain.mrc", folder=os.fsdecode(b"proj $(id)\n\xff/sess ion'"))
        names = [os.fsdecode(name) for name in HOSTILE]
        daemon.delivered("plain", *names, seconds=40)
        daemon.settled()
        assert not list(tmp_path.rglob("*pwned"))
        assert {path.parent.parent.parent.name for path in site.published()} == {"krios1"}
        assert len(site.published()) == len(HOSTILE) + 1
        for name in names:
            assert "It is delivered." in daemon.why(name)
        told = subprocess.run(
            [sys.executable, "-m", "tiltd.daemon", "list", "--socket", str(site.socket)], capture_output=True
        )
        assert told.returncode == 0, told.stderr
        assert b"\x1b" not in told.stdout
        assert len(told.stdout.splitlines()) >= len(HOSTILE) + 1
        assert b"no-utf8" in told.stdout
    assert "Traceback" not in site.log_text()
    assert "\x1b[31m" not in site.log_text()
    assert site.runs() == sorted(set(site.runs()), key=site.runs().index)


SENTENCES = {
    "truncated": "1528 bytes, the header (5 sections) says 1568",
    "garbage": "header_garbage: no image has ",
    "short_header": "4 bytes are there, a header has 1024",
    "empty": "0 bytes are there, a header has 1024",
    "noisy": "header says 5 sections, mdoc has 0",
    "lines": "more than 8388608 bytes: this is no mdoc of a tilt series",
    "no_mdoc": "no_mdoc.mrc.mdoc is not there: without it nothing is complete",
}


def test_bad_files_are_told_and_the_others_are_run(tmp_path: Path) -> None:
    """All in one feed, all at once."""
    site = Site(tmp_path, step_seconds=0)
    folder = site.feeds["krios1"] / "p/s"
    noise = random.Random(4)
    with running(site) as daemon:
        site.feed("good_1.mrc")
        truncated = site.feed("truncated.mrc")
        truncated.write_bytes(truncated.read_bytes()[:-40])
        site.feed("garbage.mrc").write_bytes(noise.randbytes(1024) + bytes(5000))
        site.feed("short_header.mrc").write_bytes(b"MAP ")
        Path(f"{site.feed('noisy.mrc')}.mdoc").write_bytes(noise.randbytes(8_000_000))
        Path(f"{site.feed('lines.mrc')}.mdoc").write_bytes(b"[ZValue = 1]\n" * 800_000)
        site.feed("empty.mrc").write_bytes(b"")
        (folder / "no_mdoc.mrc").write_bytes(stack())
        (folder / "no_stack.mrc.mdoc").write_bytes(mdoc())
        (folder / "a_folder.mrc").mkdir()
        (folder / "a_folder.mrc.mdoc").mkdir()
        os.mkfifo(folder / "a_pipe.mrc")
        (folder / "a_pipe.mrc.mdoc").write_bytes(mdoc())
        (folder / "loop").symlink_to(".")
        (folder / "here").symlink_to("there")
        (folder / "there").symlink_to("here")
        (folder / "dangling.mrc").symlink_to("nowhere.mrc")
        (folder / "dangling.mrc.mdoc").write_bytes(mdoc())
        site.feed("good_2.mrc", folder="p/s2")
        daemon.delivered("good_1", "good_2")
        daemon.wait(lambda: all(daemon.held(name) == ["partial"] for name in SENTENCES), 30)
        for name, sentence in SENTENCES.items():
            assert sentence in daemon.why(name)
        site.feed("good_3.mrc")
        daemon.delivered("good_3")
        assert daemon.ready()
        delivered = {name for name, state in daemon.states().items() if state == "delivered"}
        assert delivered == {"good_1", "good_2", "good_3"}
        assert len(site.published()) == 3
    assert "Traceback" not in site.log_text()


def test_a_folder_without_permission_is_told_and_read_once_it_may_be(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0)
    with running(site) as daemon:
        closed = site.feed("behind.mrc", folder="p/closed").parent
        unreadable = site.feed("unreadable.mrc", folder="p/s")
        closed.chmod(0)
        unreadable.chmod(0)
        site.feed("good.mrc", folder="p/s")
        daemon.delivered("good")
        assert daemon.states().get("behind") != "delivered"
        daemon.wait(lambda: "ermission" in daemon.why("unreadable"), 10)
        daemon.wait(lambda: "ermission" in str(site.client.get("feeds")) + site.log_text(), 10)
        closed.chmod(0o755)
        unreadable.chmod(0o644)
        daemon.delivered("good", "behind", seconds=20)
        assert daemon.ready()
