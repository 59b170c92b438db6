"""The shipped policy: whole, and what the study recommends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltd.daemon.core.model import Policy, ResourceRequest
from tiltd.policy.policy import DEFAULT_NAME, load
from tiltd.policy.schema import SECTIONS, keys_of
from tiltd.policy.shape import shape

TEXT = (Path(__file__).parents[2] / "policy" / DEFAULT_NAME).read_text("utf-8")


def loaded(*texts: str) -> Policy:
    found = load([(DEFAULT_NAME, TEXT), *((f"site{n}.toml", text) for n, text in enumerate(texts))])
    assert isinstance(found, Policy), "\n".join(map(str, found))
    return found


def test_it_sets_every_key_and_each_has_a_comment() -> None:
    keys = {f"{name}.{key}" for name, table in SECTIONS.items() for key in keys_of(table)}
    assert set(loaded().origins) == keys - set(SECTIONS)
    lines = TEXT.splitlines()
    for key, origin in loaded().origins.items():
        above = lines[: int(origin.rpartition(":")[2]) - 1]
        assert any(line.startswith("#") for line in above[-3:]), key


def test_it_says_what_is_built_in() -> None:
    assert load([]).version == loaded().version  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("size_gb", "cores"), [(0.001, 4), (1.4, 4), (2.6, 4), (4.0, 4), (4.1, 6), (8.0, 6), (8.1, 8), (500, 8)]
)
def test_cores_grow_only_for_series_clearly_larger_than_the_studys(size_gb: float, cores: int) -> None:
    shaped = shape(ResourceRequest(nodes=3, cores=1, threads=16), round(size_gb * 1e9), loaded())
    assert (shaped.nodes, shaped.cores, shaped.threads) == (1, cores, cores)


def test_a_site_file_wins_key_by_key_and_its_line_is_known() -> None:
    policy = loaded(
        "[resources]\ncores = { base = 2, max = 3 }\n"
        "[placement.weights]\npack_cores = 9\n[jobs]\nmarker_grace='2min'",
        "[limits]\n\nrunning_max = 7\n",
    )
    assert policy.resources.cores.at(100e9) == 2, "the whole table is replaced, its steps too"
    assert policy.resources.threads.at(2.6e9) == 4
    assert policy.placement.weights == {**loaded().placement.weights, "pack_cores": 9}
    assert policy.marker_grace_seconds == 120
    assert policy.limits.running_max == 7
    assert policy.origins["resources.cores"] == "site0.toml:2"
    assert policy.origins["placement.weights.pack_cores"] == "site0.toml:4"
    assert policy.origins["limits.running_max"] == "site1.toml:3"
    assert policy.origins["resources.threads"].startswith("default.toml:")


def test_the_version_is_that_of_the_values() -> None:
    assert loaded("# nothing\n[retry]\ndelay = '60s'\n").version == loaded().version
    assert loaded("[retry]\ndelay = '61s'\n").version != loaded().version


def test_planned_tilts_of_zero_are_not_known() -> None:
    assert loaded().completeness.planned_tilts is None
    assert loaded("[completeness]\nplanned_tilts = 41").completeness.planned_tilts == 41
