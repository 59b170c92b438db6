"""The journal's file: opened, brought up to this release's schema, and copied.

Schemas only go forward.  ``MIGRATIONS[n]`` makes schema n+1 of schema n, each in one transaction, after the
journal as the last release left it was copied beside itself: a roll-back begins there.  To change the schema:
change ``SCHEMA``, raise ``SCHEMA_VERSION``, add the migration, and a journal written by the last release to
``tests/golden/journals``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from .core.facts import VERSIONS
from .mounts import Mount
from .text import shown
from .upcasters import SNAPSHOT, SNAPSHOT_VERSION

Migration = Callable[[sqlite3.Connection], None]

SCHEMA_VERSION = 1
MIGRATIONS: Mapping[int, Migration] = {}
"""Schema -> what makes the next one of it, by ``execute`` alone (``executescript`` would commit)."""
COPIES_KEPT = 2
COPY_PAGES = 2000
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, dataset_id TEXT NOT NULL,
    kind TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS facts_of ON facts (dataset_id, seq);
CREATE INDEX IF NOT EXISTS facts_acted ON facts (seq) WHERE kind = 'OperatorActed';
CREATE INDEX IF NOT EXISTS facts_told ON facts (seq) WHERE kind IN ('NoticeSent', 'NoticeGivenUp');
CREATE TABLE IF NOT EXISTS datasets (
    dataset_id TEXT PRIMARY KEY, feed TEXT NOT NULL, series_key BLOB NOT NULL, name BLOB NOT NULL,
    project BLOB NOT NULL, session BLOB NOT NULL, state TEXT NOT NULL, live INTEGER NOT NULL,
    found_at REAL NOT NULL, changed_at REAL NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS datasets_by_name ON datasets (name);
CREATE INDEX IF NOT EXISTS datasets_by_change ON datasets (changed_at);
CREATE INDEX IF NOT EXISTS datasets_counted ON datasets (live, feed, state);
CREATE INDEX IF NOT EXISTS datasets_of_series ON datasets (feed, series_key);
CREATE INDEX IF NOT EXISTS datasets_of_project ON datasets (project, live, changed_at, state);
CREATE INDEX IF NOT EXISTS datasets_finished ON datasets (live, changed_at, state, project, feed);
CREATE TABLE IF NOT EXISTS seen (
    feed TEXT NOT NULL, series_key BLOB NOT NULL, dataset_id TEXT NOT NULL, revision INTEGER NOT NULL,
    digest TEXT NOT NULL, stat_signature TEXT NOT NULL, reason TEXT NOT NULL, detail BLOB NOT NULL,
    PRIMARY KEY (feed, series_key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS snapshot (
    one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, version INTEGER NOT NULL,
    body TEXT NOT NULL);
"""


class JournalError(Exception):
    """The journal cannot be opened or read; the message names the file and says what to do."""


def unreadable(path: Path, error: Exception) -> JournalError:
    return JournalError(
        f"the journal {path} cannot be read ({error}); restore it from a backup, or move it away to "
        "start with an empty one: running jobs are adopted, finished series are held for release"
    )


def on_network(path: Path, mount: Mount) -> str:
    """Why not there, and where then."""
    return (
        f"the journal {path} would lie on a network file system ({shown(mount.source)}, {mount.type}, on "
        f"{shown(mount.point)}), where SQLite cannot keep it whole; let state_dir name a folder on a disk of "
        "this machine (the spool may stay where it is: spool_dir)"
    )


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection for one thread at a time.  Raises :class:`JournalError` with a sentence."""
    mode = "ro" if read_only else "rwc"
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, check_same_thread=False, timeout=10.0
        )
        connection.execute("PRAGMA busy_timeout=10000")
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA cache_size=-2000")
    except sqlite3.Error as error:
        if not isinstance(error, sqlite3.OperationalError):
            raise unreadable(path, error) from error
        raise JournalError(
            f"the journal {path} cannot be opened ({error}); check that its folder exists, is writable, has "
            "free space and is not on a network file system"
        ) from error
    return connection


def meta(connection: sqlite3.Connection, key: str, default: str) -> str:
    """What stands below ``key``; ``default`` is written where nothing does."""
    with connection:
        connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, default))
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(row[0])


# -- from release to release --------------------------------------------------------------------------------


def bring_up_to_date(
    connection: sqlite3.Connection,
    path: Path,
    copying: Callable[[], None] = lambda: None,
    release: str = "",
    migrations: Mapping[int, Migration] = MIGRATIONS,
    schema_version: int = SCHEMA_VERSION,
) -> None:
    """A new journal gets its schema; one that another release has left is copied, and then migrated.

    Raises JournalError for one that a later release has written and this one cannot read, and
    ``sqlite3.Error``.  Costs nothing for this release's own, a copy and a look at all facts for another's.
    """
    release = release or version("tiltd")
    found = _found(connection)
    if found is not None:
        schema, writer = found
        if schema > schema_version:
            raise too_new(path, writer, f"it has schema {schema}, this tiltd knows {schema_version}")
        if writer != release or schema < schema_version:
            refuse_newer_facts(connection, path, writer)
            _keep_copy(connection, path, writer, copying)
        for step in range(schema, schema_version):
            _migrate(connection, migrations[step], step + 1)
    connection.executescript(SCHEMA)
    with connection:
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(schema_version),))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('release', ?)", (release,))


def _found(connection: sqlite3.Connection) -> tuple[int, str] | None:
    """Schema and release of a journal that is there; ``None`` of an empty file."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "meta" not in names:
        return None
    stored = dict(connection.execute("SELECT key, value FROM meta"))
    return int(stored.get("schema", "1")), str(stored.get("release", "0.1.0"))


def too_new(path: Path, writer: str, why: str) -> JournalError:
    """What to do about a journal that a later release has written."""
    copies = [copy.name for copy in copies_of(path)]
    back = f", or go back to what the release before it left: tiltd restore {copies[-1]}" if copies else ""
    return JournalError(
        f"the journal {path} was written by tiltd {writer}, which is later than this one ({why}): "
        f"install that release or a later one{back}"
    )


def refuse_newer_facts(connection: sqlite3.Connection, path: Path, writer: str) -> None:
    """Raises JournalError where a fact or the snapshot has a version that this release cannot read."""
    stored = connection.execute("SELECT kind, max(version) FROM facts GROUP BY kind").fetchall()
    stored += [(SNAPSHOT, number) for (number,) in connection.execute("SELECT version FROM snapshot")]
    known = {**VERSIONS, SNAPSHOT: SNAPSHOT_VERSION}
    for kind, number in stored:
        if number > known.get(kind, 0):
            raise too_new(
                path, writer, f"{kind} version {number} is in it, this tiltd knows {known.get(kind, 0)}"
            )


def _migrate(connection: sqlite3.Connection, migration: Migration, to: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or takes all of it back
        migration(connection)
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(to),))


# -- copies -------------------------------------------------------------------------------------------------


def copies_of(path: Path) -> list[Path]:
    """The copies that upgrades have left beside a journal, the oldest first."""
    found = path.parent.glob(f"{path.stem}.left-by-*{path.suffix}")
    return sorted(found, key=lambda copy: copy.stat().st_mtime_ns)


def _keep_copy(connection: sqlite3.Connection, path: Path, writer: str, copying: Callable[[], None]) -> None:
    plain = re.sub(r"[^A-Za-z0-9.+-]", "_", writer)
    copy_to(connection, path.with_name(f"{path.stem}.left-by-{plain}{path.suffix}"), copying)
    for old in copies_of(path)[:-COPIES_KEPT]:
        old.unlink()


def copy_to(connection: sqlite3.Connection, target: Path, copying: Callable[[], None] | None = None) -> int:
    """A whole copy of an open journal, durable under its name or not there at all.  Returns its bytes.

    With ``copying`` in pieces, each told, which begins again when somebody writes meanwhile; without, in one
    piece, as it was at one moment, while the daemon goes on.  Raises JournalError.
    """
    (size_bytes,) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).fetchone()
    fresh = target.with_name(f".{target.name}.new")
    try:
        free_bytes = shutil.disk_usage(target.parent).free
        if free_bytes < size_bytes:
            raise JournalError(
                f"there is no room for {target} ({size_bytes} bytes, {free_bytes} are free); make room"
            )
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640))
        with contextlib.closing(sqlite3.connect(fresh)) as copy:
            step = -1 if copying is None else COPY_PAGES
            connection.backup(copy, pages=step, progress=lambda *_: copying() if copying else None)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, and nothing beside it
        _sync(fresh)
        fresh.replace(target)
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        fresh.unlink(missing_ok=True)
        raise JournalError(
            f"the journal cannot be copied to {target} ({error}); make room, or mend it"
        ) from error
    return target.stat().st_size


def put_back(source: Path, path: Path) -> Path | None:
    """``source``, a copy, becomes the journal ``path``, which nobody may have open.  Returns where the one
    that was there is now.  Raises JournalError, and has changed nothing then."""
    with contextlib.closing(connect(source, read_only=True)) as copy:
        try:
            found, (health,) = _found(copy), copy.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            raise JournalError(
                f"{source} is no whole copy of a journal ({error}); take another one"
            ) from error
        if found is None or health != "ok":
            raise JournalError(f"{source} is no whole copy of a journal ({health}); take another one")
        if found[0] > SCHEMA_VERSION:
            raise too_new(source, found[1], f"it has schema {found[0]}, this tiltd knows {SCHEMA_VERSION}")
        refuse_newer_facts(copy, source, found[1])
        fresh = path.with_name(f"{path.stem}.to-come{path.suffix}")
        copy_to(copy, fresh)
    if os.geteuid() == 0:  # root puts back what the daemon's account has to write
        whose = path.parent.stat()
        os.chown(fresh, whose.st_uid, whose.st_gid)
    replaced = _put_aside(path)
    fresh.replace(path)
    _sync(path.parent)
    return replaced


def _put_aside(path: Path) -> Path | None:
    """With its log of writes, which would be taken for the other journal's."""
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.stem}.replaced-{number}{path.suffix}")).exists():
        number += 1
    for ending in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    return aside


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
