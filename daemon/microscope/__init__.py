"""A synthetic microscope: tilt series written the way SerialEM, PACEtomo and Tomography 5 write them.

``SCENARIOS[name](Session(folder=...))`` gives the steps; :func:`play` runs them in real time and
``tiltd feed`` is :mod:`.command`.  Pixels are projections of a :class:`Phantom`, so the truth is known.
"""

from __future__ import annotations

from .phantom import Optics, Phantom
from .plan import HOSTILE_NAMES, Action, Session, Step, Steps, dose_symmetric, together
from .play import play
from .scenarios import SCENARIOS, scenario_paths

__all__ = [
    "HOSTILE_NAMES",
    "SCENARIOS",
    "Action",
    "Optics",
    "Phantom",
    "Session",
    "Step",
    "Steps",
    "dose_symmetric",
    "play",
    "scenario_paths",
    "together",
]
