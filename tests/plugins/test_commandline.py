"""Commands of a batch system, really started: bounded in time, output and number, and gone when we go."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tiltd.plugins import commandline
from tiltd.plugins.commandline import (
    BackOff,
    CommandLine,
    NotStarted,
    Ran,
    Rule,
    TokenBucket,
)

TABLE = {
    0: Rule(kind="done", reason="ok", meaning="well"),
    3: Rule(kind="gone", reason="gone", meaning="gone"),
}
OTHERWISE = Rule(kind="retry", reason="other", meaning="failed")


async def sh(
    text: str, *words: str, seconds: float = 10.0, commands: CommandLine | None = None, **more: object
) -> Ran:
    line = commands or CommandLine()
    return await line.run(["/bin/sh", "-c", text, "sh", *words], timeout_seconds=seconds, **more)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def gone(pid: int) -> bool:
    for _ in range(200):
        if not alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_output_errors_and_code() -> None:
    ran = await sh("echo out; echo err >&2; exit 3")
    assert (ran.command, ran.exit_code, ran.out, ran.err, ran.said) == ("sh", 3, b"out\n", b"err\n", "err")
    assert not ran.killed


async def test_arguments_meet_no_shell(tmp_path: Path) -> None:
    hostile = ["$(touch x)", "a b", "'", "-n", "\udcff", "a\nb"]
    ran = await CommandLine().run(["printf", "%s\\0", *hostile], timeout_seconds=10)
    assert ran.out == b"".join(os.fsencode(word) + b"\0" for word in hostile)


async def test_the_environment_is_plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("PYTHONPATH", "x")
    monkeypatch.setenv("PBS_DEFAULT", "head")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    (tmp_path / "qstat").write_text("#!/bin/sh\nenv\n")
    (tmp_path / "qstat").chmod(0o755)
    ran = await CommandLine(str(tmp_path), {"EXTRA": "1"}).run(["qstat"], timeout_seconds=10)
    seen = dict(line.split("=", 1) for line in ran.out.decode().splitlines())
    assert seen["LC_ALL"] == "C" and seen["EXTRA"] == "1" and seen["PBS_DEFAULT"] == "head"
    assert not {"SECRET_TOKEN", "PYTHONPATH", "LANG"} & seen.keys()
    assert seen["PATH"].startswith(f"{tmp_path}:")


async def test_a_command_in_the_folders_is_found(tmp_path: Path) -> None:
    """Popen looks for a bare name in our own PATH, not in that of the child."""
    (tmp_path / "qzzz").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "qzzz").chmod(0o755)
    assert (await CommandLine(str(tmp_path)).run(["qzzz"], timeout_seconds=10)).out == b"found\n"


async def test_a_command_that_was_moved_is_found_again(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one/qzzz").write_text("#!/bin/sh\necho $0\n")
    (tmp_path / "one/qzzz").chmod(0o755)
    commands = CommandLine(f"{tmp_path}/one:{tmp_path}/two")
    assert b"/one/" in (await commands.run(["qzzz"], timeout_seconds=10)).out
    (tmp_path / "one/qzzz").rename(tmp_path / "two/qzzz")
    assert b"/two/" in (await commands.run(["qzzz"], timeout_seconds=10)).out


async def test_files_that_were_left_open_are_not_handed_on() -> None:
    handed = os.open("/", os.O_RDONLY)
    os.set_inheritable(handed, True)
    ran = await CommandLine().run(["ls", "/proc/self/fd"], timeout_seconds=10)
    os.close(handed)
    assert set(map(int, ran.out.split())) <= {0, 1, 2, 3}, "3 is ls reading the folder"


async def test_signals_that_python_ignores_are_not_ignored_by_a_command() -> None:
    ran = await CommandLine().run(["grep", "SigIgn", "/proc/self/status"], timeout_seconds=10)
    ignored = int(ran.out.split()[1], 16)
    assert not ignored & 1 << signal.SIGPIPE - 1 and not ignored & 1 << signal.SIGXFSZ - 1


async def test_what_is_not_there_was_not_started(tmp_path: Path) -> None:
    commands = CommandLine()
    with pytest.raises(NotStarted, match="cannot start qnone: No such file"):
        await commands.run(["qnone"], timeout_seconds=10)
    (tmp_path / "qplain").write_text("echo no\n")
    with pytest.raises(NotStarted, match="Permission denied"):
        await commands.run([str(tmp_path / "qplain")], timeout_seconds=10)
    assert [(one.command, one.outcome) for one in commands.counts()] == [
        ("qnone", "not_started"),
        ("qplain", "not_started"),
    ]


async def test_a_time_out_kills_the_whole_group() -> None:
    """The command's own children too: qsub starts some, and one that hangs must not stay."""
    pids: list[int] = []
    began = time.monotonic()
    ran = await sh(
        "sleep 60 & echo $! $$; sleep 60",
        seconds=0.3,
        sink=lambda piece: pids.extend(map(int, piece.split())),
    )
    assert ran.timed_out and ran.killed and ran.exit_code == -9 and time.monotonic() - began < 5
    assert len(pids) == 2 and await gone(pids[0]) and await gone(pids[1])


async def test_who_is_cancelled_leaves_nothing_running(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    task = asyncio.create_task(sh('echo $$ > "$1"; sleep 60', str(noted), seconds=60))
    while not noted.exists() or not noted.read_text().strip():  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(int(noted.read_text()))


async def test_too_much_output_ends_it() -> None:
    began = time.monotonic()
    ran = await sh("yes", max_bytes=100_000, seconds=30)
    assert ran.cut and ran.killed and len(ran.out) < 300_000 and time.monotonic() - began < 10


async def test_errors_are_kept_up_to_a_bound_and_read_on() -> None:
    ran = await sh("head -c 1000000 /dev/zero | tr '\\0' e >&2; exit 3")
    assert ran.exit_code == 3 and 0 < len(ran.err) <= 1 << 16


async def test_a_sink_takes_the_output_as_it_comes() -> None:
    pieces: list[bytes] = []
    ran = await sh("printf a; sleep 0.2; printf b", sink=pieces.append)
    assert pieces == [b"a", b"b"] and ran.out == b""


async def test_a_sink_that_fails_is_told_to_who_waits() -> None:
    def bad(piece: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sh("echo x; sleep 60", sink=bad)


async def test_a_child_that_holds_the_pipes_is_not_waited_for() -> None:
    began = time.monotonic()
    ran = await sh("setsid sleep 20 & echo done")
    assert ran.out == b"done\n" and ran.exit_code == 0 and not ran.killed and time.monotonic() - began < 5


async def test_a_child_that_lets_the_pipes_go_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commandline, "AFTER_END_SECONDS", 60.0)
    ran = await sh("(sleep 0.1; echo late) & echo done")
    assert (ran.out, ran.timed_out) == (b"done\nlate\n", False)


async def test_a_child_that_writes_for_ever_is_read_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """And others have their turn meanwhile, however long it takes to deal with a piece."""
    monkeypatch.setattr(commandline, "AFTER_END_SECONDS", 0.02)

    def sink(piece: bytes) -> None:
        time.sleep(0.001)  # so that there always is another

    ran = await sh("setsid yes & sleep 0.05", sink=sink, max_bytes=1000 * commandline.CHUNK_BYTES)
    assert ran.exit_code == 0 and not ran.cut and not ran.timed_out


@pytest.mark.parametrize("pidfd", [True, False])
@pytest.mark.parametrize("kept", [True, False])
async def test_a_large_output_comes_whole(kept: bool, pidfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commandline, "AFTER_END_SECONDS", 60.0)  # nobody holds the pipes
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    taken = bytearray()
    for size in (60_000, 65_536, 65_537, 5_000_000):
        taken.clear()
        text = f"head -c {size} /dev/zero; head -c 60000 /dev/zero >&2"
        ran = await sh(text, max_bytes=6_000_000, sink=None if kept else taken.extend)
        assert len(ran.out if kept else taken) == size and len(ran.err) == 60_000 and not ran.killed


async def test_what_is_kept_is_read_in_one_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a submission's cost, its pipes and their ends are a good part where each is waited for."""
    loop = asyncio.get_running_loop()
    watched: list[int] = []
    real = loop.add_reader
    monkeypatch.setattr(loop, "add_reader", lambda file, *call: (watched.append(file), real(file, *call)))
    ran = await sh("echo out; echo err >&2; exit 3")
    assert (ran.exit_code, ran.out, ran.err) == (3, b"out\n", b"err\n") and len(watched) == 1


async def test_without_pidfd_it_works_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    held = await sh("setsid sleep 5 & echo done")
    assert (held.out, held.exit_code, held.timed_out) == (b"done\n", 0, False) and held.seconds < 4
    ran = await sh("echo out; exec >&- 2>&-; sleep 0.1; exit 4")
    assert (ran.out, ran.exit_code) == (b"out\n", 4)
    late = await sh("sleep 60", seconds=0.2)
    assert late.timed_out


async def test_few_at_once(tmp_path: Path) -> None:
    text = 'echo x > "$1/$$"; ls "$1" | wc -l; sleep 0.1; rm "$1/$$"'
    commands = CommandLine(at_once=3)
    every = await asyncio.gather(*(sh(text, str(tmp_path), commands=commands) for _ in range(12)))
    assert max(int(ran.out) for ran in every) <= 3


async def test_no_file_descriptor_and_no_zombie_stays() -> None:
    await sh("true")
    before = len(os.listdir("/proc/self/fd"))
    await asyncio.gather(*(sh("exit 1") for _ in range(20)), sh("sleep 60", seconds=0.1))
    assert len(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # noqa: ASYNC222 - does not wait


# -- judging ---------------------------------------------------------------------------------------------


async def test_a_table_says_what_a_code_means_and_it_is_counted() -> None:
    commands = CommandLine()
    for code, reason in ((0, "ok"), (3, "gone"), (9, "other"), (3, "gone")):
        assert commands.judge(await sh(f"exit {code}"), TABLE, OTHERWISE).reason == reason
    assert commands.judge(await sh("sleep 9", seconds=0.1), TABLE, OTHERWISE).kind == "unsure"
    assert commands.judge(await sh("kill -9 $$"), TABLE, OTHERWISE).reason == "killed"
    assert {one.outcome: one.count for one in commands.counts()} == {
        "ok": 1,
        "gone": 2,
        "other": 1,
        "timeout": 1,
        "killed": 1,
    }
    assert all(one.seconds > 0 for one in commands.counts())


def test_last_words_are_one_printable_line() -> None:
    ran = Ran(command="q", exit_code=1, out=b"", err=b"first\n\x1b[2J last \xff\n\n", seconds=0.0)
    assert ran.said.isprintable() and "last" in ran.said and "first" not in ran.said
    assert len(Ran(command="q", exit_code=1, out=b"", err=b"x" * 9999, seconds=0.0).said) == 300


# -- pace ------------------------------------------------------------------------------------------------


async def test_a_bucket_lets_a_burst_through_and_then_so_many_a_second() -> None:
    bucket = TokenBucket(per_second=100.0, burst=5)
    loop = asyncio.get_running_loop()
    began, times = loop.time(), []
    for _ in range(15):
        await bucket.take()
        times.append(loop.time() - began)
    assert times[4] < 0.05 and 0.08 <= times[-1] < 1.0


async def test_who_waits_for_the_bucket_waits_in_order() -> None:
    bucket = TokenBucket(per_second=200.0, burst=1)
    order: list[int] = []

    async def one(number: int) -> None:
        await bucket.take()
        order.append(number)

    await asyncio.gather(*map(one, range(10)))
    assert order == list(range(10))


def test_a_pause_doubles_and_ends_with_success() -> None:
    now = [0.0]
    pause = BackOff(lambda: now[0], first_seconds=5, most_seconds=15)
    assert pause.left_seconds() == 0
    lengths = []
    for _ in range(4):
        lengths.append(pause.trouble("down"))
        assert pause.trouble("those that were under way too") == lengths[-1]
        now[0] += lengths[-1]
    assert lengths == [5, 10, 15, 15]
    pause.trouble("down")
    pause.success()
    assert pause.left_seconds() == 0 and pause.trouble("again") == 5
