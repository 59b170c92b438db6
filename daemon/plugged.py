"""The plugins that the settings name, made once at the start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tiltd.plugins.api import (
    Context,
    Detector,
    DirectiveBook,
    Explainer,
    Notifier,
    Pipeline,
    PluginError,
    ResourceManager,
)

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
        """Pipelines beyond those of the feeds are there for rules to choose; of them one that cannot be made
        (its table of tiltd.toml lacks something, say) is left out.  Raises RegistryError for any other plugin
        that is not known or cannot be made."""

        def made(kind: registry.Kind, names: set[str]) -> dict[str, Any]:
            return {name: registry.make(kind, name, settings.table(name), context) for name in sorted(names)}

        manager = settings.resource_manager
        of_feeds = made("pipeline", {feed.pipeline for feed in settings.feeds})
        others: dict[str, Any] = {}
        for name in registry.names("pipeline"):
            with suppress(registry.RegistryError):
                others |= made("pipeline", {name} - of_feeds.keys())
        return cls(
            pipelines=others | of_feeds,
            detectors=made("detector", {feed.detector for feed in settings.feeds}),
            notifiers=made("notifier", {"log"}) | channels(settings, context),
            manager=registry.make("resource_manager", manager, settings.table(manager), context),
        )

    async def read_again(self) -> list[str]:
        """Pipelines that are steered by directives read the site's files again; those of one with a fault in
        them stay as they were.  Gives the faults."""
        faults: list[str] = []
        for pipeline in self.pipelines.values():
            book: DirectiveBook | None = getattr(pipeline, "directives", None)
            if book is not None:
                found = await asyncio.to_thread(book.read_again)
                if isinstance(found, tuple):
                    faults += found
                else:
                    found()
        return faults

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


def channels(settings: Settings, context: Context) -> dict[str, Notifier]:
    """What reaches people beyond the log: ``email``, and every webhook by its name.  Raises RegistryError."""
    notices = settings.notices
    shared = {"page_url": notices.page_url or ""}
    found: dict[str, Notifier] = {}
    if notices.email is not None:
        found["email"] = registry.make("notifier", "email", notices.email.model_dump() | shared, context)
    for webhook in notices.webhooks:
        table = {key: value for key, value in webhook.model_dump().items() if value is not None}
        found[webhook.name] = registry.make("notifier", "webhook", table | shared, context)
    for name in notices.plugins:
        found[name] = registry.make("notifier", name, settings.table(name), context)
    return found
