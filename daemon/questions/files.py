"""Policies from files that were named: the shipped one with them laid over it, as the daemon lays its own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tiltd.daemon import policy_files
from tiltd.daemon.config import Settings
from tiltd.daemon.core.model import Policy
from tiltd.daemon.policies import ACCEPTED
from tiltd.daemon.policy_files import PolicyRefused
from tiltd.policy.policy import DEFAULT_NAME, PolicyError, load

__all__ = ["PolicyRefused", "accepted", "policy_of"]


def policy_of(paths: Iterable[Path], settings: Settings | None = None, *, tested: bool = True) -> Policy:
    """The shipped policy with these files over it; of a folder all ``*.toml`` in the order of their names.

    With the site's ``settings`` it is judged as that site's daemon would (no result into a feed, ...).
    Raises PolicyRefused with all faults of all files.
    """
    texts: policy_files.Texts = [(DEFAULT_NAME, policy_files.shipped())]
    faults: list[PolicyError] = []
    for path in paths:
        files, folder = (policy_files.folder_files(path), True) if path.is_dir() else ([path], False)
        faults += policy_files.folder_faults(path) if folder else []
        read, unread = policy_files.texts_of(files, any_kind=not folder)
        texts, faults = texts + read[1:], faults + unread
    found = load(texts, known=policy_files.known(settings), tested=tested)
    if isinstance(found, list) or faults:
        raise PolicyRefused(faults + (found if isinstance(found, list) else []))
    return found


def with_site(paths: Iterable[Path], own: list[Path], folder: Path | None) -> list[Path]:
    """The site's own files and these over them, as if they were put behind the others into its folder.  One
    of the same name as a file of the folder stands in its place, as a copy into the folder would."""
    over = files_in(paths)
    names = {file.name: file for file in over}
    kept = [names.get(file.name, file) if file.parent == folder else file for file in own]
    return kept + [file for file in over if file not in kept]


def files_in(paths: Iterable[Path]) -> list[Path]:
    """The files as named, and those of folders that are named."""
    return [file for path in paths for file in (policy_files.folder_files(path) if path.is_dir() else [path])]


def accepted(state_dir: Path) -> Policy | None:
    """What the daemon goes on with while the site's files are refused: the last that it accepted."""
    try:
        texts = json.loads((state_dir / ACCEPTED).read_text(encoding="ascii"))["files"]
        found = load([(str(name), str(text)) for name, text in texts])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, Policy) else None
