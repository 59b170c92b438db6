"""An ordinary series, to ask a pipeline what it makes of options before any series comes."""

from __future__ import annotations

from tiltd.daemon.core.model import FilePrint, Fingerprint, TiltSeries

SAMPLE = TiltSeries(
    tilt_series_name="sample",
    kind="stack",
    fingerprint=Fingerprint(
        files=(
            FilePrint(relative_path="s.mrc", size_bytes=1_375_732_736, piece_bytes=65536, head_sha256=""),
            FilePrint(relative_path="s.mrc.mdoc", size_bytes=40_000, piece_bytes=65536, head_sha256=""),
        )
    ),
    stack_path="s.mrc",
    mdoc_path="s.mrc.mdoc",
    tilt_angles_deg=tuple(float(angle) for angle in range(-60, 61, 3)),
    image_size=(4096, 4096),
    pixel_spacing_angstrom=2.0,
    voltage_kv=300.0,
    tilt_axis_deg=85.0,
    exposure_dose_e_per_a2=120.0,
)
"""A series as a Falcon camera gives it (41 images of 4096 x 4096, int16: acquisition notes)."""
