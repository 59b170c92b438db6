"""No file of the project depends on, or tells of, the place where it was written."""

from __future__ import annotations

import re
from pathlib import Path

from docs.pages import tracked

# Put together from parts, so that this file does not find itself.
HOSTS = [
    ("pypi", "org"),
    ("files.python" + "hosted", "org"),
    ("registry.npm" + "js", "org"),
    ("deb.deb" + "ian", "org"),
    ("security.deb" + "ian", "org"),
    ("crates" + "", "io"),
    ("proxy.go" + "lang", "org"),
    ("repo.maven.apa" + "che", "org"),
    ("conda.ana" + "conda", "org"),
]
PLACES = ["/" + "work/", "/" + "root/", "../" + "shared", "/" + "tmp/bash_jobs"]
UNWANTED = re.compile("|".join([re.escape(f"{a}.{b}") for a, b in HOSTS] + [re.escape(p) for p in PLACES]))


def unwanted(text: str) -> list[str]:
    return UNWANTED.findall(text)


def test_no_file_names_a_registry_or_a_machine(project: Path) -> None:
    found = []
    for name in tracked(project):
        file = project / name
        if file.is_symlink() or not file.is_file():
            continue
        for number, line in enumerate(file.read_bytes().decode("utf-8", "replace").splitlines(), 1):
            found += [f"{name}:{number}: {word}" for word in unwanted(line)]
    assert not found


def test_what_is_unwanted_is_found() -> None:
    assert unwanted("see https://" + "pypi" + ".org/simple and " + "/" + "work/main")


def test_every_link_in_the_tree_stays_inside(project: Path) -> None:
    links = [project / name for name in tracked(project) if (project / name).is_symlink()]
    assert [link for link in links if not link.resolve().is_relative_to(project)] == []
