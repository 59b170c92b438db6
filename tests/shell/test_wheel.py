"""What is handed out is right: a wheel, built from the source distribution, runs on its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from docs.pages import tracked as tracked_files


def run(*argv: str | Path, cwd: Path) -> str:
    """Its output; the test ends here with all that it said if it failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(argv, cwd=cwd, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def copy_of_what_is_tracked(project: Path, target: Path) -> list[str]:
    """Files of the checkout without what was built or left in it, and their names."""
    names = tracked_files(project)
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / name, target / name, follow_symlinks=False)
    return names


def check_wheel(wheel: Path, tracked: list[str]) -> None:
    inside = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in inside}
    assert "tiltd" in tops
    # A bare `daemon` would be python-daemon's; `tests` would be everybody's.
    assert all(top == "tiltd" or top.endswith(".dist-info") for top in tops), tops
    rooms = ("daemon/", "policy/", "plugins/")
    wanted = {
        f"tiltd/{name}" for name in tracked if name.startswith(rooms) and name.endswith((".py", ".toml"))
    }
    assert wanted <= set(inside), f"not in the wheel: {sorted(wanted - set(inside))}"
    assert any(name.endswith("/licenses/LICENSE") for name in inside)


def check_sdist(sdist: Path, tracked: list[str]) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("deploy/", "docs/", "tests/", "daemon/", "policy/", "plugins/"):
        wanted = {name for name in tracked if name.startswith(folder) and not name.startswith("tests/_path/")}
        assert wanted and wanted <= inside, f"not in the sdist: {sorted(wanted - inside)}"
    assert {"Makefile", "README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} <= inside
    assert not any(name.startswith((".venv", "build/", "tests/_path/")) for name in inside)


@pytest.mark.slow
def test_a_wheel_from_the_sdist_runs_in_a_fresh_environment(project: Path, tmp_path: Path) -> None:
    if not (project / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project is not known")
    source, fresh, dist = tmp_path / "source", tmp_path / "fresh venv", tmp_path / "dist"
    tracked = copy_of_what_is_tracked(project, source)
    run(sys.executable, "-m", "build", "--outdir", dist, ".", cwd=source)
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    check_wheel(wheel, tracked)
    check_sdist(sdist, tracked)

    venv.create(fresh, with_pip=True)
    python = fresh / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, cwd=tmp_path)
    by_name = run(fresh / "bin" / "tiltd", "--help", cwd=tmp_path)
    by_module = run(python, "-m", "tiltd.daemon", "--help", cwd=tmp_path)
    assert "usage: tiltd" in by_name.lower() and by_name == by_module
    where = run(python, "-c", "import tiltd.daemon as it; print(it.__file__)", cwd=tmp_path)
    assert where.startswith(str(fresh))
