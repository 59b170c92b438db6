"""The text beside a stack: ``key = value`` lines, titles, and a section for every image.

Sections are appended after the pixels and the header; keys and number formats are SerialEM's (acquisition
notes).  The title's tilt-axis angle is ``RotationAngle - 90``, brought into -180..180.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from .phantom import Optics

SESSION_START = datetime.datetime(2026, 3, 2, 9, 0, 0)  # noqa: DTZ001 (a microscope's clock knows no zone)
FRAMES_FOLDER = "X:\\frames\\"


@dataclass(frozen=True)
class Section:
    """What one image's mdoc section tells."""

    tilt_angle_deg: float
    acquired_seconds: float
    stage_um: tuple[float, float]
    prior_dose_e_per_a2: float
    frames_name: str
    min_max_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    piece: tuple[int, int, int] | None = None


def rotation_angle_deg(optics: Optics) -> float:
    """The angle that SerialEM calls RotationAngle, from the tilt-axis angle."""
    return (optics.tilt_axis_deg + 90.0 + 180.0) % 360.0 - 180.0


def titles(optics: Optics, camera: int = 1, extra: str = "") -> tuple[str, str]:
    """The two titles, as they stand in the mdoc and in the MRC header (at most 80 characters each)."""
    made = SESSION_START.strftime("%d-%b-%y  %H:%M:%S")
    first = f"{'SerialEM: Digitized on synthetic microscope':<60}{made}"
    axis = (
        f"    Tilt axis angle = {optics.tilt_axis_deg:.1f}, binning = 1  spot = 8  camera = {camera}{extra}"
    )
    return first[:80], axis[:80]


def date_time(seconds: float) -> str:
    """An instant of the session as SerialEM writes it: two blanks between date and time."""
    instant = SESSION_START + datetime.timedelta(seconds=seconds)
    return instant.strftime("%d-%b-%Y  %H:%M:%S")


def preamble(optics: Optics, image_file: str, *, montage: bool = False, extra: str = "") -> str:
    """Globals and titles, up to the first section."""
    lines = [
        f"PixelSpacing = {optics.pixel_spacing_angstrom:g}",
        f"Voltage = {optics.voltage_kv:g}",
        "Version = SerialEM Version 4.1.0, built Jun  1 2024  10:00:00",
        f"ImageFile = {image_file}",
        f"ImageSize = {optics.width_px} {optics.height_px}",
        *(["Montage = 1"] if montage else []),
        "DataMode = 1",
        "",
    ]
    for title in titles(optics, extra=extra):
        lines += [f"[T = {title}]", ""]
    return "\n".join(lines) + "\n"


def section_text(number: int, section: Section, optics: Optics) -> str:
    """One ``[ZValue = N]`` section, closed by an empty line."""
    stage_x, stage_y = section.stage_um
    low, high, mean = section.min_max_mean
    lines = [f"[ZValue = {number}]"]
    if section.piece is not None:
        lines.append("PieceCoordinates = {} {} {}".format(*section.piece))
    lines += [
        f"TiltAngle = {section.tilt_angle_deg:.4f}",
        f"StagePosition = {stage_x:.3f} {stage_y:.3f}",
        "StageZ = -12.345",
        "Magnification = 64000",
        "Intensity = 0.131415",
        f"ExposureDose = {optics.dose_e_per_a2:g}",
        "DoseRate = 12.5",
        f"PixelSpacing = {optics.pixel_spacing_angstrom:g}",
        "SpotSize = 8",
        "Defocus = -4.02",
        "ImageShift = 0.104 -0.031",
        f"RotationAngle = {rotation_angle_deg(optics):g}",
        "ExposureTime = 2.4",
        "Binning = 1",
        "CameraIndex = 1",
        "DividedBy2 = 0",
        "MagIndex = 33",
        "CountsPerElectron = 35.2",
        f"MinMaxMean = {low:g} {high:g} {mean:g}",
        "TargetDefocus = -4",
        f"PriorRecordDose = {section.prior_dose_e_per_a2:g}",
        f"SubFramePath = {FRAMES_FOLDER}{section.frames_name}",
        "NumSubFrames = 8",
        f"FrameDosesAndNumber = {optics.dose_e_per_a2 / 8:g} 8",
        f"DateTime = {date_time(section.acquired_seconds)}",
        "FilterSlitAndLoss = 20 0",
        "UncroppedSize = 5760 4092",
        "RotationAndFlip = 0",
        "",
    ]
    return "\n".join(lines) + "\n"
