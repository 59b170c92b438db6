"""Folders above results, free space, and the scratch of dead attempts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tiltd.daemon.collect import discard, free_bytes, make_folders
from tiltd.daemon.config import PublishSettings
from tiltd.daemon.sweep import release

# -- folders and space -------------------------------------------------------------------------------------


def test_folders_above_are_made_readable(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        make_folders(str(tmp_path / "a" / "b"), PublishSettings(dir_mode="0755"))  # type: ignore[arg-type]
    finally:
        os.umask(old)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o755, 0o755]


def test_free_bytes_of_what_is_not_there_yet(tmp_path: Path) -> None:
    free = free_bytes(str(tmp_path / "p" / "q" / "r"))
    assert free is not None and free > 0
    (tmp_path / "file").touch()
    assert free_bytes(str(tmp_path / "file" / "x")) is not None


def test_only_the_attempts_own_staging_folder_is_discarded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the staging folder"):
        discard(str(tmp_path), "a1")
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / ".tiltd-a1").symlink_to(other)
    assert not discard(str(tmp_path / ".tiltd-a1"), "a1") and other.exists()
    assert discard(str(tmp_path / ".tiltd-a2"), "a2")


# -- scratch of dead attempts --------------------------------------------------------------------------------


def test_scratch_of_a_dead_attempt_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "TS.1.1.a1"
    (left / "input" / "closed").mkdir(parents=True)
    (left / "input" / "closed" / "file").touch()
    (left / "input" / "away").symlink_to(tmp_path)
    (left / "input" / "closed").chmod(0)
    (tmp_path / "TS.1.1.a1.old").mkdir()
    (tmp_path / "TS.1.1.a11").mkdir()
    assert "alive" in release(str(tmp_path), "TS.1.1.a1", alive=True) and left.exists()
    assert release(str(tmp_path), "TS.1.1.a1", alive=False) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["TS.1.1.a11"]
    assert release(str(tmp_path), "TS.1.1.a1", alive=False) == ""
    assert release(str(tmp_path / "nowhere"), "TS.1.1.a1", alive=False) == ""


def test_stranded_results_links_and_strange_ids_stay(tmp_path: Path) -> None:
    left = tmp_path / "a1"
    left.mkdir()
    (left / "lease.json").write_text('{"stranded": true}')
    assert "rescue" in release(str(tmp_path), "a1", alive=False) and left.exists()
    for lease in ("{", "[]", '{"stranded": false}'):
        (left / "lease.json").write_text(lease)
        assert release(str(tmp_path), "a1", alive=False) == "" and not left.exists()
        left.mkdir()
    (tmp_path / "a2").symlink_to(left)
    assert "link" in release(str(tmp_path), "a2", alive=False) and left.exists()
    for strange in ("..", ".", "", "../x", "a/b", "-\n"):
        assert "no id" in release(str(tmp_path), strange, alive=False)
    assert left.exists()
