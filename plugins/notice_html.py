"""A notice as a small HTML page for mail readers: tables and text, nothing to be loaded, all escaped."""

from __future__ import annotations

from html import escape

from tiltd.daemon.core.model import Notice, NoticeItem
from tiltd.daemon.text import one_line, shown

from .notice_text import LINE_MAX, about, figures, link_to, moment

_HEAD = (
    '<!doctype html><html><head><meta charset="utf-8"></head>'
    '<body style="font-family:sans-serif;font-size:14px;line-height:1.4">'
)
_CELL = '<td style="padding:2px 12px 2px 0;vertical-align:top">'


def html(notice: Notice, page_url: str = "") -> str:
    """The whole notice; says the same as the plain text."""
    parts = [_HEAD, f'<h2 style="font-size:16px">{_text(notice.summary)}</h2>']
    rows = [tuple(line.split(": ", 1)) for line in about(notice)]
    if notice.digest is not None:
        rows += [("Since", moment(notice.digest.since_at)), *figures(notice.digest)]
    parts.append(_table(rows))
    if notice.digest is not None:
        parts.append(_list(notice.digest.items, notice.digest.more, page_url))
    elif len(notice.items) + notice.more > 1:
        parts.append(_list(notice.items, notice.more, page_url))
    else:
        parts.append(f"<p>What to do: {_text(notice.remedy)}</p>" if notice.remedy else "")
        parts.append(_link(notice.dataset_id, page_url))
    return "".join(parts) + "</body></html>\n"


def _text(sentence: str) -> str:
    return escape(one_line(sentence)[:LINE_MAX])


def _table(rows: list[tuple[str, ...]]) -> str:
    cells = (f"<tr>{_CELL}{escape(label)}</td>{_CELL}{escape(words)}</td></tr>" for label, words in rows)
    return f"<table>{''.join(cells)}</table>" if rows else ""


def _list(items: tuple[NoticeItem, ...], more: int, page_url: str) -> str:
    told = [_item(item, page_url) for item in items]
    told += [f"<li>and {more} more</li>"] if more else []
    return f"<ul>{''.join(told)}</ul>" if told else ""


def _item(item: NoticeItem, page_url: str) -> str:
    name = f"<b>{escape(shown(item.name)[:LINE_MAX])}</b>: " if item.name else ""
    remedy = f"<br>what to do: {_text(item.remedy)}" if item.remedy else ""
    return f"<li>{name}{_text(item.summary)}{remedy}{_link(item.dataset_id, page_url)}</li>"


def _link(dataset_id: str, page_url: str) -> str:
    address = link_to(dataset_id, page_url)
    return f'<br><a href="{escape(address)}">{escape(address)}</a>' if address else ""
