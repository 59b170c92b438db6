"""The tests inside a policy: each expectation holds where it should, and is told where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltd.daemon.core.model import Policy
from tiltd.policy.policy import DEFAULT_NAME, Known, load, run_tests
from tiltd.policy.schema import keys_of
from tiltd.policy.schema_test import Expect
from tiltd.policy.trial import outcome

SHIPPED = (Path(__file__).parents[2] / "policy" / DEFAULT_NAME).read_text("utf-8")
RULE = """
[[rule]]
name = "k3"
when = { project = "k3-*" }
[rule.set]
nodes = 2
memory = "8GB"
walltime = "100min"
queue = "q"
account = "em"
priority = 7
properties = ["ssd"]
only_nodes = ["s?"]
pipeline = "wbp"
options = { binning = 4, align = true }
directives = ["-W group_list={project}", "-l {account}"]
destination = "/d/{series}"
hold = "because"
due = "4h"
completeness = { partial = "run" }
retry = { give_up = ["lost"], other_node = [] }
"""
TEST = """
[[test]]
name = "t"
dataset = { project = "k3-$(x)", size = "9GB", feed = "f" }
asks = { memory = "2GB", scratch = "90GB", walltime = "50min", properties = ["gpu"] }
node = [
  { name = "s", count = 2, cores = 4, memory = "16GB", scratch = "200GB", properties = ["ssd", "gpu"] },
  { name = "s3", cores = 8, memory = "16GB", scratch = "200GB", properties = ["ssd"] },
  { name = "s4", cores = 8, memory = "4GB", scratch = "200GB", properties = ["ssd", "gpu"] },
  { name = "s5", cores = 8, memory = "16GB", scratch = "90GB", properties = ["ssd", "gpu"] },
  { name = "s6", cores = 8, free_cores = 3, scratch = "1TB", properties = ["ssd", "gpu"] },
  { name = "big", cores = 8, scratch = "1TB", properties = ["ssd", "gpu"] },
]
"""


def failures_of(expect: str, rule: str = RULE, test: str = TEST) -> list[str]:
    text = f"{rule}{test}[test.expect]\n{expect}\n"
    found = load([(DEFAULT_NAME, SHIPPED), ("site.toml", text)], tested=False)
    assert isinstance(found, Policy), "\n".join(map(str, found))
    return [failed.message for failed in run_tests(found)]


# (key, what holds, what does not, words of the failure)
EXPECTATIONS: list[tuple[str, str, str, str]] = [
    ("rules", '["k3"]', '["k3", "k4"]', 'expected ["k3", "k4"], found ["k3"]'),
    ("nodes", "2", "1", "expected 1, found 2"),
    ("nodes", "{ min = 2, max = 2 }", "{ min = 3 }", "expected 3 or more, found 2"),
    ("cores", "4", "8", "found 4"),
    ("cores", "{ min = 4 }", "{ max = 3 }", "expected 3 or less, found 4"),
    ("threads", "4", "8", "found 4"),
    ("memory", '"8GB"', '"9GB"', "expected 9GB, found"),
    ("memory", '{ min = "8GB", max = "10GB" }', '{ max = "7GB" }', "expected 7GB or less"),
    ("scratch", '"90GB"', '"80GB"', "expected 80GB, found"),
    ("walltime", '{ min = "100min", max = "3h" }', '"100min"', "expected 1h40min, found 2h28min"),
    ("queue", '"q"', '""', 'expected "", found "q"'),
    ("account", '"em"', '"am"', 'found "em"'),
    ("priority", "7", "8", "expected 8, found 7"),
    ("properties", '["ssd", "gpu"]', '["ssd"]', 'found ["gpu", "ssd"]'),
    ("pipeline", '"wbp"', '"command"', 'found "wbp"'),
    ("options", "{ binning = 4 }", "{ binning = 4, align = false }", "found align = true"),
    ("directives", '["-W group_list=k3-_x_", "-l em"]', "[]", "expected [], found"),
    ("destination", '"/d/{series}"', '"/e/{series}"', "found"),
    ("hold", "true", "false", "expected false, found true"),
    ("due", '"4h"', '"5h"', "expected 5h, found 4h"),
    ("completeness", '{ partial = "run" }', '{ quiet_min = "1h" }', 'found quiet_min = "5min"'),
    ("retry", '{ give_up = ["lost"] }', "{ attempts_max = 1 }", "found attempts_max = 3"),
    ("placed", "true", "false", "expected no place, found one"),
    ("node", '["s1", "s2"]', '"s1"', 'expected ["s1"], found ["s1", "s2"]'),
    (
        "refused",
        '{ s3 = "properties", s4 = "memory", s5 = "scratch", s6 = "cores", big = "only_nodes" }',
        '{ s1 = "cores", s4 = "scratch" }',
        "found that s1 takes it, s4 refuses with memory",
    ),
]


@pytest.mark.parametrize(("key", "holds", "fails", "words"), EXPECTATIONS)
def test_expectations(key: str, holds: str, fails: str, words: str) -> None:
    assert failures_of(f"{key} = {holds}") == []
    (message,) = failures_of(f"{key} = {fails}")
    assert message.startswith('the test "t" fails: ') and words in message


def test_every_expectation_is_in_the_table_above() -> None:
    assert {row[0] for row in EXPECTATIONS} == set(keys_of(Expect))


def test_every_expectation_that_fails_is_told() -> None:
    assert len(failures_of("nodes = 1\ncores = 1\npriority = 1")) == 3


def test_no_place_is_told_with_the_nodes_reasons() -> None:
    rule = RULE.replace('"s?"', '"x?"')
    (message,) = failures_of('node = "s1"', rule)
    assert "found none (big: only_nodes, s1: only_nodes" in message
    assert failures_of("placed = false\ncores = 8", rule) == [], "without a place: what would be asked"


def test_a_directive_whose_value_is_missing_is_left_out() -> None:
    assert failures_of('directives = ["-W group_list=k3-_x_"]', RULE.replace('account = "em"', "")) == []


def test_a_later_files_test_replaces_the_one_of_its_name() -> None:
    one = '[[test]]\nname = "t"\ndataset = {}\nexpect = { cores = 9, nodes = 9 }\n'
    other = one.replace("9", "4").replace("nodes = 4", "nodes = 1")
    found = load([("a.toml", one), ("b.toml", other)])
    assert isinstance(found, Policy), found
    assert len(found.tests) == 1 and found.origins["test.t.expect.cores"] == "b.toml:4"


def test_an_empty_pipeline_is_the_feeds_own() -> None:
    found = load(
        [("a.toml", '[[rule]]\nname = "r"\nset = { pipeline = "" }\n')], known=Known(pipelines={"wbp"})
    )
    assert isinstance(found, Policy)


def test_a_tests_time_is_that_of_every_zone() -> None:
    rules = "".join(
        f"[[rule]]\nname = '{zone}'\nset = {{ priority = 1 }}\n"
        f"when = {{ zone = '{zone}', {'hours' if n else 'weekdays'} = '{'3-4' if n else 'sun'}' }}\n"
        for n, zone in enumerate(("UTC", "Asia-Tokyo"))
    )
    found = load(
        [("a.toml", rules + "[[test]]\nname = 't'\ndataset = { hour = 3, weekday = 'sun' }\nexpect = {}\n")]
    )
    assert isinstance(found, Policy)
    assert outcome(found.tests[0], found).decision.rules == ("UTC", "Asia-Tokyo")


def test_a_policy_cannot_ask_for_a_cluster_of_clusters() -> None:
    nodes = "[[test.node]]\nname = 'n'\ncount = 200\ncores = 4\nscratch = '1GB'\n"
    text = "[[test]]\nname = 't'\ndataset = {}\nexpect = {}\n"
    assert isinstance(load([("a.toml", text + nodes)]), Policy)
    found = load([("a.toml", text + nodes + nodes)])
    assert isinstance(found, list) and "too many nodes: allowed are 300" in found[0].message
