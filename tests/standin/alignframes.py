"""Stands in for a site's program of frames: sums each file of frames into a section of a stack.

``python alignframes.py -list FILE -tilt FILE -output STACK [-binning N]``, of the words that IMOD's
``alignframes`` takes the ones that the documentation of tiltd names.  It aligns nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mrcfile
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-list", type=Path, required=True)
    parser.add_argument("-tilt", type=Path, required=True)
    parser.add_argument("-output", type=Path, required=True)
    parser.add_argument("-binning", type=int, default=1)
    asked = parser.parse_args()
    names = asked.list.read_text().split("\n")[:-1]
    angles = [float(line) for line in asked.tilt.read_text().split()]
    if angles != sorted(angles) or len(angles) != len(names):
        raise SystemExit("the angles do not rise, or are not as many as the frames")
    sections = []
    for name in names:
        with mrcfile.open(name) as file:
            summed = file.data.astype(np.float32).sum(axis=0)
        height, width = (side // asked.binning for side in summed.shape)
        summed = summed[: height * asked.binning, : width * asked.binning]
        sections.append(summed.reshape(height, asked.binning, width, asked.binning).mean(axis=(1, 3)))
    with mrcfile.new(asked.output) as file:
        file.set_data(np.stack(sections).astype(np.float32))


if __name__ == "__main__":
    main()
