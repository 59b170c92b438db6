"""``tiltd demo``: the whole way on this machine, from a synthetic microscope to verified tomograms.

:mod:`.command` tells the story; :mod:`.site` lays out the folder, :mod:`.daemon` runs the real daemon,
:mod:`.shooting` what the microscope does and what must become of it, :mod:`.follow` asks the daemon how far
it is, :mod:`.checks` looks at everything with its own eyes, :mod:`.screen` shows it.
"""

from __future__ import annotations

from .command import add_arguments, main

__all__ = ["add_arguments", "main"]
