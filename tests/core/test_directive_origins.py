"""Of the directives of a run, each tells whether template, series, feed, rule or operator set it."""

from __future__ import annotations

from typing import Any

import pytest

from core.policy_scene import Scene
from plugins.imod_scene import GOLDEN, book_of
from tiltd.daemon.core.model import State
from tiltd.plugins.api import Permanent
from tiltd.plugins.imod.settings import ImodSettings

THICKNESS = "comparam.tilt.tilt.THICKNESS"
RADIAL = "comparam.tilt.tilt.RADIAL"
REORIENT = "runtime.Trimvol.any.reorient"
RULES = """
[[rule]]
name = "thin"
when = { name = "TS_t*" }
[rule.set.options]
comparam.tilt.tilt.THICKNESS = 300

[[rule]]
name = "other"
when = { name = "none*" }
set = { options = { "comparam.tilt.tilt.THICKNESS" = 1 } }
"""


def scene_of(*texts: str, **options: Any) -> Scene:
    scene = Scene(*texts, options=options)
    book = book_of(
        {"b.adoc": (GOLDEN / "full_big_2cpu" / "batch.adoc").read_text()},
        settings=ImodSettings(directive_file="b.adoc"),
    )
    scene.pipelines["p"].directives = book  # type: ignore[attr-defined]
    return scene


def rows_of(scene: Scene, name: str) -> dict[str, Any]:
    found = scene.core.directives(scene.of(name))
    assert found is not None
    return {row.key: row for row in found[0]}


def test_feed_rule_operator_and_file_are_told_apart() -> None:
    scene = scene_of(RULES, **{THICKNESS: 200, REORIENT: 2})
    scene.complete("TS_t1")
    rows = rows_of(scene, "TS_t1")
    assert (rows[THICKNESS].value, rows[THICKNESS].origin) == ("300", "policy rule thin (1.toml:5)")
    assert (rows[REORIENT].value, rows[REORIENT].origin) == ("2", "feed f")
    assert rows[RADIAL].origin == "directive file /site/templates/b.adoc:39"
    assert rows["setupset.copyarg.pixel"].value == "0.22"
    scene.ask("rerun", "TS_t1", options={THICKNESS: 250})
    again = next(d for d in scene.core.state.datasets.values() if d.run == 2)
    told = scene.core.directives(again)
    assert told is not None
    row = next(row for row in told[0] if row.key == THICKNESS)
    assert (row.value, row.origin, row.overruled[0]) == (
        "250",
        "operator",
        "220 (directive file /site/templates/b.adoc:38)",
    )


def test_what_was_placed_keeps_its_directives_when_the_rules_change() -> None:
    scene = scene_of(RULES)
    scene.complete("TS_t1")
    assert scene.state("TS_t1") is State.RESERVED
    scene.adopt()
    row = rows_of(scene, "TS_t1")[THICKNESS]
    assert (row.value, row.origin) == ("300", "policy as it was when it was placed")
    scene.complete("TS_t2")
    assert rows_of(scene, "TS_t2")[THICKNESS].value == "220"


def test_other_pipelines_have_none_and_a_missing_template_is_told() -> None:
    plain = Scene()
    plain.complete("TS_1")
    assert plain.core.directives(plain.of("TS_1")) is None
    scene = scene_of(user_template="gone.adoc")
    scene.complete("TS_1")
    with pytest.raises(Permanent, match=r"user_template is 'gone\.adoc'"):
        scene.core.directives(scene.of("TS_1"))
