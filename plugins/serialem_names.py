"""Which files belong together, and which are no tilt series, by their names alone.  Pure.

All of it is from the acquisition notes: what SerialEM and PACEtomo leave in a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from tiltd.daemon.core.model import FileEntry, Problem

from .prints import last_name

_FILE = re.compile(r"(?P<stack>.+?\.(?:st|mrc))(?P<rest>(?:[.\-~].*)?)\Z", re.DOTALL | re.IGNORECASE)

_TILT_SERIES = re.compile(r"_ts_\d+\Z", re.IGNORECASE)

_OTHERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("target_image", re.compile(r"_tgt_\d+\Z", re.IGNORECASE)),
    ("view_image", re.compile(r"_view\Z", re.IGNORECASE)),
    ("template_reference", re.compile(r"_tempref\Z", re.IGNORECASE)),
    ("anchor_map", re.compile(r"_anchor", re.IGNORECASE)),
    ("trial_image", re.compile(r"_trial", re.IGNORECASE)),
    ("gain_reference", re.compile(r"_gain", re.IGNORECASE)),
    ("unsorted_copy", re.compile(r"_unsorted\Z", re.IGNORECASE)),
    ("override_copy", re.compile(r"_override\Z", re.IGNORECASE)),
)
"""Code and pattern of what lies beside tilt series; a name that ends in ``_ts_NUMBER`` is never one."""

_OTHER = re.compile("|".join(pattern.pattern for _, pattern in _OTHERS), re.IGNORECASE)
"""Any of them: few names are, and each pattern costs as much as this one."""

BLOCKERS = {".openTS": "openTS"}
_BLOCKING_SUFFIXES = {"-unsorted": "unsorted", "-half1": "half1"}


@dataclass
class Group:
    """The files of one possible series; ``stack_path`` is its name even while no stack is there."""

    stack_path: str
    stack: FileEntry | None = None
    mdoc: FileEntry | None = None
    rawtlt: FileEntry | None = None
    blockers: set[str] = field(default_factory=set)
    sentinel: bool = False
    signs: list[FileEntry] = field(default_factory=list)

    @property
    def stem(self) -> str:
        return last_name(self.stack_path).rpartition(".")[0]

    @property
    def members(self) -> list[FileEntry]:
        own = (self.stack, self.mdoc, self.rawtlt)
        return [entry for entry in own if entry is not None] + self.signs

    @property
    def is_there(self) -> bool:
        """A lone sign without stack and mdoc is a leftover, unless the pair was just renamed for sorting."""
        return bool(self.stack or self.mdoc or self.blockers - {"openTS"})


def groups_of(entries: Iterable[FileEntry], sentinel_suffix: str = ".done") -> list[Group]:
    """Group the files of one folder by stack; cost grows with the number of files."""
    groups: dict[str, Group] = {}
    tilt_files: list[FileEntry] = []
    for entry in entries:
        name = last_name(entry.relative_path)
        if name.endswith(".rawtlt"):
            tilt_files.append(entry)
            continue
        if (match := _FILE.match(name)) is None:
            continue
        rest = match["rest"]
        stack_path = entry.relative_path.removesuffix(rest)
        group = groups.get(stack_path) or Group(stack_path)
        if _take(group, entry, rest, sentinel_suffix):
            groups[stack_path] = group
    _add_tilt_files(groups, tilt_files)
    return [group for group in groups.values() if group.is_there]


def _take(group: Group, entry: FileEntry, rest: str, sentinel_suffix: str) -> bool:
    if rest == "":
        group.stack = entry
    elif rest == ".mdoc":
        group.mdoc = entry
    elif rest == sentinel_suffix:
        group.sentinel = True
        group.signs.append(entry)
    elif blocker := _blocker(rest):
        group.blockers.add(blocker)
        group.signs.append(entry)
    else:
        return False
    return True


def _blocker(rest: str) -> str:
    if rest in BLOCKERS:
        return BLOCKERS[rest]
    return _BLOCKING_SUFFIXES.get(rest.replace(".mdoc", "", 1), "")


def _add_tilt_files(groups: dict[str, Group], tilt_files: list[FileEntry]) -> None:
    if not tilt_files:
        return
    by_stem = {group.stack_path.rpartition(".")[0]: group for group in groups.values()}
    for entry in tilt_files:
        base = entry.relative_path.removesuffix(".rawtlt")
        group = by_stem.get(base) or groups.get(base)
        if group is not None:
            group.rawtlt = entry


def no_series_by_name(stem: str) -> Problem | None:
    """What a name alone excludes, with a code that can be counted."""
    if not _OTHER.search(stem) or _TILT_SERIES.search(stem):
        return None
    for code, pattern in _OTHERS:
        if pattern.search(stem):
            return Problem(code=code, detail=f"its name says {code.replace('_', ' ')}, not tilt series")
    return None
