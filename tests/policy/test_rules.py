"""Rules: what each condition sees, who wins, and where a value came from."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import CivilTime, Features, NodeInfo, Policy, ResourceRequest, RetryPolicy
from tiltd.policy.place import on
from tiltd.policy.policy import DEFAULT_NAME, load
from tiltd.policy.rules import GROWING, PLAIN, decide, depends_on_completeness, matches, trace, uses, zones
from tiltd.policy.schema import keys_of
from tiltd.policy.schema_set import Sets
from tiltd.policy.schema_when import When
from tiltd.policy.shape import key, shape

SHIPPED = (Path(__file__).parents[2] / "policy" / DEFAULT_NAME).read_text("utf-8")
GB = 10**9


def loaded(*texts: str) -> Policy:
    found = load([(DEFAULT_NAME, SHIPPED), *((f"{n}0.toml", text) for n, text in enumerate(texts, 1))])
    assert isinstance(found, Policy), "\n".join(map(str, found))
    return found


def rule(name: str = "r", when: str = "", sets: str = "priority = 1", more: str = "") -> str:
    return f"[[rule]]\nname = '{name}'\n{more}\nwhen = {{ {when} }}\nset = {{ {sets} }}\n"


def civil(hour: int, weekday: int, zone: str = "Europe/Berlin") -> dict[str, CivilTime]:
    return {zone: CivilTime(zone=zone, hour=hour, weekday=weekday, valid_until_at=1.0)}


Z = "zone = 'Europe/Berlin', "
# (when, features that match, features that do not)
CONDITIONS: dict[str, tuple[str, list[Features], list[Features]]] = {
    "feed": ("feed = ['krios1', 'krios2']", [Features(feed="krios2")], [Features(feed="krios3"), Features()]),
    "microscope": (
        "microscope = 'krios*'",
        [Features(microscope="krios9"), Features(labels={"microscope": "krios9"})],
        [Features(microscope="glacios")],
    ),
    "project": ("project = 'a?c*'", [Features(project="abcd")], [Features(project="abd"), Features()]),
    "session": ("session = '2026-*'", [Features(labels={"session": "2026-1"})], [Features(session="2025-1")]),
    "name": ("name = 'TS_*'", [Features(name="TS_\udcff\n")], [Features(name="ts_1")]),
    "pipeline": ("pipeline = 'wbp'", [Features(pipeline="wbp")], [Features()]),
    "labels": (
        "labels = { detector = 'K3', mode = '*' }",
        [Features(labels={"detector": "K3"})],
        [Features(labels={"detector": "K2"}), Features()],
    ),
    "size": (
        "size = { min = '4GB', max = '8GB' }",
        [Features(size_bytes=4 * GB), Features(size_bytes=8 * GB)],
        [Features(size_bytes=4 * GB - 1), Features(size_bytes=8 * GB + 1)],
    ),
    "tilts": ("tilts = 41", [Features(tilt_count=41)], [Features(tilt_count=40), Features()]),
    "image_size": (
        "image_size = { min = 8000 }",
        [Features(image_size=(8184, 11520)), Features(image_size=(8000, 10))],
        [Features(image_size=(4096, 4096)), Features()],
    ),
    "pixel_size": (
        "pixel_size = { max = '0.14nm' }",
        [Features(pixel_spacing_angstrom=1.35)],
        [Features(pixel_spacing_angstrom=2.7), Features()],
    ),
    "attempt": ("attempt = { min = 2 }", [Features(attempt_number=3)], [Features()]),
    "waiting": ("waiting = { min = 100 }", [Features(waiting_count=100)], [Features(waiting_count=99)]),
    "hours": (
        Z + "hours = ['18-8', '12-13']",
        [Features(civil=civil(hour, 0)) for hour in (18, 23, 0, 7, 12)],
        [
            *(Features(civil=civil(hour, 0)) for hour in (8, 13, 17)),
            Features(),
            Features(civil=civil(20, 0, "UTC")),
        ],
    ),
    "weekdays": (
        Z + "weekdays = ['sat-mon', 'wed']",
        [Features(civil=civil(3, day)) for day in (5, 6, 0, 2)],
        [Features(civil=civil(3, day)) for day in (1, 3, 4)],
    ),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_conditions(name: str) -> None:
    when, match, other = CONDITIONS[name]
    policy = loaded(rule(when=when))
    for features in match:
        assert decide(features, policy).rules == ("r",), features
        assert [tried.matched for tried in trace(features, policy)] == [True]
    for features in other:
        assert decide(features, policy).rules == (), features
        (tried,) = trace(features, policy)
        assert tried.failed is not None and tried.failed.key.partition(".")[0] == name


def test_every_condition_is_in_the_table_above() -> None:
    assert {*CONDITIONS, "zone"} == set(keys_of(When))


def test_all_conditions_have_to_hold() -> None:
    policy = loaded(rule(when="feed = 'a', size = { min = '1GB' }"))
    assert decide(Features(feed="a", size_bytes=GB), policy).rules == ("r",)
    assert decide(Features(feed="a"), policy).rules == decide(Features(size_bytes=GB), policy).rules == ()


# key -> (value in the file, field of the decision, value there for 2 GB)
SETS: dict[str, tuple[str, str, object]] = {
    "nodes": ("2", "nodes", 2),
    "cores": ("{ base = 4, per_gb = 0.5, max = 8 }", "cores", 5),
    "cores_min": ("1", "cores_min", 1),
    "threads": ("{ base = 2, steps = [{ above = '1GB', value = 3 }] }", "threads", 3),
    "memory": ("'12GB'", "memory_bytes", 12 * GB),
    "memory_factor": ("1.5", "memory_factor", 1.5),
    "memory_min": ("'4GB'", "memory_bytes_min", 4 * GB),
    "memory_by_size": ("'5GB'", "memory_by_size_bytes", 5 * GB),
    "scratch": ("{ base = '1GB', per_gb = '10GB' }", "scratch_bytes", 21 * GB),
    "scratch_factor": ("2", "scratch_factor", 2.0),
    "scratch_min": ("'4GB'", "scratch_bytes_min", 4 * GB),
    "scratch_by_size": ("'6GB'", "scratch_by_size_bytes", 6 * GB),
    "walltime": ("'3h'", "walltime_seconds", 10800.0),
    "walltime_factor": ("4", "walltime_factor", 4.0),
    "walltime_min": ("'1h'", "walltime_seconds_min", 3600.0),
    "walltime_max": ("'12h'", "walltime_seconds_max", 43200.0),
    "walltime_by_size": ("'1h'", "walltime_by_size_seconds", 3600.0),
    "queue": ("'express'", "queue", "express"),
    "account": ("'em'", "account", "em"),
    "priority": ("-7", "priority", -7),
    "properties": ("['ssd']", "properties", ("ssd",)),
    "only_nodes": ("'fast*'", "only_nodes", ("fast*",)),
    "not_nodes": ("['n1', 'n2']", "not_nodes", ("n1", "n2")),
    "pipeline": ("'command'", "pipeline", "command"),
    "options": ("{ binning = 4, mask = 'x' }", "options", {"binning": 4, "mask": "x"}),
    "directives": ("['-W group_list={project}']", "directives", ("-W group_list={project}",)),
    "destination": ("'/d/{series}'", "destination", "/d/{series}"),
    "hold": ("'wait for it'", "hold", "wait for it"),
    "due": ("'4h'", "due_seconds", 14400.0),
}


@pytest.mark.parametrize("name", SETS)
def test_what_a_rule_sets(name: str) -> None:
    value, field, wanted = SETS[name]
    policy = loaded(rule(sets=f"{name} = {value}"))
    found = decide(Features(size_bytes=2 * GB), policy)
    assert getattr(found, field) == wanted
    assert found.origins == {name: "10.toml:5"}
    plain = decide(Features(size_bytes=2 * GB), loaded())
    assert replace(found, **{field: getattr(plain, field)}, rules=(), origins={}) == plain, "nothing else"


def test_completeness_and_retry_are_laid_over_the_sections_key_by_key() -> None:
    policy = loaded(
        rule(
            "a",
            sets="completeness = { quiet_min = '15min', planned_tilts = 41 }, retry = { attempts_max = 5 }",
        ),
        rule("b", sets="completeness = { partial = 'run' }, retry = { give_up = [] }, options = { a = 1 }"),
        rule("c", sets="completeness = { planned_tilts = 0 }, options = { b = 2 }"),
    )
    found = decide(Features(), policy)
    assert found.completeness == replace(policy.completeness, quiet_min_seconds=900.0, partial="run")
    assert found.retry == RetryPolicy(attempts_max=5, give_up=())
    assert found.options == {"a": 1, "b": 2}
    assert depends_on_completeness(policy) and not depends_on_completeness(loaded(rule()))


def test_every_key_of_a_rule_is_in_a_test_here_and_known_to_decide() -> None:
    assert {*SETS, "completeness", "retry"} == set(keys_of(Sets))
    assert {*GROWING, *PLAIN, "options", "completeness", "retry"} == set(keys_of(Sets))


def test_a_later_rule_wins_key_by_key_and_stop_ends_it() -> None:
    policy = loaded(
        rule("a", sets="cores = 2, queue = 'a'"),
        rule("b", "project = 'x'", "queue = 'b'", "stop = true"),
        rule("c", sets="queue = 'c', account = 'c'"),
    )
    plain, stopped = decide(Features(), policy), decide(Features(project="x"), policy)
    assert (plain.rules, plain.rule, plain.cores, plain.queue, plain.account) == (
        ("a", "c"),
        "c",
        2,
        "c",
        "c",
    )
    assert (stopped.rules, stopped.rule, stopped.queue, stopped.account) == (("a", "b"), "b", "b", "")
    assert stopped.origins == {"cores": "10.toml:5", "queue": "20.toml:5"}
    assert [tried.rule.name for tried in trace(Features(project="x"), policy)] == ["a", "b"]
    assert decide(Features(), loaded()).rule == "default"


def test_a_later_files_rule_replaces_the_one_of_its_name_in_its_place() -> None:
    first = rule("a", sets="cores = 2, queue = 'a'") + rule("b", sets="queue = 'b'")
    policy = loaded(first, rule("c", sets="queue = 'c'") + rule("a", sets="queue = 'A'"))
    assert [each.name for each in policy.rules] == ["a", "b", "c"]
    assert decide(Features(), policy).cores == 4
    assert policy.origins["rule.a.set.queue"] == "20.toml:10" and "rule.a.set.cores" not in policy.origins
    gone = loaded(first, "[[rule]]\nname = 'a'\nenabled = false\n")
    assert [each.name for each in gone.rules] == ["b"]


def test_the_version_is_that_of_rules_tests_and_shares_too() -> None:
    texts = [
        rule(),
        rule(when="feed = 'a'"),
        rule(sets="priority = 2"),
        "[shares]\na = 2\n'*' = 1\n",
        "[shares]\n'*' = 1\na = 2\n",
        "[[test]]\nname = 't'\ndataset = {}\nexpect = { nodes = 1 }\n",
    ]
    versions = [loaded(text).version for text in (*texts, "")]
    assert len(set(versions)) == len(versions)
    assert loaded("# a comment\n\n" + rule()).version == versions[0], "lines do not count"


def test_what_the_daemon_has_to_tell_the_time_for() -> None:
    policy = loaded(rule("a", Z + "hours = '8-9'"), rule("b", "zone = 'UTC', weekdays = 'mon', waiting = 3"))
    assert zones(policy) == ("Europe/Berlin", "UTC")
    assert uses(policy, "waiting") and not uses(policy, "attempt")


def test_a_rules_word_goes_into_the_request_and_the_placement() -> None:
    text = rule(
        sets="memory = '12GB', scratch = '20GB', walltime = '3h', queue = 'q', account = 'em', priority = 9,"
        " directives = ['-x'], not_nodes = 'n2', only_nodes = 'n*', walltime_max = '4h', properties = ['ssd']"
    )
    policy = loaded(text)
    decision = decide(Features(size_bytes=GB), policy)
    asked = ResourceRequest(memory_bytes=99 * GB, scratch_bytes=GB, walltime_seconds=9e6, properties=("gpu",))
    found = shape(
        asked, GB, policy, decision=decision, changes={"walltime_factor": 2.0, "memory_factor": 1.5}
    )
    assert 18 * GB <= found.memory_bytes <= 18 * GB * 1.25 and 20 * GB <= found.scratch_bytes <= 25 * GB
    assert found.walltime_seconds == found.walltime_seconds_max == 4 * 3600, "at most the rule's most"
    assert (found.properties, found.only_nodes, found.not_nodes) == (("gpu", "ssd"), ("n*",), ("n2",))
    node = NodeInfo(
        name="n1",
        state="free",
        cores=2,
        cores_free=2,
        memory_bytes=0,
        scratch_total_bytes=0,
        scratch_free_bytes=0,
        scratch_path="",
        observed_at=0.0,
    )
    placed = on(found, [node], policy, lambda _: Free(cores=2, memory_bytes=0, scratch_bytes=0))
    assert (placed.queue, placed.account, placed.priority, placed.directives) == ("q", "em", 9, ("-x",))
    assert (placed.rule, placed.cores, placed.walltime_seconds) == ("r", 2, 4 * 3600)
    assert key(found) != key(replace(found, account="other"))


def test_a_decision_is_not_that_of_another_policy_with_the_same_version() -> None:
    one, other = loaded(rule(sets="cores = 2")), loaded(rule(sets="cores = 3"))
    for _ in range(50):
        assert decide(Features(), replace(one, version="x")).cores == 2
        assert decide(Features(), replace(other, version="x")).cores == 3
        assert decide(Features(), loaded(rule())).cores == 4


# -- patterns ------------------------------------------------------------------------------------------------

_text = st.text(alphabet="ab.\n\udcff[]", max_size=12)


@given(st.text(alphabet="ab.?*\n\udcff[]", max_size=8), _text)
def test_patterns_are_those_of_the_shell_without_brackets(pattern: str, text: str) -> None:
    quoted = pattern.replace("[", "\0").replace("\0", "[[]")
    assert matches([pattern], text) == fnmatch.fnmatchcase(text, quoted)


def test_a_hostile_name_takes_no_time() -> None:
    assert not matches(["*a" * 60 + "b"], "a" * 4000)


# -- against the words of the documentation ------------------------------------------------------------------

_feature = st.builds(
    Features,
    feed=st.sampled_from(["a", "b"]),
    project=st.sampled_from(["x1", "x2", ""]),
    size_bytes=st.integers(0, 4).map(lambda n: n * GB),
    tilt_count=st.sampled_from([None, 40, 41]),
)
_when = st.lists(
    st.sampled_from(["feed = 'a'", "project = 'x*'", "size = { min = '2GB' }", "tilts = { max = 40 }"]),
    unique=True,
).map(", ".join)
_set = st.lists(
    st.sampled_from([("cores", 1), ("cores", 2), ("priority", 3), ("priority", 4)]),
    min_size=1,
    max_size=2,
    unique_by=lambda pair: pair[0],
)


def naively(features: Features, rules: list[tuple[str, list[tuple[str, int]], bool]]) -> dict[str, int]:
    found = {"cores": 4, "priority": 0}
    for when, sets, stop in rules:
        wanted = [key.partition(" ")[0] for key in when.split(", ")] if when else []
        holds = {
            "feed": features.feed == "a",
            "project": features.project.startswith("x"),
            "size": features.size_bytes >= 2 * GB,
            "tilts": features.tilt_count is not None and features.tilt_count <= 40,
        }
        if all(holds[key] for key in wanted):
            found |= dict(sets)
            if stop:
                break
    return found


@given(st.lists(st.tuples(_when, _set, st.booleans()), max_size=5), _feature)
def test_it_decides_as_the_page_says(
    rules: list[tuple[str, list[tuple[str, int]], bool]], features: Features
) -> None:
    rules = [each for each in rules if each[0] or not each[2]]  # one that always stops ends the file
    text = "".join(
        rule(
            f"r{n}", when, ", ".join(f"{key} = {value}" for key, value in sets), "stop = true" if stop else ""
        )
        for n, (when, sets, stop) in enumerate(rules)
    )
    found = load([("site.toml", text)])
    assert isinstance(found, Policy), found
    decision = decide(replace(features, size_bytes=min(features.size_bytes, 4 * GB)), found)
    assert {"cores": decision.cores, "priority": decision.priority} == naively(features, rules)
