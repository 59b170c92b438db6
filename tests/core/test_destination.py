"""Where results go: safe names, nothing shared by accident."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tiltd.daemon.core.destination import folder_name, result_folder, staging_folder
from tiltd.daemon.core.model import Dataset, State

DATASET = Dataset(
    dataset_id="TS_01-00000000.1.1",
    feed="krios1",
    series_key="p/s/TS_01.mrc",
    tilt_series_name="TS_01",
    kind="stack",
    revision=1,
    run=1,
    found_at=0.0,
    state=State.READY,
    state_since_at=0.0,
    labels={"project": "ribosome", "session": "2026-11-22"},
)


def test_the_template_is_filled_with_labels_and_name() -> None:
    folder = result_folder("/data/{project}/{session}/{series}", DATASET)
    assert folder == "/data/ribosome/2026-11-22/TS_01"


def test_a_level_without_a_value_is_left_out() -> None:
    nameless = replace(DATASET, labels={"session": "s1"})
    assert result_folder("/data/{project}/{session}/{series}", nameless) == "/data/s1/TS_01"


@pytest.mark.parametrize(
    ("revision", "run", "name"), [(1, 1, "TS_01"), (2, 1, "TS_01.r2"), (1, 3, "TS_01.run3")]
)
def test_a_later_revision_or_run_stands_beside(revision: int, run: int, name: str) -> None:
    dataset = replace(DATASET, revision=revision, run=run)
    assert result_folder("/data/{series}", dataset) == f"/data/{name}"


def test_a_label_makes_no_folders_and_climbs_nowhere() -> None:
    hostile = replace(DATASET, labels={"project": "../../etc"}, tilt_series_name="..")
    folder = result_folder("/data/{project}/{series}", hostile)
    assert folder.startswith("/data/")
    assert folder.count("/") == 3
    assert ".." not in folder.split("/")


@given(st.text(st.characters(codec=None), max_size=80))
def test_every_name_becomes_one_plain_visible_component(value: str) -> None:
    name = folder_name(value)
    assert name
    assert name.isascii()
    assert "/" not in name
    assert not name.startswith(".")


def test_names_alike_once_cleaned_stay_apart() -> None:
    assert len({folder_name("a b"), folder_name("a\tb"), folder_name("a_b")}) == 3


def test_staging_is_hidden_and_beside() -> None:
    assert staging_folder("/data/p/TS_01", "TS_01-0.1.1.a1") == "/data/p/.tiltd-TS_01-0.1.1.a1"
