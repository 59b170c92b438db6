"""Logging: one event is one line, for people (console) or for machines (JSON); names are escaped."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from tiltd.daemon.text import one_line

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def set_up(
    style: Literal["console", "json"] = "console",
    level: Literal["debug", "info", "warning", "error"] = "info",
) -> None:
    """Once at start.  Lines go to standard error, where journald or a terminal takes them.

    What libraries say through :mod:`logging` comes in the same form, from warnings on.
    """
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
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ]
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


def one_line_traceback(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """The renderer for people would print an ``exception`` over many lines, which nobody can search."""
    if "exception" in event:
        event["traceback"] = one_line(str(event.pop("exception")))
    return event


def escape_names(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Every text of an event as one printable line: a file's name cannot forge a line or move a cursor."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = one_line(value)
    return event
