"""A policy that somebody pasted in, judged beside the one in force: nothing of it is kept or applied."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from tiltd.daemon import policy_files
from tiltd.daemon.config import Settings
from tiltd.daemon.core.core import Core
from tiltd.daemon.core.model import Dataset, NodeInfo, Policy, Record
from tiltd.policy.policy import load, run_tests

from .differ import Case, Difference, difference

NAME = "candidate.toml"
CASES_MAX = 300


class Tested(Record):
    name: str
    faults: tuple[str, ...]


class Judged(Record):
    """``faults`` of the text, or what it would change; ``tests`` are the candidate's with their outcomes."""

    faults: tuple[str, ...]
    version: str = ""
    rules: int = 0
    tests: tuple[Tested, ...] = ()
    difference: Difference | None = None


def judge(
    text: str, settings: Settings, in_force: Policy, *, instead: bool, cases: Iterable[Case] = (),
    nodes: tuple[NodeInfo, ...] = (),
) -> Judged:  # fmt: skip
    """The text over the site's files (or ``instead`` of them), over the shipped policy.  May take a second:
    in a worker thread.  Cost: the text, and the cases decided twice."""
    texts, _ = policy_files.texts_of([] if instead else policy_files.files_of(settings))
    loaded = load([*texts, (NAME, text)], known=policy_files.known(settings), tested=False)
    if isinstance(loaded, list):
        return Judged(faults=tuple(map(str, loaded)))
    tests = [(test.name, run_tests(replace(loaded, tests=(test,)))) for test in loaded.tests]
    return Judged(
        faults=(),
        version=loaded.version,
        rules=len(loaded.rules),
        tests=tuple(Tested(name=name, faults=tuple(map(str, faults))) for name, faults in tests),
        difference=difference(
            in_force,
            loaded,
            feeds={feed.name: feed.pipeline for feed in settings.feeds},
            history=list(cases)[:CASES_MAX],
            nodes=nodes,
        ),
    )


def live_cases(core: Core, datasets: Iterable[Dataset]) -> list[Case]:
    """What waits or runs, as rules see it now."""
    found: list[Case] = []
    for dataset in datasets:
        if dataset.series is not None and len(found) < CASES_MAX:
            want = core.placing.queue.where.get(dataset.dataset_id)
            asked = dataset.attempts[-1].request if dataset.attempts else want.request if want else None
            features = core.placing.deciding.features(dataset)
            if asked is not None:
                found.append(Case(title=dataset.dataset_id, features=features, asked=asked))
    return found
