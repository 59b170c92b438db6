"""Where a result goes: the feed's template filled in with names that are safe as folders."""

from __future__ import annotations

import functools
import hashlib
import re

from .model import Dataset

PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@functools.lru_cache(maxsize=1024)  # a session's series share their labels, and each is filled in twice
def folder_name(value: str) -> str:
    """One path component made of ``[A-Za-z0-9._-]``, never empty, hidden, ``.`` or ``..``.

    A value that had to be changed gets 6 hex digits of its hash behind it, so that two names which look
    alike once cleaned do not share a folder.
    """
    clean = _UNSAFE.sub("_", value)[:120].strip(".-")
    if clean == value and clean:
        return clean
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"{clean or 'unnamed'}-{digest}"


def result_folder(template: str, dataset: Dataset) -> str:
    """The absolute path of the published result.

    A later revision or run stands beside the first: ``NAME``, ``NAME.r2``, ``NAME.run2``, ``NAME.r2.run3``.
    Only the slashes of the template itself make folders; a label cannot.  A level of the template that is
    nothing but labels without a value (no project, say) is left out.
    """
    values = {**dataset.labels, "feed": dataset.feed, "series": dataset.tilt_series_name}

    def fill(match: re.Match[str]) -> str:
        value = values.get(match.group(1), "")
        return folder_name(value) if value else ""

    levels = [(level, PLACEHOLDER.sub(fill, level)) for level in template.rstrip("/").split("/")]
    folder = "/".join(filled for level, filled in levels if filled or not level)
    suffix = f".r{dataset.revision}" if dataset.revision > 1 else ""
    suffix += f".run{dataset.run}" if dataset.run > 1 else ""
    return folder + suffix


def staging_folder(final: str, attempt_id: str) -> str:
    """The hidden folder beside the final one, on the same file system, so that publishing is a rename."""
    parent = final.rpartition("/")[0]
    return f"{parent}/.tiltd-{attempt_id}"
