"""The plugins that the settings name, made once at the start."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tiltd.plugins.api import Context, Detector, Notifier, Pipeline, ResourceManager

from . import registry
from .config import Settings


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
            notifiers=made("notifier", {"log"}),
            manager=registry.make("resource_manager", manager, settings.table(manager), context),
        )
