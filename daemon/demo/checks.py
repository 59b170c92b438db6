"""What must be true at the end, looked at on disk and not asked of the daemon."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .follow import Seen
from .shooting import Expected
from .site import Site

_BYTES_A_VOXEL = {0: 1, 1: 2, 2: 4, 6: 2, 12: 2}
Snapshot = dict[str, tuple[int, int, str]]


class Check(NamedTuple):
    """One promise and whether it was kept; ``detail`` says what was found instead."""

    promise: str
    kept: bool
    detail: str = ""


def series_checks(
    expected: tuple[Expected, ...], seen: Mapping[str, Seen], nodes: tuple[str, ...]
) -> Iterator[Check]:
    """Each series ended as it should, and was taken up once."""
    for series in expected:
        found = seen[series.name]
        state = f"{found.state or 'never seen'} {found.reason}".strip()
        promise = f"{series.name} ({series.shot_as}) is {_WORDS[series.outcome]}"
        kept = found.as_expected(series) and len(found.dataset_ids) <= 1
        yield Check(promise, kept, state if len(found.dataset_ids) <= 1 else f"{found.dataset_ids}")
    strange = sorted({node for found in seen.values() for node in found.nodes} - set(nodes))
    yield Check(f"all ran on {' or '.join(nodes)}", not strange, f"some on {', '.join(strange)}")


_WORDS = {
    "delivered": "delivered",
    "partial": "held as partial, with a reason",
    "ignored": "ignored, with a reason",
}


def result_checks(
    expected: tuple[Expected, ...], seen: Mapping[str, Seen], tilt_count: int, pixel_angstrom: float
) -> Iterator[Check]:
    """Every published folder: its manifest, the checksums in it, and the tomogram's header."""
    for series in expected:
        record = seen[series.name].record
        if series.outcome == "delivered" and record and record.get("result_path"):
            faults = list(_result_faults(Path(record["result_path"]), series, tilt_count, pixel_angstrom))
            yield Check(
                f"{series.name}: manifest, checksums and tomogram are right", not faults, _joined(faults)
            )


def _result_faults(folder: Path, series: Expected, tilt_count: int, pixel_angstrom: float) -> Iterator[str]:
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
        files = {entry["name"]: entry for entry in manifest["files"]}
        name, tilts = manifest["tilt_series_name"], manifest["input"]["tilt_count"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{folder}/manifest.json cannot be used: {error!r}"
        return
    if (name, tilts) != (series.name, tilt_count):
        yield f"the manifest tells of {name} with {tilts} tilts"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if "report.html" not in there:
        yield "there is no report.html"
    if there - {"manifest.json", "report.html", ".checksums.json"} != set(files):
        yield f"the folder has {sorted(there)}, the manifest {sorted(files)}"
    for entry in files.values():
        path = folder / entry["name"]
        if not path.is_file() or sha256(path) != entry["sha256"]:
            yield f"{path} is not what the manifest says"
    volumes = [path for path in (folder / name for name in files) if path.suffix == ".mrc" and path.is_file()]
    if not volumes:
        yield "there is no volume"
    for volume in volumes:
        yield from _volume_faults(volume, pixel_angstrom)


def _volume_faults(path: Path, pixel_angstrom: float) -> Iterator[str]:
    """Header, size to the byte, and pixel size (a whole multiple of the input's: binning)."""
    with open(path, "rb") as file:
        header = file.read(1024)
    if len(header) < 1024 or header[208:211] != b"MAP":
        yield f"{path.name} is no MRC file"
        return
    nx, ny, nz, mode = struct.unpack_from("<4i", header)
    mx, cell_x = struct.unpack_from("<i", header, 28)[0], struct.unpack_from("<f", header, 40)[0]
    extended = struct.unpack_from("<i", header, 92)[0]
    size = 1024 + extended + nx * ny * nz * _BYTES_A_VOXEL.get(mode, 0)
    if min(nx, ny, nz) < 2 or path.stat().st_size != size:
        yield f"{path.name}: {nx} x {ny} x {nz}, mode {mode} in {path.stat().st_size} bytes"
    binning = cell_x / mx / pixel_angstrom if mx else 0.0
    if binning < 0.99 or abs(binning - round(binning)) > 0.01:
        yield f"{path.name}: its pixel is {binning:.3f} times the input's of {pixel_angstrom:.3f} A"


def site_checks(site: Site, delivered: int) -> Iterator[Check]:
    """Nothing is left on scratch, and nothing but the results stands at the destination."""
    left = [
        path for node in site.nodes for path in sorted(site.scratch(node).rglob("*")) if not path.is_dir()
    ]
    left += [path for node in site.nodes for path in sorted(site.scratch(node).iterdir()) if path.is_dir()]
    names = [str(path.relative_to(site.folder)) for path in left]
    yield Check("nothing is left on scratch", not left, ", ".join(names[:5]))
    folders = [path.parent for path in site.results.rglob("manifest.json")]
    hidden = [path.name for path in site.results.rglob(".tiltd-*")]
    yield Check(
        f"{delivered} results stand at the destination, and nothing half done",
        len(folders) == delivered and not hidden,
        f"{len(folders)} results, hidden: {hidden}",
    )


def metric_checks(text: str, delivered: int) -> Iterator[Check]:
    """What /metrics says agrees."""
    wanted = (
        ("tiltd_datasets_ended_total", 'state="delivered"', delivered),
        ("tiltd_last_tilt_to_tomogram_seconds_count", "", delivered),
        ("tiltd_datasets_held", 'cause="partial"', 1),
        ("tiltd_sightings_ignored_total", 'reason="montage"', 1),
        ("tiltd_node_scratch_reserved_bytes", "", 0),
        ("tiltd_policy_last_reload_successful", "", 1),
    )
    found = {f"{name} {label}".strip(): metric_sum(text, name, label) for name, label, _ in wanted}
    wrong = [
        f"{name} {label} is {found[f'{name} {label}'.strip()]}, not {value}"
        for name, label, value in wanted
        if found[f"{name} {label}".strip()] != value
    ]
    yield Check("/metrics shows the same", not wrong, _joined(wrong))


def metric_sum(text: str, name: str, label: str = "") -> float | None:
    """The sum over a metric's samples that have the label; ``None`` when there is none."""
    values = [
        float(match.group(2))
        for match in re.finditer(rf"(?m)^{re.escape(name)}(\{{[^}}]*\}})? (\S+)$", text)
        if label in (match.group(1) or "")
    ]
    return sum(values) if values else None


def snapshot(folder: Path) -> Snapshot:
    """Size, time of change and SHA-256 of every file, to prove later that nobody touched one."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            facts = path.stat()
            found[path.relative_to(folder).as_posix()] = (facts.st_size, facts.st_mtime_ns, sha256(path))
    return found


def feed_check(before: Snapshot, after: Snapshot) -> Check:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return Check(
        f"the {len(before)} files of the microscope are untouched", not changed, ", ".join(changed[:5])
    )


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(faults: list[str]) -> str:
    return "; ".join(faults)
