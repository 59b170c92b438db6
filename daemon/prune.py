"""What is no longer needed, and its removal.  The journal's rows stay, so pruned datasets stay known."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Literal

from tiltd.daemon import manifest
from tiltd.daemon.core.model import TERMINAL, Dataset, Record, State
from tiltd.daemon.importing import import_folder
from tiltd.daemon.spool import Spool
from tiltd.plugins.api import PluginError

What = Literal["attempt", "story", "result", "import"]


class Prunable(Record):
    """One thing that can go.  ``trouble`` says why it stays."""

    what: What
    dataset_id: str
    path: str = ""
    attempt_id: str = ""
    size_bytes: int = 0
    done: bool = False
    trouble: str = ""


def attempts(
    spool: Spool,
    live: Collection[str],
    booked: Collection[str],
    dataset_of: Callable[[str], Dataset | None],
    before_at: float,
    failed_too: bool,
) -> list[Prunable]:
    """Spool folders of datasets that ended before ``before_at``; of failed ones only when asked for.

    Never: of a dataset in the working set (``live`` ids), of an attempt with a reservation (``booked``),
    or of a dataset that the journal does not know (it may have to be adopted).  Costs the spool's folders.
    """
    found = []
    for attempt_id in spool.attempts():
        dataset_id = attempt_id.rpartition(".a")[0]
        dataset = None if dataset_id in live or attempt_id in booked else dataset_of(dataset_id)
        if dataset is None or dataset.state not in TERMINAL or _ended_at(dataset) >= before_at:
            continue
        if dataset.state is State.FAILED and not failed_too:
            continue
        folder = spool.place(attempt_id)
        found.append(
            Prunable(
                what="attempt",
                dataset_id=dataset_id,
                attempt_id=attempt_id,
                path=folder,
                size_bytes=_size_bytes(folder),
            )
        )
    return found


def imports(
    import_dir: str,
    live: Collection[str],
    dataset_of: Callable[[str], Dataset | None],
    before_at: float,
) -> list[Prunable]:
    """Imported copies of datasets that ended before ``before_at``; a retry or a rerun imports again.

    Only folders that bear a known dataset's id and its input's digest.  Costs the imported folders.
    """
    found = []
    for name in sorted(os.listdir(import_dir)) if Path(import_dir).is_dir() else ():
        dataset_id = name.rpartition(".")[0]
        dataset = None if dataset_id in live else dataset_of(dataset_id)
        if dataset is None or dataset.series is None or dataset.state not in TERMINAL:
            continue
        path = import_folder(import_dir, dataset_id, dataset.series)
        if os.path.basename(path) == name and _ended_at(dataset) < before_at:
            size_bytes = _size_bytes(path)
            found.append(Prunable(what="import", dataset_id=dataset_id, path=path, size_bytes=size_bytes))
    return found


def stories(rows: Iterable[Dataset], live: Collection[str], before_at: float) -> list[Prunable]:
    """Facts of datasets that ended before ``before_at``; their rows stay."""
    return [
        Prunable(what="story", dataset_id=dataset.dataset_id)
        for dataset in rows
        if dataset.dataset_id not in live and dataset.state in TERMINAL and _ended_at(dataset) < before_at
    ]


def result(dataset: Dataset) -> Prunable:
    """The published result of one dataset, if what stands there is surely its own."""
    path = dataset.result_path
    found = Prunable(what="result", dataset_id=dataset.dataset_id, path=path)
    if not path:
        return _stays(found, "it has no published result")
    if Path(path).is_symlink() or not Path(path).is_dir():
        return _stays(found, "its result is no folder, or is gone already")
    published = manifest.read(path)
    if published is None or not manifest.is_of(published, dataset):
        return _stays(found, "the manifest there is not this dataset's; look at it yourself")
    return Prunable(what="result", dataset_id=dataset.dataset_id, path=path, size_bytes=_size_bytes(path))


def remove(found: Prunable, spool: Spool) -> Prunable:
    """Do it, for an attempt, an import or a result.  Doing it twice is fine; trouble is told, not raised."""
    if found.trouble:
        return found
    try:
        if found.what == "attempt":
            spool.remove(found.attempt_id)
        else:
            shutil.rmtree(found.path)
    except FileNotFoundError:
        pass
    except OSError as error:
        return _stays(found, f"cannot be removed: {error.strerror}")
    except PluginError as error:
        return _stays(found, str(error))
    return done(found)


def done(found: Prunable) -> Prunable:
    return Prunable(
        what=found.what,
        dataset_id=found.dataset_id,
        path=found.path,
        attempt_id=found.attempt_id,
        size_bytes=found.size_bytes,
        done=True,
    )


def _stays(found: Prunable, trouble: str) -> Prunable:
    return Prunable(
        what=found.what,
        dataset_id=found.dataset_id,
        path=found.path,
        attempt_id=found.attempt_id,
        size_bytes=found.size_bytes,
        trouble=trouble,
    )


def _ended_at(dataset: Dataset) -> float:
    return dataset.finalized_at or dataset.state_since_at


def _size_bytes(folder: str) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total
