"""One stack and its mdoc, image by image in SerialEM's order: pixels, header, extended header, mdoc."""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

from . import mdoc
from .phantom import Phantom
from .plan import Action, Session, Step, Steps
from .stack import Stack


class Acquisition:
    """The growing files of one series.

    ``sections`` is what the mdoc tells of each image in the order of the stack.  A marker
    (``<stack>.openTS``) stands beside the stack while it is open, if ``marker`` is set.
    """

    def __init__(
        self, session: Session, *, close_between: bool = False, marker: bool = False, montage: bool = False
    ) -> None:
        self.session, self.close_between, self.marker, self.montage = session, close_between, marker, montage
        self.phantom = Phantom(session.seed, session.optics)
        self.sections: list[mdoc.Section] = []
        self.clock_seconds = session.started_seconds
        self.restarts = 0
        self.path = session.stack_path
        self.stack = self._new_stack()
        self._pixels: Any = None

    @property
    def mdoc_path(self) -> Path:
        return beside(self.path, ".mdoc")

    @property
    def marker_path(self) -> Path:
        return beside(self.path, ".openTS")

    def open(self, delay_seconds: float = 0.0) -> Steps:
        """A header with nz = 0; no mdoc yet.  An old stack is truncated, an old mdoc becomes ``.mdoc~``."""
        self.sections = []
        self.stack = self._new_stack()
        yield self._step("open", self.path, self._create, delay_seconds)
        if self.marker:
            yield self._step("marker", self.marker_path, self.marker_path.touch)

    def shoot(self, angle_deg: float, delay_seconds: float, shot: int = 0) -> Steps:
        """One image: four steps, the first after the wait.  ``shot`` counts exposures at one angle."""
        number = len(self.sections)
        spent = self.session.clock_step_seconds
        self.clock_seconds += delay_seconds if spent is None else spent
        self.sections.append(self._section(angle_deg, number))
        yield self._step("pixels", self.path, lambda: self._expose(angle_deg, shot), delay_seconds, number)
        yield from self._recorded(number)

    def copy(self, source: Acquisition, section: int) -> Steps:
        """Put a section of another stack at the end of this one, its mdoc section with it."""
        number = len(self.sections)
        self.sections.append(source.sections[section])
        yield self._step("pixels", self.path, lambda: self._take(source.path, section), 0.0, number)
        yield from self._recorded(number)

    def moved(self, suffix: str) -> Steps:
        """Close it and rename mdoc, then stack, as SerialEM does before it reorders a file.

        The marker of the old name goes, and a marker of the new name comes.
        """
        old_mdoc, old_path, old_marker = self.mdoc_path, self.path, self.marker_path
        self.path = beside(old_path, suffix)
        yield self._step("rename", old_mdoc, lambda: old_mdoc.rename(self.mdoc_path))
        yield from self._closed(old_path, old_marker)
        yield self._step("rename", old_path, lambda: old_path.rename(self.path))
        self.stack = self._new_stack()
        if self.marker:
            yield self._step("marker", self.marker_path, self.marker_path.touch)

    def removed(self) -> Steps:
        """Close and remove the stack, then its mdoc."""
        yield from self.close()
        yield self._step("remove", self.path, self.path.unlink)
        yield self._step("remove", self.mdoc_path, self.mdoc_path.unlink)

    def close(self, delay_seconds: float = 0.0) -> Steps:
        """The end: the file is closed, the marker goes, ``.rawtlt`` comes if it was asked for."""
        yield from self._closed(self.path, self.marker_path, delay_seconds)

    def write_rawtlt(self) -> Steps:
        path = self.path.with_name(self.path.name.removesuffix(self.session.extension) + ".rawtlt")
        text = "".join(f"{section.tilt_angle_deg:.2f}\n" for section in self.sections)
        yield self._step("text", path, lambda: write_text(path, text))

    def mdoc_text(self) -> str:
        """The whole mdoc for the present sections."""
        optics = self.session.optics
        name = self.path.name.replace("\n", " ")
        parts = [mdoc.preamble(optics, name, montage=self.montage)]
        parts += [mdoc.section_text(number, section, optics) for number, section in enumerate(self.sections)]
        return "".join(parts)

    def _recorded(self, number: int) -> Steps:
        """What follows the pixels of a section."""
        yield self._step("header", self.path, self.stack.write_header, 0.0, number)
        yield self._step("extended", self.path, lambda: self._extend(number), 0.0, number)
        yield self._step("mdoc", self.mdoc_path, lambda: self._append(number), 0.0, number)

    def _closed(self, path: Path, marker_path: Path, delay_seconds: float = 0.0) -> Steps:
        yield self._step("close", path, self.stack.close, delay_seconds)
        if self.marker:
            yield self._step("remove", marker_path, marker_path.unlink)

    def _step(self, what: str, path: Path, do: Any, delay_seconds: float = 0.0, section: int = -1) -> Step:
        return Step(delay_seconds, Action(what, path, do, section, self.session.name))

    def _new_stack(self) -> Stack:
        optics, reserved = self.session.optics, self.session.tilt_count
        titles = mdoc.titles(optics)
        size = (optics.width_px, optics.height_px, optics.pixel_spacing_angstrom)
        return Stack(self.path, *size, titles, reserved, self.close_between)

    def _create(self) -> None:
        if self.mdoc_path.exists():
            self.mdoc_path.replace(beside(self.mdoc_path, "~"))
        self.stack.create()

    def _section(self, angle_deg: float, number: int) -> mdoc.Section:
        place = random.Random(f"{self.session.seed}:{self.restarts}")
        stage_um = (round(place.uniform(-400, 400), 3), round(place.uniform(-400, 400), 3))
        piece = (number % 3 * self.session.optics.width_px, number // 3 * self.session.optics.height_px, 0)
        stem = self.session.name.replace("\n", " ")
        return mdoc.Section(
            tilt_angle_deg=angle_deg,
            acquired_seconds=self.clock_seconds,
            stage_um=stage_um,
            prior_dose_e_per_a2=number * self.session.optics.dose_e_per_a2,
            frames_name=f"{stem}_{number + 1:03d}_{angle_deg:.1f}.tif",
            piece=piece if self.montage else None,
        )

    def _expose(self, angle_deg: float, shot: int) -> None:
        self._pixels = self.phantom.image(angle_deg, shot + 10 * self.restarts)
        self.stack.write_pixels(self._pixels)

    def _take(self, source: Path, section: int) -> None:
        import numpy as np

        optics = self.session.optics
        with open(source, "rb") as file:
            file.seek(1024 + self.stack.extended_bytes + section * self.stack.section_bytes)
            words = np.frombuffer(file.read(self.stack.section_bytes), dtype="<i2")
        self._pixels = words.reshape(optics.height_px, optics.width_px)
        self.stack.write_pixels(self._pixels)

    def _extend(self, number: int) -> None:
        section = self.sections[number]
        self.stack.write_extended(section.tilt_angle_deg, section.stage_um, self.session.optics.dose_e_per_a2)

    def _append(self, number: int) -> None:
        """The first section brings the globals and titles with it; later ones are appended."""
        section, pixels = self.sections[number], self._pixels
        seen = (float(pixels.min()), float(pixels.max()), float(pixels.mean()))
        section = self.sections[number] = _with_counts(section, seen)
        if number == 0:
            write_text(self.mdoc_path, self.mdoc_text())
            return
        with open(self.mdoc_path, "ab") as file:
            file.write(encoded(mdoc.section_text(number, section, self.session.optics)))


def _with_counts(section: mdoc.Section, counts: tuple[float, float, float]) -> mdoc.Section:
    low, high, mean = counts
    return dataclasses.replace(section, min_max_mean=(low, high, round(mean, 2)))


def beside(path: Path, suffix: str) -> Path:
    """The file whose name is this one's with something behind it."""
    return path.with_name(path.name + suffix)


def encoded(text: str) -> bytes:
    """Text as bytes; names that are no UTF-8 come out as they are on disk."""
    return os.fsencode(text)


def write_text(path: Path, text: str) -> None:
    """Write a whole small file; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(text))
