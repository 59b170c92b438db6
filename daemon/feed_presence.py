"""Is the feed there at all?  A feed that is away is not a feed whose series are gone."""

from __future__ import annotations

import os

from .text import shown


class FeedPresence:
    """Remembers of one feed's folder whether it was a mount point, and on what its baseline was taken."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.mounted_over = False
        self._was_mount = False
        self._empty_device: int | None = None

    def trouble(self, *, series_known: bool, baseline: bool) -> str:
        """Why the feed cannot be read just now, as a sentence, or nothing.  Costs three system calls.

        An empty folder where series were known is a mount point without its file system.  ``baseline`` says
        that the next look is the feed's first: if the folder is empty then, and something is mounted over it
        later, ``mounted_over`` becomes true, and the baseline has to be taken again.
        """
        self.mounted_over = False
        try:
            device = os.stat(self.root).st_dev  # noqa: PTH116
            with os.scandir(self.root) as found:
                empty = next(found, None) is None
        except OSError as error:
            return cannot(self.root, error)
        if not os.access(self.root, os.X_OK):
            return f"{shown(self.root)}: cannot be entered: give the daemon's user permission"
        mount = os.path.ismount(self.root)
        if self._was_mount and not mount:
            return f"{shown(self.root)}: its file system is no longer mounted: mount it again"
        if empty and series_known:
            return f"{shown(self.root)}: is empty although series were there: is its file system mounted?"
        self._was_mount = mount
        if not empty:
            self.mounted_over = self._empty_device not in (None, device)
            self._empty_device = None
        elif baseline:
            self._empty_device = device
        return ""


def cannot(root: str, error: OSError) -> str:
    return f"{shown(root)}: the feed cannot be read ({error.strerror or error}): mount it, or mend its path"
