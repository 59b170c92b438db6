"""What a tilt series says of itself, as directives.  Pure.

    TiltSeries (header and mdoc) --> name, pixel size, tilt axis, voltage, binning, where the tilt angles are

Units differ: tiltd has pixel sizes in angstrom, batchruntomo takes nanometres; voltages are whole kilovolts.
"""

from __future__ import annotations

from tiltd.daemon.core.model import TiltSeries

from .directives import Directive
from .merge import Effective, said

PIXEL = "setupset.copyarg.pixel"
ROTATION = "setupset.copyarg.rotation"
VOLTAGE = "setupset.copyarg.voltage"
BINNING = "setupset.copyarg.binning"
RAWTLT = "setupset.copyarg.userawtlt"
NAME = "setupset.copyarg.name"
DUAL = "setupset.copyarg.dual"
SCAN_HEADER = "setupset.scanHeader"
DATASET_DIRECTORY = "setupset.datasetDirectory"

OF_SERIES = frozenset({PIXEL, ROTATION, VOLTAGE, BINNING, RAWTLT, SCAN_HEADER})
"""What no file has to set, because a series tells it."""


def of_series(series: TiltSeries) -> tuple[Directive, ...]:
    """The layer ``dataset``: only what the series knows; what it does not say is left to the templates.

    The tilt angles always come from a ``.rawtlt`` that is written from the mdoc for the run, because the
    header of a stack may hold none, and a missing ``.rawtlt`` fails minutes into a run.
    """
    found = []
    if series.pixel_spacing_angstrom:
        value = f"{series.pixel_spacing_angstrom / 10:.7g}"
        found.append(said(PIXEL, value, "dataset", "pixel size of header or mdoc, in nm"))
    if series.tilt_axis_deg is not None:
        found.append(said(ROTATION, f"{series.tilt_axis_deg:.7g}", "dataset", "tilt axis of the mdoc"))
    if series.voltage_kv:
        found.append(said(VOLTAGE, str(round(series.voltage_kv)), "dataset", "voltage of the mdoc"))
    if series.binning:
        found.append(said(BINNING, str(series.binning), "dataset", "binning of the mdoc"))
    if series.tilt_angles_deg:
        found.append(said(RAWTLT, "1", "dataset", "tilt angles of the mdoc, written for the run"))
    return tuple(found)


def for_run(merged: Effective, root: str) -> tuple[Directive, ...]:
    """The layer ``tiltd``: the safe root name; one axis, as a feed delivers series one by one."""
    layer = [said(NAME, root, "tiltd", "a safe name on scratch, mapped back at the end")]
    if merged.text(DUAL) not in ("", "0"):
        layer.append(said(DUAL, "0", "tiltd", "a series is one axis"))
    return tuple(layer)


def header_scan(merged: Effective) -> tuple[Directive, ...]:
    """No scan of the header where pixel size and tilt axis are known: eTomo of IMOD 4.8 ends with a
    NullPointerException when it has both and shall scan too.  Of the layer ``dataset``, so that feed and
    policy can ask for it."""
    if merged.has(PIXEL) and merged.has(ROTATION):
        return (said(SCAN_HEADER, "0", "dataset", "pixel size and tilt axis are known"),)
    return ()
