"""``tiltd check`` tries a feed's options on the pipeline itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltd.daemon.cli.checking import examine

CONFIG = """
state_dir = "{0}/state"
[[feed]]
name = "krios1"
path = "{0}/feed"
pipeline = "wbp"
destination = "{0}/out/{{series}}"
options = {{ {1} }}
"""


@pytest.mark.parametrize("detector", ["tomo5", "serialem_frames"])
@pytest.mark.parametrize(
    ("options", "ok", "word"),
    [
        ("", False, "give the option frames a program"),
        ("frames = 'a {stak}'", False, "unknown field {stak}"),
        ("frames = 'a {stack}'", True, "frames=a {stack}"),
    ],
)
def test_a_feed_of_frames_needs_a_program_for_them(
    tmp_path: Path, detector: str, options: str, ok: bool, word: str
) -> None:
    (tmp_path / "feed").mkdir()
    config = tmp_path / "tiltd.toml"
    config.write_text(CONFIG.format(tmp_path, options) + f'detector = "{detector}"\n')
    [check] = [check for check in examine(config) if check.what == "options of feed krios1"]
    assert (check.ok, word in check.detail) == (ok, True), check


@pytest.mark.parametrize(
    ("options", "ok", "word"),
    [("binning = 4", True, "binning=4"), ("thickness_nm = 200", False, "thickness_px")],
)
def test_options_are_tried_on_the_pipeline(tmp_path: Path, options: str, ok: bool, word: str) -> None:
    (tmp_path / "feed").mkdir()
    config = tmp_path / "tiltd.toml"
    config.write_text(CONFIG.format(tmp_path, options))
    [check] = [check for check in examine(config) if check.what == "options of feed krios1"]
    assert check.ok is ok
    assert word in check.detail
