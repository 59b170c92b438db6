"""Logging: one event is one line, for people (console) or for machines (JSON); names are escaped."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from tiltd.daemon.text import one_line

_WORD = re.compile(r"[^\s='\"]+")
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Of syslog(3), by which journald knows a line's level."""


def set_up(
    style: Literal["console", "json"] = "console",
    level: Literal["debug", "info", "warning", "error"] = "info",
) -> None:
    """Once at start.  Lines go to standard error, where journald or a terminal takes them.

    What libraries say through :mod:`logging` comes in the same form, from warnings on.
    """
    journald = _to_journald()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        escape_names,
    ]
    last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    if style == "console":
        last = [
            structlog.processors.format_exc_info,
            one_line_traceback,
            structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else plain,
        ]
    if journald:
        last[-1] = _with_priority(last[-1])
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(LEVELS[level], LEVELS["warning"]), force=True)


def _to_journald() -> bool:
    """Does standard error end in journald?  systemd.exec(5), JOURNAL_STREAM."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _with_priority(render: Any) -> Any:
    """So that `journalctl -p warning` finds what it should; journald takes the number off the line."""

    def prioritized(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        priority = PRIORITIES.get(str(event.get("level")), PRIORITIES["info"])
        return f"<{priority}>{render(logger, method, event)}"

    return prioritized


def one_line_traceback(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The renderer for people would print an ``exception`` over many lines, which nobody can search."""
    if "exception" in event:
        event["traceback"] = one_line(str(event.pop("exception")))
    return event


def plain(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """As on a terminal, without colours, in a third of the time."""
    head = f"{event.pop('timestamp', '')} [{event.pop('level', ''):<9}] {event.pop('event', ''):<30}"
    pairs = [f"{key}={_value(value)}" for key, value in sorted(event.items())]
    return " ".join([head, *pairs]).rstrip()


def _value(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else repr(value)


def escape_names(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Every text of an event as one printable line: a file's name cannot forge a line or move a cursor."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = one_line(value)
    return event
