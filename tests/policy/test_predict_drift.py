"""Learning under drift, outliers and runs that their walltime killed."""

from __future__ import annotations

import doctest
import json
import math
import random

import msgspec
import pytest

from tiltd.daemon.core.model import Measured
from tiltd.policy import drift
from tiltd.policy import predict as p

GB = 10**9


def learn(samples: p.Samples, seconds: float) -> p.Samples:
    measured = Measured(run_seconds=seconds)
    return p.learn(samples, pipeline="wbp", cores=4, threads=4, size_bytes=GB, measured=measured)


def killed(samples: p.Samples, walltime_seconds: float) -> p.Samples:
    return p.learn_killed(
        samples, pipeline="wbp", cores=4, threads=4, size_bytes=GB, walltime_seconds=walltime_seconds
    )


def expect(samples: p.Samples) -> p.Prediction:
    return p.predict(samples, pipeline="wbp", cores=4, threads=4, size_bytes=GB)


def history(rng: random.Random, runs: int, median: float = 250.0, spread: float = 0.2) -> list[float]:
    return [rng.lognormvariate(math.log(median), spread) for _ in range(runs)]


def learnt(seconds: list[float]) -> p.Samples:
    samples = p.Samples()
    for each in seconds:
        samples = learn(samples, each)
    return samples


@pytest.mark.parametrize("seed", range(8))
def test_p99_covers_98_to_100_percent_before_and_after_a_drift_of_30_percent(seed: int) -> None:
    """Sigma 0.2, 200 runs, then +30 %: coverage of 2,000 later runs, the drift's own first ones included."""
    rng = random.Random(seed)
    samples = learnt(history(rng, 200))
    covered = walltimes_kept = 0
    for seconds in history(rng, 2000, median=250.0 * 1.3):
        found = expect(samples)
        covered += seconds <= found.seconds_p99
        walltimes_kept += seconds <= 3.0 * found.seconds_p99
        samples = learn(samples, seconds)
    assert 0.98 <= covered / 2000 <= 1.0
    assert walltimes_kept == 2000
    true_p99 = 250 * 1.3 * math.exp(drift.Z99 * 0.2)
    assert expect(samples).seconds_p99 == pytest.approx(true_p99, rel=0.35), "and it asks for little more"


def test_a_drift_is_noticed_within_twenty_runs_and_what_was_before_is_forgotten() -> None:
    rng = random.Random(5)
    samples = learnt(history(rng, 200))
    for seconds in history(rng, 100, median=250 * 1.5):
        samples = learn(samples, seconds)
        (known,) = samples.by_class.values()
        if known.drifts:
            break
    assert known.learnt <= 220 and len(known.samples) <= 20
    assert expect(samples).seconds_p50 == pytest.approx(375, rel=0.2)


def test_faster_hardware_is_noticed_too() -> None:
    rng = random.Random(6)
    samples = learnt(history(rng, 200) + history(rng, 60, median=100))
    assert expect(samples).seconds_p50 == pytest.approx(100, rel=0.1) and expect(samples).seconds_p99 < 250


@pytest.mark.parametrize("runs", [20, 200])
def test_a_wild_run_moves_nothing_much(runs: int) -> None:
    rng = random.Random(9)
    seconds = history(rng, runs)
    calm = expect(learnt(seconds)).seconds_p99
    seconds[runs // 2] = 250 * 1000
    wild = expect(learnt(seconds))
    assert wild.seconds_p99 < 1.3 * calm
    (known,) = learnt(seconds).by_class.values()
    assert known.drifts == 0


def test_two_kinds_of_runs_are_no_outliers() -> None:
    """One run in ten takes three times as long: p99 has to cover those too."""
    rng = random.Random(4)
    seconds = [run * (3 if number % 10 == 0 else 1) for number, run in enumerate(history(rng, 250))]
    assert expect(learnt(seconds)).seconds_p99 > 600


def test_a_run_killed_by_its_walltime_counts_as_longer_than_that() -> None:
    rng = random.Random(8)
    seconds = history(rng, 30)
    without = expect(learnt(seconds)).seconds_p99
    samples = learnt(seconds)
    for _ in range(3):
        samples = killed(samples, 500.0)
    assert expect(samples).seconds_p99 > max(without, 500.0) * 1.05
    ignorant = learnt([*seconds, 500.0, 500.0, 500.0])
    assert expect(samples).seconds_p50 >= expect(ignorant).seconds_p50
    assert expect(samples).seconds_p99 > expect(ignorant).seconds_p99


def test_where_every_run_was_killed_the_figure_grows_beyond_the_walltime_but_not_without_bound() -> None:
    samples = p.Samples()
    for _ in range(5):
        samples = killed(samples, 1000.0)
    found = expect(samples)
    assert found.seconds_p50 > 1000 and 1500 < found.seconds_p99 < 10_000


def test_kills_lead_to_walltimes_that_kill_no_more() -> None:
    """Ten times slower than the prior says: the walltime is found from kills alone, in a few runs."""
    rng, samples, walltime, kills = random.Random(2), p.Samples(), 1800.0, 0
    for seconds in history(rng, 200, median=9000):
        found = expect(samples)
        walltime = max(1800.0, 3 * found.seconds_p99) if found.samples else walltime
        if seconds > walltime:
            samples, kills = killed(samples, walltime), kills + 1
        else:
            samples = learn(samples, seconds)
    assert 1 <= kills <= 4 and 3 * expect(samples).seconds_p99 > 9000 * 1.6


@pytest.mark.parametrize("walltime", [0.0, -1.0, math.inf, math.nan])
def test_a_kill_without_a_walltime_teaches_nothing(walltime: float) -> None:
    assert killed(p.Samples(), walltime) == p.Samples()


def test_samples_of_the_release_before_are_read() -> None:
    old = {
        "by_class": {
            "wbp/4/4": {
                "learnt": 40,
                "samples": [[1e-7, 1.0, 5.0]] * 40,
                "seconds_p50": 1e-7,
                "seconds_p99": 1.2e-7,
                "memory_p99": 1.1,
                "scratch_p99": 5.5,
            }
        }
    }
    samples = msgspec.convert(json.loads(json.dumps(old)), p.Samples)
    assert expect(samples).seconds_p99 == pytest.approx(120)
    (known,) = learn(samples, 100.0).by_class.values()
    assert known.learnt == 41 and known.watch.spread > 0


def test_the_state_is_bounded_and_learning_costs_microseconds_not_history() -> None:
    samples = learnt(history(random.Random(1), 3000))
    (known,) = samples.by_class.values()
    assert len(known.samples) <= p.SAMPLES_MAX and known.learnt == 3000


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(drift).failed == 0


@pytest.mark.parametrize("count", range(1, 40))
def test_the_median_distance_is_that_of_the_sorted_distances(count: int) -> None:
    chance = random.Random(count)
    figures = sorted(
        chance.choice([0.5, chance.gauss(0, 1), round(chance.gauss(0, 2))]) for _ in range(count)
    )
    median = figures[(count - 1) // 2]
    distances = sorted(abs(figure - median) for figure in figures)
    assert drift._deviation(figures, median) == distances[(count - 1) // 2]
