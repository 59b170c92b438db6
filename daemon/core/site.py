"""What the core knows of the site's settings: its feeds.  Folders stay with the shell."""

from __future__ import annotations

from .model import Options, Record


class FeedInfo(Record):
    """One feed.  ``destination`` is the template of the result folder; ``imports`` says that completed
    series are copied to storage that nodes see before they can be placed."""

    name: str
    pipeline: str
    destination: str
    imports: bool = False
    options: Options = {}


class Site(Record):
    """All feeds by name.  ``queues``: the resource manager has a queue of its own, so that a job's start is
    not the daemon's to choose."""

    feeds: dict[str, FeedInfo]
    queues: bool = False
