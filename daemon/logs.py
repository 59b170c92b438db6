"""Logging: one event is one line, for people (console) or for machines (JSON); names are escaped."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from tiltd.daemon.text import one_line

_WORD = re.compile(r"[^\s='\"]+")
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
    last: Any = structlog.processors.JSONRenderer()
    if style == "console":
        last = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else plain
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, last],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(LEVELS[level], LEVELS["warning"]), force=True)


def plain(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """As on a terminal, without colours, in a third of the time."""
    head = f"{event.pop('timestamp', '')} [{event.pop('level', ''):<9}] {event.pop('event', ''):<30}"
    told = event.pop("exception", "")
    pairs = [f"{key}={_value(value)}" for key, value in sorted(event.items())]
    return " ".join([head, *pairs]).rstrip() + (f"\n{told}" if told else "")


def _value(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else repr(value)


def escape_names(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Every text of an event as one printable line: a file's name cannot forge a line or move a cursor."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = one_line(value)
    return event
