from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import tomli

from tiltd.daemon import registry
from tiltd.plugins.api import Context

CONTEXT = Context(state_folder="/s", spool_folder="/p", journal_id="j", owner="me")


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    installed: list[EntryPoint] = []

    def entry_points(group: str, name: str | None = None) -> list[EntryPoint]:
        return [p for p in installed if p.group == group and name in (None, p.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    module = types.ModuleType("stranger")
    module.make = lambda settings, context: (dict(settings), context.owner)  # type: ignore[attr-defined]
    module.broken = lambda settings, context: settings["queue"]  # type: ignore[attr-defined]
    module.number = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stranger", module)
    for name in ("make", "broken", "number", "absent"):
        installed.append(EntryPoint(name, f"stranger:{name}", "tiltd.pipelines"))
    installed.append(EntryPoint("nomodule", "no_such_module:x", "tiltd.pipelines"))
    return installed


def test_a_strangers_plugin_is_made_from_its_table(points: list[EntryPoint]) -> None:
    assert registry.make("pipeline", "make", {"a": 1}, CONTEXT) == ({"a": 1}, "me")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mkae", "there is no pipeline 'mkae'; did you mean 'make'? installed are: absent, broken, make"),
        ("broken", "pipeline 'broken' cannot be made: KeyError: 'queue'"),
        ("number", "is no factory"),
        ("absent", "cannot be imported: AttributeError"),
        ("nomodule", "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_each_failure_is_one_sentence(points: list[EntryPoint], name: str, words: str) -> None:
    with pytest.raises(registry.RegistryError) as caught:
        registry.make("pipeline", name, {}, CONTEXT)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_packages_with_one_name_are_refused(points: list[EntryPoint]) -> None:
    points.append(EntryPoint("make", "other:make", "tiltd.pipelines"))
    with pytest.raises(registry.RegistryError, match="more than one package"):
        registry.factory("pipeline", "make")


def test_the_built_in_plugins_come_through_the_same_door() -> None:
    project = tomli.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for kind, group in registry.GROUPS.items():
        assert set(project["entry-points"][group]) <= set(registry.names(kind))
