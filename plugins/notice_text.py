"""A notice in words, for e-mail and webhooks: a subject, and plain text.  Pure.

Names come from microscopes and may be hostile: every line is one printable line.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from tiltd.daemon.core.model import Digest, Notice, NoticeItem
from tiltd.daemon.text import one_line, shown

SUBJECT_MAX = 140
LINE_MAX = 600
TEXT_MAX = 14_000
"""Mattermost refuses messages of more than 16,383 characters."""


def subject(notice: Notice) -> str:
    """One line, what it is about first."""
    return f"[tiltd] {_short(one_line(notice.summary), SUBJECT_MAX)}"


def plain(notice: Notice, page_url: str = "") -> str:
    """The whole notice.  ``page_url``: where the operators' page is, for links."""
    text = "\n".join(_short(line, LINE_MAX) for line in lines(notice, page_url))
    if len(text) <= TEXT_MAX:
        return text + "\n"
    return text[:TEXT_MAX].rpartition("\n")[0] + "\n... and more: see the page, or 'tiltd list'.\n"


def lines(notice: Notice, page_url: str = "") -> Iterator[str]:
    """Every line of it, in order; an empty one parts paragraphs."""
    yield one_line(notice.summary)
    yield ""
    yield from about(notice)
    if notice.digest is not None:
        yield from _digest(notice.digest, page_url)
    elif len(notice.items) + notice.more > 1:
        yield ""
        yield from _items(notice.items, notice.more, page_url)
    else:
        if notice.remedy:
            yield f"What to do: {one_line(notice.remedy)}"
        if link := link_to(notice.dataset_id, page_url):
            yield link


def about(notice: Notice) -> list[str]:
    """What it is about, a line each; nothing for what concerns the whole facility."""
    named = (
        ("Series", notice.name),
        ("Project", notice.project),
        ("Session", notice.session),
        ("Feed", notice.feed),
        ("When", moment(notice.due_at) if notice.due_at else ""),
    )
    return [f"{label}: {shown(value)}" for label, value in named if value]


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def link_to(dataset_id: str, page_url: str) -> str:
    """Ids of datasets are safe in an address."""
    return f"{page_url.rstrip('/')}/datasets/{dataset_id}" if dataset_id and page_url else ""


def figures(digest: Digest) -> list[tuple[str, str]]:
    """What came in and what is done, as (label, words)."""
    done = f"{digest.delivered} delivered"
    if digest.doubtful:
        done += f" ({digest.doubtful} of them doubtful)"
    if digest.failed:
        done += f", {digest.failed} failed"
    came_in = f"{digest.came_in + digest.incomplete} tilt series"
    if digest.incomplete:
        came_in += f" ({digest.incomplete} of them incomplete)"
    found = [("What came in", came_in), ("What is done", done)]
    median = digest.median_seconds
    if median is not None:
        words = f"{_minutes(median)} from the last tilt to the tomogram (median)"
        found.append(("It took", f"{words}, {_minutes(digest.longest_seconds)} at most"))
    for name, spread in sorted(digest.quality.items()):
        mean = spread.total / spread.count
        words = f"{mean:.3g} on average, from {spread.least:.3g} to {spread.most:.3g}"
        found.append((f"Quality, {shown(name)}", words))
    found.append(("Under way", f"{digest.under_way}"))
    found.append(("Needs a person", f"{len(digest.items) + digest.more or 'nothing'}"))
    return found


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _digest(digest: Digest, page_url: str) -> Iterator[str]:
    yield f"Since: {moment(digest.since_at)}"
    yield ""
    for label, words in figures(digest):
        yield f"{label + ':':<16} {words}"
    if digest.items:
        yield ""
        yield from _items(digest.items, digest.more, page_url)


def _items(items: tuple[NoticeItem, ...], more: int, page_url: str) -> Iterator[str]:
    for item in items:
        name = f"{shown(item.name)}: " if item.name else ""
        yield f"* {name}{one_line(item.summary)}"
        if item.remedy:
            yield f"  what to do: {one_line(item.remedy)}"
        if link := link_to(item.dataset_id, page_url):
            yield f"  {link}"
    if more:
        yield f"* and {more} more"


def _short(line: str, most: int) -> str:
    return line if len(line) <= most else line[: most - 4].rstrip() + " ..."
