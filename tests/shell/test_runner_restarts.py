"""A job that was started several times: each start's end is told, so that the next may begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltd.daemon import runner


def attempt(folder: Path, claims: int, outcomes: tuple[str, ...]) -> str:
    (folder / "claimed.7.t").write_text('{"nonce": "n"}')
    for name in ("progress", "end"):
        (folder / name).touch()
    for _ in range(claims):
        record = {"phase": "claimed", "node": "elsewhere", "pid": 1, "pid_started": 1}
        runner.append(str(folder / "progress"), record)
    for outcome in outcomes:
        runner.append(str(folder / "end"), {"nonce": "n", "outcome": outcome})
    return str(folder)


@pytest.mark.parametrize(
    ("claims", "outcomes", "ended"),
    [
        (1, (), False),
        (1, ("terminated",), True),
        (2, ("terminated",), False),  # the janitor of the second start has to say so
        (2, ("terminated", "terminated"), True),
    ],
)
def test_a_start_without_an_end_is_seen(
    tmp_path: Path, claims: int, outcomes: tuple[str, ...], ended: bool
) -> None:
    folder = attempt(tmp_path, claims, outcomes)
    assert runner.each_start_has_ended(folder, "n") is ended
    assert runner.former_run_is_over(folder, "7.t", "claimed.7.t") is ended
