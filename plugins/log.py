"""Notifier ``log``: every notice becomes one line of the daemon's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from tiltd.daemon.core.model import Notice
from tiltd.daemon.text import shown
from tiltd.plugins.api import Context


class LogNotifier:
    """Takes no settings.  Never fails: a log that cannot be written is the log's own trouble."""

    def __init__(self, settings: Mapping[str, Any], context: Context) -> None:
        self._log = structlog.get_logger("tiltd.notice")

    async def notify(self, notice: Notice) -> None:
        self._log.warning(
            shown(notice.summary),
            notice=notice.event,
            notice_id=notice.notice_id,
            dataset=notice.dataset_id,
            project=shown(notice.project),
        )
