"""The site's policy files: which there are, what stands in them, and whether they changed.

The shipped policy comes first, then ``policy_file``, then the ``*.toml`` of ``policy_dir`` in the order of
their names; later wins.  Editors' leftovers (hidden files, ``x.toml~``) are no policy.
"""

from __future__ import annotations

import os
import stat
import zoneinfo
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from tiltd.daemon import registry
from tiltd.daemon.config import Settings
from tiltd.daemon.core.model import Options, Policy
from tiltd.daemon.sample import SAMPLE
from tiltd.plugins.api import Context, Permanent, Pipeline
from tiltd.policy.policy import DEFAULT_NAME, Known, PolicyError, load

FILE_BYTES_MAX = 1_000_000


class PolicyRefused(Exception):
    """The files make no policy; ``faults`` has all that is wrong with them."""

    def __init__(self, faults: list[PolicyError]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def read_policy(settings: Settings) -> Policy:
    """The shipped policy with the site's own over it, its own tests passed.  Raises PolicyRefused."""
    texts, faults = site_texts(settings)
    found = load(texts, known=known(settings))
    if isinstance(found, list):
        faults += found
    if faults or isinstance(found, list):
        raise PolicyRefused(faults)
    return found


Texts = list[tuple[str, str]]
"""Name and text of each file, the shipped one first."""


def site_texts(settings: Settings) -> tuple[Texts, list[PolicyError]]:
    """The shipped policy and the site's files, and what cannot be read of them."""
    texts, faults = texts_of(files_of(settings))
    return texts, faults + site_faults(settings)


def site_faults(settings: Settings) -> list[PolicyError]:
    """Why the site's folder, if it names one, cannot be read."""
    folder = settings.policy_dir
    if folder is not None and not folder.is_dir():
        return [_unreadable(folder, "is no folder; make it, or mend policy_dir in tiltd.toml")]
    return folder_faults(folder) if folder is not None else []


def texts_of(paths: Iterable[Path], *, any_kind: bool = False) -> tuple[Texts, list[PolicyError]]:
    """The shipped policy and these files, and what cannot be read of them."""
    texts: Texts = [(DEFAULT_NAME, shipped())]
    faults: list[PolicyError] = []
    for path in paths:
        text = text_of(path, any_kind=any_kind)
        if isinstance(text, PolicyError):
            faults.append(text)
        else:
            texts.append((str(path), text))
    return texts, faults


def shipped() -> str:
    """The text of the policy that tiltd ships."""
    return resources.files("tiltd.policy").joinpath(DEFAULT_NAME).read_text(encoding="utf-8")


def files_of(settings: Settings) -> list[Path]:
    """The site's own policy files, in the order in which they are laid over each other."""
    files = [settings.policy_file] if settings.policy_file is not None else []
    return files + (folder_files(settings.policy_dir) if settings.policy_dir is not None else [])


def folder_files(folder: Path) -> list[Path]:
    """``*.toml`` in the order of their names; none of a folder that is not there."""
    try:
        return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))
    except OSError:
        return []


def folder_faults(folder: Path) -> list[PolicyError]:
    """A folder that cannot be listed is not one without files: its policy must not be taken for gone."""
    try:
        with os.scandir(folder):
            return []
    except OSError as error:
        return [_unreadable(folder, f"cannot be listed: {error.strerror}")]


def text_of(path: Path, *, any_kind: bool = False) -> str | PolicyError:
    """A file's text, or why it cannot be read.  Only a plain file is opened for good, since reading a pipe
    may never end, unless ``any_kind`` is allowed: a person may name one (``check <(sed ...)``)."""
    try:
        with open(path, "rb", opener=None if any_kind else _not_waiting) as file:
            if not any_kind and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return _unreadable(path, "is no plain file")
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            return _unreadable(path, f"is larger than {FILE_BYTES_MAX} bytes, so it is no policy")
        return content.decode("utf-8").removeprefix("\ufeff")  # some editors begin a file with that mark
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return _unreadable(path, "is no UTF-8 text; save it as UTF-8", line)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return _unreadable(path, f"cannot be read: {reason}")


def _not_waiting(name: str, flags: int) -> int:
    """Opening a pipe that nobody writes to would wait for ever."""
    return os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _unreadable(path: Path, message: str, line: int = 1) -> PolicyError:
    return PolicyError(file=str(path), line=line, key="", message=message)


def known(settings: Settings | None = None) -> Known:
    """The names that rules may use: time zones of this machine, pipelines installed here with their options,
    the settings' feeds; and the feeds' folders, into which no result may go."""
    feeds = settings.feeds if settings is not None else []
    return Known(
        zones=_zones(),
        pipelines=registry.names("pipeline"),
        feed_folders=[str(feed.path) for feed in feeds],
        feeds={feed.name: feed.pipeline for feed in feeds} if settings is not None else None,
        option_fault=_Options(settings).fault,
        webhooks=settings.notices.names if settings is not None else None,
        sends_mail=settings.notices.email is not None if settings is not None else None,
    )


class _Options:
    """Asks pipelines whether they know an option, and would take its value; each is made when first asked."""

    def __init__(self, settings: Settings | None) -> None:
        self._settings = settings
        self._pipelines: dict[str, Pipeline | None] = {}

    def fault(self, name: str, option: str, value: Any) -> str:
        """A sentence about this option, or "": also where the pipeline cannot be asked, which is said
        elsewhere, and for what is wrong without this option too."""
        pipeline = self._pipeline(name)
        if pipeline is None:
            return ""
        without, told = _refusal(pipeline, {}), _refusal(pipeline, {option: value})
        about_it = told != without and option in told.removeprefix(f"pipeline {name}:")
        if not about_it:
            return ""
        # A pipeline may tell several faults at once, parted by semicolons.
        known = without.partition(": ")[2].split("; ") + without.split("; ")
        return "; ".join(part for part in told.split("; ") if part not in known)

    def _pipeline(self, name: str) -> Pipeline | None:
        if name not in self._pipelines:
            table = self._settings.table(name) if self._settings is not None else {}
            context = Context(state_folder="", spool_folder="", journal_id="question", owner="")
            try:
                self._pipelines[name] = registry.make("pipeline", name, table, context)
            except registry.RegistryError:
                self._pipelines[name] = None
        return self._pipelines[name]


def _refusal(pipeline: Pipeline, options: Options) -> str:
    """What a pipeline says to an ordinary series with these options; "" if it takes it."""
    try:
        pipeline.request(SAMPLE, options)
    except Permanent as error:
        return str(error)
    except Exception:  # a bug of a stranger's; it holds the first series, and says so
        return ""
    return ""


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """Reads some 600 small files once, a few milliseconds."""
    return frozenset(zoneinfo.available_timezones())


def signature(settings: Settings) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when a file comes, goes or is written: name, size, time of change, inode of each."""
    found = []
    for path in files_of(settings):
        try:
            stat = path.stat()
        except OSError:
            found.append((str(path), -1, 0, 0))
        else:
            found.append((str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino))
    return tuple(found)
