"""What the pages on setting up tell to type is right."""

from __future__ import annotations

import re
from pathlib import Path

from docs.pages import pages
from tiltd.daemon.config import Settings


def test_the_settings_for_a_cluster_are_sound(project: Path, tmp_path: Path) -> None:
    """Also with what stands in comments."""
    (block,) = re.findall(r"```toml\n(.*?)```", pages(project)["docs/cluster.md"], re.DOTALL)
    for text in (block, re.sub(r"(?m)^# (\w+ = )", r"\1", block)):
        (tmp_path / "tiltd.toml").write_text(text)
        settings = Settings.load(tmp_path / "tiltd.toml")
        assert settings.resource_manager == "torque" and settings.feed("krios1").pipeline == "wbp"
    assert settings.feed("krios1").import_dir is not None and "queue" in settings.table("torque")


def test_every_file_of_the_service_is_on_its_page(project: Path) -> None:
    page = pages(project)["docs/service.md"]
    folder = project / "deploy" / "systemd"
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert names and [name for name in names if f"`{name}`" not in page] == []


def test_every_file_that_is_copied_is_there(project: Path) -> None:
    told = set()
    for name in ("docs/install.md", "docs/cluster.md", "docs/service.md"):
        told |= set(
            re.findall(
                r"(?:deploy/systemd/| )(tiltd[\w-]*\.(?:service|timer)|drop-ins/[\w-]+\.conf)",
                pages(project)[name],
            )
        )
    assert "tiltd.service" in told and "drop-ins/torque.conf" in told
    assert [name for name in told if not (project / "deploy" / "systemd" / name).exists()] == []


def test_every_picture_is_taken_by_the_script_and_shown_on_a_page(project: Path) -> None:
    pictures = {path.name for path in (project / "docs" / "screenshots").glob("*.png")}
    script = (project / "docs" / "screenshots" / "take.py").read_text(encoding="utf-8")
    taken = {f"{name}.png" for name in re.findall(r'camera\.shoot\("([\w-]+)"', script)}
    shown = set(re.findall(r"screenshots/([\w-]+\.png)", "".join(pages(project).values())))
    assert pictures == taken and pictures <= shown | {"overview-dark.png"}
