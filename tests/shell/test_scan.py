"""The folder scanner: what it lists again, what it leaves alone, and what it never follows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tiltd.daemon.scan import FolderScan, Listing

NOW = 2e9
"""Years after the times of the folders that a test makes: none is "fresh" unless the test says so."""


class Looks:
    """A scanner and the clock it is given."""

    def __init__(self, root: Path, **options: object) -> None:
        self.scan = FolderScan(str(root), **options)  # type: ignore[arg-type]
        self.now = NOW

    def listed(self, seconds: float = 10.0) -> dict[str, set[str]]:
        self.now += seconds
        found: dict[str, set[str]] = {}

        def receive(listing: Listing) -> None:
            found[listing.path] = {entry.relative_path for entry in listing.entries}

        self.last = self.scan.look(self.now, receive)
        return found


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def test_the_first_pass_lists_all_and_the_next_nothing(tmp_path: Path) -> None:
    make(tmp_path, "top.mrc", "a/x.mrc", "a/b/y.mrc")
    looks = Looks(tmp_path)
    assert looks.listed() == {"": {"top.mrc"}, "a": {"a/x.mrc"}, "a/b": {"a/b/y.mrc"}}
    assert looks.listed() == {} and looks.listed() == {}


def test_only_the_folder_that_moved_is_listed(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mrc", "b/y.mrc")
    looks = Looks(tmp_path)
    looks.listed()
    make(tmp_path, "b/z.mrc")
    assert looks.listed() == {"b": {"b/y.mrc", "b/z.mrc"}}


def test_new_folders_are_gone_into_and_lost_ones_told(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mrc")
    looks = Looks(tmp_path)
    looks.listed()
    make(tmp_path, "b/c/y.mrc")
    assert looks.listed()["b/c"] == {"b/c/y.mrc"}
    (tmp_path / "b").rename(tmp_path / "d")
    assert "d/c" in looks.listed() and looks.last.gone_folders == {"b", "b/c"}


def test_a_time_stamp_is_compared_for_inequality(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mrc")
    looks = Looks(tmp_path)
    looks.listed()
    make(tmp_path, "a/y.mrc")
    os.utime(tmp_path / "a", (1000, 1000))
    assert "a" in looks.listed()


def test_a_change_behind_the_same_time_stamp_is_found(tmp_path: Path) -> None:
    """Two changes within one tick of the file system's clock: the second does not move the time."""
    make(tmp_path, "a/x.mrc")
    looks = Looks(tmp_path)
    looks.listed()
    make(tmp_path, "a/y.mrc")
    times = os.stat(tmp_path / "a")  # noqa: PTH116
    assert looks.listed(1) == {"a": {"a/x.mrc", "a/y.mrc"}}
    make(tmp_path, "a/z.mrc")
    os.utime(tmp_path / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert looks.listed(4) == {"a": {"a/x.mrc", "a/y.mrc", "a/z.mrc"}}
    assert looks.listed(4) == {}


def test_a_folder_whose_time_is_now_is_listed_again(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mrc")
    looks = Looks(tmp_path)
    looks.listed()
    os.utime(tmp_path / "a", (looks.now + 10, looks.now + 10))
    assert "a" in looks.listed() and "a" in looks.listed(1)


def test_the_sweep_lists_everything_within_its_period_spread(tmp_path: Path) -> None:
    make(tmp_path, *(f"s{n}/x.mrc" for n in range(40)))
    looks = Looks(tmp_path, sweep_seconds=1000.0)
    looks.listed()
    swept = [set(looks.listed(50)) for _ in range(25)]
    assert set().union(*swept) == {"", *(f"s{n}" for n in range(40))}
    assert max(len(part) for part in swept) < 20


def test_kept_files_are_not_stated_again_but_their_neighbours_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/x.mrc", "a/x.mrc.mdoc", "a/y.mrc", "a/other.mrc")
    looks = Looks(tmp_path)
    looks.listed()
    looks.scan.keep({"a"})
    looks.scan.list_again("a")
    looks.listed()
    stated: list[str] = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: stated.append(str(path)) or real(path, **more))
    make(tmp_path, "a/x.mrc.mdoc~")
    looks.listed()
    assert {Path(path).name for path in stated} - {"a", tmp_path.name} == {
        "x.mrc",
        "x.mrc.mdoc",
        "x.mrc.mdoc~",
    }


def test_a_file_replaced_by_rename_is_stated_again(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mrc")
    looks = Looks(tmp_path)
    looks.listed()
    looks.scan.keep({"a"})
    looks.scan.list_again("a")
    looks.listed()
    (tmp_path / "new").write_text("longer")
    (tmp_path / "new").rename(tmp_path / "a/x.mrc")
    looks.listed()
    assert looks.scan.file_stats([("a", "x.mrc")])[0][0] == 6  # type: ignore[index]


def test_large_flat_folders_are_looked_at_less_often(tmp_path: Path) -> None:
    make(tmp_path, *(f"a/{n}.mrc" for n in range(2000)))
    looks = Looks(tmp_path)
    looks.listed()
    lists = 0
    for n in range(12):
        make(tmp_path, f"a/new{n}.mrc")
        lists += len(looks.listed(1))
    assert lists == 3, "2,000 names and a few more: every 4 seconds"
    looks.listed(1)
    looks.scan.list_again("a")
    assert "a" in looks.listed(1), "unless it is asked for"


def test_long_quiet_folders_are_looked_at_by_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiltd.daemon.scan as module

    monkeypatch.setattr(module, "COLD_PER_PASS", 5)
    make(tmp_path, *(f"s{n:02d}/x.mrc" for n in range(20)))
    for n in range(20):
        os.utime(tmp_path / f"s{n:02d}", (1e9, 1e9))
    looks = Looks(tmp_path)
    looks.listed()
    looks.listed()
    stated: list[str] = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **more: stated.append(str(path)) or real(path, **more))
    looks.listed()
    assert len(stated) == 6, "the root and five others"
    make(tmp_path, "s13/new.mrc")
    assert any("s13" in looks.listed() for _ in range(4))


def test_links_are_never_followed_and_each_is_reported(tmp_path: Path) -> None:
    root, outside = tmp_path / "feed", tmp_path / "outside"
    make(outside, "secret.mrc")
    make(root, "a/x.mrc")
    (root / "a/loop").symlink_to(root)
    (root / "a/self").symlink_to("self")
    (root / "out").symlink_to(outside)
    (root / "out.mrc").symlink_to(outside / "secret.mrc")
    (root / "inner").symlink_to(root / "a")
    looks = Looks(root)
    assert looks.listed() == {"": set(), "a": {"a/x.mrc"}}
    assert set(looks.scan.troubles) == {
        ("symlink_loop", "a/loop"),
        ("symlink_loop", "a/self"),
        ("symlink_outside", "out"),
        ("symlink_outside", "out.mrc"),
    }
    (root / "out").unlink()
    looks.listed()
    assert ("symlink_outside", "out") not in looks.scan.troubles


def test_hidden_and_skipped_folders_are_not_gone_into(tmp_path: Path) -> None:
    make(tmp_path, ".snapshot/old/x.mrc", "frames/f.mrc", "a/x.mrc")
    assert Looks(tmp_path, skip_folders=("frames",)).listed() == {"": set(), "a": {"a/x.mrc"}}


def test_hostile_folder_names(tmp_path: Path) -> None:
    bad = os.fsdecode(b"\xff\n$(x) -rf")
    make(tmp_path, f"{bad}/x.mrc")
    assert Looks(tmp_path).listed()[bad] == {f"{bad}/x.mrc"}


def test_a_very_deep_tree_is_no_trouble(tmp_path: Path) -> None:
    os.makedirs(str(tmp_path) + "/d" * 600)  # noqa: PTH103
    looks = Looks(tmp_path)
    assert len(looks.listed()) == 601


def test_the_root_itself_may_not_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Looks(tmp_path / "none").listed()


def test_a_clock_that_goes_back_does_not_stop_the_sweep(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mrc")
    looks = Looks(tmp_path, sweep_seconds=1000.0)
    looks.listed()
    looks.listed(-1e6)
    assert any("a" in looks.listed(300) for _ in range(6))
