"""One feed, watched: what the scan finds becomes ``FilesObserved``, and nothing is judged here.

Per series that is not settled the watcher remembers when its files last differed.  While they grow they are
only stat-ed; once quiet they are opened, read in small pieces, and stat-ed again to see that they held still.
What is known and unchanged is not told again, and what the journal's ``seen`` table knows with the same
signature is not even remembered, so memory and work go with the series that live, not with those that exist.

Names, sizes and scans are the truth; inotify only makes a look come sooner.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from tiltd.plugins.api import Detector

from .core.model import FileEntry, Problem, Sighting
from .core.observations import FilesObserved
from .feed_look import FeedLook
from .feed_names import folder_of, labels_of, members_of
from .feed_presence import FeedPresence, cannot
from .scan import FolderScan, Listing, ScanPass
from .text import shown
from .watched import Watched

HOT_SECONDS = 3600.0
UNREADABLE_RETRY_SECONDS = 60.0


class SeenRow(Protocol):
    """What the journal knows of a series key; ``journal.SeenRow`` has these and more."""

    @property
    def dataset_id(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def stat_signature(self) -> str: ...


class Seen(Protocol):
    """The journal's ``seen`` table; called from a worker thread, once for every series of a listed folder."""

    def get(self, feed: str, series_key: str) -> SeenRow | None: ...


class FeedWatch:
    """The watcher's logic, without asyncio: ``look`` is one pass, to be run in a worker thread.

    ``first`` is true for a feed that the journal never met: the first whole pass is then the baseline, of
    names and ``stat`` alone.  ``pattern`` names the folders below the feed by level ("{project}/{session}").
    A detector may have two plain attributes: ``skip_folders`` (names not to go into) and ``beside`` (names of
    folders whose files belong to the folder above, as frames do).
    """

    def __init__(
        self,
        feed: str,
        root: str,
        detector: Detector,
        seen: Seen,
        *,
        first: bool = False,
        first_reason: str = "",
        labels: Mapping[str, str] | None = None,
        pattern: str = "",
        open_after_seconds: float = 10.0,
        read_bytes_per_second: float = 16e6,
        sweep_seconds: float = 3600.0,
    ) -> None:
        self.feed = feed
        self.root = root
        self.detector = detector
        self.seen = seen
        self.first = first
        self.first_reason = first_reason
        self.labels = dict(labels or {})
        self.pattern = pattern
        self.open_after_seconds = open_after_seconds
        self.read_bytes_per_second = read_bytes_per_second
        self.beside = frozenset(getattr(detector, "beside", ()))
        self.scan = FolderScan(root, getattr(detector, "skip_folders", ()), sweep_seconds=sweep_seconds)
        self.series: dict[str, Watched] = {}
        self.put_off = 0
        self._failures: dict[str, Problem] = {}
        self._gone: set[str] = set()
        self.presence = FeedPresence(root)
        self._looked_at: float | None = None
        self._now = 0.0
        self._live: Mapping[str, str] = {}
        self._out: dict[str, Sighting] = {}
        self._found: dict[str, set[str]] = {}

    # -- one pass ----------------------------------------------------------------------------------

    def look(self, now: float, watchlist: Mapping[str, str]) -> FilesObserved:
        """One pass over the feed.  ``watchlist``: series keys of live datasets, stat-ed whatever the folders'
        times say, and opened if they were not.  Never raises for what the feed holds."""
        self._now, self._live = now, watchlist
        self._out, self._found = {}, {}
        if trouble := self._down():
            return self._observed(up=False, detail=trouble)
        if self.presence.mounted_over:
            self.first, self.first_reason = True, "a file system was mounted over an empty folder"
        self._recall()
        self._restat()
        try:
            found = self.scan.look(now, self._receive)
        except OSError as error:
            return self._observed(up=False, detail=cannot(self.root, error))
        self._reread(found)
        gone = self._vanished(found)
        self._open_quiet()
        if trouble := self._down():  # unmounted while we looked: then nothing is gone
            return self._observed(up=False, detail=trouble)
        return self._conclude(gone)

    def _down(self) -> str:
        series_known = bool(self.series or self._live or self.scan.folders[""].children)
        return self.presence.trouble(series_known=series_known, baseline=self.first)

    def _conclude(self, gone: list[str]) -> FilesObserved:
        for key in gone:
            self.series.pop(key, None)
            self._out.pop(key, None)
        self._gone.update(gone)
        observed = self._observed(
            up=True,
            sightings=tuple(self._out.values()),
            gone=tuple(gone),
            first=self.first,
            first_reason=self.first_reason if self.first else "",
            detail=self._summary(),
        )
        self.first = False
        self._settle()
        self._looked_at = self._now
        return observed

    def _observed(self, **fields: object) -> FilesObserved:
        return FilesObserved(at=self._now, feed=self.feed, **fields)  # type: ignore[arg-type]

    @property
    def troubles(self) -> dict[tuple[str, str], Problem]:
        """What stands in the way now, by (code, path): each to be told once and counted by code."""
        failed = {("detector_failed", folder): problem for folder, problem in self._failures.items()}
        return self.scan.troubles | failed

    def _summary(self) -> str:
        troubles = list(self.troubles.values())
        if not troubles:
            return ""
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        return f"{troubles[0].detail}{more}"

    def next_look_seconds(self, scan_seconds: float) -> float:
        """When to look again: sooner than usual if a series will be quiet enough to be opened by then."""
        if self.put_off:
            return min(1.0, scan_seconds)
        waiting = (watched for watched in self.series.values() if not watched.opened)
        due = [watched.open_at(self.open_after_seconds) - self._now for watched in waiting]
        return min([scan_seconds, *(max(0.2, seconds) for seconds in due)])

    def hot_folders(self) -> set[str]:
        """Absolute paths of the folders where something lives: for inotify."""
        inner = {watched.home for watched in self.series.values()} | {""}
        return {f"{self.root}/{path}" if path else self.root for path in inner}

    # -- names and stat ----------------------------------------------------------------------------

    def _recall(self) -> None:
        """Live datasets that are not remembered (restart, release): list their folders."""
        for key in self._live:
            if key not in self.series and key not in self._gone:
                self.scan.list_again(folder_of(key))

    def _restat(self) -> None:
        """Each file once: it is a member of every series whose name it begins with."""
        members = [watched.members for watched in self.series.values()]
        self.scan.restat(dict.fromkeys(itertools.chain.from_iterable(members)))

    def _receive(self, listing: Listing) -> None:
        home = folder_of(listing.path) if self._is_beside(listing.path) else listing.path
        if listing.as_before and home not in self._failures:
            return  # its detector would say as before
        entries = self._with_beside(home, listing)
        sightings = self._read(home, entries, lambda key: False)
        self._found.setdefault(home, set()).update(sighting.series_key for sighting in sightings)
        names: dict[str, list[str]] = {}
        for entry in entries:
            folder, _, name = entry.relative_path.rpartition("/")
            names.setdefault(folder, []).append(name)
        for folder_names in names.values():
            folder_names.sort()
        retained: set[str] = set()
        for sighting in sightings:
            watched = self._consider(sighting, home)
            if watched is not None:
                watched.members = members_of(watched.key, names)
                retained.add(home)
                retained.update([folder for folder, _ in watched.members])
                watched.figures = self.scan.file_stats(watched.members)
        self.scan.retain(retained)

    def _is_beside(self, path: str) -> bool:
        return path.rpartition("/")[2] in self.beside and bool(path)

    def _with_beside(self, home: str, listing: Listing) -> list[FileEntry]:
        """The files of a folder and of the frame folders in it, whichever of them was listed."""
        if not self.beside:
            return listing.entries
        inner = [f"{home}/{name}" if home else name for name in sorted(self.beside)]
        entries: list[FileEntry] = []
        for path in (home, *inner):
            entries += listing.entries if path == listing.path else self.scan.entries(path)
        return entries

    def _read(
        self, folder: str, entries: Sequence[FileEntry], opened: object, look: FeedLook | None = None
    ) -> Sequence[Sighting]:
        """Ask the detector; a bug in it costs this folder, not the feed."""
        try:
            sightings = self.detector.read(entries, opened, look or FeedLook(self.root))  # type: ignore[arg-type]
        except Exception as error:
            detail = f"{shown(folder)}: the detector failed ({type(error).__name__}: {shown(str(error))})"
            self._failures[folder] = Problem(code="detector_failed", detail=detail)
            return []
        self._failures.pop(folder, None)
        return sightings

    def _consider(self, sighting: Sighting, home: str) -> Watched | None:
        """Hold one stat-only sighting against what is remembered; tell it if it is news."""
        key = sighting.series_key
        self._gone.discard(key)
        watched = self.series.get(key)
        if watched is not None and watched.signature == sighting.stat_signature:
            if self._now < watched.since_at:  # the clock went back: wait anew
                watched.since_at = self._now
            return watched
        row = self.seen.get(self.feed, key)
        as_known = row is not None and row.stat_signature == sighting.stat_signature
        if watched is None:
            if as_known and key not in self._live:
                return None
            if self.first:
                self._tell(sighting, row, had_open_ts=False)
                return None
            watched = Watched(key, home, sighting.stat_signature, self._now, sighting)
            self.series[key] = watched
        else:
            interval = max(0.0, self._now - watched.since_at)
            watched.interval_seconds = max(interval, 0.8 * watched.interval_seconds)
            watched.signature, watched.since_at = sighting.stat_signature, self._now
            watched.opened, watched.retry_at = False, float("-inf")
        watched.last = sighting
        watched.had_open_ts |= "openTS" in sighting.blockers
        if sighting.not_series is not None:
            watched.opened = True
        if row is None or not row.digest or key in self._live or watched.opened:
            self._tell(sighting, row, had_open_ts=watched.had_open_ts)
        return watched

    def _tell(self, sighting: Sighting, row: SeenRow | None, *, had_open_ts: bool) -> None:
        changes: dict[str, object] = {
            "labels": labels_of(sighting.series_key, self.pattern, self.labels, self.feed)
        }
        if had_open_ts and "openTS" not in sighting.blockers:
            changes["positive_signs"] = (*sighting.positive_signs, "openTS_gone")
        if row is not None:
            changes |= {
                "known_dataset_id": row.dataset_id,
                "known_revision": row.revision,
                "known_digest": row.digest,
            }
        self._out[sighting.series_key] = msgspec.structs.replace(sighting, **changes)

    def _reread(self, found: ScanPass) -> None:
        """Stat-only sightings of the living series in folders that were not listed in this pass."""
        for watched in list(self.series.values()):
            if watched.home in self._found:
                continue
            figures = self.scan.file_stats(watched.members)
            if watched.figures == figures and watched.since_at <= self._now:
                continue  # its detector would say as before
            for sighting in self._read(watched.home, self._entries(watched), lambda key: False):
                if sighting.series_key == watched.key:
                    self._consider(sighting, watched.home)
                    watched.figures = figures

    def _entries(self, watched: Watched) -> list[FileEntry]:
        entries = []
        remembered = self.scan.file_stats(watched.members)
        for (folder, name), figures in zip(watched.members, remembered, strict=True):
            if figures is not None:
                path = f"{folder}/{name}" if folder else name
                entries.append(FileEntry(relative_path=path, size_bytes=figures[0], mtime_ns=figures[1]))
        return entries

    def _vanished(self, found: ScanPass) -> list[str]:
        """Series whose folder was listed without them, or is gone.  "Unreadable" is not "gone"."""
        gone = []
        for key in {*self.series, *self._live} - self._gone:
            watched = self.series.get(key)
            home = watched.home if watched else folder_of(key)
            if home in self._found:
                missing = key not in self._found[home] and home not in self._failures
            else:
                missing = home not in self.scan.folders and not self._hidden(home, found)
            if missing:
                gone.append(key)
        return sorted(gone)

    def _hidden(self, folder: str, found: ScanPass) -> bool:
        """The folder, or one above it, cannot be read just now."""
        unreadable = {path for code, path in self.scan.troubles if code == "folder_unreadable"}
        parts = folder.split("/")
        above = {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
        return not above.isdisjoint(unreadable | found.unreadable)

    # -- opening -----------------------------------------------------------------------------------

    def _open_quiet(self) -> None:
        waiting = [
            watched
            for watched in self.series.values()
            if not watched.opened and watched.open_at(self.open_after_seconds) <= self._now
        ]
        waiting.sort(key=lambda watched: watched.since_at)
        elapsed = 1.0 if self._looked_at is None else self._now - self._looked_at
        allowance = self.read_bytes_per_second * min(max(elapsed, 1.0), 10.0)
        look = FeedLook(self.root)
        self.put_off = 0
        for watched in waiting:
            if look.bytes_read >= allowance:
                self.put_off += 1
            else:
                self._open(watched, look)

    def _open(self, watched: Watched, look: FeedLook) -> None:
        sightings = self._read(watched.home, self._entries(watched), watched.key.__eq__, look)
        opened = after = self._one(watched, sightings)
        # What differs may be a file of another series, whose name begins like its own.
        if self.scan.restat(watched.members):
            after = self._one(watched, self._read(watched.home, self._entries(watched), lambda key: False))
        if opened is None or after is None or after.stat_signature != opened.stat_signature:
            watched.retry_at = self._now + self.open_after_seconds  # it moved while it was read
            return
        watched.last = opened
        if any(problem.code == "unreadable" for problem in opened.problems):
            watched.retry_at = self._now + UNREADABLE_RETRY_SECONDS
        else:
            watched.opened = True
        row = self.seen.get(self.feed, watched.key)
        self._tell(opened, row, had_open_ts=watched.had_open_ts)

    def _one(self, watched: Watched, sightings: Iterable[Sighting]) -> Sighting | None:
        return next((sighting for sighting in sightings if sighting.series_key == watched.key), None)

    # -- forgetting --------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Forget what was told, is not live and has long been quiet; the ``seen`` table knows it."""
        for key, watched in list(self.series.items()):
            quiet_seconds = self._now - watched.since_at
            by_name = watched.last.not_series is not None and watched.last.section_count == 0
            if watched.opened and key not in self._live and (by_name or quiet_seconds > HOT_SECONDS):
                del self.series[key]
        self._gone &= set(self._live)
        self.scan.keep(self._kept_folders())

    def _kept_folders(self) -> set[str]:
        homes = {watched.home for watched in self.series.values()}
        return homes | {folder for watched in self.series.values() for folder, _ in watched.members}
