"""Looking over a feed's folders, cheaply enough to do it every few seconds.  Blocking: for a worker thread.

The tree is keyed on the modification times of its folders: a folder is listed again when its time differs
(by inequality: copies carry old times, clocks jump) from when it was last listed, and a few seconds after
that once more, since a time stamp is only as fine as the file system makes it.  Every folder is listed anyway
once in ``sweep_seconds``, spread over the passes: the safety net for what a folder's time does not show (a
file rewritten in place, an attribute cache).  Folders that have long been quiet are looked at by turns.

So the CPU of a steady pass grows with the folders that moved lately (one ``stat`` each) and with nothing
else: neither with finished work nor with the files in it.  A flat folder that keeps moving is listed less
often the more names it holds.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from .core.model import FileEntry, Problem
from .text import shown

FRESH_SECONDS = 3.0
LATELY_SECONDS = 3600.0
"""How far the server's clock may be off when a folder that is met for the first time is called old."""

SECONDS_PER_NAME = 0.0015
"""A folder of 10,000 names is listed every 15 s at the most, which costs about 0.1 % of a core."""

DEFER_MAX_SECONDS = 120.0
COLD_SECONDS = 2 * 86400.0
COLD_PER_PASS = 1000
SWEEP_FILES_PER_PASS = 2000

FileStat = tuple[int, int]
"""Size in bytes, and modification time in nanoseconds."""


@dataclass(slots=True)
class Folder:
    """What is remembered of one folder.  ``files`` is kept while something in it is watched, else dropped."""

    path: str
    mtime_ns: int = -1
    noticed_at: float = 0.0
    listed_at: float = float("-inf")
    sweep_at: float = 0.0
    name_count: int = 0
    again: bool = False
    forced: bool = False
    differs: bool = False
    children: tuple[str, ...] = ()
    files: dict[str, FileStat] | None = None
    inodes: dict[str, int] | None = None

    def notice(self, mtime_ns: int, now: float) -> None:
        """Its time differs from before, or is seen for the first time: to be listed."""
        old = self.mtime_ns == -1 and abs(now - mtime_ns / 1e9) > LATELY_SECONDS
        self.mtime_ns, self.noticed_at = mtime_ns, float("-inf") if old else now
        self.again = True


@dataclass
class Listing:
    """A folder that was listed in this pass: all its regular files; ``as_before``: none differs since."""

    path: str
    entries: list[FileEntry]
    as_before: bool = False


Receive = Callable[[Listing], None]


@dataclass
class ScanPass:
    """What one pass met besides the listings; folders are paths relative to the root."""

    receive: Receive
    gone_folders: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    new: list[str] = field(default_factory=list)
    deferred: int = 0


class FolderScan:
    """The tree below ``root``.  Raises OSError only for the root itself; everything else is a trouble.

    ``troubles`` maps (code, path) to a problem that stands now: ``folder_unreadable``, ``file_unreadable``,
    ``symlink_outside``, ``symlink_loop``.  No symbolic link is followed: what it points at inside the feed
    is met there anyway, and what lies outside is none of ours.
    """

    def __init__(self, root: str, skip_folders: Iterable[str] = (), *, sweep_seconds: float = 3600.0) -> None:
        self.root = root
        self.skip_folders = frozenset(skip_folders)
        self.sweep_seconds = sweep_seconds
        self.folders: dict[str, Folder] = {"": Folder(path="")}
        self.troubles: dict[tuple[str, str], Problem] = {}
        self._hot: set[str] = {""}
        self._cold: dict[str, None] = {}
        self._kept: set[str] = set()
        self._filled: set[str] = set()

    # -- what the watcher tells --------------------------------------------------------------------

    def keep(self, folders: Iterable[str]) -> None:
        """Remember the files of these folders between passes, and forget those of all others."""
        wanted = {path for path in folders if path in self.folders}
        for path in self._filled - wanted:
            if path in self.folders:
                self.folders[path].files = self.folders[path].inodes = None
        self._filled &= wanted
        self._kept = wanted
        for path in wanted:
            self._warm(path)

    def retain(self, folders: Iterable[str]) -> None:
        """Remember the files of these folders too, until ``keep`` says otherwise."""
        self._kept.update(path for path in folders if path in self.folders)

    def list_again(self, path: str) -> bool:
        """List this folder in the next pass whatever its time says; false if there is no such folder."""
        folder = self.folders.get(path)
        if folder is not None:
            folder.again = folder.forced = True
            self._warm(path)
        return folder is not None

    def entries(self, path: str) -> list[FileEntry]:
        """The files of a folder as remembered, or else read now; empty if there is no such folder."""
        folder = self.folders.get(path)
        if folder is None:
            return []
        if folder.files is None:
            try:
                return _entries(path, self._stats(folder, self._names(folder)[0], None))
            except OSError:
                return []
        return _entries(path, folder.files)

    def restat(self, files: Iterable[tuple[str, str]]) -> bool:
        """Stat these files, (folder, name), of remembered folders anew; true if any differs.  One that is
        gone is forgotten, and its folder is listed in the next pass, to see what became of it.  Done for
        every file of every living series at every look."""
        differs = False
        for folder_path, name in files:
            folder = self.folders.get(folder_path)
            if folder is None or (known := folder.files) is None:
                continue
            path = f"{self.root}/{folder_path}/{name}" if folder_path else f"{self.root}/{name}"
            if (figures := self._stat_file(path)) == known.get(name):
                continue  # then those that the watch remembers are kept, too
            differs = folder.differs = True
            if figures is None:
                del known[name]
                folder.again = folder.forced = True
            else:
                known[name] = figures
        return differs

    def file_stats(self, files: Iterable[tuple[str, str]]) -> tuple[FileStat | None, ...]:
        """What is remembered of these files, as (folder, name)."""
        found: list[FileStat | None] = []
        for folder_path, name in files:
            folder = self.folders.get(folder_path)
            found.append(None if folder is None or folder.files is None else folder.files.get(name))
        return tuple(found)

    def _warm(self, path: str) -> None:
        if path in self.folders:
            self._cold.pop(path, None)
            self._hot.add(path)

    # -- one pass ----------------------------------------------------------------------------------

    def look(self, now: float, receive: Receive) -> ScanPass:
        """One pass; ``receive`` gets every folder that was listed, one after the other."""
        found = ScanPass(receive)
        sweep_left = SWEEP_FILES_PER_PASS
        for path in list(self._due()):
            folder = self.folders.get(path)
            if folder is None:
                continue
            if now < folder.listed_at:  # the clock went back: what was planned by it means nothing
                folder.listed_at, folder.sweep_at = now, min(folder.sweep_at, now + self.sweep_seconds)
            mtime_ns = self._time_of(folder, found)
            if mtime_ns is None:
                continue
            if self._moved(folder, mtime_ns, now, found):
                self._list(folder, now, found)
            elif now >= folder.sweep_at and sweep_left > 0:
                sweep_left -= max(1, folder.name_count)
                self._list(folder, now, found, whole=True)
            elif path and path not in self._kept and abs(now - mtime_ns / 1e9) > COLD_SECONDS:
                self._hot.discard(path)
                self._cold[path] = None
        while found.new:
            self._first_look(found.new.pop(), now, found)
        return found

    def _first_look(self, path: str, now: float, found: ScanPass) -> None:
        child = self.folders[path] = Folder(path=path)
        self._hot.add(path)
        mtime_ns = self._time_of(child, found)
        if mtime_ns is not None:
            child.notice(mtime_ns, now)
            self._list(child, now, found, whole=True)

    def _due(self) -> Iterator[str]:
        yield from sorted(self._hot)
        for path in list(self._cold)[:COLD_PER_PASS]:
            self._cold[path] = self._cold.pop(path)  # to the end of the turn
            yield path

    def _time_of(self, folder: Folder, found: ScanPass) -> int | None:
        try:
            status = os.stat(self._absolute(folder.path), follow_symlinks=not folder.path)  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            if folder.path:
                self._drop(folder.path, found)
                return None
            raise
        except OSError as error:
            if not folder.path:
                raise
            self._unreadable(folder, error, found)
            return None
        if not stat.S_ISDIR(status.st_mode):
            self._drop(folder.path, found)
            return None
        return status.st_mtime_ns

    def _moved(self, folder: Folder, mtime_ns: int, now: float, found: ScanPass) -> bool:
        if mtime_ns != folder.mtime_ns:
            folder.notice(mtime_ns, now)
            self._warm(folder.path)
        if not folder.again:
            return False
        least_seconds = min(folder.name_count * SECONDS_PER_NAME, DEFER_MAX_SECONDS)
        if not folder.forced and least_seconds > 1.0 and now - folder.listed_at < least_seconds:
            found.deferred += 1
            return False
        return True

    def _list(self, folder: Folder, now: float, found: ScanPass, *, whole: bool = False) -> None:
        known = None if whole else folder.files
        folder.listed_at, folder.sweep_at = now, now + self._spread(folder.path)
        try:
            names, children = self._names(folder)
        except OSError as error:
            if not folder.path:
                raise
            if isinstance(error, FileNotFoundError):
                self._drop(folder.path, found)
            else:
                folder.again = True
                self._unreadable(folder, error, found)
            return
        self.troubles.pop(("folder_unreadable", folder.path), None)
        files = self._stats(folder, names, known)
        as_before = not (folder.forced or folder.differs) and files == known and names == folder.inodes
        folder.files, folder.inodes = files, names
        folder.again = self._fresh(folder, now)
        folder.forced = folder.differs = False
        folder.name_count = len(names)
        self._filled.add(folder.path)
        self._adopt(folder, children, found)
        found.receive(Listing(folder.path, _entries(folder.path, files), as_before))
        if folder.path not in self._kept:
            folder.files = folder.inodes = None
            self._filled.discard(folder.path)

    def _fresh(self, folder: Folder, now: float) -> bool:
        """Changed so lately that another change may hide behind the same time stamp."""
        return now - folder.noticed_at < FRESH_SECONDS or abs(now - folder.mtime_ns / 1e9) < FRESH_SECONDS

    def _names(self, folder: Folder) -> tuple[dict[str, int], list[str]]:
        """Inode by name of the regular files, and the subfolders to go into.  Raises OSError."""
        names: dict[str, int] = {}
        children: list[str] = []
        links: set[str] = set()
        with os.scandir(self._absolute(folder.path)) as found:
            for entry in found:
                if entry.is_file(follow_symlinks=False):
                    names[entry.name] = entry.inode()
                elif entry.is_symlink():
                    links.add(entry.name)
                elif entry.is_dir(follow_symlinks=False) and not self._skipped(entry.name):
                    children.append(entry.name)
        self._judge_links(folder.path, links)
        return names, children

    def _skipped(self, name: str) -> bool:
        return name in self.skip_folders or name.startswith(".")

    def _stats(
        self, folder: Folder, names: dict[str, int], known: dict[str, FileStat] | None
    ) -> dict[str, FileStat]:
        """Stat of every file that is new, or beside one that came, went or was replaced."""
        base = self._absolute(folder.path)
        stirred: set[str] = set()
        if known is not None:
            differing = {name for name, _ in (folder.inodes or {}).items() ^ names.items()}
            stirred = {name.partition(".")[0] for name in differing}
        files: dict[str, FileStat] = {}
        for name in names:
            if known is not None and name in known and name.partition(".")[0] not in stirred:
                files[name] = known[name]
            elif (figures := self._stat_file(f"{base}/{name}")) is not None:
                files[name] = figures
        return files

    def _stat_file(self, path: str) -> FileStat | None:
        try:
            status = os.stat(path, follow_symlinks=False)  # noqa: PTH116
        except FileNotFoundError:
            return None
        except OSError as error:
            relative = path[len(self.root) + 1 :]
            problem = Problem(code="file_unreadable", detail=f"{shown(relative)}: {error.strerror}")
            self.troubles["file_unreadable", relative] = problem
            return None
        if self.troubles:
            self.troubles.pop(("file_unreadable", path[len(self.root) + 1 :]), None)
        return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    # -- the tree ----------------------------------------------------------------------------------

    def _adopt(self, folder: Folder, children: list[str], found: ScanPass) -> None:
        prefix = f"{folder.path}/" if folder.path else ""
        now_there = {prefix + name for name in children}
        for path in set(folder.children) - now_there:
            self._drop(path, found)
        folder.children = tuple(sorted(now_there))
        found.new += [path for path in folder.children if path not in self.folders]

    def _drop(self, path: str, found: ScanPass) -> None:
        below = [path]
        while below:
            gone = below.pop()
            folder = self.folders.pop(gone, None)
            self._hot.discard(gone)
            self._cold.pop(gone, None)
            self._kept.discard(gone)
            self.troubles.pop(("folder_unreadable", gone), None)
            if folder is not None:
                found.gone_folders.add(gone)
                below += folder.children

    def _unreadable(self, folder: Folder, error: OSError, found: ScanPass) -> None:
        found.unreadable.add(folder.path)
        self.troubles["folder_unreadable", folder.path] = Problem(
            code="folder_unreadable",
            detail=f"{shown(folder.path)}: {error.strerror}: give the daemon's user read permission",
        )

    def _judge_links(self, folder_path: str, links: set[str]) -> None:
        prefix = f"{folder_path}/" if folder_path else ""
        for code, path in list(self.troubles):
            if code.startswith("symlink_") and path.rpartition("/")[0] == folder_path:
                del self.troubles[code, path]
        for name in links:
            code = self._link_trouble(folder_path, name)
            if code:
                self.troubles[code, prefix + name] = Problem(
                    code=code, detail=f"{shown(prefix + name)} is a symbolic link, and is not followed"
                )

    def _link_trouble(self, folder_path: str, name: str) -> str:
        root = os.path.realpath(self.root)
        here = os.path.realpath(self._absolute(folder_path))
        try:
            target = os.path.realpath(f"{here}/{name}", strict=True)
        except FileNotFoundError:
            return ""
        except OSError:
            return "symlink_loop"
        if f"{here}/".startswith(f"{target.rstrip('/')}/"):
            return "symlink_loop"
        return "" if f"{target}/".startswith(f"{root.rstrip('/')}/") else "symlink_outside"

    def _absolute(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _spread(self, path: str) -> float:
        """When to sweep next: between 3/4 and 5/4 of the period, a different share for every folder."""
        share = zlib.crc32(os.fsencode(path)) % 1024 / 1024
        return self.sweep_seconds * (0.75 + 0.5 * share)


def _entries(folder_path: str, files: dict[str, FileStat]) -> list[FileEntry]:
    prefix = f"{folder_path}/" if folder_path else ""
    return [
        FileEntry(relative_path=prefix + name, size_bytes=size, mtime_ns=time_ns)
        for name, (size, time_ns) in files.items()
    ]
