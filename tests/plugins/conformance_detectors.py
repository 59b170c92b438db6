"""What every detector promises, whoever wrote it.

A stranger's plugin runs it by subclassing: ``class TestMine(DetectorSuite): detector = staticmethod(make)``,
with ``make(settings, context)`` its factory and ``write(folder)`` writing one whole series.
"""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugins.feed_reading import CONTEXT, entries_of, sightings_of
from tiltd.daemon.core.model import Sighting
from tiltd.daemon.feed_look import FeedLook
from tiltd.plugins.api import Detector


class RefusingLook:
    """Every read fails, as on a share that went away."""

    def head(self, relative_path: str, size_bytes: int) -> bytes:
        raise OSError(5, "Input/output error")

    def tail(self, relative_path: str, size_bytes: int) -> bytes:
        raise OSError(5, "Input/output error")

    def text(self, relative_path: str, max_bytes: int) -> bytes:
        raise OSError(5, "Input/output error")


class NoiseLook:
    """Every read answers with noise."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def head(self, relative_path: str, size_bytes: int) -> bytes:
        return self.rng.randbytes(self.rng.randrange(min(size_bytes, 70_000) + 1))

    tail = head

    def text(self, relative_path: str, max_bytes: int) -> bytes:
        return self.rng.randbytes(self.rng.randrange(50_000))


class DetectorSuite:
    """Cases that every detector passes."""

    def make(self) -> Detector:
        raise NotImplementedError

    def write(self, folder: Path) -> None:
        raise NotImplementedError

    @pytest.fixture
    def feed(self, tmp_path: Path) -> Path:
        self.write(tmp_path / "session")
        return tmp_path

    def test_finds_one_series_and_reads_it(self, feed: Path) -> None:
        (found,) = sightings_of(self.make(), feed)
        assert found.series is not None and found.not_series is None and not found.problems
        assert found.series.tilt_count == found.section_count >= 3
        for file in found.series.fingerprint.files:
            assert file.size_bytes == (feed / file.relative_path).stat().st_size

    def test_the_key_is_a_path_below_the_feed(self, feed: Path) -> None:
        (found,) = sightings_of(self.make(), feed)
        assert (feed / found.series_key).is_file()

    def test_opens_nothing_that_it_may_not(self, feed: Path) -> None:
        (found,) = self.make().read(entries_of(feed), lambda key: False, RefusingLook())
        assert found.series is None and found.stat_signature

    def test_the_signature_comes_from_stat_alone(self, feed: Path) -> None:
        closed, opened = (
            sightings_of(self.make(), feed, lambda key, yes=yes: yes)[0] for yes in (False, True)
        )
        assert closed.stat_signature == opened.stat_signature

    def test_the_signature_follows_size_and_time(self, feed: Path) -> None:
        (before,) = sightings_of(self.make(), feed)
        os.utime(feed / before.series_key, ns=(1, 2))
        (after,) = sightings_of(self.make(), feed)
        assert before.stat_signature != after.stat_signature

    def test_same_files_give_the_same_sighting(self, feed: Path) -> None:
        entries = entries_of(feed)
        look = FeedLook(str(feed))
        forward = self.make().read(entries, lambda key: True, look)
        backward = self.make().read(entries[::-1], lambda key: True, look)
        assert list(forward) == list(backward)

    def test_read_errors_are_problems(self, feed: Path) -> None:
        (found,) = self.make().read(entries_of(feed), lambda key: True, RefusingLook())
        assert found.series is None and "unreadable" in {problem.code for problem in found.problems}

    @pytest.mark.parametrize("seed", range(30))
    def test_noise_is_never_a_series(self, feed: Path, seed: int) -> None:
        for found in self.make().read(entries_of(feed), lambda key: True, NoiseLook(seed)):
            assert found.problems or found.not_series

    def test_sightings_survive_storage(self, feed: Path) -> None:
        (found,) = sightings_of(self.make(), feed)
        stored: Any = json.loads(json.dumps(msgspec.to_builtins(found)))
        assert msgspec.convert(stored, Sighting) == found

    def test_an_empty_folder_holds_nothing(self, tmp_path: Path) -> None:
        assert list(sightings_of(self.make(), tmp_path)) == []

    def test_memory_does_not_follow_the_size_of_files(self, feed: Path) -> None:
        (found,) = sightings_of(self.make(), feed)
        with (feed / found.series.input_paths[-1 if found.kind == "frames" else 0]).open("r+b") as big:  # type: ignore[union-attr]
            big.truncate(1 << 30)
        tracemalloc.start()
        sightings_of(self.make(), feed)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 20e6


def factory_context() -> Any:
    """What the daemon gives a plugin's factory, for tests."""
    return CONTEXT
