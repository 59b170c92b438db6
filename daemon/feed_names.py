"""What a path below a feed tells: folder, stem, and the labels of its levels.  All values are raw names."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Mapping

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}\Z")


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def stem_of(series_key: str) -> str:
    """The last part without its last extension: what the names of all files of a series begin with."""
    name = series_key.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def labels_of(series_key: str, pattern: str, base: Mapping[str, str], feed: str) -> dict[str, str]:
    """The feed's labels and those of the levels that ``pattern`` names ("{project}/{session}"; a part that
    is no ``{name}`` skips a level; a level that is not there gives "").

    ``session`` is always there: the folder that holds the series, or the feed's name at the top.
    """
    folders = [part for part in folder_of(series_key).split("/") if part]
    labels = dict(base)
    for level, name in _levels(pattern):
        labels[name] = folders[level] if level < len(folders) else ""
    if not labels.get("session"):
        labels["session"] = folders[-1] if folders else feed
    return labels


@functools.lru_cache(maxsize=64)
def _levels(pattern: str) -> tuple[tuple[int, str], ...]:
    """The levels that a feed's pattern names; it is asked for every series, and there are few feeds."""
    parts = [_FIELD.match(part) for part in pattern.split("/") if part]
    return tuple((level, field[1]) for level, field in enumerate(parts) if field)


def members_of(key: str, names: Mapping[str, list[str]]) -> tuple[tuple[str, str], ...]:
    """(Folder, name) of all files that share the series' stem, by bisection in sorted names.

    Those of ``x_10`` come with those of ``x_1``, which does no harm: the detector tells them apart.
    """
    stem = stem_of(key)
    members = []
    for folder, folder_names in names.items():
        at = bisect.bisect_left(folder_names, stem)
        while at < len(folder_names) and folder_names[at].startswith(stem):
            members.append((folder, folder_names[at]))
            at += 1
    return tuple(members)
