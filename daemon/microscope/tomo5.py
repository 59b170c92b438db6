"""Tomography 5: frames and an mdoc, no stack.  The frames of a tilt arrive after its mdoc section."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from . import mdoc
from .acquisition import write_text
from .phantom import Phantom
from .plan import Action, Session, Step, Steps, dose_symmetric
from .stack import Stack

FRAMES_A_TILT = 4
"""Frames in one movie; a real one has 8 to 40."""

_NEIGHBOURS = {
    "Session.dm": "<?xml version='1.0'?><EpuSessionXml/>\n",
    "BatchPositionsList.xml": "<?xml version='1.0'?><BatchPositionsList/>\n",
    "SearchMap.xml": "<?xml version='1.0'?><MicroscopeImage/>\n",
}


def tomo5(session: Session) -> Steps:
    """``<name>.mdoc``, ``<name>_001_0.00_20260302_090000_Fractions.mrc`` and so on, ``<name>_override.mdoc``.

    ``<name>`` is ``Position_10_3``-like in real life; the caller chooses it.
    """
    for name, text in _NEIGHBOURS.items():
        yield _text(session, session.folder / name, text)
    mdoc_path, optics = session.folder / f"{session.name}.mdoc", session.optics
    parts = [mdoc.preamble(optics, f"{session.name}.mrc".replace("\n", " "))]
    clock = session.started_seconds
    for number, angle in enumerate(dose_symmetric(session.angles_deg())):
        step = session.clock_step_seconds
        clock += session.image_seconds if step is None else step
        frames_path = session.folder / _frames_name(session, number, angle, clock)
        section = mdoc.Section(
            tilt_angle_deg=angle,
            acquired_seconds=clock,
            stage_um=(12.5, -40.25),
            prior_dose_e_per_a2=number * optics.dose_e_per_a2,
            frames_name=frames_path.name.replace("\n", " "),
        )
        parts.append(mdoc.section_text(number, section, optics))
        yield _text(session, mdoc_path, "".join(parts), "mdoc", session.image_seconds, number)
        yield from _frames(session, frames_path, angle, number)
    yield _text(session, session.folder / f"{session.name}_override.mdoc", "".join(parts))


def _frames_name(session: Session, number: int, angle_deg: float, clock_seconds: float) -> str:
    instant = mdoc.SESSION_START + datetime.timedelta(seconds=clock_seconds)
    stamp = instant.strftime("%Y%m%d_%H%M%S")
    return f"{session.name}_{number + 1:03d}_{angle_deg:.2f}_{stamp}_Fractions.mrc"


def _frames(session: Session, path: Path, angle_deg: float, number: int) -> Steps:
    """One movie: the exposure shared out over its frames."""
    optics, phantom = session.optics, Phantom(session.seed, session.optics)
    size = (optics.width_px, optics.height_px, optics.pixel_spacing_angstrom)
    stack = Stack(path, *size, mdoc.titles(optics), 0)

    def write() -> None:
        frame: Any = phantom.image(angle_deg) // FRAMES_A_TILT
        stack.create()
        for _ in range(FRAMES_A_TILT):
            stack.write_pixels(frame)
            stack.write_header()
        stack.close()

    yield Step(0.0, Action("pixels", path, write, number, session.name))


def _text(
    session: Session, path: Path, text: str, what: str = "text", delay_seconds: float = 0.0, section: int = -1
) -> Step:
    return Step(delay_seconds, Action(what, path, lambda: write_text(path, text), section, session.name))
