"""The reconstruction at full size against a known specimen: 41 x 512 x 512 to 512 x 512 x 128.

``python tests/benchmarks/bench_wbp.py`` prints the figures and exits 1 when one is missed.  Seconds are CPU
seconds of one core.  The specimen has a ceiling of its own, set by the missing wedge and the noise: so a
textbook filtered back-projection with the true shifts, on some rows, is printed beside ours.  It is the
higher one where noise rules, because its linear interpolation is a low-pass filter in disguise.
"""

# ruff: noqa: E402 - run as a script, so the paths come first
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "_path"), str(HERE.parent)]

import mrcfile
import numpy as np

from plugins.phantom import (
    Phantom,
    Series,
    correlation,
    make_phantom,
    make_series,
    score_shifts,
    write_series,
)
from plugins.test_wbp_parts import plain_back_projection
from tiltd.plugins.reconstruct.resample import turn

SIDE, DEPTH, NOISE, SHIFT_PX = 512, 128, 0.25, 3.9
ROWS = np.s_[200:216]

LIMITS = {
    "alignment, CPU s": ("at most", 2.3),
    "shifts left, mean px": ("at most", 0.2),
    "back-projection and turning, CPU s": ("at most", 4.3),
    "correlation with the phantom": ("at least", 0.65),
    "correlation lost without alignment": ("at least", 0.2),
}


def reconstruct(folder: Path, name: str, series: Series, *options: str) -> Path:
    """Run the program on one core; its output folder."""
    output = folder / name
    output.mkdir()
    words = [
        *(sys.executable, "-m", "tiltd.plugins.reconstruct", "--input", str(folder / "stack.mrc")),
        *("--angles", str(folder / "angles.tlt"), "--output", str(output), "--scratch", str(folder)),
        *(f"--tilt-axis-deg={series.axis_deg}", "--cores=1", *options),
    ]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "_path"), "OMP_NUM_THREADS": "1"}
    subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    return output


def volume_of(output: Path) -> np.ndarray:
    with mrcfile.open(output / "tomogram.mrc") as file:
        return np.array(file.data)


def textbook(phantom: Phantom, series: Series) -> float:
    """Correlation of the plain reconstruction of some rows, with the true shifts."""
    rows = [
        turn((image - image.mean()) / image.std(), image.shape, series.axis_deg, tuple(shift))[ROWS]
        for image, shift in zip(series.images.astype(np.float32), series.shifts, strict=True)
    ]
    plain = plain_back_projection(np.stack(rows), series.angles_deg, phantom.nz)
    return correlation(plain, phantom.volume()[:, ROWS])


def measure(folder: Path) -> dict[str, float]:
    phantom = make_phantom(SIDE, SIDE, DEPTH)
    series = make_series(phantom, np.arange(-60.0, 60.1, 3.0), noise=NOISE, shift_px=SHIFT_PX)
    write_series(series, folder)
    outputs = [reconstruct(folder, f"aligned{run}", series) for run in (1, 2)]
    both = [json.loads((each / "figures.json").read_text()) for each in outputs]
    figures = {name: min(one[name] for one in both) for name in both[0]}  # the less disturbed of two runs
    output = outputs[0]
    views = json.loads((output / "alignment.json").read_text())["views"]
    score = score_shifts(series, np.array([[view["shift_x_px"], view["shift_y_px"]] for view in views]))
    truth = phantom.volume(score.moved)
    found = volume_of(output)
    ours = correlation(found, truth)
    unaligned = correlation(volume_of(reconstruct(folder, "not", series, "--align=no")), phantom.volume())
    return {
        "shifts before, rms px": score.before_px,
        "shifts left, rms px": score.after_px,
        "shifts left, mean px": score.mean_px,
        "alignment, CPU s": figures["align_cpu_seconds"],
        "back-projection and turning, CPU s": figures["turn_cpu_seconds"]
        + figures["backproject_cpu_seconds"],
        "correlation with the phantom": ours,
        "correlation without alignment": unaligned,
        "correlation lost without alignment": ours - unaligned,
        "correlation on some rows": correlation(found[:, ROWS], truth[:, ROWS]),
        "the same, by the textbook": textbook(phantom, series),
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder))
    missed = 0
    for name, value in measured.items():
        word, limit = LIMITS.get(name, ("", 0.0))
        wrong = (word == "at most" and value > limit) or (word == "at least" and value < limit)
        missed += wrong
        print(f"{name:38} {value:7.3f}  {f'{word} {limit}' if word else '':14} {'MISSED' if wrong else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
