"""The plugins that the settings name, made once at the start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiltd.plugins.api import Context, Detector, Explainer, Notifier, Pipeline, PluginError, ResourceManager

from . import registry
from .config import Settings

SCHEDULER_SECONDS = 15.0


@dataclass(frozen=True)
class Plugged:
    """Plugins by name, and the one resource manager."""

    pipelines: Mapping[str, Pipeline]
    detectors: Mapping[str, Detector]
    notifiers: Mapping[str, Notifier]
    manager: ResourceManager

    @classmethod
    def of(cls, settings: Settings, context: Context) -> Plugged:
        """Raises RegistryError for a plugin that is not known or cannot be made."""

        def made(kind: registry.Kind, names: set[str]) -> dict[str, Any]:
            return {name: registry.make(kind, name, settings.table(name), context) for name in sorted(names)}

        manager = settings.resource_manager
        return cls(
            pipelines=made("pipeline", {feed.pipeline for feed in settings.feeds}),
            detectors=made("detector", {feed.detector for feed in settings.feeds}),
            notifiers=made("notifier", {"log"}),
            manager=registry.make("resource_manager", manager, settings.table(manager), context),
        )

    async def scheduler_words(self, job_id: str) -> list[str]:
        """What the cluster's scheduler itself says of a queued job; empty where it cannot be asked.

        For people only: it may be wrong, and nothing follows from it.  Never raises.
        """
        if not isinstance(self.manager, Explainer):
            return []
        try:
            async with asyncio.timeout(SCHEDULER_SECONDS):
                return list(await self.manager.reasons(job_id))
        except (PluginError, TimeoutError, OSError) as error:
            return [f"Its scheduler did not tell why: {error or 'no answer'}."]
