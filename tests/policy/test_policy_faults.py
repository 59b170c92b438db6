"""Faulty policy files, one mistake each: refused with the right line, key and words."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tiltd.daemon.core.model import Policy
from tiltd.policy.policy import PolicyError, load
from tiltd.policy.schema import KNOWN_KEYS


def faults(text: str) -> list[PolicyError]:
    found = load([("site.toml", text)])
    assert isinstance(found, list), "the file was taken"
    return found


R = "[resources]\n"
# (text, line, key, words of the message)
MISTAKES: list[tuple[str, int, str, str]] = [
    # spelling of sections and keys
    ("[resource]\ncores = 4\n", 1, "resource", 'did you mean "resources"'),
    ("\n\n[Retry]\n", 3, "Retry", 'did you mean "retry"'),
    ("[nonsense]\n", 1, "nonsense", "allowed here: completeness"),
    ("cores = 4\n", 1, "cores", "belongs to [resources]"),
    ("[limits]\n\ncores = 4\n", 3, "limits.cores", "belongs to [resources]"),
    (R + "coers = 4\n", 2, "resources.coers", 'did you mean "cores"'),
    (R + "# cores\n'walltime max' = 4\n", 3, "resources.walltime max", 'did you mean "walltime_max"'),
    ("[completeness]\nquietmin = '5min'\n", 2, "completeness.quietmin", 'did you mean "quiet_min"'),
    ("[breaker]\nthreshold = 3\n", 2, "breaker.threshold", "allowed here: series, probe"),
    ("placement.weights.pack_core = 1\n", 1, "placement.weights.pack_core", 'did you mean "pack_cores"'),
    ("[placement.weight]\n", 1, "placement.weight", 'did you mean "weights"'),
    (R + "cores = { base = 4, pergb = 1 }\n", 2, "resources.cores.pergb", 'did you mean "per_gb"'),
    (R + "[resources.cores]\nbase = 4\nmaximum = 8\n", 4, "resources.cores.maximum", "unknown key"),
    (
        R
        + "cores = {base = 4, steps = [\n  {above = '4GB', value = 6},\n"
        + "  {over = '8GB', above = '8GB', value = 8},\n]}",
        4,
        "resources.cores.steps[2].over",
        "unknown key",
    ),
    # units
    (R + "walltime_min = 30\n", 2, "resources.walltime_min", 'did you mean "30min"'),
    (R + "walltime_min = '30'\n", 2, "resources.walltime_min", "has no unit"),
    (R + "walltime_min = 1.5\n", 2, "resources.walltime_min", "has no unit"),
    (R + "walltime_min = '30m'\n", 2, "resources.walltime_min", 'did you mean "min"'),
    (R + "walltime_min = '30 minutes'\n", 2, "resources.walltime_min", 'did you mean "min"'),
    (R + "walltime_max = '2 weeks'\n", 2, "resources.walltime_max", "unknown unit"),
    (R + "walltime_max = '-1h'\n", 2, "resources.walltime_max", "no span of time"),
    (R + "walltime_max = ''\n", 2, "resources.walltime_max", "no span of time"),
    (R + "walltime_max = true\n", 2, "resources.walltime_max", "must be a span of time in quotes"),
    (R + "walltime_max = 10:00:00\n", 2, "resources.walltime_max", "must be a span of time in quotes"),
    (R + "memory_min = 16\n", 2, "resources.memory_min", 'did you mean "16GB"'),
    (R + "memory_min = 16000000000\n", 2, "resources.memory_min", "has no unit"),
    (R + "memory_min = '16G'\n", 2, "resources.memory_min", 'did you mean "GB"'),
    (R + "memory_min = '16gb'\n", 2, "resources.memory_min", 'did you mean "GB"'),
    (R + "memory_min = '16h'\n", 2, "resources.memory_min", "unknown unit"),
    (R + "memory_min = ['1GB']\n", 2, "resources.memory_min", "amount of bytes in quotes"),
    (R + "scratch_by_size = '20'\n", 2, "resources.scratch_by_size", "has no unit"),
    (
        R + "scratch_by_size = { base = '1GB', per_gb = 21 }\n",
        2,
        "resources.scratch_by_size.per_gb",
        "no unit",
    ),
    (
        R + "cores = { base = 4, steps = [{ above = 4, value = 6 }] }\n",
        2,
        "resources.cores.steps[1].above",
        "no unit",
    ),
    (R + "walltime_max = '12:30:00'\n", 2, "resources.walltime_max", 'did you mean "12h30min"'),
    (R + "memory_min = '2,6GB'\n", 2, "resources.memory_min", 'did you mean "2.6GB"'),
    (R + "memory_min = '2.6GB\n", 2, "", "a text ends with its quotes on the same line"),
    (R + 'memory_min = "2.6GB\nnodes = 1\n', 2, "", "a text ends with its quotes on the same line"),
    (R + 'memory_min = "2.6GB', 2, "", "a text ends with its quotes on the same line"),
    (R + "cores = 4\ncores = 5\n", 3, "", "the key stands there twice"),
    (R + f"cores = {'9' * 5000}\n", 2, "", "is no TOML: a number has thousands of digits"),
    ("[rule]\nname = 'a'\nset = { cores = 4 }\n", 1, "rule", "each rule begins with [[rule]]"),
    ("[test]\nname = 'a'\n", 1, "test", "each test begins with [[test]]"),
    ("[placement]\nscratch_margin = '1e9'\n", 2, "placement.scratch_margin", "no amount of bytes"),
    # types
    (R + "nodes = '1'\n", 2, "resources.nodes", "no whole number"),
    (R + "nodes = 1.5\n", 2, "resources.nodes", "no whole number"),
    (R + "nodes = true\n", 2, "resources.nodes", "no whole number"),
    (R + "cores = '4'\n", 2, "resources.cores", "no number"),
    (R + "cores = [4]\n", 2, "resources.cores", "no number"),
    (R + "cores = nan\n", 2, "resources.cores", "no finite number"),
    (R + "cores = inf\n", 2, "resources.cores", "no finite number"),
    (R + "queue = 7\n", 2, "resources.queue", "no text"),
    ("resources = 4\n", 1, "resources", "no table"),
    ("[[resources]]\ncores = 4\n", 1, "resources", "no table"),
    ("[retry]\ngive_up = 'input'\n", 2, "retry.give_up", "no list"),
    ("[placement]\nproperties = [1]\n", 2, "placement.properties[1]", "no text"),
    ("[placement]\nweights = 3\n", 2, "placement.weights", "no table"),
    (R + "walltime_factor = '3'\n", 2, "resources.walltime_factor", "no number"),
    # ranges and choices
    (R + "cores = 0\n", 2, "resources.cores", "allowed is 1 or more"),
    (R + "cores = 100000\n", 2, "resources.cores", "allowed is 4096 or less"),
    (R + "nodes = 0\n", 2, "resources.nodes", "allowed is 1 or more"),
    (R + "nodes = 65\n", 2, "resources.nodes", "allowed is 64 or less"),
    (R + "scratch_factor = 0.5\n", 2, "resources.scratch_factor", "allowed is 1 or more"),
    (R + "queue = 'tomo; rm -rf'\n", 2, "resources.queue", "letters, digits"),
    (R + f"queue = '{'q' * 65}'\n", 2, "resources.queue", "allowed are 64"),
    ("[limits]\nrunning_max = -1\n", 2, "limits.running_max", "allowed is 0 or more"),
    ("[completeness]\nmin_tilts = 1\n", 2, "completeness.min_tilts", "allowed is 3 or more"),
    ("[completeness]\ngap_factor = 0\n", 2, "completeness.gap_factor", "allowed is 1 or more"),
    ("[completeness]\npartial = 'holt'\n", 2, "completeness.partial", 'did you mean "hold"'),
    ("[completeness]\npartial = 3\n", 2, "completeness.partial", "run, hold, drop"),
    ("[retry]\nattempts_max = 0\n", 2, "retry.attempts_max", "allowed is 1 or more"),
    ("[retry]\ngive_up = [\n  'input',\n  'cofnig',\n]\n", 4, "retry.give_up[2]", 'did you mean "config"'),
    ("[retry]\nother_node = ['node', 'node']\n", 2, "retry.other_node", "twice"),
    ("[breaker]\nseries = 17\n", 2, "breaker.series", "allowed is 16 or less"),
    ("[placement.weights]\npack_cores = -1\n", 2, "placement.weights.pack_cores", "allowed is 0 or more"),
    # values that do not go together
    (R + "walltime_max = '10min'\n", 2, "resources.walltime_max", "walltime_min is more than walltime_max"),
    (R + "walltime_max = '2h'\nwalltime_min = '3h'\n", 3, "resources.walltime_min", "more than walltime_max"),
    ("[retry]\ndelay = '2h'\n", 2, "retry.delay", "more than delay_max"),
    ("[retry]\nmore_memory = ['input']\n", 2, "retry.more_memory", '"input" stands in give_up'),
    ("[retry]\ngive_up = ['lost']\n", 2, "retry.give_up", "in other_node"),
    ("[completeness]\nstale = '1min'\n", 2, "completeness.stale", "not more than quiet_min"),
    (R + "cores = { base = 4, min = 8, max = 4 }\n", 2, "resources.cores", "min is larger than max"),
    (R + "cores = { max = 4 }\n", 2, "resources.cores", '"base" is missing'),
    (
        R + "cores = { base = 4, steps = [{ value = 6 }] }\n",
        2,
        "resources.cores.steps[1]",
        '"above" is missing',
    ),
    (
        R + "threads = { base = 4, steps = [{ above = '8GB', value = 6 }, { above = '4GB', value = 8 }] }\n",
        2,
        "resources.threads",
        "do not ascend",
    ),
    # no TOML
    ("[resources\n", 1, "", "is no TOML"),
    (R + "\nwalltime_min = 90min\n", 3, "", "stands in quotes"),
    (R + "queue = tomo\n", 2, "", "a text stands in quotes"),
    (R + "queue: 'tomo'\n", 2, "", 'joined by "="'),
    (R + "cores = 4\ncores = 5\n", 3, "", "is no TOML"),
    (R + "cores = 4\n[resources]\n", 3, "", "is no TOML"),
    (R + "queue = 'tomo\n", 2, "", "is no TOML"),
    (R + "retry = {\n", 2, "", "is no TOML"),
    ("a = " + "[" * 5000, 1, "", "is no TOML"),
    ("a = " + "9" * 5000, 1, "", "is no TOML"),
    ("\ufeff[resources]\n", 1, "", "is no TOML"),
    (R + "queue = 'a\x00b'\n", 2, "", "is no TOML"),
]


@pytest.mark.parametrize(
    ("text", "line", "key", "words"), MISTAKES, ids=[f"{n}" for n in range(len(MISTAKES))]
)
def test_one_mistake(text: str, line: int, key: str, words: str) -> None:
    (error,) = faults(text)
    assert (error.line, error.key) == (line, key)
    assert words in error.message
    assert str(error).startswith(f"site.toml:{line}: ")
    assert str(error).isprintable()


@pytest.mark.parametrize("text", [mistake[0] for mistake in MISTAKES if "\r" not in mistake[0]])
def test_windows_line_ends_change_no_line(text: str) -> None:
    unix, windows = faults(text), faults(text.replace("\n", "\r\n"))
    assert [(e.line, e.key) for e in unix] == [(e.line, e.key) for e in windows]


def test_all_faults_of_all_files_at_once() -> None:
    found = load([("b.toml", "[resources]\ncoers = 4\nnodes = 0\n"), ("a.toml", "[retry]\ndelay = 5\n")])
    assert isinstance(found, list)
    assert [(e.file, e.line) for e in found] == [("a.toml", 2), ("b.toml", 2), ("b.toml", 3)]


def test_a_later_file_does_not_excuse_an_earlier_one() -> None:
    assert isinstance(
        load([("a.toml", "[resources]\nnodes = 0\n"), ("b.toml", "[resources]\nnodes = 1\n")]), list
    )


def test_a_contradiction_over_two_files_is_told_at_the_later_one() -> None:
    found = load(
        [("a.toml", "[resources]\nwalltime_max = '2h'\n"), ("b.toml", "[resources]\nwalltime_min = '3h'\n")]
    )
    assert isinstance(found, list)
    assert [(e.file, e.line, e.key) for e in found] == [("b.toml", 2, "resources.walltime_min")]


def test_a_hostile_file_name_is_printed_escaped() -> None:
    (error,) = load([("a\nb\udcff.toml", "x = 1")])  # type: ignore[misc]
    assert str(error).startswith("a\\nb\\udcff.toml:1: x: ")


# -- anything at all ------------------------------------------------------------------------------------

_keys = st.sampled_from(sorted({key for keys in KNOWN_KEYS.values() for key in keys} | {"x", "'a b'"}))
_values = st.sampled_from(
    [
        "4", "-1", "0.5", "nan", "true", "'5min'", "'2GB'", "''", '"x"', "[]", "[1]", "['input']", "{}",
        "5min", "{ base = 4 }", "{ base = '1GB', per_gb = '1GB' }", "1979-05-27T07:32:00Z",
        "99999999999999999999999",
        "[{ above = '1GB', value = 2 }]", "'hold'", '"""a\nb"""',
    ]
)  # fmt: skip
_pairs = st.builds("{} = {}\n".format, _keys, _values | st.text(max_size=8))
_headers = st.builds("[{}]\n".format, st.sampled_from(sorted(KNOWN_KEYS)) | st.text(max_size=8))
_files = st.lists(_headers | _pairs, max_size=12).map("".join)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_files | st.text(max_size=200), max_size=3))
def test_load_never_raises(texts: list[str]) -> None:
    found = load([(f"{n}.toml", text) for n, text in enumerate(texts)])
    if isinstance(found, Policy):
        assert len(found.version) == 12
        return
    for error in found:
        assert 1 <= error.line <= texts[int(error.file[0])].count("\n") + 1
        assert str(error).isprintable()
