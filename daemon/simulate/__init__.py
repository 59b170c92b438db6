"""The other driver of the same core: a synthetic facility under a heap clock.  ``tiltd simulate``."""

from __future__ import annotations

from .command import add_arguments, main

__all__ = ["add_arguments", "main"]
