"""Collecting: what is verified, what is published, what is left alone, and every crash in between."""

from __future__ import annotations

import errno
import grp
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shell.collect_bench import HOSTILE, NONCE, Bench, attempt, dataset, mrc, series
from tiltd.daemon import collect as collecting
from tiltd.daemon.collect import discard, look_for_result
from tiltd.daemon.config import PublishSettings
from tiltd.daemon.core.model import (
    ExpectedResult,
    Failure,
    Measured,
    RunEnd,
    Verdict,
)
from tiltd.daemon.verify import SMALL_BYTES


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_result_is_published_whole(bench: Bench) -> None:
    bench.stage()
    inode = (bench.staging / "tomogram.mrc").stat().st_ino
    answer = bench.collect()
    assert (answer.trouble, answer.result_path, answer.verdict) == ("", str(bench.final), "good")
    assert answer.result_bytes == 1024 + 48 + 3 + 5 and answer.quality == {"residual_px": 0.2}
    assert answer.measured == Measured(run_seconds=12.5, peak_memory_bytes=7)
    assert not bench.staging.exists() and not (bench.final / ".checksums.json").exists()
    assert (bench.final / "tomogram.mrc").stat().st_ino == inode, "a second copy was made"


def test_the_manifest_tells_everything_and_hostile_names_in_full(bench: Bench) -> None:
    bench.stage()
    bench.collect()
    told = bench.manifest()
    assert (
        told["tilt_series_name"] == HOSTILE and told["input"]["files"][0]["relative_path"] == f"{HOSTILE}.st"
    )
    assert told["input"]["digest"] == series().fingerprint.digest
    assert told["input"]["checksums"][0]["sha256"] == "ab"
    assert (told["dataset_id"], told["feed"], told["revision"], told["run"]) == ("TS-1.1.1", "krios1", 1, 1)
    assert told["policy"] == {"version": "p1", "rule": "default"} and told["options"] == {"binning": 2}
    assert told["attempt"]["nodes"] == ["n1"] and told["attempt"]["placement"]["cores"] == 4
    assert told["attempt"]["exit_status"] == 0 and told["attempt"]["measured"]["run_seconds"] == 12.5
    assert told["labels"]["project"] == "p" and set(told["versions"]) == {"tiltd", "python"}
    assert told["verdict"] == "good" and {file["name"] for file in told["files"]} == {
        "tomogram.mrc",
        "central.png",
        "logs/wbp.log",
    }
    # The name appears nowhere else: not in a path of the result, not in a sentence.
    assert all("rm -rf" not in name for name in bench.tree())


def test_scientists_can_read_it_whatever_the_umask(bench: Bench) -> None:
    bench.stage()
    old = os.umask(0o077)
    try:
        bench.publish = PublishSettings(dir_mode="0750", file_mode="0640")  # type: ignore[arg-type]
        assert bench.collect().trouble == ""
    finally:
        os.umask(old)
    for path in [bench.final, *bench.final.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path


def test_a_group_is_given_and_an_unknown_one_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage()
    bench.publish = PublishSettings(group="no-such-group")
    answer = bench.collect()
    assert answer.permanent and "no-such-group" in answer.trouble and bench.staging.exists()
    given: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "fchown", lambda path, user, group: given.append((path, group)))
    other = next(entry for entry in grp.getgrall() if entry.gr_gid != os.getgid())
    bench.publish = PublishSettings(group=other.gr_name)
    assert bench.collect().trouble == ""
    assert {group for _, group in given} == {other.gr_gid}
    assert len(given) == 7  # 3 files, 2 folders, report, manifest

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "fchown", refuse)
    bench.final.rename(bench.final.with_name("away"))
    bench.stage()
    assert "member of the group" in bench.collect().trouble


def test_a_long_list_of_checksums_is_read_whole(bench: Bench) -> None:
    bench.stage(**{f"logs/{number:04d}.log": b"fine\n" for number in range(700)})
    assert (bench.staging / ".checksums.json").stat().st_size > SMALL_BYTES
    assert bench.collect().trouble == "" and len(bench.manifest()["files"]) == 703


def test_the_folder_of_results_is_made_where_it_is_missing(bench: Bench) -> None:
    """Staged elsewhere, under an earlier configuration."""
    bench.stage()
    staging, bench.final = str(bench.staging), bench.final.parents[1] / "other" / "q" / "TS-1"
    assert bench.collect(staging=staging).result_path == str(bench.final)
    assert stat.S_IMODE(bench.final.parents[1].stat().st_mode) == 0o755 and bench.manifest()["files"]


def _pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("verify", ["full", "sizes"])
@pytest.mark.parametrize(
    ("harm", "says", "seen_by_sizes"),
    [
        (lambda s: (s / "central.png").write_bytes(b"pnG"), "SHA-256", False),
        (lambda s: (s / "tomogram.mrc").write_bytes(mrc()[:-1]), "bytes", True),
        (lambda s: (s / "tomogram.mrc").write_bytes(mrc() + b"x"), "bytes", True),
        (lambda s: (s / "central.png").unlink(), "missing", True),
        (lambda s: (s / "more").symlink_to("/etc/passwd"), "link", True),
        (lambda s: os.mkfifo(s / "pipe"), "special", True),
        (lambda s: (s / ".checksums.json").unlink(), "did not finish", True),
        (lambda s: _pipe_instead(s / ".checksums.json"), "special", True),
        (lambda s: (s / ".checksums.json").write_text("{"), "checksums", True),
        (lambda s: (s / ".checksums.json").write_text("[" * 100_000), "checksums", True),
        (
            lambda s: (s / ".checksums.json").write_text('{"files": [], "nonce": "other"}'),
            "another run",
            True,
        ),
        (
            lambda s: (s / ".checksums.json").write_text(
                json.dumps({"files": [{"name": "../x", "size_bytes": 0, "sha256": ""}], "nonce": NONCE})
            ),
            "checksums",
            True,
        ),
    ],
)
def test_what_was_damaged_is_not_published(
    bench: Bench, harm: Callable[[Path], Any], says: str, seen_by_sizes: bool, verify: str
) -> None:
    bench.publish = PublishSettings(verify=verify)  # type: ignore[arg-type]
    bench.stage()
    harm(bench.staging)
    answer = bench.collect()
    if verify == "full" or seen_by_sizes:
        assert answer.damaged and says in answer.trouble and not bench.final.exists()
    else:
        assert not answer.trouble


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (mrc(nz=3), "4 x 3 x 3"),
        (mrc(mode=2), "mode 2"),
        (b"\x00" * 2000, "no MRC file"),
        (mrc()[:1030], "cut short"),
        (b"short", "no MRC file"),
    ],
)
def test_a_header_that_breaks_the_promise_is_damage(bench: Bench, content: bytes, says: str) -> None:
    bench.stage(**{"tomogram.mrc": content})
    answer = bench.collect()
    assert answer.damaged and says in answer.trouble and not bench.final.exists()


def test_promised_files_must_be_there_and_large_enough(bench: Bench) -> None:
    bench.stage(**{"central.png": b"p"})
    assert "at least 3" in bench.collect().trouble
    assert "volume.mrc" in bench.collect(expected=(ExpectedResult(name="volume.mrc"),)).trouble


def test_files_that_nobody_vouches_for_are_named_in_the_manifest(bench: Bench) -> None:
    bench.stage()
    (bench.staging / "Thumbs.db").write_bytes(b"?")
    assert bench.collect().trouble == ""
    assert bench.manifest()["unlisted"] == ["Thumbs.db"]


def test_what_is_missing_just_after_the_end_may_only_be_late(bench: Bench) -> None:
    bench.final.parent.mkdir(parents=True)
    early = bench.collect(at=1030.0)
    assert early.trouble and not early.damaged and not early.permanent and early.retry_seconds > 0
    late = bench.collect(at=1200.0)
    assert late.damaged and "gone" in late.trouble


def test_a_destination_out_of_reach_proves_nothing(bench: Bench) -> None:
    answer = bench.collect()  # the destination's very parent is not there: not mounted, perhaps
    assert answer.trouble and not answer.damaged and not answer.permanent


def test_another_series_result_is_left_alone(bench: Bench) -> None:
    bench.stage()
    bench.collect()
    before = bench.tree()
    bench.stage()
    other = dataset(series=series("other input"))  # the same id over another input: the journal was lost
    answer = bench.collect(other)
    assert answer.occupied and answer.permanent and "TS-1.1.1" in answer.trouble and bench.staging.exists()
    discard(str(bench.staging), "TS-1.1.1.a1")
    assert bench.tree() == before


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "dangling link", "garbage manifest"])
def test_what_has_no_manifest_of_ours_is_left_alone(bench: Bench, kind: str) -> None:
    bench.stage()
    if kind == "file":
        bench.final.write_text("mine")
    elif kind == "dangling link":
        bench.final.symlink_to("nowhere")
    else:
        bench.final.mkdir()
        if kind != "empty folder":
            name = "manifest.json" if kind == "garbage manifest" else "notes.txt"
            (bench.final / name).write_text('{"dataset_id": 3}')
    before = bench.tree()
    answer = bench.collect()
    assert answer.occupied and "left alone" in answer.trouble
    assert bench.tree() == before


def test_the_same_result_published_already_is_success(bench: Bench) -> None:
    bench.stage()
    bench.collect()
    before = bench.tree()
    bench.stage()  # staged once more by an attempt that came too late
    answer = bench.collect()
    assert answer.mine_already and answer.trouble == "" and answer.result_path == str(bench.final)
    assert answer.result_bytes == 1080 and answer.verdict == "good"
    assert bench.tree() == before and not bench.staging.exists()
    # A lost journal gives a new id; the same input, pipeline and options are still the same result.
    assert bench.collect(dataset(dataset_id="TS-9.1.1")).mine_already
    assert bench.collect(dataset(dataset_id="TS-9.1.1", options={"binning": 4})).occupied


def test_a_published_result_that_lost_a_file_is_not_taken_for_success(bench: Bench) -> None:
    bench.stage()
    bench.collect()
    (bench.final / "tomogram.mrc").unlink()
    bench.stage()
    answer = bench.collect()
    assert answer.occupied and "tomogram.mrc" in answer.trouble and bench.staging.exists()


def test_look_for_result(bench: Bench) -> None:
    assert look_for_result(str(bench.final), dataset()) is None
    bench.stage()
    bench.collect()
    found = look_for_result(str(bench.final), dataset())
    assert found is not None and (found.path, found.result_bytes) == (str(bench.final), 1080)
    assert look_for_result(str(bench.final), dataset(series=series("other"))) is None
    others = dataset(dataset_id="TS-1.2.1", pipeline="command")
    assert look_for_result(str(bench.final), others) is None
    (bench.final / "central.png").write_bytes(b"")
    assert look_for_result(str(bench.final), dataset()) is None


@pytest.mark.parametrize(("verdict", "stays"), [("failed", False), ("bad", True)])
def test_a_verdict_against_it_publishes_nothing(bench: Bench, verdict: Any, stays: bool) -> None:
    bench.stage()
    failure = Failure(failure_class="program", reason="r", detail="d")
    answer = bench.collect(verdict=Verdict(verdict=verdict, failure=failure))
    assert (answer.verdict, answer.failure, answer.result_path) == (verdict, failure, "")
    assert bench.staging.exists() == stays and not bench.final.exists()


def test_a_rescue_publishes_with_the_story_of_the_run(bench: Bench) -> None:
    stranded = msgspec.structs.replace(attempt(0), attempt_id="TS-1.1.1.a0")
    end = RunEnd(job_id="j", nonce=NONCE, outcome="success", ended_at=1.0, node="n1", measured=Measured())
    rescue = attempt(kind="rescue", rescues_attempt_id="TS-1.1.1.a0", end=end)
    bench.stage()
    answer = bench.collect(dataset(stranded, rescue))
    assert answer.measured is not None and answer.measured.run_seconds == 12.5
    assert bench.manifest()["attempt"]["attempt_id"] == "TS-1.1.1.a0"


# -- crashes -----------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The daemon dies here."""


def _crashing(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], int]:
    """Count the calls that touch the disk; die before call number ``step`` (0: never)."""
    count = 0

    def wrap(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                raise Crash
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for name in ("fsync", "fchmod", "rename", "unlink", "scandir", "rmdir", "mkdir"):
        wrap(os, name)
    wrap(json, "dump")
    wrap(collecting, "rename_exclusively")
    wrap(collecting, "_tidy")
    return lambda: count


def test_a_crash_at_any_step_and_a_repeat_come_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Bench(tmp_path / "whole")
    whole.stage()
    with monkeypatch.context() as patch:
        counted = _crashing(patch, 0)
        whole.collect()
        steps = counted()
    assert steps >= 15
    ends = set()
    for step in range(1, steps + 1):
        bench = Bench(tmp_path / str(step))
        bench.stage()
        with monkeypatch.context() as patch:
            _crashing(patch, step)
            with pytest.raises(Crash):
                bench.collect()
        published = bench.final.exists()
        if published:
            assert look_for_result(str(bench.final), dataset()), "half a result was public"
        answer = bench.collect()
        assert answer.trouble == "" and answer.mine_already == published, step
        assert (answer.result_bytes, answer.verdict, answer.quality) == (1080, "good", {"residual_px": 0.2})
        assert bench.tree() == whole.tree(), step
        ends.add(published)
    assert ends == {True, False}


def test_all_of_it_is_on_disk_before_it_is_public_and_no_file_waits_for_another(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.stage()
    done: list[tuple[str, str]] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(first: Any, *more: Any) -> Any:
            path = Path(f"/proc/self/fd/{first}").readlink() if isinstance(first, int) else Path(first)
            done.append((name, path.name))
            return real(first, *more)

        monkeypatch.setattr(owner, name, call)

    watch(os, "posix_fadvise")  # which begins to write the file to the disk
    watch(os, "fsync")
    watch(collecting, "rename_exclusively")
    assert bench.collect().trouble == ""
    own, staging = ("report.html", "manifest.json"), bench.staging.name
    written = [done.index(("posix_fadvise", name)) for name in own]
    synced = [done.index(("fsync", name)) for name in own]
    folder, public = done.index(("fsync", staging)), done.index(("rename_exclusively", staging))
    assert max(written) < min(synced), "the second costs the file system a commit of its own"
    assert max(synced) < folder < public and done.index(("fsync", "logs")) < folder
    assert done[public + 1 :] == [("fsync", bench.final.parent.name)], "the new name"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EROFS])
def test_a_full_or_broken_destination_is_told_and_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    bench.stage()
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        patch.setattr(os, "fsync", fail)
        answer = bench.collect()
    assert os.strerror(number) in answer.trouble and str(bench.final) in answer.trouble
    assert not answer.damaged and answer.permanent == (number == errno.EROFS) and not bench.final.exists()
    assert bench.collect().trouble == ""


# -- the rename --------------------------------------------------------------------------------------------


class NoRenameat2:
    """A C library, or a file system, without RENAME_NOREPLACE."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def renameat2(self, *_: Any) -> int:
        return -1


@pytest.fixture(params=["kernel", "fallback"])
def rename(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "fallback":
        monkeypatch.setattr(collecting.ctypes, "CDLL", NoRenameat2)
        monkeypatch.setattr(collecting.ctypes, "get_errno", lambda: errno.EINVAL)
    yield request.param


def test_the_rename_never_replaces(tmp_path: Path, rename: str) -> None:
    source = tmp_path / "source\udce9"
    source.mkdir()
    for name in ("folder", "empty", "file", "link"):
        target = tmp_path / name
        if name == "file":
            target.write_text("x")
        elif name == "link":
            target.symlink_to("nowhere")
        else:
            target.mkdir()
            if name == "folder":
                (target / "x").touch()
        with pytest.raises(FileExistsError):
            collecting.rename_exclusively(str(source), str(target))
    collecting.rename_exclusively(str(source), str(tmp_path / "new"))
    assert (tmp_path / "new").is_dir() and not source.exists()


def test_a_name_taken_meanwhile_is_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.stage()
    real = collecting.rename_exclusively

    def late(source: str, target: str) -> None:
        Path(target).mkdir()
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "rename_exclusively", late)
        answer = bench.collect()
    assert answer.trouble and not answer.permanent and not answer.occupied
    assert bench.collect().occupied
