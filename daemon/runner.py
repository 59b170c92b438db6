#!/usr/bin/env python3
# ruff: noqa: UP006, UP031, UP035, UP045, PTH100, PTH101, PTH102, PTH103, PTH104, PTH106, PTH108, PTH112, PTH114, PTH116, PTH121, SIM108, SIM117, SIM115
"""What runs on the compute node: ``python3 runner.py ATTEMPT_FOLDER``.  Standard library, Python 3.6+.

It claims the attempt, reserves scratch, stages in, runs the steps, stages out, and leaves the node as it was:
on success, on failure, on TERM, and (by its janitor, a process in a session of its own) when it is killed.
All that varies comes from the JSON job file, so that no name ever meets a shell.

Spool files are opened by name and appended to, a line at a time, because the spool is usually NFS.  Names in
JSON are UTF-8 with lone surrogates for other bytes; a batch job's locale may be C, so they are converted
once, by :func:`native`, on the way in, and by :func:`portable` on the way out.

Exit codes: 0 success, or nothing to do; 75 scratch too short; 143 ended by a signal; 1 anything else.
"""

import contextlib
import ctypes
import errno
import glob
import grp
import hashlib
import itertools
import json
import os
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

SIGHT_SECONDS = 60.0  # how long NFS may hide a folder that was just made (attribute cache)
PROGRESS_SECONDS = 2.0
FENCE_SECONDS = 30.0
GRACE_SECONDS = 5.0  # from TERM to KILL for the processes of a step
STRANDED_LEASE_SECONDS = 30 * 86400.0
TICKET_LEASE_SECONDS = 120.0  # a ticket not renewed for so long is anybody's
TICKET_PAUSE_SECONDS = 2.0
COPY_BYTES = 16 << 20
HASH_BYTES = 1 << 20
LINE_BYTES = 4096
TAIL_LINES, TAIL_BYTES = 40, 8192
NOTES_BYTES = 100000  # of the JSON
MODE_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 6: 2, 12: 2}  # MRC2014, bytes a pixel; 101 is 4 bits
RESERVED_NAMES = {".checksums.json", "manifest.json"}
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PLACEHOLDER = re.compile(r"\{(input|output|scratch|cores|threads|python|hosts)\}")
Json = Dict[str, Any]


class Ended(Exception):
    """The run is over, and not by success."""

    def __init__(self, outcome: str, reason: str, detail: str = "", **more: Any) -> None:
        super().__init__(detail or reason)
        self.record = dict(more, outcome=outcome, reason=reason, detail=detail)  # type: Json


class Terminated(BaseException):
    """TERM, INT or HUP arrived; raised in the main thread by the handler."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def on_signal(signum: int, _frame: Any) -> None:
    ignore_signals()
    raise Terminated(signum)


def ignore_signals() -> None:
    for signum in ENDING_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


# -- names and small files ---------------------------------------------------------------------------


def native(value: Any) -> Any:
    """Strings of the job file as this process's locale spells them (the same, where it is UTF-8)."""
    if isinstance(value, str):
        return os.fsdecode(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, list):
        return [native(item) for item in value]
    if isinstance(value, dict):
        return {key: native(item) for key, item in value.items()}
    return value


def portable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def inside(folder: str, name: str) -> str:
    """``folder/name`` for a relative name that stays inside; raises Ended."""
    parts = name.split("/")
    if name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise Ended("failed", "job file", "the job file names %r, which is no path inside its folder" % name)
    return os.path.join(folder, *parts)


def append(path: str, record: Json, durable: bool = False) -> None:
    """One JSON line at the end, begun on a line of its own even after a torn write."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, b"\n" + json.dumps(record).encode() + b"\n")
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def lines(path: str) -> Iterator[Json]:
    """The JSON objects of a file of lines; what cannot be read is passed over."""
    try:
        with open(path, "rb") as file:
            content = file.read(1 << 22).splitlines()
    except OSError:
        return
    for line in content:
        with contextlib.suppress(ValueError):
            record = json.loads(line.decode("utf-8", "replace"))
            if isinstance(record, dict):
                yield record


def write_json(path: str, record: Json, durable: bool = False) -> None:
    with open(path + ".new", "w") as file:
        json.dump(record, file)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.rename(path + ".new", path)


def read_json(path: str, limit: int = 1 << 20) -> Any:
    """The content, or ``None``."""
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(limit).decode("utf-8", "replace"))
    except (OSError, ValueError, RecursionError):
        return None


def sync_folder(path: str) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(fd)


def remove_tree(path: str) -> bool:
    """Remove it, whatever modes its folders were left with; true if it is gone."""
    if os.path.isdir(path) and not os.path.islink(path):
        for folder, names, _ in itertools.chain([("", [path], [])], os.walk(path)):
            for name in names:  # before the walk enters it
                inside = os.path.join(folder, name)
                if not os.path.islink(inside):
                    with contextlib.suppress(OSError):
                        os.chmod(inside, 0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return not os.path.lexists(path)


def files_below(folder: str) -> Iterator[Tuple[str, os.stat_result]]:
    """Path and lstat of everything below that is no folder; links are not followed."""
    with contextlib.suppress(OSError):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from files_below(entry.path)
                else:
                    yield entry.path, entry.stat(follow_symlinks=False)


# -- the kernel, where Python has no word for it -----------------------------------------------------

try:
    LIBC = ctypes.CDLL(None, use_errno=True)  # type: Optional[ctypes.CDLL]
except (OSError, TypeError):  # pragma: no cover
    LIBC = None


def fallocate(fd: int, size: int) -> None:
    """Linux ``fallocate``, not ``posix_fallocate``: glibc's emulation of the latter writes every block."""
    if LIBC is None or not hasattr(LIBC, "fallocate"):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    if LIBC.fallocate(fd, 0, ctypes.c_int64(0), ctypes.c_int64(size)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def start_writing(fd: int, offset: int, size: int) -> None:
    """Begin to write these dirty pages to the disk now, so that the fsync at the end has less to wait for."""
    if LIBC is not None and hasattr(LIBC, "sync_file_range"):
        LIBC.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(size), 2)


def adopt_orphans() -> None:
    """PR_SET_CHILD_SUBREAPER: a daemon that a step leaves behind stays our descendant."""
    if LIBC is not None:
        LIBC.prctl(36, 1, 0, 0, 0)


def processes() -> Dict[int, Tuple[int, int, int, int]]:
    """pid -> parent, session, start (clock ticks), resident bytes, of all that run; one pass over /proc."""
    found = {}
    page = os.sysconf("SC_PAGESIZE")
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                with open("/proc/%s/stat" % name, "rb") as file:
                    field = file.read().rpartition(b")")[2].split()
                if field[0] not in (b"Z", b"X"):
                    found[int(name)] = (int(field[1]), int(field[3]), int(field[19]), int(field[21]) * page)
    return found


def pid_started(pid: int) -> int:
    """Start of a process in clock ticks since boot, 0 if there is none (or only its zombie)."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            field = file.read().rpartition(b")")[2].split()
        return 0 if field[0] in (b"Z", b"X") else int(field[19])
    except (OSError, IndexError, ValueError):
        return 0


def proportional_bytes(pid: int) -> int:
    """Memory with shared pages divided among their users (PSS); raises OSError before Linux 4.14."""
    with open("/proc/%d/smaps_rollup" % pid, "rb") as file:
        match = re.search(rb"^Pss:\s+(\d+) kB", file.read(), re.M)
    return int(match.group(1)) * 1024 if match else 0


def leftovers(mark: bytes, sessions: Dict[int, int]) -> Set[int]:
    """Processes of our steps: by the mark in their environment, or by a session whose leader was ours.

    ``sessions`` maps the leader's pid to its start; a leader with another start is a stranger with a recycled
    pid.  While a session has members, its number is not given out again.
    """
    table = processes()
    found = set()
    for pid, (_, session, _, _) in table.items():
        leader = table.get(session)
        if session in sessions and (leader is None or leader[2] == sessions[session]):
            found.add(pid)
            continue
        with contextlib.suppress(OSError), open("/proc/%d/environ" % pid, "rb") as file:
            if mark in file.read().split(b"\0"):
                found.add(pid)
    return found - {os.getpid()}


def end_processes(mark: bytes, sessions: Dict[int, int], grace_seconds: float) -> bool:
    """TERM, then KILL after ``grace_seconds`` (0: KILL at once); true when none is left."""
    started = time.monotonic()
    termed = set()  # type: Set[int]
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        alive = leftovers(mark, sessions)
        spent = time.monotonic() - started
        if not alive or spent > grace_seconds + 10.0:
            return not alive
        for pid in alive if spent >= grace_seconds else alive - termed:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL if spent >= grace_seconds else signal.SIGTERM)
        termed |= alive
        time.sleep(0.02)


# -- copying -----------------------------------------------------------------------------------------


class Hasher(threading.Thread):
    """SHA-256 of a file's first ``allowed`` bytes, read beside the copy while they are still in the cache.

    Plain reads into one buffer, never a mapping: a file truncated underneath would kill the runner.
    """

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.sha = hashlib.sha256()
        self.allowed = self.hashed = 0
        self.last = False
        self.error = None  # type: Optional[OSError]
        self.turn = threading.Condition()

    def allow(self, size: int, last: bool = False) -> None:
        with self.turn:
            self.allowed, self.last = size, self.last or last
            self.turn.notify()

    def run(self) -> None:
        try:
            view = memoryview(bytearray(HASH_BYTES))
            with open(self.path, "rb", buffering=0) as file:
                while self.more():
                    count = file.readinto(view[: min(HASH_BYTES, self.allowed - self.hashed)]) or 0
                    if not count:
                        return
                    self.sha.update(view[:count])
                    self.hashed += count
        except OSError as error:
            self.error = error

    def more(self) -> bool:
        with self.turn:
            while self.hashed >= self.allowed and not self.last:
                self.turn.wait()
            return self.hashed < self.allowed


def by_copy_file_range(source: int, target: int, _offset: int, count: int) -> int:
    return os.copy_file_range(source, target, count)


def by_sendfile(source: int, target: int, offset: int, count: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, offset, count)


def by_reading(source: int, target: int, offset: int, count: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    piece = os.pread(source, min(count, 1 << 20), offset)
    written = 0
    while written < len(piece):
        written += os.write(target, piece[written:])
    return len(piece)


Mover = Callable[[int, int, int, int], int]
MOVERS = [by_sendfile, by_reading]  # type: List[Mover]
if hasattr(os, "copy_file_range"):  # Python 3.8
    MOVERS.insert(0, by_copy_file_range)
CANNOT = {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}


def move_bytes(source: int, target: int, on_bytes: Callable[[int], None]) -> int:
    """Copy from the start to the end of file, by the quickest way both file systems offer; returns bytes."""
    movers = list(MOVERS)
    offset = 0
    while True:
        try:
            count = movers[0](source, target, offset, COPY_BYTES)
        except OSError as error:
            if error.errno not in CANNOT or len(movers) == 1:
                raise
            count = 0
        if (
            not count
        ):  # an end of file is believed only from plain reading; some kernels answer 0 for "cannot"
            if len(movers) == 1:
                return offset
            movers.pop(0)
            continue
        offset += count
        on_bytes(offset)


def copy_hashed(
    source: int, target: int, hashed_path: str, on_bytes: Callable[[int], None]
) -> Tuple[int, str]:
    """Copy, and hash ``hashed_path`` (the side on scratch) meanwhile; returns bytes and hex SHA-256."""
    hasher = Hasher(hashed_path)
    hasher.start()

    def tell(size: int) -> None:
        hasher.allow(size)
        on_bytes(size)

    size = 0
    try:
        size = move_bytes(source, target, tell)
    finally:
        hasher.allow(size, last=True)
    hasher.join()
    if hasher.error is not None:
        raise hasher.error
    if hasher.hashed != size:
        raise OSError(errno.EIO, "%d bytes were copied but %d could be read again" % (size, hasher.hashed))
    return size, hasher.sha.hexdigest()


def open_input(path: str) -> int:
    """Open a regular file to read, without touching its access time; raises Ended or OSError."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Ended("failed", "input", "%r is no regular file" % portable(path))
    return fd


def prints_differ(fd: int, expected: Json) -> str:
    """How a file differs from its print, in words; empty if it does not.  The rule: ``FilePrint``."""
    size, piece = os.fstat(fd).st_size, expected["piece_bytes"]
    if size != expected["size_bytes"]:
        return "has %d bytes, not %d" % (size, expected["size_bytes"])
    if sha_of(fd, 0, min(piece, size)) != expected["head_sha256"]:
        return "begins differently"
    if size > piece and sha_of(fd, size - piece, piece) != expected["tail_sha256"]:
        return "ends differently"
    return ""


def sha_of(fd: int, offset: int, size: int) -> str:
    sha = hashlib.sha256()
    end = offset + size
    while offset < end:
        piece = os.pread(fd, min(HASH_BYTES, end - offset), offset)
        if not piece:
            break
        sha.update(piece)
        offset += len(piece)
    return sha.hexdigest()


# -- scratch -----------------------------------------------------------------------------------------


class Ballast:
    """Blocks taken from the file system beforehand and given back as the job's own files grow."""

    def __init__(self, folder: str, reserved_bytes: int) -> None:
        self.folder = folder
        self.reserved_bytes = reserved_bytes
        self.pieces = []  # type: List[List[Any]]

    @property
    def size(self) -> int:
        return sum(piece[1] for piece in self.pieces)

    def take(self) -> str:
        """Reserve it all.  Returns why the file system cannot, if so; raises OSError ENOSPC or EDQUOT."""
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        largest = 1 << 40 if limit == resource.RLIM_INFINITY else max(1, min(limit, 1 << 40))
        os.mkdir(self.folder, 0o700)
        try:
            while self.size < self.reserved_bytes:
                path = os.path.join(self.folder, "%06d" % len(self.pieces))
                self.pieces.append([path, 0])
                size = min(largest, self.reserved_bytes - self.size)
                with open(path, "wb") as file:
                    fallocate(file.fileno(), size)
                self.pieces[-1][1] = size
        except OSError as error:
            self.drop()
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            return error.strerror or "unknown error"
        return ""

    def shrink(self, allowed_bytes: int) -> None:
        """Give back what is above ``allowed_bytes``; never takes again."""
        surplus = self.size - max(0, allowed_bytes)
        while surplus > 0 and self.pieces:
            path, size = self.pieces[-1]
            keep = size - surplus if surplus < size else 0
            with contextlib.suppress(OSError):
                os.truncate(path, keep) if keep else os.unlink(path)
            surplus -= size - keep
            if keep:
                self.pieces[-1][1] = keep
            else:
                self.pieces.pop()

    def drop(self) -> None:
        self.pieces = []
        remove_tree(self.folder)


def read_lease(folder: str) -> Json:
    lease = read_json(os.path.join(folder, "lease.json"), 65536)
    return lease if isinstance(lease, dict) else {}


def lease_is_alive(lease: Json) -> bool:
    """Does the run that holds this lease, of this very node, still exist?"""
    pid, _, started = str(lease.get("run", "")).partition(".")
    return pid.isdigit() and started.isdigit() and pid_started(int(pid)) == int(started) != 0


class Ticket:
    """One of a few that allow to copy from the file server: a hard link to a file of our own, in a folder of
    the spool.  Its lease is the file's time, renewed while copying; ages are told by the server's clock."""

    def __init__(self, folder: str, count: int, name: str) -> None:
        self.folder, self.count = folder, count
        self.own = os.path.join(folder, "." + name)
        self.slot = ""
        self.renewed_at = 0.0

    def take(self) -> bool:
        """True once it may copy; without a folder, or where links cannot be made, always."""
        if not self.count:
            return True
        try:
            append(self.own, {"at": time.time()})
            os.utime(self.own)
            now = os.stat(self.own).st_mtime
            for number in range(self.count):
                slot = os.path.join(self.folder, "%d" % number)
                if self.is_stale(slot, now):
                    self.clear(slot, now)
                with contextlib.suppress(FileExistsError):
                    os.link(self.own, slot)
                    self.slot, self.renewed_at = slot, time.monotonic()
                    return True
        except OSError:  # better without a ticket than not at all
            self.give_back()
            return True
        return False

    @staticmethod
    def is_stale(path: str, now: float) -> bool:
        try:
            return now - os.stat(path).st_mtime > TICKET_LEASE_SECONDS
        except FileNotFoundError:
            return False

    def clear(self, slot: str, now: float) -> None:
        """Take a dead run's ticket away; if another was quicker, what was taken is put back."""
        aside = self.own + ".stale"
        with contextlib.suppress(FileNotFoundError):
            os.rename(slot, aside)
            if not self.is_stale(aside, now):
                with contextlib.suppress(FileExistsError):
                    os.link(aside, slot)
            os.unlink(aside)

    def renew(self) -> None:
        if self.slot and time.monotonic() - self.renewed_at > TICKET_LEASE_SECONDS / 4:
            self.renewed_at = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self.own)

    def give_back(self) -> None:
        with contextlib.suppress(OSError):
            if self.slot and os.path.samefile(self.slot, self.own):
                os.unlink(self.slot)
        if self.count:
            with contextlib.suppress(OSError):
                os.unlink(self.own)
        self.slot = ""


# -- following a step's output -----------------------------------------------------------------------


class Follower:
    """Reads a growing log; matches its lines with patterns (``ProgressPattern`` tells their groups).

    A part that says what it took is believed; for another the time from its line to the next part's counts,
    or to the end of the step.
    """

    def __init__(self, path: str, patterns: List[Json], success: str = "") -> None:
        self.path = path
        self.offset = 0
        self.rest = b""
        self.state = {"step": "", "done": 0.0, "total": 0.0}  # type: Json
        self.began = 0.0  # of the part that has not told its seconds yet; 0: none
        self.seconds = {}  # type: Dict[str, float]
        self.news = []  # type: List[Tuple[str, Json]]
        self.news_count = 0
        self.figures = {}  # type: Dict[str, float]
        self.success = re.compile(success) if success else None
        self.succeeded = not success
        self.refused = []  # type: List[str]
        self.patterns = []  # type: List[Any]
        for pattern in patterns:
            try:
                self.patterns.append((re.compile(pattern["pattern"]), pattern.get("step", "")))
            except (re.error, OverflowError, RecursionError) as error:
                self.refused.append("pattern %r is ignored: %s" % (portable(pattern["pattern"]), error))

    def look(self) -> bool:
        """Read on, at most 1 MiB; true if there may be more."""
        try:
            file = open(self.path, "rb")
        except OSError:  # a step may do to its log what it likes
            return False
        with file:
            size = os.fstat(file.fileno()).st_size
            if size - self.offset > 16 << 20:  # far behind: what scrolled by is not worth the time
                self.offset, self.rest = size - (1 << 20), b""
            file.seek(self.offset)
            piece = file.read(1 << 20)
        self.offset += len(piece)
        content = (self.rest + piece).replace(b"\r", b"\n").split(b"\n")
        self.rest = content.pop()[-LINE_BYTES:]
        if self.patterns or self.success:
            for line in content:
                self.match(os.fsdecode(line[:LINE_BYTES]))
        return bool(piece)

    def finish(self) -> None:
        """The step has ended: read all that there is, its last line too, and close the part that ran."""
        while self.look():
            pass
        self.match(os.fsdecode(self.rest))
        self.close_part(time.monotonic())

    def match(self, line: str) -> None:
        self.succeeded = self.succeeded or bool(self.success and self.success.search(line))
        for pattern, step in self.patterns:
            found = pattern.search(line)
            if found:
                self.note(dict(found.groupdict(), **({"step": step} if step else {})))

    def note(self, groups: Dict[str, Optional[str]]) -> None:
        if groups.get("step"):
            now = time.monotonic()
            self.close_part(now)
            self.state = {"step": portable(groups["step"] or "")[:100], "done": 0.0, "total": 0.0}
            self.began = now
            self.tell_news(part="began")
        for key, text in groups.items():
            with contextlib.suppress(TypeError, ValueError):
                if key in ("done", "total"):
                    self.state[key] = float(text) if text else self.state[key]
                elif key.startswith("figure_") and text and len(self.figures) < 100:
                    self.figures[key[7:]] = float(text)
        with contextlib.suppress(TypeError, ValueError):
            if groups.get("seconds"):
                self.told_seconds(groups)

    def told_seconds(self, groups: Dict[str, Optional[str]]) -> None:
        """Minutes, seconds and tenths may overflow into one another: 00:04.10 is 5 seconds (batchruntomo)."""
        minutes, seconds, tenths = (float(groups.get(key) or 0) for key in ("minutes", "seconds", "tenths"))
        self.add_seconds(60 * minutes + seconds + tenths / 10)
        self.began = 0.0

    def close_part(self, now: float) -> None:
        if self.began:
            self.add_seconds(now - self.began)
        self.began = 0.0

    def add_seconds(self, seconds: float) -> None:
        step = self.state["step"]
        if step and (step in self.seconds or len(self.seconds) < 200):
            self.seconds[step] = round(self.seconds.get(step, 0.0) + seconds, 3)
            self.tell_news(part="ended", part_seconds=round(seconds, 3))

    def tell_news(self, **what: Any) -> None:
        """For the progress file: each part's beginning and end, at most a thousand."""
        self.news_count += 1
        if self.news_count <= 1000:
            self.news.append((self.state["step"], what))


def telling_lines(path: str, patterns: List[Any]) -> List[str]:
    """The first and the last eight lines of a file in which a pattern is found; of its last 4 MiB."""
    first, last = [], []  # type: List[str], List[str]
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (4 << 20)))
            content = file.read(4 << 20).splitlines()
    except OSError:
        return []
    for raw in content:
        line = raw[:LINE_BYTES].decode("utf-8", "backslashreplace").strip()
        if any(pattern.search(line) for pattern in patterns):
            if len(first) < 8:
                first.append(line)
            else:
                last = [*last[-7:], line]
    return first + last


def witness_notes(scratch: str, log: str, witness: Json) -> List[str]:
    """``NAME: LINE`` of what a step's own log and the files beside it tell, 80 lines of 400 characters."""
    patterns = []
    for text in witness.get("patterns", []):
        with contextlib.suppress(re.error, OverflowError, RecursionError):
            patterns.append(re.compile(text))
    paths = [log]
    for wanted in witness.get("files", []):
        found = sorted(glob.glob(os.path.join(glob.escape(scratch), wanted)))[:100]
        paths += [path for path in found if stat.S_ISREG(os.lstat(path).st_mode)]
    notes = []  # type: List[str]
    for path in paths:
        name = portable(os.path.basename(path))
        notes += ["%s: %s" % (name, line[:400]) for line in telling_lines(path, patterns)]
    return notes[:80]


def log_tail(path: str) -> List[str]:
    """The last 40 lines, at most 8 kB, printable."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            content = file.read(TAIL_BYTES)
    except OSError:
        return []
    return [line.decode("utf-8", "backslashreplace") for line in content.splitlines()[-TAIL_LINES:]]


# -- results -----------------------------------------------------------------------------------------


def result_differs(path: str, expected: Json) -> Tuple[str, str]:
    """("missing result" or "wrong result", a sentence), or two empty strings."""
    name = portable(expected["name"])
    try:
        found = os.lstat(path)
    except OSError:
        return "missing result", "the steps ended well but %r is not there" % name
    if not stat.S_ISREG(found.st_mode):
        return "missing result", "%r is no regular file" % name
    if found.st_size < expected.get("min_bytes", 1):
        return "missing result", "%r has %d bytes, expected at least %d" % (
            name, found.st_size, expected.get("min_bytes", 1))  # fmt: skip
    wrong = mrc_differs(path, found.st_size, expected.get("image_size"), expected.get("mode"))
    return ("wrong result", "%r %s" % (name, wrong)) if wrong else ("", "")


def mrc_differs(path: str, size: int, image_size: Optional[List[int]], mode: Optional[int]) -> str:
    """How an MRC file differs from what is expected: header words 1-4, 24 (MRC2014), and its length."""
    if image_size is None and mode is None:
        return ""
    with open(path, "rb") as file:
        header = file.read(1024)
    if len(header) < 1024:
        return "is too short for an MRC header"
    order = ">" if header[212:214] == b"\x11\x11" else "<"
    nx, ny, nz, found_mode = struct.unpack(order + "4i", header[:16])
    (extended,) = struct.unpack(order + "i", header[92:96])
    if image_size is not None and [nx, ny, nz] != list(image_size):
        return "is %dx%dx%d, expected %s" % (nx, ny, nz, "x".join(str(n) for n in image_size))
    if mode is not None and found_mode != mode:
        return "has mode %d, expected %d" % (found_mode, mode)
    row = (nx + 1) // 2 if found_mode == 101 else nx * MODE_BYTES.get(found_mode, 0)
    if size != 1024 + extended + row * ny * nz:
        return "has %d bytes but its header asks for %d" % (size, 1024 + extended + row * ny * nz)
    return ""


def read_figures(path: str) -> Dict[str, float]:
    """``figures.json``: a flat object of finite numbers, at most 100; anything else in it is passed over."""
    content = read_json(path, 65536)
    figures = {}
    if isinstance(content, dict):
        for name, value in list(content.items())[:100]:
            if isinstance(value, (int, float)) and abs(value) < 1e300:
                figures[name] = float(value)
    return figures


def read_notes(path: str) -> List[str]:
    """``notes.json``: a list of strings, at most 200 of 500 characters; anything else is passed over."""
    content = read_json(path, 1 << 20)
    found = content if isinstance(content, list) else []
    return [text[:500] for text in found[:200] if isinstance(text, str)]


def bounded(notes: List[str]) -> List[str]:
    """As many of them as a line of the end file has room for: its readers take pieces of 256 KiB."""
    room, kept = NOTES_BYTES, []  # type: int, List[str]
    for note in notes:
        room -= len(json.dumps(note)) + 2
        if room < 0:
            break
        kept.append(note)
    return kept


# -- the claim ---------------------------------------------------------------------------------------


def own_job_id() -> str:
    for name in ("TILTD_JOB_ID", "PBS_JOBID", "SLURM_JOB_ID"):
        if os.environ.get(name):
            return re.sub(r"[^A-Za-z0-9._-]", "_", os.environ[name])[:128]
    return "%s-%d" % (re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname())[:64], os.getpid())


def own_node() -> str:
    """This node as the resource manager calls it, else as it calls itself."""
    return os.environ.get("TILTD_NODE") or next(iter(node_lines()), "") or socket.gethostname()


def node_lines() -> List[str]:
    """One line for each core of the job, as Torque writes them; empty without a batch system."""
    try:
        with open(os.environ["PBS_NODEFILE"]) as file:
            return [line.strip() for line in file if line.strip()]
    except (KeyError, OSError, ValueError):
        return []


def host_list(node: str, cores: int) -> str:
    """All nodes of the job and its cores on each: ``host#cores,host#cores``."""
    counts = {}  # type: Dict[str, int]
    for line in node_lines() or [node] * cores:
        counts[line] = counts.get(line, 0) + 1
    return ",".join("%s#%d" % pair for pair in counts.items())


def claim(folder: str, job_id: str) -> bool:
    """One rename wins.  Raises OSError if the spool cannot be used at all.

    ENOENT is no verdict by itself: an NFS server that saw a retransmission answers it to the winner, and a
    node may not see yet a folder that was made a second ago.  Only another's mark is.
    """
    target = "claimed." + job_id
    deadline = time.monotonic() + SIGHT_SECONDS
    while True:
        try:
            os.rename(os.path.join(folder, "job.json"), os.path.join(folder, target))
            return True
        except FileNotFoundError:
            pass
        try:
            names = os.listdir(folder)  # opening the folder refreshes what NFS has cached of it
        except FileNotFoundError:
            names = []
        if target in names:
            return former_run_is_over(folder, job_id, target)
        if "revoked" in names or any(name.startswith("claimed.") for name in names):
            return False
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)


def former_run_is_over(folder: str, job_id: str, target: str) -> bool:
    """May this run use a claim that its own job id holds already (retransmission, or a requeued job)?

    Not beside a former run that may be alive: its end, or its death on this very node, must be seen.
    """
    nonce = (read_json(os.path.join(folder, target), 1 << 26) or {}).get("nonce")
    claims, ends = claims_and_ends(folder, nonce)
    if any(end.get("outcome") in ("success", "stranded") for end in ends):
        return False
    if not claims or len(ends) >= len(claims):
        return True
    last = claims[-1]
    return last.get("node") == own_node() and pid_started(int(last["pid"])) != last["pid_started"]


def claims_and_ends(folder: str, nonce: Any) -> Tuple[List[Json], List[Json]]:
    """One of each for every time that the job was started; a start without an end was killed, or lives."""
    ends = [end for end in lines(os.path.join(folder, "end")) if end.get("nonce") == nonce]
    told = lines(os.path.join(folder, "progress"))
    return [line for line in told if line.get("phase") == "claimed"], ends


def each_start_has_ended(folder: str, nonce: Any) -> bool:
    claims, ends = claims_and_ends(folder, nonce)
    return bool(ends) and len(ends) >= len(claims)


# -- the janitor -------------------------------------------------------------------------------------


def start_janitor(run: "Run") -> int:
    """Fork it; returns the write end of its pipe, which no step inherits.

    In a session of its own and an orphan, it outlives a kill of the runner's session, group or tree.
    """
    reader, writer = os.pipe()  # close-on-exec
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    child = os.fork()
    if child:
        os.close(reader)
        os.waitpid(child, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        return writer
    try:
        os.setsid()
        if os.fork() == 0:
            os.close(writer)
            be_janitor(run, reader)
    finally:
        os._exit(0)


def be_janitor(run: "Run", reader: int) -> None:
    ignore_signals()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) != reader:
            with contextlib.suppress(OSError):
                os.close(int(name))
    told = b""
    while True:
        piece = os.read(reader, 4096)
        if not piece:
            break
        told += piece
    words = [line.split() for line in told.splitlines()]
    sessions = {int(word[1]): int(word[2]) for word in words if word[0] == b"session"}
    sweep(run, sessions, ended=[b"ended"] in words)
    if [b"cleaned"] not in words:
        run.tell_cleaned()


def sweep(run: "Run", sessions: Dict[int, int], ended: bool) -> None:
    """After the runner's end or death: its steps' processes, its scratch, its unfinished staging folder."""
    sealed = read_json(os.path.join(run.staging, ".checksums.json"), 1 << 26) or {}
    delivered = sealed.get("nonce") == run.job["nonce"]
    if not ended and not each_start_has_ended(run.folder, run.job["nonce"]):
        with contextlib.suppress(OSError):
            if delivered:  # the seal is as good as the marker that could not be written any more
                run.read_told(run.staging)
                run.tell_end(outcome="success", reason="", detail="killed after delivery", exit_status=0)
            else:
                run.tell_end(outcome="terminated", reason="killed", detail="the runner was killed")
    for _ in range(30):
        end_processes(run.mark, sessions, 0.0)
        if run.remove_scratch():
            break
        time.sleep(1.0)
    else:
        run.say("the janitor could not remove %r" % portable(run.scratch))
    if not ended and not delivered:
        remove_tree(run.staging)


# -- the run -----------------------------------------------------------------------------------------


class Run:
    """One claimed attempt on this node."""

    def __init__(self, folder: str, job_id: str, job: Json) -> None:
        self.folder, self.job_id, self.job = folder, job_id, job
        self.end_path = os.path.join(folder, "end")
        self.node = own_node()
        self.started = time.monotonic()
        self.token = "%d.%d" % (os.getpid(), pid_started(os.getpid()))
        attempt = job["attempt_id"]
        scratch = job["scratch"].get("paths", {}).get(self.node) or job["scratch"]["path"]
        scratch = scratch.replace("{node}", self.node.partition(".")[0])
        if not re.match(r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", attempt) or not scratch.startswith("/"):
            raise ValueError("the job file's attempt_id or scratch path is not usable")
        self.scratch = os.path.join(scratch, attempt)
        self.staging = job["output"]["staging"]
        if not self.staging.startswith("/") or not os.path.basename(self.staging).startswith(".tiltd-"):
            raise ValueError("the job file's staging folder is not usable")
        self.mark = os.fsencode("TILTD_RUN=%s:%s" % (attempt, self.token))
        self.ballast = Ballast(os.path.join(self.scratch, "ballast"), int(job["scratch"].get("bytes", 0)))
        turns = job.get("stage_in") or {}
        self.ticket = Ticket(
            turns.get("folder", ""), turns.get("tickets", 0), "%s.%s" % (attempt, self.token)
        )
        self.janitor = -1
        self.sessions = {}  # type: Dict[int, int]
        self.quitting = None  # type: Optional[Tuple[int, Json]]
        self.phase, self.step = "claimed", ""
        self.told_at = self.tended_at = self.fence_seen_at = 0.0
        self.scratch_bytes = self.used_bytes = 0
        self.largest_rss = 0
        self.inputs = []  # type: List[Json]
        self.figures = {}  # type: Dict[str, float]
        self.notes = []  # type: List[str]
        self.measured = {
            "stage_in_seconds": 0.0, "run_seconds": 0.0, "stage_out_seconds": 0.0, "cpu_seconds": 0.0,
            "peak_memory_bytes": 0, "peak_scratch_bytes": 0, "stage_in_bytes": 0, "stage_out_bytes": 0,
            "step_seconds": {},
        }  # type: Json  # fmt: skip

    def path(self, *names: str) -> str:
        return os.path.join(self.scratch, *names)

    # telling

    def say(self, text: str) -> None:
        """A line for people in ``runner.log``; the job's own output may be lost."""
        line = "%s %s %s\n" % (time.strftime("%Y-%m-%dT%H:%M:%S%z"), self.job_id, text)
        with contextlib.suppress(OSError):
            with open(os.path.join(self.folder, "runner.log"), "ab") as file:
                file.write(line.encode("utf-8", "backslashreplace"))

    def tell(self, phase: str, done: float = 0.0, total: float = 0.0, step: str = "", **more: Any) -> None:
        """A progress line at each change of phase, or when the last is 2 s old (12 s after an hour)."""
        now = time.monotonic()
        changed = (phase, step) != (self.phase, self.step) or more
        if not changed and now - self.told_at < max(PROGRESS_SECONDS, (now - self.started) / 300):
            return
        self.phase, self.step, self.told_at = phase, step, now
        record = dict(
            more, phase=phase, step=step, done=done, total=total, at=time.time(), node=self.node,
            scratch_bytes=self.scratch_bytes, peak_memory_bytes=self.measured["peak_memory_bytes"],
        )  # fmt: skip
        try:
            append(os.path.join(self.folder, "progress"), record)
        except OSError as error:
            self.say("progress cannot be written: %s" % error.strerror)

    def tell_end(self, **record: Any) -> None:
        record.update(
            job_id=self.job_id, nonce=self.job["nonce"], ended_at=time.time(), node=self.node,
            figures=self.figures, notes=bounded(self.notes), measured=self.measured,
        )  # fmt: skip
        append(self.end_path, record, durable=True)

    def tell_cleaned(self) -> None:
        """Nothing of this run is left on the node, unless it is a result that waits for its rescue."""
        if not os.path.lexists(self.scratch):
            with contextlib.suppress(OSError):
                record = {"phase": "cleaned", "at": time.time(), "node": self.node}
                append(os.path.join(self.folder, "progress"), record)

    def tell_janitor(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self.janitor, line.encode())

    def write_end(self, record: Json) -> None:
        """The marker matters: a full spool gets a minute to recover, unless we were told to end."""
        for pause in [1.0] if record["outcome"] == "terminated" else [1.0, 2.0, 5.0, 10.0, 20.0, 20.0]:
            try:
                return self.tell_end(**record)
            except OSError as error:
                self.say("the end cannot be written: %s" % error.strerror)
                time.sleep(pause)

    # the whole

    def main(self) -> int:
        self.tell("claimed", job_id=self.job_id, pid=os.getpid(), pid_started=pid_started(os.getpid()))
        self.janitor = start_janitor(self)
        adopt_orphans()
        record = self.outcome()
        ignore_signals()
        self.measured["cpu_seconds"] = round(child_seconds(), 3)
        if record["outcome"] != "success":
            self.say("%(outcome)s: %(reason)s: %(detail)s" % record)
        self.write_end(record)
        self.tell_janitor("ended\n")
        self.clean(record["outcome"])
        return {"success": 0, "scratch_short": 75, "terminated": 143}.get(record["outcome"], 1)

    def outcome(self) -> Json:
        try:
            {"rescue": self.rescue, "sweep": self.sweep_node, "check": self.check_node}.get(
                self.job["kind"], self.work
            )()
            return {"outcome": "success", "reason": "", "detail": "", "exit_status": 0}
        except Ended as end:
            return end.record
        except Terminated as end:
            name = signal.Signals(end.signum).name
            detail = "ended by %s in phase %s" % (name, self.phase)
            return {"outcome": "terminated", "reason": name, "detail": detail, "step": self.step,
                    "exit_status": 128 + end.signum}  # fmt: skip
        except Exception as error:
            self.say(traceback.format_exc())
            return {"outcome": "failed", "reason": "runner", "step": self.step,
                    "detail": "%s: %s (phase %s)" % (type(error).__name__, error, self.phase)}  # fmt: skip

    def work(self) -> None:
        self.make_scratch()
        self.stage_in()
        self.check_fence()
        self.run_steps()
        self.check_results()
        self.ballast.drop()
        self.stage_out(self.path("output"), self.path("logs"))

    def clean(self, outcome: str) -> None:
        self.ask_to_quit()
        end_processes(self.mark, self.sessions, GRACE_SECONDS)
        if outcome in ("terminated", "fenced"):
            remove_tree(self.staging)
        if not self.remove_scratch():
            self.say("%r could not be removed; the janitor tries on" % portable(self.scratch))
            return
        self.tell_cleaned()
        self.tell_janitor("cleaned\n")

    def remove_scratch(self) -> bool:
        """Remove the scratch folder if it is this run's and not stranded; true if nothing of ours is left."""
        lease = read_json(self.path("lease.json"))
        if (
            lease is None
        ):  # killed between mkdir and the lease, or already half removed: only if empty or ours
            return not os.path.lexists(self.scratch) or remove_tree(self.scratch)
        if lease.get("run") != self.token or lease.get("stranded"):
            return True
        return remove_tree(self.scratch)

    def check_fence(self) -> None:
        self.fence_seen_at = time.monotonic()
        with contextlib.suppress(OSError):
            if "fence" in os.listdir(self.folder):
                raise Ended(
                    "fenced", "fenced", "the daemon gave this attempt up and fenced it", step=self.step
                )

    def check_walltime(self) -> None:
        limit = self.job.get("walltime_seconds", 0)
        if limit and time.monotonic() - self.started > limit:
            detail = "the walltime of %d s is over in phase %s" % (limit, self.phase)
            raise Ended("failed", "walltime", detail, step=self.step)

    # scratch

    def make_scratch(self) -> None:
        self.tell("scratch")
        try:
            os.makedirs(os.path.dirname(self.scratch), 0o755, exist_ok=True)
            self.remove_expired()
            if (read_json(self.path("lease.json")) or {}).get("stranded"):
                raise self.short("results of another attempt of this name are stranded there")
            if os.path.lexists(self.scratch):  # of a former run of this very job, which is proved over
                os.rename(self.scratch, self.scratch + ".old")
                remove_tree(self.scratch + ".old")
            os.mkdir(self.scratch, 0o700)
            self.write_lease(max(self.job.get("walltime_seconds", 0), 86400.0) + 86400.0)
            self.take_ballast()
            for name in ("input", "output", "tmp", "logs"):
                os.mkdir(self.path(name), 0o700)
        except OSError as error:
            raise self.short(error.strerror or str(error)) from error

    def remove_expired(self) -> None:
        """Folders of runs that died on this very node, and whose lease is over; stranded results stay."""
        root = os.path.dirname(self.scratch)
        for name in os.listdir(root):
            path = os.path.join(root, name)
            if path == self.scratch or os.path.islink(path):
                continue
            lease = read_lease(path)
            over = lease.get("expires_at", time.time()) < time.time() and lease.get("node") == self.node
            if over and not lease.get("stranded") and not lease_is_alive(lease):
                self.say("%r was left by a run that died: removed" % portable(path))
                remove_tree(path)

    def short(self, why: str) -> Ended:
        wanted, folder = self.ballast.reserved_bytes, os.path.dirname(self.scratch)
        detail = "%d bytes of scratch are wanted in %r on %s: %s" % (wanted, portable(folder), self.node, why)
        return Ended("scratch_short", "scratch", detail, exit_status=75)

    def take_ballast(self) -> None:
        wanted = self.ballast.reserved_bytes
        system = os.statvfs(self.scratch)
        free = system.f_bavail * system.f_frsize
        if free < wanted:
            raise self.short("only %d are free" % free)
        why = self.ballast.take() if self.job["scratch"].get("ballast", True) else "not asked for"
        if why:
            self.tell("scratch", note="no ballast (%s); %d bytes are free" % (why, free))
        self.scratch_bytes = self.ballast.size

    def write_lease(self, seconds: float, stranded: bool = False) -> None:
        write_json(self.path("lease.json"), {
            "attempt_id": self.job["attempt_id"], "job_id": self.job_id, "nonce": self.job["nonce"],
            "node": self.node, "run": self.token, "expires_at": time.time() + seconds, "stranded": stranded,
        })  # fmt: skip

    def tend_scratch(self) -> None:
        """Measure the folder and give ballast back ahead of its growth: an eighth of all, at most 2 GiB.

        If others took what was given back, more is given, but no more than the job's own pace asks for.
        """
        used = sum(
            found.st_blocks * 512
            for name in ("input", "output", "tmp", "logs")
            for _, found in files_below(self.path(name))
        )
        reserved, system = self.ballast.reserved_bytes, os.statvfs(self.scratch)
        lead = min(reserved // 8, 2 << 30)
        ahead = min(lead, max(lead // 4, 4 * (used - self.used_bytes)))
        missing = max(0, ahead - system.f_bavail * system.f_frsize)
        self.ballast.shrink(min(reserved - used - lead, self.ballast.size - missing))
        self.used_bytes = used
        self.scratch_bytes = used + self.ballast.size
        self.measured["peak_scratch_bytes"] = max(self.measured["peak_scratch_bytes"], used)

    # stage in

    def stage_in(self) -> None:
        files = self.job["input"]["files"]
        total, done = sum(file["size_bytes"] for file in files), 0
        self.wait_for_turn(total)
        started = time.monotonic()
        self.tell("stage_in", 0, total)
        try:
            for file in files:
                self.ballast.shrink(self.ballast.reserved_bytes - done - file["size_bytes"])
                self.stage_in_file(file, done, total)
                done += file["size_bytes"]
        finally:
            self.ticket.give_back()
        for text in self.job.get("texts", []):
            path = inside(self.path("input"), text["name"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as target:
                target.write(os.fsencode(text["text"]))
        self.measured["stage_in_seconds"] = round(time.monotonic() - started, 3)
        self.measured["stage_in_bytes"] = done

    def wait_for_turn(self, total: int) -> None:
        """A ticket of those that may copy at once; after a quarter of the walltime it goes without one."""
        deadline = time.monotonic() + min(3600.0, self.job.get("walltime_seconds", 0) / 4 or 3600.0)
        waited = False
        while not self.ticket.take():
            if time.monotonic() > deadline:
                self.tell("stage_in", 0, total, note="no ticket in time; it copies without one")
                return
            if not waited:
                self.tell("stage_in", 0, total, step="waits for its turn")
                waited = True
            self.check_walltime()
            if time.monotonic() - self.fence_seen_at > FENCE_SECONDS:
                self.check_fence()
            time.sleep(TICKET_PAUSE_SECONDS)

    def stage_in_file(self, file: Json, before: int, total: int) -> None:
        source_path = inside(self.job["input"]["root"], file["source"])
        target_path = inside(self.path("input"), file["name"])
        os.makedirs(os.path.dirname(target_path), exist_ok=True)

        def on_bytes(size: int) -> None:
            self.check_walltime()
            self.ticket.renew()
            self.tell("stage_in", before + size, total)

        source = self.open_checked(source_path, file)
        try:
            first = os.fstat(source)
            with open(target_path, "wb") as target:
                size, sha256 = copy_hashed(source, target.fileno(), target_path, on_bytes)
            last = os.fstat(source)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self.short("it filled up while staging in") from error
            raise Ended("failed", "input", "%r: %s" % (portable(source_path), error.strerror)) from error
        finally:
            os.close(source)
        if (first.st_size, first.st_mtime_ns) != (last.st_size, last.st_mtime_ns) or size != first.st_size:
            raise Ended(
                "input_changed", "input changed", "%r changed during the copy" % portable(source_path)
            )
        os.close(self.open_checked(source_path, file))  # by name again: it may have been replaced
        os.close(self.open_checked(target_path, file))
        self.inputs.append({"name": file["name"], "size_bytes": size, "sha256": sha256})

    def open_checked(self, path: str, file: Json) -> int:
        """Open a file whose print is as recorded; raises Ended."""
        try:
            fd = open_input(path)
            wrong = prints_differ(fd, file)
        except FileNotFoundError as error:
            raise Ended("input_changed", "input changed", "%r is gone" % portable(path)) from error
        except OSError as error:
            raise Ended("failed", "input", "%r: %s" % (portable(path), error.strerror)) from error
        if wrong:
            os.close(fd)
            raise Ended("input_changed", "input changed", "%r %s" % (portable(path), wrong))
        return fd

    # steps

    def run_steps(self) -> None:
        started = time.monotonic()
        try:
            for step in self.job["steps"]:
                before = time.monotonic()
                try:
                    self.run_step(step)
                finally:
                    seconds = self.measured["step_seconds"]
                    seconds[step["name"]] = round(time.monotonic() - before, 3)
        finally:
            self.measured["run_seconds"] = round(time.monotonic() - started, 3)
            self.read_told(self.path("output"))

    def read_told(self, folder: str) -> None:
        """What the job's own programs left for the judgement, whether they succeeded or not."""
        self.figures.update(read_figures(os.path.join(folder, "figures.json")))
        self.notes = read_notes(os.path.join(folder, "notes.json")) + self.notes

    def fill(self, text: str) -> str:
        values = {"input": self.path("input"), "output": self.path("output"), "scratch": self.scratch,
                  "cores": str(self.job["cores"]), "threads": str(self.job["threads"]),
                  "python": sys.executable, "hosts": host_list(self.node, self.job["cores"])}  # fmt: skip
        return PLACEHOLDER.sub(lambda found: values[found.group(1)], text)

    def environment(self, step: Json) -> Dict[str, str]:
        threads = str(self.job["threads"])
        environment = dict(os.environ, TMPDIR=self.path("tmp"))
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            environment[name] = threads
        environment.update((key, self.fill(value)) for key, value in step.get("environment", {}).items())
        name, _, value = os.fsdecode(self.mark).partition("=")
        environment[name] = value
        return environment

    def run_step(self, step: Json) -> None:
        name = step["name"]
        log = inside(self.path("logs"), name + ".log")
        follower = Follower(log, step.get("patterns", []), step.get("success_pattern", ""))
        self.tell("step", step=portable(name))
        for text in follower.refused:
            self.tell("step", step=portable(name), note=text)
        with open(log, "wb") as output:
            try:
                process = subprocess.Popen(
                    [self.fill(word) for word in step["argv"]], cwd=self.scratch, env=self.environment(step),
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                status = 127 if error.errno == errno.ENOENT else 126
                detail = "step %s cannot be started: %s" % (portable(name), error)
                raise self.step_failed(name, log, "exit %d" % status, detail, status) from error
        self.sessions[process.pid] = pid_started(process.pid)
        self.tell_janitor("session %d %d\n" % (process.pid, self.sessions[process.pid]))
        self.quitting = (process.pid, step["quit"]) if step.get("quit") else None
        try:
            self.watch_step(process, follower, name)
            self.quitting = None
            end_processes(self.mark, self.sessions, GRACE_SECONDS)  # whatever it left running
            self.judge_step(process.returncode, name, log, follower.succeeded)
        except Ended as end:
            if step.get("witness"):
                self.notes += witness_notes(self.scratch, log, step["witness"])
            raise self.step_failed(name, log, end=end) from None  # clean() ends its processes
        finally:
            self.figures.update(follower.figures)
            self.measured["step_seconds"].update(follower.seconds)

    def ask_to_quit(self) -> None:
        """Let the running step end in order, where it knows how: it may have processes on other nodes."""
        if self.quitting is None:
            return
        pid, wish = self.quitting
        self.quitting = None
        with contextlib.suppress(OSError):
            with open(self.fill(wish["file"]), "w") as file:
                file.write(wish["text"])
            deadline = time.monotonic() + min(float(wish.get("seconds", 3.0)), 30.0)
            while pid_started(pid) and time.monotonic() < deadline:
                reap()
                time.sleep(0.05)

    def watch_step(self, process: Any, follower: Follower, name: str) -> None:
        """Until it ends: its log, memory, scratch, walltime and fence, each as often as it is cheap."""
        pause, cost = 0.01, 0.0
        while process.returncode is None:
            pid, status = reap()
            if pid == process.pid:
                process.returncode = (
                    -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                )
            follower.look()
            self.tell_parts(follower, name)
            now = time.monotonic()
            if now - self.tended_at > max(0.5, 30 * cost) or process.returncode is not None:
                self.tend_scratch()
                self.check_memory(process.pid)
                self.tended_at = time.monotonic()
                cost = self.tended_at - now
            state = follower.state
            label = portable(name) + (": " + state["step"] if state["step"] else "")
            self.tell("step", state["done"], state["total"], label)
            if process.returncode is None:
                self.check_walltime()
                if now - self.fence_seen_at > FENCE_SECONDS:
                    self.check_fence()
                time.sleep(pause)
                pause = min(0.2, pause * 1.3)
        follower.finish()
        self.tell_parts(follower, name)

    def tell_parts(self, follower: Follower, name: str) -> None:
        state = follower.state
        for step, what in follower.news:
            done, total = (state["done"], state["total"]) if step == state["step"] else (0.0, 0.0)
            self.tell("step", done, total, "%s: %s" % (portable(name), step), **what)
        follower.news = []

    def check_memory(self, pid: int) -> None:
        """Memory of the tree; shared pages count once, where the kernel can tell (asked at new peaks)."""
        table, tree = processes(), {pid}
        for _ in range(32):  # generations
            more = {child for child, found in table.items() if found[0] in tree} - tree
            if not more:
                break
            tree |= more
        tree |= {child for child, found in table.items() if found[0] == os.getpid()}
        total = sum(table[child][3] for child in tree if child in table)
        limit = self.job.get("memory_bytes", 0)
        if total > self.largest_rss or (limit and total > limit):
            self.largest_rss = max(total, int(self.largest_rss * 1.02))
            if len(tree) > 1:
                with contextlib.suppress(OSError):
                    total = sum(proportional_bytes(child) for child in tree if child in table)
            self.measured["peak_memory_bytes"] = max(self.measured["peak_memory_bytes"], total)
            if limit and total > limit:
                raise Ended("failed", "memory", "%d bytes of memory in use, %d allowed" % (total, limit))

    def judge_step(self, code: int, name: str, log: str, succeeded: bool = True) -> None:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        self.measured["peak_memory_bytes"] = max(self.measured["peak_memory_bytes"], peak)
        if code == 0 and not succeeded:
            detail = "step %s ended with exit 0 but did not tell that it was done" % portable(name)
            raise self.step_failed(name, log, "not completed", detail, 0)
        if code == 0:
            return
        if code < 0:
            reason = "signal %d (%s)" % (-code, signal_name(-code))
        else:
            reason = "exit %d" % code
        detail = "step %s ended with %s" % (portable(name), reason)
        if self.scratch_full():
            reason, detail = "no space", detail + " and the scratch file system is full"
        raise self.step_failed(name, log, reason, detail, 128 - code if code < 0 else code)

    def scratch_full(self) -> bool:
        system = os.statvfs(self.scratch)
        return system.f_bavail * system.f_frsize < 1 << 20

    def step_failed(
        self,
        name: str,
        log: str,
        reason: str = "",
        detail: str = "",
        status: Optional[int] = None,
        end: Optional[Ended] = None,
    ) -> Ended:
        end = end or Ended("failed", reason, detail, exit_status=status)
        end.record.update(step=portable(name), log_tail=log_tail(log))
        return end

    def check_results(self) -> None:
        self.tell("results")
        for expected in self.job["output"].get("results", []):
            reason, detail = result_differs(inside(self.path("output"), expected["name"]), expected)
            if reason:
                last = self.job["steps"][-1]["name"] if self.job["steps"] else ""
                raise self.step_failed(last, self.path("logs", last + ".log"), reason, detail)

    # stage out

    def stage_out(self, output: str, logs: str) -> None:
        """Everything to the hidden staging folder, checksummed and on disk; raises Ended."""
        self.check_fence()
        started = time.monotonic()
        files = self.results_of(output, logs)
        total = sum(found.st_size for _, _, found in files)
        self.tell("stage_out", 0, total)
        try:
            self.make_staging()
            sums = self.copy_out(files, total)
            self.check_fence()
            ignore_signals()  # from here on it is a success
            self.seal(sums)
        except (OSError, KeyError) as error:
            remove_tree(self.staging)
            raise self.strand(os.path.dirname(output), error) from error
        finally:
            self.measured["stage_out_seconds"] = round(time.monotonic() - started, 3)
        self.measured["stage_out_bytes"] = total

    def results_of(self, output: str, logs: str) -> List[Tuple[str, str, os.stat_result]]:
        """(name in the staging folder, path, stat) of every regular file to deliver; links are left."""
        wanted = {}
        for prefix, folder in (("logs/", logs), ("", output)):
            for path, found in files_below(folder):
                name = prefix + os.path.relpath(path, folder)
                if stat.S_ISREG(found.st_mode) and name not in RESERVED_NAMES:
                    wanted[name] = (name, path, found)
                else:
                    self.say(
                        "%r is not staged out: a link, a special file, or a reserved name" % portable(name)
                    )
        return [wanted[name] for name in sorted(wanted)]

    def make_staging(self) -> None:
        missing, path = [], self.staging
        remove_tree(self.staging)
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):  # a parent that another job made meanwhile
                os.mkdir(path)
                self.publish_mode(path, folder=True)

    def publish_mode(self, path: str, folder: bool = False) -> None:
        """Mode and group as configured: a batch job's umask may be 0077, and people must be able to read."""
        output = self.job["output"]
        group = output.get("group", "")
        if group:
            os.chown(path, -1, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid)
        mode = int(output["dir_mode" if folder else "file_mode"], 8)
        inherited = stat.S_IMODE(os.lstat(path).st_mode) & stat.S_ISGID if folder else 0
        os.chmod(path, mode | inherited)

    def copy_out(self, files: List[Tuple[str, str, os.stat_result]], total: int) -> List[Json]:
        sums, before, folders = [], 0, {self.staging}
        for name, path, _ in files:
            target = os.path.join(self.staging, name)
            parent = os.path.dirname(target)
            while not os.path.isdir(parent):
                folders.add(parent)
                parent = os.path.dirname(parent)
            for folder in sorted(folders):
                if not os.path.isdir(folder):
                    os.mkdir(folder)
                    self.publish_mode(folder, folder=True)
            size, sha256 = self.copy_out_file(path, target, before, total)
            sums.append({"name": portable(name), "size_bytes": size, "sha256": sha256})
            before += size
        for folder in sorted(folders, reverse=True):
            sync_folder(folder)
        return sums

    def copy_out_file(self, path: str, target: str, before: int, total: int) -> Tuple[int, str]:
        written = [0]
        source = open_input(path)
        try:
            fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:

                def on_bytes(size: int) -> None:
                    start_writing(fd, written[0], size - written[0])
                    written[0] = size
                    self.tell("stage_out", before + size, total)

                size, sha256 = copy_hashed(source, fd, path, on_bytes)
                self.publish_mode(target)
                os.fsync(fd)
                if os.fstat(fd).st_size != size:
                    raise OSError(errno.EIO, "the copy has %d bytes, not %d" % (os.fstat(fd).st_size, size))
                return size, sha256
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def seal(self, sums: List[Json]) -> None:
        """The staging folder's own witness: written last, so that one that has it is complete."""
        path = os.path.join(self.staging, ".checksums.json")
        record = {"files": sums, "nonce": self.job["nonce"], "job_id": self.job_id, "inputs": self.inputs}
        write_json(path, record, durable=True)
        self.publish_mode(path)
        sync_folder(self.staging)
        sync_folder(os.path.dirname(self.staging))

    def strand(self, scratch: str, error: Exception) -> Ended:
        """Keep the results where they are, without the input, under a long lease."""
        words = error.strerror if isinstance(error, OSError) else "group %s is unknown here" % error
        if scratch == self.scratch:
            for name in ("input", "tmp", "ballast"):
                remove_tree(self.path(name))
            self.write_lease(STRANDED_LEASE_SECONDS, stranded=True)
        size = sum(found.st_blocks * 512 for _, found in files_below(scratch))
        detail = "results cannot be staged out to %r: %s; they stay in %r on %s" % (
            portable(os.path.dirname(self.staging)), words, portable(scratch), self.node)  # fmt: skip
        return Ended("stranded", words or "unknown error", detail,
                     stranded_path=portable(scratch), stranded_bytes=size)  # fmt: skip

    def rescue(self) -> None:
        """Deliver what another attempt left stranded on this node, without computing it again."""
        path = self.job["rescue"]["path"].rstrip("/")
        lease = read_json(os.path.join(path, "lease.json"))
        if os.path.dirname(path) != os.path.dirname(self.scratch) or not (lease and lease.get("stranded")):
            raise Ended(
                "failed",
                "missing result",
                "no stranded results are in %r on %s" % (portable(path), self.node),
            )
        output = os.path.join(path, "output")
        self.read_told(output)
        self.stage_out(output, os.path.join(path, "logs"))
        if remove_tree(path):  # nothing of that attempt is left here any more
            with contextlib.suppress(OSError):
                told = os.path.join(os.path.dirname(self.folder), os.path.basename(path), "progress")
                append(told, {"phase": "cleaned", "at": time.time(), "node": self.node})

    # errands

    def sweep_node(self) -> None:
        """Make sure that nothing of the attempts named is left on this node; raises Ended."""
        self.tell("sweep")
        root, left = os.path.dirname(self.scratch), []  # type: Tuple[str, List[str]]
        if not os.path.isdir(root):
            return
        for attempt in self.job["sweep"]["attempts"]:
            for path in (inside(root, attempt), inside(root, attempt) + ".old"):
                why = self.sweep_folder(path, attempt)
                left += ["%r on %s %s" % (portable(path), self.node, why)] if why else []
        self.remove_expired()
        if left:
            raise Ended("failed", "not clean", "; ".join(left))

    def sweep_folder(self, path: str, attempt: str) -> str:
        """Why it stays; empty if nothing is left."""
        lease = read_lease(path)
        if lease.get("stranded") and not self.job["sweep"].get("given_up"):
            return "holds a result that waits for its rescue"
        if os.path.islink(path):
            return "is a link, and none of ours"
        if lease.get("node", self.node) == self.node and lease.get("run"):
            if lease_is_alive(lease):
                return "belongs to a run that is still alive"
            end_processes(os.fsencode("TILTD_RUN=%s:%s" % (attempt, lease["run"])), {}, GRACE_SECONDS)
        return "" if not os.path.lexists(path) or remove_tree(path) else "could not be removed"

    def check_node(self) -> None:
        """Look at everything that a run will need here, tell each finding, then wait to be ended."""
        asked = self.job["check"]
        self.finding("python", sys.version_info >= (3, 6), "%s %s" % (sys.executable, sys.version.split()[0]))
        self.finding("node", True, "%s, kernel %s" % (socket.gethostname(), os.uname().release))
        self.echo()
        self.make_scratch()
        note = "%d bytes are reserved in %r" % (self.ballast.size, portable(self.scratch))
        self.finding("scratch", True, note if self.ballast.size else "no ballast: this file system has none")
        for feed in asked["feeds"]:
            self.finding("feed " + feed["name"], *readable(feed["path"]))
        for target in asked["destinations"]:
            self.finding("destination " + target, *self.publishable(target))
        for program in asked["programs"]:
            found = shutil.which(self.fill(program))
            self.finding(
                "program " + program, bool(found), found or "is not in PATH: " + os.environ.get("PATH", "")
            )
        for module in asked["modules"]:
            code = subprocess.call([sys.executable, "-c", "import " + module], stderr=subprocess.DEVNULL)
            why = "%s %s import it" % (sys.executable, "cannot" if code else "can")
            self.finding("module " + module, code == 0, why)
        self.tell("wait", note="all is told")
        until = time.monotonic() + asked["seconds"]
        while time.monotonic() < until:
            time.sleep(0.1)

    def finding(self, what: str, ok: bool, detail: str) -> None:
        self.tell("check", what=what, ok=bool(ok), detail=portable(detail))

    def echo(self) -> None:
        """How long a word takes through the spool, there and back."""
        self.tell("check", what="echo", ok=True, detail="")
        started = time.monotonic()
        while time.monotonic() - started < SIGHT_SECONDS * 2:
            if "echo" in os.listdir(self.folder):
                self.finding("spool", True, "%.1f s there and back" % (time.monotonic() - started))
                return
            time.sleep(0.1)
        self.finding("spool", False, "no answer in %d s: is it the same folder here?" % (SIGHT_SECONDS * 2))

    def publishable(self, folder: str) -> Tuple[bool, str]:
        """Can a folder with the mode and group of results be made below?"""
        while not os.path.isdir(folder) and folder != "/":
            folder = os.path.dirname(folder)
        path = os.path.join(folder, ".tiltd-check-%s-%s" % (self.node, self.token))
        try:
            os.mkdir(path)
            try:
                self.publish_mode(path, folder=True)
                found = os.stat(path)
                sync_folder(path)
            finally:
                os.rmdir(path)
        except (OSError, KeyError) as error:
            return False, "%r: %s" % (folder, getattr(error, "strerror", None) or "unknown group %s" % error)
        return True, "%r, mode %04o, group %d" % (folder, stat.S_IMODE(found.st_mode), found.st_gid)


def readable(folder: str) -> Tuple[bool, str]:
    try:
        next(iter(os.scandir(folder)), None)
    except OSError as error:
        return False, "%r: %s" % (folder, error.strerror)
    return True, "%r can be read" % folder


def child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def reap() -> Tuple[int, int]:
    """One ended child, ours or adopted; (0, 0) if there is none."""
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0


def signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return "unknown"


def main(argv: List[str]) -> int:
    if len(argv) != 2:
        sys.stderr.write("usage: python3 runner.py ATTEMPT_FOLDER\n")
        return 2
    os.umask(0o077)
    for signum in ENDING_SIGNALS:
        signal.signal(signum, on_signal)
    folder, job_id = os.path.abspath(argv[1]), own_job_id()
    try:
        if not claim(folder, job_id):
            sys.stderr.write("job %s: this attempt is not ours to run\n" % job_id)
            return 0
        with open(os.path.join(folder, "claimed." + job_id), "rb") as file:
            run = Run(folder, job_id, native(json.loads(file.read().decode("utf-8"))))
    except Terminated as end:
        return 128 + end.signum
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(
            "job %s: the attempt cannot be used: %s: %s\n" % (job_id, type(error).__name__, error)
        )
        return 1
    try:
        return run.main()
    except Terminated:
        return 143


if __name__ == "__main__":
    sys.exit(main(sys.argv))
