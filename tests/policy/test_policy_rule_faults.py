"""Faulty rules, tests, limits and shares, one mistake each; with ``test_policy_faults.py`` well over 100."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiltd.daemon.core.model import Features, Policy
from tiltd.policy.policy import DEFAULT_NAME, Known, PolicyError, load
from tiltd.policy.rules import decide
from tiltd.policy.schema import LISTED, SECTIONS, keys_of

SHIPPED = (Path(__file__).parents[2] / "policy" / DEFAULT_NAME).read_text("utf-8")
KNOWN = Known(
    zones={"UTC", "Europe/Berlin", "Europe/London", "America/New_York"},
    pipelines={"wbp", "command"},
    feed_folders={"/data/krios1"},
)
BASE = "[[rule]]\nname = 'urgent'\nset = { priority = 100 }\n"
"""An earlier file of the site, over which the faulty one is laid."""


def faults(text: str) -> list[PolicyError]:
    found = load([(DEFAULT_NAME, SHIPPED), ("10-base.toml", BASE), ("20-site.toml", text)], known=KNOWN)
    assert isinstance(found, list), "the file was taken"
    return found


R = "[[rule]]\nname = 'r'\n"
W = "set = { cores = 8 }\n[rule.when]\n"
S = "[rule.set]\n"
T = "[[test]]\nname = 't'\ndataset = { size = '2.6GB' }\n"
E = T + "[test.expect]\n"
N = T + "expect = { placed = true }\n[[test.node]]\nname = 'n'\n"
# (text, line, key, words of the message)
MISTAKES: list[tuple[str, int, str, str]] = [
    # rules: their own keys
    ("[[rules]]\nname = 'r'\n", 1, "rules", 'did you mean "rule"'),
    ("[rule]\nname = 'r'\nset = { cores = 8 }\n", 1, "rule", "no list"),
    ("rule = 4\n", 1, "rule", "no list"),
    ("[[rule]]\nset = { cores = 8 }\n", 1, "rule[1]", '"name" is missing'),
    ("[[rule]]\nname = ''\nset = { cores = 8 }\n", 2, "rule[1].name", "too short"),
    ("[[rule]]\nname = 'a b'\nset = { cores = 8 }\n", 2, "rule[1].name", "letters, digits"),
    ("[[rule]]\nname = 7\nset = { cores = 8 }\n", 2, "rule[1].name", "no text"),
    (R, 1, "rule[1]", "sets nothing"),
    (R + "set = {}\n", 1, "rule[1]", "sets nothing"),
    (R + "set = 4\n", 3, "rule[1].set", "no table"),
    (R + "when = 'always'\nset = { cores = 8 }\n", 3, "rule[1].when", "no table"),
    (R + "cores = 8\nstop = true\n", 3, "rule[1].cores", "belongs to [rule.set]"),
    (R + "feed = 'k'\nstop = true\n", 3, "rule[1].feed", "belongs to [rule.when]"),
    (R + "stop = 'yes'\n", 3, "rule[1].stop", "true and false without quotes"),
    (R + "stop = 1\n", 3, "rule[1].stop", "true and false without quotes"),
    (R + "whne = { feed = 'k' }\nset = { cores = 8 }\n", 3, "rule[1].whne", 'did you mean "when"'),
    (R + "set = { cores = 8 }\n" + R + "set = { cores = 9 }\n", 5, "rule[2].name", "an earlier rule"),
    ("[[rule]]\nname = 'urgnet'\nenabled = false\n", 2, "rule[1].name", 'did you mean "urgent"'),
    # rules: when
    (R + W + "feeds = 'k'\n", 5, "rule[1].when.feeds", 'did you mean "feed"'),
    (R + W + "feed = 4\n", 5, "rule[1].when.feed", "no list"),
    (R + W + "feed = []\n", 5, "rule[1].when.feed", "nothing could match"),
    (R + W + "feed = ''\n", 5, "rule[1].when.feed", "nothing could match"),
    (R + W + "feed = ['a', 7]\n", 5, "rule[1].when.feed[2]", "no text"),
    (R + W + "feed = ['a', 'a']\n", 5, "rule[1].when.feed", "twice"),
    (R + W + 'project = "a\\nb"\n', 5, "rule[1].when.project", "control characters"),
    (R + W + f"name = '{'x' * 201}'\n", 5, "rule[1].when.name", "allowed are 200"),
    (R + W + "size = '4GB'\n", 5, "rule[1].when.size", "no range"),
    (R + W + "size = { min = 4 }\n", 5, "rule[1].when.size.min", 'did you mean "4GB"'),
    (R + W + "size = { min = '4h' }\n", 5, "rule[1].when.size.min", "unknown unit"),
    (R + W + "size = { above = '4GB' }\n", 5, "rule[1].when.size.above", "allowed here: min, max"),
    (R + W + "size = { min = '8GB', max = '4GB' }\n", 5, "rule[1].when.size", "min is larger than max"),
    (R + W + "size = {}\n", 5, "rule[1].when.size", "give it min, max or both"),
    (R + W + "tilts = '41'\n", 5, "rule[1].when.tilts", "no whole number"),
    (R + W + "tilts = { min = 41.5 }\n", 5, "rule[1].when.tilts.min", "no whole number"),
    (R + W + "tilts = -1\n", 5, "rule[1].when.tilts", "allowed is 0 or more"),
    (R + W + "image_size = '4k'\n", 5, "rule[1].when.image_size", "no whole number"),
    (R + W + "pixel_size = { max = 1.35 }\n", 5, "rule[1].when.pixel_size.max", "has no unit"),
    (R + W + "pixel_size = { max = '1.35' }\n", 5, "rule[1].when.pixel_size.max", "no unit"),
    (R + W + "pixel_size = { max = '1.35um' }\n", 5, "rule[1].when.pixel_size.max", 'unknown unit "um"'),
    (R + W + "pixel_size = '1.35A'\n", 5, "rule[1].when.pixel_size", "no range"),
    (R + W + "attempt = true\n", 5, "rule[1].when.attempt", "no whole number"),
    (R + W + "waiting = { least = 5 }\n", 5, "rule[1].when.waiting.least", "allowed here: min, max"),
    (R + W + "labels = 'x'\n", 5, "rule[1].when.labels", "no table"),
    (R + W + "labels = {}\n", 5, "rule[1].when.labels", "too few"),
    (R + W + "labels = { a = 4 }\n", 5, "rule[1].when.labels.a", "no list"),
    # rules: hours, weekdays and zones
    (R + W + "hours = '8-18'\n", 4, "rule[1].when", 'need a "zone"'),
    (R + W + "zone = 'UTC'\n", 4, "rule[1].when", "zone alone says nothing"),
    (R + W + "zone = 'UTC'\nhours = '8-25'\n", 6, "rule[1].when.hours", "no span of hours"),
    (R + W + "zone = 'UTC'\nhours = '8'\n", 6, "rule[1].when.hours", "no span of hours"),
    (R + W + "zone = 'UTC'\nhours = 8\n", 6, "rule[1].when.hours", "must be a text in quotes"),
    (R + W + "zone = 'UTC'\nhours = '8-8'\n", 6, "rule[1].when.hours", "no span of hours"),
    (R + W + "zone = 'UTC'\nhours = []\n", 6, "rule[1].when.hours", "must be a text in quotes"),
    (R + W + "zone = 'UTC'\nweekdays = 'Saturday'\n", 6, "rule[1].when.weekdays", 'did you mean "sat"'),
    (R + W + "zone = 'UTC'\nweekdays = [6]\n", 6, "rule[1].when.weekdays", "must be a text in quotes"),
    (R + W + "zone = 'UTC'\nweekdays = 'mon-wed-fri'\n", 6, "rule[1].when.weekdays", "no weekday"),
    (R + W + "hours = '8-18'\nzone = 'Berlin'\n", 6, "rule[1].when.zone", 'did you mean "Europe/Berlin"'),
    (R + W + "hours = '8-18'\nzone = 'CEST'\n", 6, "rule[1].when.zone", "no time zone"),
    (R + W + "hours = '8-18'\nzone = '../etc/passwd'\n", 6, "rule[1].when.zone", "no time zone"),
    (R + W + "hours = '8-18'\nzone = 2\n", 6, "rule[1].when.zone", "no text"),
    # rules: set
    (R + S + "core = 8\n", 4, "rule[1].set.core", 'did you mean "cores"'),
    (R + S + "cores = '8'\n", 4, "rule[1].set.cores", "no number"),
    (R + S + "cores = { base = 4, per_gb = 0.5, max = 2, min = 3 }\n", 4, "rule[1].set.cores", "min is"),
    (R + S + "cores = { per_gb = 0.5 }\n", 4, "rule[1].set.cores", '"base" is missing'),
    (R + S + "cores = 'base + 0.5 * size'\n", 4, "rule[1].set.cores", "no number"),
    (R + S + "memory = 16\n", 4, "rule[1].set.memory", 'did you mean "16GB"'),
    (R + S + "walltime = '3'\n", 4, "rule[1].set.walltime", "has no unit"),
    (R + S + "walltime = { base = '1h', per_gb = '1GB' }\n", 4, "rule[1].set.walltime.per_gb", "unit"),
    (R + S + "scratch_factor = 0\n", 4, "rule[1].set.scratch_factor", "allowed is 1 or more"),
    (R + S + "queue = 'a queue'\n", 4, "rule[1].set.queue", "letters, digits"),
    (R + S + "account = '-x'\nqueue = '$(x)'\n", 5, "rule[1].set.queue", "letters, digits"),
    (R + S + "priority = 1001\n", 4, "rule[1].set.priority", "allowed is 1000 or less"),
    (R + S + "priority = 'high'\n", 4, "rule[1].set.priority", "no whole number"),
    (R + S + "properties = ['a b']\n", 4, "rule[1].set.properties[1]", "letters, digits"),
    (R + S + "not_nodes = 7\n", 4, "rule[1].set.not_nodes", "no list"),
    (R + S + "pipeline = 'wpb'\n", 4, "rule[1].set.pipeline", 'did you mean "wbp"'),
    (R + S + "options = {}\n", 4, "rule[1].set.options", "too few"),
    (R + S + "options = { binning = [4] }\n", 4, "rule[1].set.options.binning", "is no option"),
    (R + S + "options = { binning = nan }\n", 4, "rule[1].set.options.binning", "is no option"),
    (R + S + "directives = '-W x'\n", 4, "rule[1].set.directives", "no list"),
    (R + S + "directives = ['-W {projct}']\n", 4, "rule[1].set.directives[1]", "placeholder {projct}"),
    (R + S + "directives = ['-W {project']\n", 4, "rule[1].set.directives[1]", "no placeholder"),
    (R + S + 'directives = ["a\\nb"]\n', 4, "rule[1].set.directives[1]", "control characters"),
    (R + S + "destination = 'tomo/{series}'\n", 4, "rule[1].set.destination", "absolute path"),
    (R + S + "destination = '/data/{project}'\n", 4, "rule[1].set.destination", "must contain {series}"),
    (R + S + "destination = '/data/../{series}'\n", 4, "rule[1].set.destination", "without '..'"),
    (R + S + "destination = '/data/krios1/{series}'\n", 4, "rule[1].set.destination", "inside the feed"),
    (R + S + "destination = '/data/{series!r}'\n", 4, "rule[1].set.destination", "no placeholder"),
    (R + S + "hold = true\n", 4, "rule[1].set.hold", "no text"),
    (R + S + "due = 12\n", 4, "rule[1].set.due", "has no unit"),
    (R + S + "completeness = { partial = 'ran' }\n", 4, "rule[1].set.completeness.partial", '"run"'),
    (R + S + "completeness = { quiet = '1h' }\n", 4, "rule[1].set.completeness.quiet", "unknown key"),
    (R + S + "retry = { give_up = ['inptu'] }\n", 4, "rule[1].set.retry.give_up[1]", 'did you mean "input"'),
    # values of rules that do not go together
    (R + S + "walltime_max = '10min'\n", 4, "rule.r.set.walltime_max", "walltime_min is more"),
    (R + S + "walltime_max = '2h'\nwalltime_min = '3h'\n", 5, "rule.r.set.walltime_min", "is more"),
    (R + S + "completeness = { quiet_min = '3h' }\n", 4, "rule.r.set.completeness.quiet_min", "stale is"),
    (R + S + "\nretry.hold = ['input']\n", 5, "rule.r.set.retry.hold", "in give_up and in hold"),
    (R + "stop = true\n" + "[[rule]]\nname = 's'\nset = { cores = 8 }\n", 4, "rule.s", "is never tried"),
    # limits, shares, sharing, deadlines, placement
    ("[limits]\nrunning_max = 1.5\n", 2, "limits.running_max", "no whole number"),
    ("[limits]\nstage_in_max = 3\n", 2, "limits.stage_in_max", 'did you mean "stage_ins_max"'),
    ("[shares]\n'lab a' = -1\n", 2, "shares.lab a", "allowed is 0 or more"),
    ("[shares]\n'lab a' = '2'\n", 2, "shares.lab a", "no number"),
    ("[shares]\n'' = 2\n", 2, "shares.", "too short"),
    ("shares = ['lab']\n", 1, "shares", "no table"),
    ("[sharing]\nhalf_life = 24\n", 2, "sharing.half_life", "has no unit"),
    ("[deadlines]\nmissed = 'notify'\n", 2, "deadlines.missed", 'did you mean "notice"'),
    ("[deadlines]\nwithin = '12'\n", 2, "deadlines.within", "has no unit"),
    ("[retry]\nhold = ['lisence']\n", 2, "retry.hold[1]", 'did you mean "licence"'),
    ("[retry]\nhold = ['config']\n", 2, "retry.hold", "in give_up and in hold"),
    ("[placement]\nonly_nodes = ['n1']\nnot_nodes = ['n1']\n", 3, "placement.not_nodes", "in one of them"),
    # tests: their own keys
    ("[[test]]\nname = 't'\nexpect = { cores = 4 }\n", 1, "test[1]", '"dataset" is missing'),
    ("[[test]]\nname = 't'\ndataset = {}\n", 1, "test[1]", '"expect" is missing'),
    ("[[test]]\ndataset = {}\nexpect = {}\n", 1, "test[1]", '"name" is missing'),
    (T + "expect = {}\nnodes = []\n", 5, "test[1].nodes", 'did you mean "node"'),
    (T + "expect = {}\n" + T + "expect = {}\n", 6, "test[2].name", "an earlier test"),
    ("[[test]]\nname = 't'\nexpect = {}\ndataset = { size = 4 }\n", 4, "test[1].dataset.size", "has no unit"),
    ("[[test]]\nname = 't'\nexpect = {}\ndataset = { weekday = 'x' }\n", 4, "test[1].dataset.weekday", "mon"),
    ("[[test]]\nname = 't'\nexpect = {}\ndataset = { hour = 24 }\n", 4, "test[1].dataset.hour", "23 or less"),
    (
        "[[test]]\nname = 't'\nexpect = {}\ndataset = { image_size = 4096 }\n",
        4,
        "test[1].dataset.image_size",
        "no list",
    ),
    (N + "scratch = '1GB'\n", 5, "test[1].node[1]", '"cores" is missing'),
    (N + "cores = 4\nscratch = 200\n", 8, "test[1].node[1].scratch", 'did you mean "200GB"'),
    (E + "core = 4\n", 5, "test[1].expect.core", 'did you mean "cores"'),
    (E + "memory = 4\n", 5, "test[1].expect.memory", "has no unit"),
    (E + "hold = 'yes'\n", 5, "test[1].expect.hold", "true and false"),
    # tests that fail
    (E + "nodes = 1\ncores = 8\n", 6, "test.expect.cores", 'test "t" fails: expected 8, found 4'),
    (E + "cores = { min = 5 }\n", 5, "test.expect.cores", "expected 5 or more, found 4"),
    (E + "scratch = { max = '20GB' }\n", 5, "test.expect.scratch", "expected 20GB or less, found"),
    (E + "walltime = '4h'\n", 5, "test.expect.walltime", "expected 4h, found 30min"),
    (E + "rules = []\n", 5, "test.expect.rules", 'expected [], found ["urgent"]'),
    (E + "hold = true\n", 5, "test.expect.hold", "expected true, found false"),
    (E + "queue = 'fast'\n", 5, "test.expect.queue", 'expected "fast", found ""'),
    (E + "completeness = { partial = 'run' }\n", 5, "test.expect.completeness", 'found partial = "hold"'),
    (E + "completeness = { quiet_min = '1h' }\n", 5, "test.expect.completeness", 'found quiet_min = "5min"'),
    (E + "retry = { attempts_max = 5 }\n", 5, "test.expect.retry", "found attempts_max = 3"),
    (E + "options = { binning = 4 }\n", 5, "test.expect.options", "found binning = not set"),
    (E + "placed = true\n", 5, "test.expect.placed", "the test has no nodes"),
    (N + "cores = 4\nscratch = '20GB'\n", 4, "test.expect.placed", "found none (n: scratch)"),
    (
        T + "expect = { refused = { n = 'memory' } }\nnode = [{ name = 'n', cores = 4, scratch = '1GB' }]\n",
        4,
        "test.expect.refused",
        "n refuses with scratch",
    ),
    (
        T + "expect = { node = 'm*' }\nnode = [{ name = 'n', cores = 4, scratch = '1TB' }]\n",
        4,
        "test.expect.node",
        'expected ["m*"], found ["n"]',
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "key", "words"), MISTAKES, ids=[f"{n}" for n in range(len(MISTAKES))]
)
def test_one_mistake(text: str, line: int, key: str, words: str) -> None:
    in_force = load([(DEFAULT_NAME, SHIPPED), ("10-base.toml", BASE)], known=KNOWN)
    assert isinstance(in_force, Policy)
    before = decide(Features(size_bytes=5_000_000_000, project="p"), in_force)
    (error,) = faults(text)
    assert (error.file, error.line, error.key) == ("20-site.toml", line, key)
    assert words in error.message
    assert str(error).startswith(f"20-site.toml:{line}: ") and str(error).isprintable()
    assert decide(Features(size_bytes=5_000_000_000, project="p"), in_force) == before


def test_faults_of_all_kinds_are_told_at_once() -> None:
    text = """[retry]
delay = "2h"
dealy = "1min"
[resources]
walltime_min = "3d"
walltime_max = "5dd"
cores = 0
[[rule]]
name = "a"
coers = 4
[rule.when]
hours = "8-18"
zone = "Berlin"
[[rule]]
name = "b"
[rule.set]
completeness = { stale = "1min" }
retry.hold = ["inptu"]
pipeline = "wpb"
[[rule]]
name = "c"
stop = true
set = { completeness = { stale = "1min" } }
[[rule]]
name = "a"
set = { retry = { give_up = ["memory"] } }
[[test]]
name = "t"
dataset = { size = 4 }
expect = { cores = 5 }
"""
    assert [(error.line, error.key) for error in faults(text)] == [
        (2, "retry.delay"),
        (3, "retry.dealy"),
        (6, "resources.walltime_max"),
        (7, "resources.cores"),
        (10, "rule[1].coers"),
        (13, "rule[1].when.zone"),
        (18, "rule[2].set.retry.hold[1]"),
        (19, "rule[2].set.pipeline"),
        (23, "rule.c.set.completeness.stale"),
        (25, "rule[4].name"),
        (26, "rule.a.set.retry.give_up"),
        (29, "test[1].dataset.size"),
    ]


def test_there_are_more_than_a_hundred() -> None:
    assert len({mistake[0] for mistake in MISTAKES}) >= 100


def test_the_last_line_of_a_failing_test_is_that_of_the_expectation() -> None:
    later = "[resources]\ncores = 8\n"
    found = load([("10.toml", E + "\ncores = 4\n"), ("20.toml", later)])
    assert isinstance(found, list)
    assert [(e.file, e.line) for e in found] == [("10.toml", 6)], "a test of an earlier file holds for all"
    assert isinstance(load([("10.toml", E + "\ncores = 4\n"), ("20.toml", later)], tested=False), Policy)


# -- rules and tests as they might be, and a little worse ----------------------------------------------------

_tables = {
    name: sorted(keys_of(table)) for name, table in (SECTIONS | LISTED).items() if name != "placement.weights"
}
_values = st.sampled_from(
    [
        "4", "0", "-1", "2.5", "1e400", "true", "'5min'", "'2GB'", "'1.3A'", "''", "'x*'", "[]", "['input']",
        "['x', 'y?']", "{}", "{ min = 2 }", "{ min = '2GB', max = '4GB' }", "{ base = 4, per_gb = 1 }",
        "{ base = '1GB', per_gb = '1GB' }", "'8-18'", "'sat'", "'UTC'", "{ quiet_min = '9h' }", "{ a = 'b' }",
        "{ attempts_max = 2 }", "[{ name = 'n', cores = 4, scratch = '1TB' }]", "'/d/{series}'", "[4, 5]",
        "99999999999999999999999", "'\\u0000'", "'\ud7ff'",
    ]
)  # fmt: skip


def _headed(name: str) -> st.SearchStrategy[str]:
    listed = name in ("rule", "notice", "test", "test.node")
    head = f"[[{name}]]\n" if listed else f"[{name}]\n"
    if name in ("rule", "notice", "test"):
        head += "name = 'n1'\n"
    pair = st.builds("{} = {}\n".format, st.sampled_from(_tables[name]), _values)
    return st.lists(pair, max_size=3, unique_by=lambda line: line.split(" ")[0]).map(
        lambda p: head + "".join(p)
    )


_whole = st.lists(st.sampled_from(sorted(_tables)).flatmap(_headed), max_size=6).map("".join)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_whole, min_size=1, max_size=2), st.booleans())
def test_load_never_raises(texts: list[str], checked: bool) -> None:
    given_ = [(DEFAULT_NAME, SHIPPED), *((f"{n}.toml", text) for n, text in enumerate(texts))]
    found = load(given_, known=KNOWN if checked else None)
    if isinstance(found, Policy):
        decision = decide(Features(name="x", size_bytes=10**12, feed="x"), found)
        assert decision.cores >= 1 and set(decision.rules) <= {rule.name for rule in found.rules}
        return
    for error in found:
        lines = SHIPPED if error.file == DEFAULT_NAME else texts[int(error.file[0])]
        assert 1 <= error.line <= lines.count("\n") + 1
        assert str(error).isprintable()
