"""The built-in detectors pass the suite that a stranger's would run."""

from __future__ import annotations

from pathlib import Path

from plugins.conformance_detectors import DetectorSuite, factory_context
from plugins.series_files import ANGLES, write_series
from plugins.test_tomo5 import write_position
from tiltd.plugins.api import Detector
from tiltd.plugins.serialem import SerialEmDetector, SerialEmFramesDetector
from tiltd.plugins.tomo5 import Tomo5Detector


class TestSerialEm(DetectorSuite):
    def make(self) -> Detector:
        return SerialEmDetector({}, factory_context())

    def write(self, folder: Path) -> None:
        write_series(folder)


class TestSerialEmFrames(DetectorSuite):
    def make(self) -> Detector:
        return SerialEmFramesDetector({}, factory_context())

    def write(self, folder: Path) -> None:
        write_series(folder)
        (folder / "frames").mkdir()
        for number in range(len(ANGLES)):
            (folder / "frames" / f"f_{number}.eer").write_bytes(bytes([number]) * 100)


class TestTomo5(DetectorSuite):
    def make(self) -> Detector:
        return Tomo5Detector({}, factory_context())

    def write(self, folder: Path) -> None:
        write_position(folder, folder)
