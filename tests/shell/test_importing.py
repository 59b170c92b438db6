"""Importing a completed series: proved, slow on purpose, atomic, repeatable; a changed input is told."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tiltd.daemon import importing
from tiltd.daemon.core.model import FilePrint, Fingerprint, TiltSeries
from tiltd.daemon.core.observations import ImportAnswered
from tiltd.daemon.importing import TokenBucket, import_folder, import_series

STACK = "sub dir/x\n$(id) '\udce9.st"
PIECE = 4096


def print_of(path: str, content: bytes, piece: int = PIECE) -> FilePrint:
    return FilePrint(
        relative_path=path,
        size_bytes=len(content),
        piece_bytes=piece,
        head_sha256=hashlib.sha256(content[:piece]).hexdigest(),
        tail_sha256=hashlib.sha256(content[-piece:]).hexdigest() if len(content) > piece else "",
    )


class Bench:
    def __init__(self, folder: Path) -> None:
        self.feed, self.imports = folder / "feed", folder / "imports"
        (self.feed / "sub dir").mkdir(parents=True)
        self.content = {STACK: os.urandom(3_000_000), STACK + ".mdoc": b"[ZValue = 0]\n", "f/a.eer": b"frame"}
        (self.feed / "f").mkdir()
        for name, data in self.content.items():
            (self.feed / name).write_bytes(data)
        prints = tuple(print_of(name, data, max(PIECE, len(data) if "mdoc" in name else 0)) for name, data in
                       self.content.items())  # fmt: skip
        self.series = TiltSeries(
            tilt_series_name="x",
            kind="stack",
            fingerprint=Fingerprint(files=prints),
            stack_path=STACK,
            mdoc_path=STACK + ".mdoc",
        )
        self.bucket = TokenBucket(0)

    @property
    def final(self) -> Path:
        return Path(import_folder(str(self.imports), "TS-1.1.1", self.series))

    def run(self, dataset_id: str = "TS-1.1.1", **more: Any) -> ImportAnswered:
        return import_series(
            dataset_id, self.series, str(self.feed), str(self.imports), self.bucket, 7.0, **more
        )

    def imported(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.final)): path.read_bytes()
            for path in self.final.rglob("*")
            if path.is_file()
        }

    def is_right(self) -> bool:
        names = self.series.local_names()
        return self.imported() == {names[name]: data for name, data in self.content.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_series_is_imported_under_safe_names(bench: Bench) -> None:
    old = os.umask(0o077)
    try:
        answer = bench.run()
    finally:
        os.umask(old)
    assert (answer.trouble, answer.path, answer.input_changed) == ("", str(bench.final), False)
    assert bench.is_right() and set(bench.imported()) == {"stack.st", "stack.st.mdoc", "frames/0002.eer"}
    for path in [bench.final, *bench.final.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640)
    assert [path.name for path in bench.imports.iterdir()] == [bench.final.name]


def test_importing_again_takes_the_copy_that_is_there(bench: Bench) -> None:
    bench.run()
    inode = (bench.final / "stack.st").stat().st_ino
    for path in bench.feed.rglob("*.st"):
        path.unlink()  # the feed may have been cleared since
    assert bench.run().path == str(bench.final)
    assert (bench.final / "stack.st").stat().st_ino == inode


def test_a_damaged_copy_is_made_anew(bench: Bench) -> None:
    bench.run()
    (bench.final / "stack.st").write_bytes(b"damaged")
    assert bench.run().trouble == "" and bench.is_right()
    (bench.final / "stack.st.mdoc").unlink()
    assert bench.run().trouble == "" and bench.is_right()


def test_another_input_of_the_same_id_stands_beside_it(bench: Bench) -> None:
    first = bench.run().path
    (bench.feed / "f" / "a.eer").write_bytes(b"again")
    files = (*bench.series.fingerprint.files[:2], print_of("f/a.eer", b"again"))
    bench.series = msgspec.structs.replace(bench.series, fingerprint=Fingerprint(files=files))
    assert bench.run().path != first and Path(first).exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda feed: (feed / STACK).write_bytes(b"other"),
        lambda feed: os.truncate(feed / STACK, 2_999_999),
        lambda feed: os.pwrite(os.open(feed / STACK, os.O_WRONLY), b"x" * 9, 0),
        lambda feed: os.pwrite(os.open(feed / STACK, os.O_WRONLY), b"x" * 9, 2_999_991),
        lambda feed: ((feed / "f/a.eer").unlink(), os.mkfifo(feed / "f/a.eer")),
    ],
)
def test_a_changed_input_is_told(bench: Bench, change: Callable[[Path], Any]) -> None:
    change(bench.feed)
    answer = bench.run()
    assert answer.input_changed and answer.trouble and answer.path == ""
    assert "\n" not in answer.trouble and not any(bench.imports.iterdir())


@pytest.mark.parametrize("when", ["head", "middle", "replaced"])
def test_an_input_that_changes_while_it_is_copied_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    class Meddling(TokenBucket):
        def take(self, count: int) -> None:
            path = bench.feed / STACK
            if when == "replaced":
                path.with_name("new").write_bytes(b"new")
                path.with_name("new").rename(path)
            else:
                fd = os.open(path, os.O_WRONLY)
                os.pwrite(fd, b"meddled", 0 if when == "head" else 1_500_000)
                os.utime(fd, ns=(1, 1))
                os.close(fd)

    bench.bucket = Meddling(0)
    answer = bench.run()
    assert answer.input_changed and not bench.final.exists()


def test_a_copy_that_reads_back_differently_is_not_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(importing, "sha256_of", lambda fd: "wrong")
        answer = bench.run()
    assert "reads back differently" in answer.trouble and not answer.input_changed
    assert not any(bench.imports.iterdir())
    assert bench.run().trouble == ""


def test_what_is_out_of_reach_is_tried_again(bench: Bench) -> None:
    bench.feed.rename(bench.feed.with_name("away"))
    answer = bench.run()
    assert answer.trouble and answer.retry_seconds > 0 and not answer.input_changed and not answer.permanent
    bench.feed.with_name("away").rename(bench.feed)
    bench.imports.rmdir()
    bench.imports.write_text("in the way")
    assert str(bench.imports) in bench.run().trouble


def test_names_that_leave_the_feed_are_refused(bench: Bench) -> None:
    for name in ("../secret", "/etc/passwd", "a/../../b", "a\0b"):
        files = (print_of(name, b""),)
        bench.series = msgspec.structs.replace(bench.series, fingerprint=Fingerprint(files=files))
        assert bench.run().input_changed
    assert bench.run(dataset_id="../x").trouble


def test_a_stop_leaves_nothing_and_the_next_start_begins_anew(bench: Bench) -> None:
    asked = iter([False, True])
    answer = bench.run(stopping=lambda: next(asked))
    assert answer.trouble and not answer.input_changed and not any(bench.imports.iterdir())
    assert bench.run().trouble == "" and bench.is_right()


class Crash(BaseException):
    pass


def test_a_crash_at_any_step_and_a_repeat_come_to_the_same_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt(step: int) -> int:
        count = 0
        with monkeypatch.context() as patch:

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **kwargs: Any) -> Any:
                    nonlocal count
                    count += 1
                    if count == step:
                        raise Crash
                    return real(*args, **kwargs)

                return call

            for name in ("fsync", "rename", "write", "fchmod", "mkdir", "chmod"):
                patch.setattr(os, name, counted(getattr(os, name)))
            patch.setattr(importing.shutil, "rmtree", lambda *_, **__: None)  # the dead do not clean
            try:
                bench.run()
            except Crash:
                assert count == step
        return count

    steps = attempt(0)
    assert steps > 10
    for step in range(1, steps + 1):
        bench.imports.rename(bench.imports.with_name(f"old-{step}"))
        attempt(step)
        assert not bench.final.exists() or bench.is_right(), "half a copy bore its final name"
        assert bench.run().path == str(bench.final) and bench.is_right()
        assert [path.name for path in bench.imports.iterdir()] == [bench.final.name]


def test_the_bucket_holds_the_rate() -> None:
    now, slept = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    bucket = TokenBucket(1_000_000, clock=lambda: now, sleep=sleep)
    for _ in range(100):
        bucket.take(100_000)
    # 10 MB at 1 MB/s: 10 s, less the second's worth that may come at once.
    assert sum(slept) == pytest.approx(9.0)
    now += 1000.0  # a long pause saves up one second's worth only
    slept.clear()
    bucket.take(3_000_000)
    assert slept == [pytest.approx(2.0)]
    slept.clear()
    TokenBucket(0, clock=lambda: now, sleep=sleep).take(10**12)
    assert slept == []


def test_an_import_takes_every_byte_from_the_bucket(bench: Bench) -> None:
    slept: list[float] = []
    bench.bucket = TokenBucket(1_000_000, clock=lambda: 0.0, sleep=slept.append)
    assert bench.run().trouble == ""
    total = sum(map(len, bench.content.values()))
    assert max(slept) == pytest.approx(total / 1e6 - 1.0)
