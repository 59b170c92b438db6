"""asyncio in production and the heap clock of the simulator: the same core writes the same journal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import pytest

from simulation.virtual_loop import drive
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.core import Step
from tiltd.daemon.core.state import replay
from tiltd.daemon.simulate.heap import HeapClock
from tiltd.daemon.simulate.scene import Scene

SCENE = Scene(datasets=1050, nodes=8, failures=0.1, seed=7)


def stories(steps: Iterable[Step]) -> dict[str, list[f.Fact]]:
    """The facts of each dataset; those of the facility under an empty name."""
    found: dict[str, list[f.Fact]] = defaultdict(list)
    for step in steps:
        for fact in step.facts:
            found[fact.dataset_id if isinstance(fact, f.DatasetFact) else ""].append(fact)
    return found


def test_the_asyncio_loop_and_the_simulator_write_the_same_journal() -> None:
    core, steps = drive(SCENE)
    heap = HeapClock(SCENE)
    simulated = stories(step for _, step in heap.steps())
    real = stories(steps)
    assert real.keys() == simulated.keys()
    for dataset_id, facts in real.items():
        assert facts == simulated[dataset_id], dataset_id
    assert heap.core.state == core.state == replay(fact for step in steps for fact in step.facts)
    kinds = Counter(type(fact).__name__ for facts in real.values() for fact in facts)
    assert len(real) > 1000
    # What goes wrong did go wrong.
    for kind in ("AttemptFailed", "AttemptStopped", "AttemptFenced", "ResultStranded", "JobRequeued"):
        assert kinds[kind], f"the scene has no {kind}"


@pytest.mark.parametrize("seed", [1, 2])
def test_another_seed_is_another_history(seed: int) -> None:
    scene = Scene(datasets=20, nodes=2, failures=0.1, seed=seed)
    first, second = (stories(step for _, step in HeapClock(scene).steps()) for _ in range(2))
    assert first == second
    other = stories(step for _, step in HeapClock(Scene(datasets=20, nodes=2, failures=0.1, seed=9)).steps())
    assert first != other
