"""What learning is worth on a history of known truth.  ``make bench`` runs it.

Run times are log-normal, sigma 0.2 around 250 s; three classes (1, 4 and 8 cores) learn 200 runs each, then
everything takes 30 % longer.  Counted over the later runs, the first ones after the drift included:

* the share that the predicted p99 covers: promised are 98 % to 100 %;
* runs killed by the walltime asked for, max(30 min, 3 x p99): promised is none of 10,000.  Where half an hour
  is enough for everything no walltime could kill, so the same is counted for series of forty times the size.

Beside it, in the same run, the same factor over what the 2015 study expects of the size (no learning), and
for both the factor that would just have killed nobody: learnt, one factor serves fast and slow machines.
"""

from __future__ import annotations

import math
import random
import sys
import time

from msgspec.structs import replace

from tiltd.daemon.core.model import Measured, Policy, ResourceRequest, Steps
from tiltd.policy.predict import Samples, learn, predict, prior
from tiltd.policy.shape import shape

CLASSES = ((1, 1), (4, 4), (8, 8))
LEARNT, LATER = 200, 10_000
MEDIAN_SECONDS, SIGMA, DRIFT = 250.0, 0.2, 1.3
STUDY_BYTES = 2_600_000_000
TRUE_PACE = {1: 4.0, 4: 0.5, 8: 2.0}
"""How much slower the site's machine is than the study's, by class: what nobody could know beforehand."""


def policy(cores: int) -> Policy:
    """The built-in one, with so many cores for every series."""
    base, steps = Policy(version="bench"), Steps(base=float(cores))
    return replace(base, resources=replace(base.resources, cores=steps, threads=steps))


def run(size_bytes: int, seed: int) -> dict[str, float]:
    """One history; shares and walltimes over its later runs."""
    rng, samples, by_cores = random.Random(seed), Samples(), {cores: policy(cores) for cores, _ in CLASSES}
    scale = size_bytes / STUDY_BYTES

    def truth(cores: int, drift: float) -> float:
        return rng.lognormvariate(math.log(MEDIAN_SECONDS * TRUE_PACE[cores] * scale * drift), SIGMA)

    def learnt(cores: int, threads: int, seconds: float) -> Samples:
        measured = Measured(run_seconds=seconds, peak_memory_bytes=10**9, peak_scratch_bytes=10**9)
        return learn(
            samples, pipeline="p", cores=cores, threads=threads, size_bytes=size_bytes, measured=measured
        )

    for cores, threads in CLASSES:
        for _ in range(LEARNT):
            samples = learnt(cores, threads, truth(cores, 1.0))
    covered = killed = fixed_killed = 0
    asked = fixed_asked = used = worst = fixed_worst = cpu = 0.0
    for number in range(LATER):
        cores, threads = CLASSES[number % len(CLASSES)]
        found = predict(samples, pipeline="p", cores=cores, threads=threads, size_bytes=size_bytes)
        request = shape(ResourceRequest(), size_bytes, by_cores[cores], pipeline="p", samples=samples)
        seconds = truth(cores, DRIFT)
        fixed = max(1800.0, 3.0 * prior(cores=cores, threads=threads, size_bytes=size_bytes).seconds_p99)
        covered += seconds <= found.seconds_p99
        killed += seconds > request.walltime_seconds
        fixed_killed += seconds > fixed
        asked, fixed_asked, used = asked + request.walltime_seconds, fixed_asked + fixed, used + seconds
        worst = max(worst, seconds / found.seconds_p99)
        fixed_worst = max(fixed_worst, 3.0 * seconds / fixed)
        began = time.process_time()
        samples = learnt(cores, threads, seconds)
        cpu += time.process_time() - began
    return {
        "covered": covered / LATER,
        "killed": killed,
        "asked_over_used": asked / used,
        "fixed_killed": fixed_killed,
        "fixed_asked_over_used": fixed_asked / used,
        "factor_enough": worst,
        "fixed_factor_enough": fixed_worst,
        "learn_microseconds": 1e6 * cpu / LATER,
    }


def main() -> int:
    missed = False
    for what, size_bytes in (("2.6 GB", STUDY_BYTES), ("104 GB", 40 * STUDY_BYTES)):
        found = [run(size_bytes, seed) for seed in range(3)]
        low, high = min(f["covered"] for f in found), max(f["covered"] for f in found)
        killed = sum(int(f["killed"]) for f in found)
        mean = {key: sum(f[key] for f in found) / len(found) for key in found[0]}
        print(
            f"series of {what}: {len(found)} histories of 3 classes x {LEARNT} runs, then {LATER:,} at +30 %"
        )
        print(f"  p99 covers          {100 * low:.2f} % to {100 * high:.2f} %  (promised 98 % to 100 %)")
        print(f"  killed by walltime  {killed} of {len(found) * LATER:,}  (promised 0)")
        fixed_killed = sum(int(f["fixed_killed"]) for f in found)
        print(
            f"  walltime asked      {mean['asked_over_used']:.2f} times what was used; "
            f"a factor of {mean['factor_enough']:.2f} (not 3) would have been enough"
        )
        print(
            f"  fixed, no learning  killed {fixed_killed:,}, asked {mean['fixed_asked_over_used']:.2f} x; "
            f"a factor of {mean['fixed_factor_enough']:.2f} (not 3) would have been enough"
        )
        print(f"  learning one run    {mean['learn_microseconds']:.0f} us")
        missed |= not (0.98 <= low <= high <= 1.0) or killed > 0
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
