"""The bundle of batchruntomo: what is kept, thumbnails and curves, by the program as the node runs it.

``tests/golden/batchruntomo/full_2cpu``: ``align.log`` and the listing of the folder of one recorded run
(41 views, 20 beads).
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tiltd.daemon.core.model import Step
from tiltd.plugins.api import Permanent
from tiltd.plugins.imod.bundle import bundle_file, bundle_step, kept_bytes, patterns_of, read_keep

GOLDEN = Path(__file__).parents[1] / "golden" / "batchruntomo" / "full_2cpu"
ROOT = "TS_001"


def mrc(volume: npt.NDArray[np.generic], mode: int, order: str = "<", imod_flags: int | None = None) -> bytes:
    """A volume (nz, ny, nx) as a file; ``imod_flags`` 0 are IMOD's unsigned bytes."""
    header = bytearray(1024)
    struct.pack_into(order + "4i", header, 0, *volume.shape[::-1], mode)
    header[208:216] = b"MAP " + (b"\x44\x44\x00\x00" if order == "<" else b"\x11\x11\x00\x00")
    if imod_flags is not None:
        struct.pack_into(order + "2i", header, 152, 1146047817, imod_flags)
    return bytes(header) + volume.astype(volume.dtype.newbyteorder(order)).tobytes()


def pixels(path: Path) -> npt.NDArray[np.uint8]:
    """A grey PNG without filters, read by the format's own words; its lowest line first."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = {}, 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        found[content[at + 4 : at + 8]] = content[at + 8 : at + 8 + length]
        at += 12 + length
    width, height = struct.unpack(">II", found[b"IHDR"][:8])
    lines = np.frombuffer(zlib.decompress(found[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return lines[::-1, 1:]


class Bench:
    """A dataset's folder as batchruntomo leaves it, and the bundle that is made of it."""

    def __init__(self, root: Path) -> None:
        self.folder, self.output, self.input = (root / name for name in ("work", "output", "input"))
        for folder in (self.folder, self.output, self.input):
            folder.mkdir()
        for line in (GOLDEN / "files").read_text().splitlines():
            name = line.split(maxsplit=1)[1].removeprefix(f"out/{ROOT}/")
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(b"x")
        (self.folder / "align.log").write_bytes((GOLDEN / "align.log").read_bytes())
        shifts = "".join(f"  1.0 0.0 0.0 1.0 {3 * view:.3f} {4 * view:.3f}\n" for view in range(5))
        (self.folder / f"{ROOT}.prexg").write_text(shifts)
        self.tomogram = self.folder / f"{ROOT}.rec"
        self.tomogram.write_bytes(mrc(np.arange(4 * 6 * 8, dtype=np.int16).reshape(4, 6, 8), 1))

    def run(self, keep: str = "alignment, logs, settings") -> subprocess.CompletedProcess[str]:
        (self.input / "bundle.py").write_text(bundle_file().text)
        step: Step = bundle_step(read_keep("p", keep), ROOT, str(self.folder), "tomogram.rec")
        words = {"{python}": sys.executable, "{input}": str(self.input), "{output}": str(self.output)}
        argv = list(step.argv)
        for field, value in words.items():
            argv = [word.replace(field, value) for word in argv]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def kept(self) -> set[str]:
        return {
            str(path.relative_to(self.output / "imod"))
            for path in (self.output / "imod").rglob("*")
            if path.is_file()
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_bundle(bench: Bench) -> None:
    done = bench.run()
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in bench.output.iterdir()} == {
        "tomogram.rec", "thumbnails", "curves.json", "figures.json", "imod",
    }  # fmt: skip
    kept = bench.kept()
    assert {"align.log", "batchruntomo.log", "processchunks.out", "tilt.com", "batchDirective.adoc"} <= kept
    assert {f"{ROOT}.xf", f"{ROOT}_fid.tlt", f"{ROOT}.fid", f"{ROOT}fid.xyz", f"{ROOT}.edf"} <= kept
    large = {f"{ROOT}.ali", f"{ROOT}.preali", f"{ROOT}.st", f"{ROOT}_full.rec", f"{ROOT}_xray.st.gz"}
    assert not large & kept
    assert not [name for name in kept if name.endswith("~") or "/" in name]


@pytest.mark.parametrize(
    ("keep", "there", "gone"),
    [
        ("", {"batchDirective.adoc", "batchruntomo.log"}, {"align.log", f"{ROOT}.xf", "tilt.com"}),
        ("aligned_stack", {f"{ROOT}.ali"}, {f"{ROOT}.preali", "align.log"}),
        ("full_tomogram, fixed_stack", {f"{ROOT}_full.rec", f"{ROOT}.st"}, {f"{ROOT}.ali"}),
        ("everything", {f"{ROOT}.preali", "origcoms/tilt.com"}, {f"{ROOT}.xtilt~"}),
    ],
)
def test_what_is_kept_is_asked_for(bench: Bench, keep: str, there: set[str], gone: set[str]) -> None:
    assert bench.run(keep).returncode == 0
    kept = bench.kept()
    assert there <= kept
    assert not gone & kept
    assert not bench.tomogram.exists() and f"{ROOT}.rec" not in kept


def test_curves_are_read_from_the_logs(bench: Bench) -> None:
    bench.run()
    document = json.loads((bench.output / "curves.json").read_text())
    residuals, shifts = document["curves"]
    assert json.loads((bench.output / "figures.json").read_text()) == {"views_aligned": 41}
    assert document["format"] == 1
    assert len(residuals["points"]) == 41
    assert residuals["points"][0] == [-59.9, 0.33] and residuals["points"][-2] == [57.0, 0.41]
    assert shifts["points"] == [[1, 0], [2, 5], [3, 10], [4, 15], [5, 20]]


def test_a_run_without_fiducials_has_no_residuals(bench: Bench) -> None:
    (bench.folder / "align.log").unlink()
    (bench.folder / f"{ROOT}.prexg").write_text("no numbers here\n")
    assert bench.run().returncode == 0
    assert not (bench.output / "curves.json").exists()


@pytest.mark.parametrize(
    ("kind", "mode", "order", "flags"),
    [
        (np.int16, 1, "<", None),
        (np.int16, 1, ">", None),
        (np.float32, 2, "<", None),
        (np.uint16, 6, "<", None),
        (np.int8, 0, "<", None),
        (np.int8, 0, "<", 1),
        (np.uint8, 0, "<", 0),
    ],
)
def test_thumbnails_are_the_central_slices(
    bench: Bench, kind: type, mode: int, order: str, flags: int | None
) -> None:
    values = np.random.default_rng(7).normal(0, 20, (4, 6, 8))
    low = 128 if kind in (np.uint8, np.uint16) else 0
    volume = (values + low).astype(kind)
    bench.tomogram.write_bytes(mrc(volume, mode, order, flags))
    assert bench.run().returncode == 0
    for name, section in (
        ("xy", volume[2].astype(float)),
        ("xz", volume[:, 3].astype(float)),
        ("zy", volume[:, :, 4].T.astype(float)),
    ):
        grey = np.clip((section - section.mean()) / (3 * section.std()) * 127.5 + 127.5, 0, 255)
        shown = pixels(bench.output / "thumbnails" / f"{name}.png").astype(float)
        assert shown.shape == section.shape, name
        assert np.abs(shown - grey).max() <= 1.0, name


def test_a_large_volume_is_averaged_down(bench: Bench) -> None:
    volume = np.zeros((8, 1030, 1100), np.int16)
    volume[4, 300:306, 900:909] = 1000  # two by three pixels of the thumbnail
    bench.tomogram.write_bytes(mrc(volume, 1))
    assert bench.run().returncode == 0
    shown = pixels(bench.output / "thumbnails" / "xy.png")
    assert shown.shape == (343, 366)
    bright = np.argwhere(shown == 255)
    assert {tuple(at) for at in bright} == {(y, x) for y in (100, 101) for x in (300, 301, 302)}


def test_what_cannot_be_shown_is_delivered_all_the_same(bench: Bench) -> None:
    bench.tomogram.write_bytes(b"not a volume")
    done = bench.run()
    assert done.returncode == 0
    assert "WARNING: bundle - no thumbnails" in done.stdout
    assert (bench.output / "tomogram.rec").read_bytes() == b"not a volume"


def test_the_newer_way_of_naming_files(bench: Bench) -> None:
    bench.tomogram.rename(bench.folder / f"{ROOT}_rec.mrc")
    assert bench.run().returncode == 0
    assert (bench.output / "tomogram.rec").is_file()


def test_no_tomogram_is_a_failure(bench: Bench) -> None:
    bench.tomogram.unlink()
    done = bench.run()
    assert done.returncode == 1
    assert f"there is no tomogram {ROOT}.rec" in done.stdout


def test_links_are_not_followed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (bench.folder / "secret.log").symlink_to(tmp_path / "secret")
    assert bench.run().returncode == 0
    assert "secret.log" not in bench.kept()


def test_a_misspelt_group_is_refused_with_a_suggestion() -> None:
    assert read_keep("batchruntomo", " logs,alignment , logs") == ("logs", "alignment")
    with pytest.raises(Permanent, match="option keep names 'aligned_stak'; did you mean 'aligned_stack'"):
        read_keep("batchruntomo", "logs, aligned_stak")


def test_patterns_and_bytes_grow_with_what_is_kept() -> None:
    assert "TS.ali" in patterns_of(("aligned_stack",), "TS")
    assert "TS.ali" not in patterns_of(("logs",), "TS")
    few = kept_bytes(("logs", "alignment"), 1000, 500, 4000)
    assert kept_bytes(("logs", "full_tomogram"), 1000, 500, 4000) == few + 4000
    assert kept_bytes(("everything", "full_tomogram"), 1000, 500, 4000) == few + 7500


def test_the_program_speaks_python_3_6() -> None:
    """The node's Python may be old: no syntax newer than that."""
    import ast

    ast.parse(bundle_file().text, feature_version=(3, 6))
