"""PACEtomo under SerialEM: all targets are shot at one angle before the stage tilts.

N stacks grow in step, each closed and opened again for every tilt, and all end within the same minute.
Beside them stand the targets' pictures, which are no series, and there is no ``.openTS``.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from .acquisition import Acquisition, write_text
from .plan import Action, Session, Step, Steps, dose_symmetric
from .stack import HEADER_BYTES


def pace(session: Session) -> Steps:
    """``<name>_ts_001.mrc`` and so on, ``session.targets`` of them, with their neighbours.

    With ``sort_in_place`` each stack is put in tilt order in its own file at the end, after a copy of its
    mdoc as ``_unsorted`` appeared.
    """
    for number in range(1, session.targets + 1):
        for suffix in (f"_tgt_{number:03d}", f"_tgt_{number:03d}_view"):
            yield from _picture(session, suffix)
    targets = [_target(session, number) for number in range(1, session.targets + 1)]
    for acquisition in targets:
        yield from acquisition.open()
    wait = session.image_seconds / max(1, len(targets))
    for angle in dose_symmetric(session.angles_deg()):
        for acquisition in targets:
            yield from acquisition.shoot(angle, wait)
    for acquisition in targets:
        if session.sort_in_place:
            yield from _SortByTilt(acquisition).steps()
        yield from acquisition.close()
        if session.rawtlt:
            yield from acquisition.write_rawtlt()


def _target(session: Session, number: int) -> Acquisition:
    name, seed = f"{session.name}_ts_{number:03d}", session.seed + 1000 * number
    return Acquisition(dataclasses.replace(session, name=name, seed=seed), close_between=True)


def _picture(session: Session, suffix: str) -> Steps:
    """One image of a target, with an mdoc, that is no tilt series."""
    optics = dataclasses.replace(session.optics, max_shift_px=0.0)
    single = dataclasses.replace(session, name=f"{session.name}{suffix}", optics=optics, tilt_count=1)
    acquisition = Acquisition(single)
    yield from acquisition.open()
    yield from acquisition.shoot(0.0, 0.0)
    yield from acquisition.close()


class _SortByTilt:
    """PACE's sortByTilt: the unsorted mdoc is set aside first, then stack and mdoc are rewritten in place."""

    def __init__(self, acquisition: Acquisition) -> None:
        self.acquisition, self.images = acquisition, [b""]
        angles = [section.tilt_angle_deg for section in acquisition.sections]
        self.order = sorted(range(len(angles)), key=angles.__getitem__)

    def steps(self) -> Steps:
        acquisition, session = self.acquisition, self.acquisition.session
        aside = session.folder / f"{session.name}_unsorted{session.extension}.mdoc"
        unsorted_text = acquisition.mdoc_text()
        yield self._step("text", aside, lambda: write_text(aside, unsorted_text))
        yield self._step("copy", acquisition.path, self._read)
        for place in range(len(self.order)):
            yield self._step("copy", acquisition.path, functools.partial(self._place, place), place)
        acquisition.sections = [acquisition.sections[section] for section in self.order]
        sorted_text = acquisition.mdoc_text()
        yield self._step(
            "mdoc", acquisition.mdoc_path, lambda: write_text(acquisition.mdoc_path, sorted_text)
        )

    def _read(self) -> None:
        stack = self.acquisition.stack
        with open(stack.path, "rb") as file:
            file.seek(HEADER_BYTES + stack.extended_bytes)
            self.images = [file.read(stack.section_bytes) for _ in self.order]

    def _place(self, place: int) -> None:
        """The pixels of one section, from where it was shot to where it belongs."""
        stack, section = self.acquisition.stack, self.order[place]
        with open(stack.path, "r+b") as file:
            file.seek(HEADER_BYTES + stack.extended_bytes + place * stack.section_bytes)
            file.write(self.images[section])

    def _step(self, what: str, path: Path, do: Callable[[], None], section: int = -1) -> Step:
        return Step(0.0, Action(what, path, do, section, self.acquisition.session.name))
