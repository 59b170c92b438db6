"""docs/policy-recipes.md: every recipe is a whole file whose own tests hold, and can fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli
from msgspec.structs import replace

from tiltd.daemon.core.model import Policy
from tiltd.policy.policy import DEFAULT_NAME, Known, load, run_tests

ROOT = Path(__file__).parents[2]
SHIPPED = (ROOT / "policy" / DEFAULT_NAME).read_text("utf-8")
PAGE = (ROOT / "docs" / "policy-recipes.md").read_text("utf-8")
RECIPES = {
    title: re.findall(r"```toml\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
KNOWN = Known(zones={"Europe/Berlin"}, pipelines={"wbp", "command"}, feed_folders={"/data/krios1"})


def loaded(*recipes: str) -> Policy:
    texts = [(f"{recipe}.toml", RECIPES[recipe][0]) for recipe in recipes]
    found = load([(DEFAULT_NAME, SHIPPED), *texts], known=KNOWN)
    assert isinstance(found, Policy), "\n".join(map(str, found))
    return found


def test_there_is_one_for_every_wish() -> None:
    wishes = (
        "urgent project",
        "Weekend backfill",
        "node free",
        "K3 super-resolution",
        "slow share",
        "fewer cores",
    )
    assert all(any(wish in title for title in RECIPES) for wish in wishes) and len(RECIPES) == len(wishes)
    assert all(len(blocks) == 1 for blocks in RECIPES.values()), "one whole file each"


@pytest.mark.parametrize("title", RECIPES)
def test_it_loads_and_its_tests_hold(title: str) -> None:
    policy = loaded(title)
    assert len(policy.tests) >= 2
    assert policy.rules or title == "A long queue uses fewer cores a series", "that one goes without"
    assert len(tomli.loads(RECIPES[title][0])["test"]) == len(policy.tests)


@pytest.mark.parametrize("title", RECIPES)
def test_its_tests_keep_watch_over_every_one_of_its_rules(title: str) -> None:
    policy = loaded(title)
    for rule in policy.rules:
        without = replace(policy, rules=tuple(each for each in policy.rules if each is not rule))
        assert run_tests(without), f"nobody would notice that {rule.name} is gone"


def test_they_go_together() -> None:
    assert len(loaded(*RECIPES).rules) >= len(RECIPES) - 1


def test_every_toml_block_of_the_reference_is_taken() -> None:
    page = (ROOT / "docs" / "policy.md").read_text("utf-8")
    blocks = [
        block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "policy_dir" not in block
    ]
    assert len(blocks) >= 4
    for block in blocks:
        text = block if block.lstrip().startswith(("#", "[")) else f"[resources]\n{block}"
        found = load([(DEFAULT_NAME, SHIPPED), ("page.toml", text)], known=KNOWN)
        assert isinstance(found, Policy), "\n".join(map(str, found))
