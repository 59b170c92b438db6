"""The runner's scratch, ballast, copies in and out, stranding and rescue."""

from __future__ import annotations

import errno
import grp
import json
import os
import resource
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from shell.runner_site import MAKE_RESULT, RunnerSite, file_print, python
from tiltd.daemon import runner


@pytest.fixture
def site(tmp_path: Path) -> RunnerSite:
    return RunnerSite(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 8 MB; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def make_run(site: RunnerSite, **changes: Any) -> runner.Run:
    site.folder.mkdir(parents=True, exist_ok=True)
    return runner.Run(str(site.folder), "1", runner.native(site.document(**changes)))


def test_scratch_too_short_is_75_and_leaves_nothing(site: RunnerSite) -> None:
    site.prepare(scratch={"path": str(site.scratch), "bytes": 1 << 60, "ballast": True})
    assert site.run() == 75
    end = site.seen().end
    assert end is not None and (end.outcome, end.exit_status) == ("scratch_short", 75)
    assert "are free" in end.detail and str(1 << 60) in end.detail
    assert site.clean()


def test_a_scratch_folder_that_cannot_be_made_is_no_fault_of_the_dataset(site: RunnerSite) -> None:
    (site.scratch / "file").write_text("")
    site.prepare(scratch={"path": str(site.scratch / "file"), "bytes": 0, "ballast": True})
    assert site.run() == 75
    end = site.seen().end
    assert end is not None and end.outcome == "scratch_short" and "file" in end.detail


def fill(path: Path) -> int:
    """Write until the disk is full; returns bytes."""
    size = 0
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                size += file.write(bytes(1 << 14))
        except OSError as error:
            assert error.errno == errno.ENOSPC
    return size


def test_others_cannot_take_what_the_ballast_holds(site: RunnerSite, small_disk: Path) -> None:
    run = make_run(site, scratch={"path": str(small_disk), "bytes": 6 << 20, "ballast": True})
    run.make_scratch()
    assert fill(small_disk / "stranger") < 2 << 20
    with open(run.path("output", "v"), "wb", buffering=0) as mine:
        for _ in range(64):
            run.tend_scratch()
            assert mine.write(bytes(1 << 16)) == 1 << 16
    assert run.measured["peak_scratch_bytes"] > 3 << 20
    run.remove_scratch()
    assert os.listdir(small_disk) == ["stranger"]


def test_a_full_scratch_is_told_as_no_space(site: RunnerSite, small_disk: Path) -> None:
    code = "f = open(s + b'/tmp/x', 'wb', buffering=0)\nwhile True: f.write(bytes(1 << 16))"
    site.prepare(python(code), scratch={"path": str(small_disk), "bytes": 1 << 20, "ballast": True})
    assert site.run() == 1
    end = site.seen().end
    # 120 is Python's own, when not even its last words found room.
    assert end is not None and end.reason == "no space" and end.exit_status in (1, 120)


def test_ballast_shrinks_as_the_folder_fills(site: RunnerSite) -> None:
    run = make_run(site, scratch={"path": str(site.scratch), "bytes": 40 << 20, "ballast": True})
    run.make_scratch()
    assert run.ballast.size == 40 << 20
    assert sum(f.st_blocks * 512 for _, f in runner.files_below(run.ballast.folder)) >= 40 << 20
    (site.job_scratch / "output" / "v").write_bytes(bytes(10 << 20))
    run.tend_scratch()
    held = sum(f.st_blocks * 512 for _, f in runner.files_below(run.ballast.folder))
    assert held + (10 << 20) <= 40 << 20
    assert held >= 24 << 20  # no more given back than an eighth ahead
    assert run.scratch_bytes <= 40 << 20
    assert run.remove_scratch() and site.clean()


def test_ballast_comes_in_pieces_that_the_file_size_limit_allows(site: RunnerSite) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    held = (
        "print(sorted(os.path.getsize(os.path.join(s, b'ballast', n)) for n in os.listdir(s + b'/ballast')))"
    )
    site.prepare(python(held), scratch={"path": str(site.scratch), "bytes": 5 << 19, "ballast": True})
    assert site.run(preexec_fn=limit) == 0, site.seen().end
    sizes = json.loads((site.staging / "logs" / "work.log").read_text())
    assert sizes and max(sizes) <= 1 << 20 and sum(sizes) > 1 << 20


def test_no_ballast_is_said(site: RunnerSite, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(runner, "fallocate", cannot)
    run = make_run(site)
    run.make_scratch()
    assert run.ballast.size == 0 and not Path(run.ballast.folder).exists()
    assert "no ballast (Operation not supported)" in (site.folder / "progress").read_text()


def test_input_that_changed_before_the_copy(site: RunnerSite) -> None:
    for change in (b"?" + site.stack.read_bytes()[1:], site.stack.read_bytes()[:-1] + b"?", b"short"):
        site.attempt_id += "x"
        site.prepare()
        before = site.stack.read_bytes()
        site.stack.write_bytes(change)
        assert site.run() == 1
        site.stack.write_bytes(before)
        end = site.seen().end
        assert end is not None and end.outcome == "input_changed" and "TS_01.mrc" in end.detail
        assert site.clean()


def test_input_that_is_gone(site: RunnerSite) -> None:
    site.prepare()
    site.stack.unlink()
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and end.outcome == "input_changed" and "gone" in end.detail


@pytest.mark.parametrize("change", ["rewritten", "truncated", "appended", "replaced"])
def test_input_that_changes_during_the_copy(
    site: RunnerSite, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(site)
    run.make_scratch()
    real = runner.move_bytes

    def disturbed(source: int, target: int, on_bytes: Any) -> int:
        if change == "rewritten":
            with open(site.stack, "r+b") as file:
                file.seek(50_000)
                file.write(b"????")
        elif change == "truncated":
            os.truncate(site.stack, 60_000)
        elif change == "appended":
            with open(site.stack, "ab") as file:
                file.write(b"?")
        else:
            site.stack.rename(site.stack.with_suffix(".old"))
            site.stack.write_bytes(b"another")
        return real(source, target, on_bytes)

    monkeypatch.setattr(runner, "move_bytes", disturbed)
    with pytest.raises(runner.Ended) as found:
        run.stage_in()
    assert found.value.record["outcome"] == "input_changed"


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_only_regular_files_are_input(site: RunnerSite, kind: str) -> None:
    site.prepare()
    site.stack.unlink()
    if kind == "fifo":
        os.mkfifo(site.stack)
    elif kind == "folder":
        site.stack.mkdir()
    else:
        site.stack.symlink_to("/dev/zero")
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and (end.outcome, end.reason) == ("failed", "input")
    assert "no regular file" in end.detail


def test_hostile_source_names(site: RunnerSite) -> None:
    names = [b"-rf \xff\xfe", b"$(touch x)\n'\"", b"%s{input}", "\u00e9\U0001f600".encode()]
    files = []
    for number, raw in enumerate(names):
        name = os.fsdecode(raw)
        (site.feed / name).write_bytes(b"%d" % number * 5000)
        files.append(file_print(site.feed / name, name, f"frames/{number:04d}.tif"))
    site.prepare(
        python("print(sorted(os.listdir(i + b'/frames')))"), input={"root": str(site.feed), "files": files}
    )
    assert site.run() == 0
    assert "b'0003.tif'" in (site.staging / "logs" / "work.log").read_text()
    assert sorted(os.listdir(os.fsencode(site.feed))) == sorted([*names, b"TS_01.mrc"])


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a//b", "."])
def test_names_that_lead_out_are_refused(site: RunnerSite, name: str) -> None:
    files = [file_print(site.stack, "TS_01.mrc", name)]
    site.prepare(input={"root": str(site.feed), "files": files})
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and end.reason == "job file" and site.clean()


def test_each_way_of_copying_gives_the_same(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(os.urandom(3_000_001))
    for mover in runner.MOVERS:
        target.unlink(missing_ok=True)
        with open(source, "rb") as a, open(target, "wb") as b:
            offset = 0
            while count := mover(a.fileno(), b.fileno(), offset, 1_000_000):
                offset += count
        assert target.read_bytes() == source.read_bytes(), mover


def test_a_way_that_cannot_copy_is_replaced_on_the_spot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(os.urandom(100_000))

    def cannot(*_: int) -> int:
        raise OSError(errno.EXDEV, "")

    def lies(*_: int) -> int:
        return 0

    monkeypatch.setattr(runner, "MOVERS", [cannot, lies, runner.by_reading])
    with open(source, "rb") as a, open(target, "wb") as b:
        size, sha256 = runner.copy_hashed(a.fileno(), b.fileno(), str(target), lambda _: None)
    assert size == 100_000 and target.read_bytes() == source.read_bytes()
    assert sha256 == file_print(source, "", "", 1 << 20)["head_sha256"]


def test_a_failed_copy_ends_its_hashing_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(os.urandom(100_000))

    def fails(*_: int) -> int:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(runner, "MOVERS", [fails])
    before = threading.active_count()
    with open(source, "rb") as a, open(target, "wb") as b, pytest.raises(OSError):
        runner.copy_hashed(a.fileno(), b.fileno(), str(target), lambda _: None)
    for thread in threading.enumerate():
        if isinstance(thread, runner.Hasher):
            thread.join(10)
    assert threading.active_count() == before


def test_results_are_readable_whatever_the_umask(site: RunnerSite) -> None:
    document = site.document(
        python("os.makedirs(o + b'/a/b'); open(o + b'/a/b/c', 'w'); os.symlink('/', o + b'/l')")
    )
    group = grp.getgrall()[-1]
    if os.geteuid() == 0:
        document["output"]["group"] = group.gr_name
    site.spool.prepare(site.attempt_id, document)
    assert site.run(preexec_fn=lambda: os.umask(0o077) and None) == 0
    for path, mode in (
        ("", 0o755),
        ("a", 0o755),
        ("a/b", 0o755),
        ("a/b/c", 0o644),
        (".checksums.json", 0o644),
    ):
        found = (site.staging / path).stat()
        assert found.st_mode & 0o7777 == mode, path
        assert os.geteuid() or found.st_gid == group.gr_gid
    assert site.staging.parent.stat().st_mode & 0o777 == 0o755
    assert not (site.staging / "l").is_symlink() and "'l' is not staged out" in site.log()


def test_what_a_former_run_left_in_the_staging_folder_is_not_delivered(site: RunnerSite) -> None:
    site.staging.mkdir(parents=True)
    (site.staging / "half").write_text("x")
    site.prepare()
    assert site.run() == 0
    assert not (site.staging / "half").exists()


def strand(site: RunnerSite, results: Path) -> Any:
    """Run with a destination that is too small; returns the end."""
    document = site.document(
        python(
            "open(o + b'/v', 'wb').write(bytes(9 << 20)); open(o + b'/figures.json', 'w').write('{\"q\": 2}')"
        )
    )
    document["output"]["staging"] = str(results / f".tiltd-{site.attempt_id}")
    site.spool.prepare(site.attempt_id, document)
    assert site.run() == 1
    end = site.seen().end
    assert end is not None
    return end


def test_results_without_room_are_stranded_and_rescued(site: RunnerSite, small_disk: Path) -> None:
    end = strand(site, small_disk)
    assert end.outcome == "stranded" and end.reason == "No space left on device"
    assert end.stranded_path == str(site.job_scratch) and end.stranded_bytes >= 9 << 20
    assert os.listdir(small_disk) == []
    assert sorted(os.listdir(site.job_scratch)) == ["lease.json", "logs", "output"]
    lease = json.loads((site.job_scratch / "lease.json").read_text())
    assert lease["stranded"] and lease["expires_at"] > end.ended_at + 20 * 86400
    assert site.run() == 0  # a rerun touches nothing
    stranded = site.job_scratch
    site.attempt_id = "TS_01.1.1.a2"
    site.prepare(kind="rescue", steps=[], rescue={"path": end.stranded_path})
    assert site.run() == 0, site.seen().end
    rescued = site.seen().end
    assert rescued is not None and rescued.outcome == "success" and rescued.figures == {"q": 2.0}
    assert (site.staging / "v").stat().st_size == 9 << 20 and (site.staging / "logs" / "work.log").exists()
    assert not stranded.exists() and site.clean()


def test_a_rescue_that_finds_no_room_either_strands_again(site: RunnerSite, small_disk: Path) -> None:
    end = strand(site, small_disk)
    first = site.attempt_id
    site.attempt_id = "TS_01.1.1.a2"
    again = strand_rescue(site, small_disk, end.stranded_path)
    assert again.outcome == "stranded" and again.stranded_path == end.stranded_path
    assert (site.scratch / first / "output" / "v").exists()


def strand_rescue(site: RunnerSite, results: Path, path: str) -> Any:
    document = site.document(kind="rescue", rescue={"path": path})
    document["output"]["staging"] = str(results / f".tiltd-{site.attempt_id}")
    site.spool.prepare(site.attempt_id, document)
    assert site.run() == 1
    return site.seen().end


def test_a_rescue_moves_only_what_is_stranded_on_its_scratch(site: RunnerSite) -> None:
    (site.scratch / "someone").mkdir()
    (site.root / "elsewhere").mkdir()
    (site.root / "elsewhere" / "lease.json").write_text('{"stranded": true}')
    for path in ("", "/", str(site.scratch / "someone"), str(site.root / "elsewhere")):
        site.attempt_id += "x"
        site.prepare(kind="rescue", rescue={"path": path})
        assert site.run() == 1
        end = site.seen().end
        assert end is not None and (end.outcome, end.reason) == ("failed", "missing result")
    assert (site.scratch / "someone").exists() and (site.root / "elsewhere").exists()


def test_an_unknown_group_strands_rather_than_loses(site: RunnerSite) -> None:
    document = site.document(MAKE_RESULT)
    document["output"]["group"] = "nosuchgroup"
    site.spool.prepare(site.attempt_id, document)
    assert site.run() == 1
    end = site.seen().end
    assert end is not None and end.outcome == "stranded" and "nosuchgroup" in end.detail


def test_a_fence_that_comes_while_it_copies_out_is_heeded(
    site: RunnerSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(site)
    run.make_scratch()
    (site.job_scratch / "output" / "v").write_text("x")
    real = runner.Run.copy_out

    def fenced(self: runner.Run, *arguments: Any) -> Any:
        site.spool.fence(site.attempt_id)
        return real(self, *arguments)

    monkeypatch.setattr(runner.Run, "copy_out", fenced)
    with pytest.raises(runner.Ended) as found:
        run.stage_out(run.path("output"), run.path("logs"))
    assert found.value.record["outcome"] == "fenced"
    assert not (site.staging / ".checksums.json").exists()


def test_a_runner_killed_after_it_sealed_its_results_has_succeeded(
    site: RunnerSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ignore_signals", lambda: None)
    site.prepare()
    (site.folder / "job.json").rename(site.folder / "claimed.1")
    run = make_run(site)
    run.make_scratch()
    (site.job_scratch / "output" / "figures.json").write_text('{"q": 2}')
    run.stage_out(run.path("output"), run.path("logs"))
    run.figures = {}
    runner.sweep(run, {}, ended=False)
    end = site.seen().end
    assert end is not None and (end.outcome, end.figures) == ("success", {"q": 2.0})
    assert (site.staging / "figures.json").exists() and site.clean()
    runner.sweep(run, {}, ended=False)
    assert (site.folder / "end").read_text().count("success") == 1
