"""What the core and the plugins know of the settings."""

from __future__ import annotations

import getpass
import re

from tiltd.plugins.api import Context

from .config import Settings
from .core.site import FeedInfo, Site
from .hands import Hands


def site_of(settings: Settings) -> Site:
    feeds = {
        feed.name: FeedInfo(
            name=feed.name,
            pipeline=feed.pipeline,
            destination=feed.destination,
            imports=feed.import_dir is not None,
            options=dict(feed.options),
        )
        for feed in settings.feeds
    }
    return Site(feeds=feeds, queues=settings.resource_manager != "local")


def fixed_part(destination: str) -> str:
    """The folder of a destination template above its first placeholder."""
    return re.split(r"\{", destination)[0].rpartition("/")[0] or "/"


def context_of(settings: Settings, journal_id: str, hands: Hands) -> Context:
    """Where plugins find what is theirs, and as whom they work."""
    return Context(
        state_folder=str(settings.state_dir),
        spool_folder=str(settings.spool_dir),
        journal_id=journal_id,
        owner=getpass.getuser(),
        in_worker=hands.do,
    )
