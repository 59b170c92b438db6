"""What SerialEM leaves in the incoming folder, scenario by scenario (acquisition notes).

Each scenario is a function ``(Session) -> Steps``; ``SCENARIOS`` names them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from .acquisition import Acquisition
from .pace import pace
from .plan import Action, Session, Step, Steps, dose_symmetric, from_middle
from .tomo5 import tomo5


def serialem(session: Session) -> Steps:
    """A plain series from the lowest to the highest tilt; no ``.openTS`` unless asked for."""
    yield from _plain(session, session.angles_deg())


def dose_symmetric_series(session: Session) -> Steps:
    """Shot from the middle outwards with ``.openTS``, then put in tilt order as SerialEM does by default.

    ``x.mrc`` and its mdoc become ``x.mrc-unsorted`` and ``x.mrc-unsorted.mdoc``; a new ``x.mrc`` grows
    from nz = 1; then the markers and the unsorted pair go.
    """
    unsorted = Acquisition(session, marker=_marker(session, default=True))
    wait = session.image_seconds
    yield from unsorted.open()
    for angle in dose_symmetric(session.angles_deg()):
        yield from unsorted.shoot(angle, wait)
    yield from unsorted.moved("-unsorted")
    order = sorted(range(len(unsorted.sections)), key=lambda z: unsorted.sections[z].tilt_angle_deg)
    whole = Acquisition(session, marker=unsorted.marker)
    yield from whole.open()
    for section in order:
        yield from _later(whole.copy(unsorted, section), wait / 10)
    yield from whole.close()
    yield from unsorted.removed()
    yield from _ended(whole)


def bidirectional(session: Session) -> Steps:
    """From the middle down, that half turned round by way of ``-half1``, then up from the middle."""
    down, up = from_middle(session.angles_deg())
    half = Acquisition(session, marker=_marker(session, default=True))
    wait = session.image_seconds
    yield from half.open()
    for angle in down:
        yield from half.shoot(angle, wait)
    yield from half.moved("-half1")
    whole = Acquisition(session, marker=half.marker)
    whole.clock_seconds = half.clock_seconds
    yield from whole.open()
    for section in reversed(range(len(half.sections))):
        yield from _later(whole.copy(half, section), wait / 10)
    yield from half.removed()
    for angle in up:
        yield from whole.shoot(angle, wait)
    yield from whole.close()
    yield from _ended(whole)


def aborted(session: Session) -> Steps:
    """Ends early, whole and well-formed as far as it goes: nothing says how many tilts were planned."""
    angles = dose_symmetric(session.angles_deg())[: session.stops_after]
    yield from _plain(session, angles)


def crashed(session: Session) -> Steps:
    """The program dies between pixels and header: one section ahead of nz, and a stale ``.openTS``."""
    acquisition = Acquisition(session, marker=_marker(session, default=True))
    yield from acquisition.open()
    angles = session.angles_deg()[: session.stops_after]
    for angle in angles[:-1]:
        yield from acquisition.shoot(angle, session.image_seconds)
    yield next(iter(acquisition.shoot(angles[-1], session.image_seconds)))
    yield Step(0.0, Action("close", acquisition.path, acquisition.stack.close, series=session.name))


def restarted(session: Session) -> Steps:
    """Stopped, then begun again under the same name: the stack is truncated, the old mdoc kept as ``~``."""
    acquisition = Acquisition(session, marker=_marker(session, default=False))
    wait, angles = session.image_seconds, session.angles_deg()
    yield from acquisition.open()
    for angle in angles[: session.stops_after]:
        yield from acquisition.shoot(angle, wait)
    yield from acquisition.close()
    acquisition.restarts += 1
    acquisition.clock_seconds += max(10 * wait, 60.0)
    yield from acquisition.open(2 * wait)
    for angle in angles:
        yield from acquisition.shoot(angle, wait)
    yield from acquisition.close()
    yield from _ended(acquisition)


def reshot(session: Session) -> Steps:
    """Some angles are shot twice, because the first image was bad: more sections than angles."""
    angles = session.angles_deg()
    again = {len(angles) // 4, len(angles) // 2}
    acquisition = Acquisition(session, marker=_marker(session, default=False))
    yield from acquisition.open()
    for index, angle in enumerate(angles):
        for shot in range(2 if index in again else 1):
            yield from acquisition.shoot(angle, session.image_seconds, shot)
    yield from acquisition.close()
    yield from _ended(acquisition)


def montage(session: Session) -> Steps:
    """A map of the grid at low magnification: ``Montage = 1``, all pieces at one angle; not a series."""
    session = dataclasses.replace(session, name=f"{session.name}_LMM")
    acquisition = Acquisition(session, montage=True)
    yield from acquisition.open()
    for piece in range(min(session.tilt_count, 9)):
        yield from acquisition.shoot(0.0, session.image_seconds, shot=piece)
    yield from acquisition.close()


def truncated(session: Session) -> Steps:
    """A whole series whose stack then loses half of its last section."""
    acquisition = Acquisition(session)
    yield from acquisition.open()
    for angle in session.angles_deg():
        yield from acquisition.shoot(angle, session.image_seconds)
    yield from acquisition.close()
    stack = acquisition.stack
    size = 1024 + stack.extended_bytes + int((session.tilt_count - 0.5) * stack.section_bytes)
    yield Step(0.0, Action("truncate", stack.path, lambda: stack.truncate(size), series=session.name))


def mixed(session: Session) -> Steps:
    """A session as it comes: a map, three ways of shooting, one abort, one restart, one series of PACE."""
    yield from montage(session)
    parts: tuple[tuple[str, Scenario], ...] = (
        ("a", serialem),
        ("b", dose_symmetric_series),
        ("c", bidirectional),
        ("d", aborted),
        ("e", restarted),
        ("f", reshot),
        ("g", pace),
    )
    for index, (letter, scenario) in enumerate(parts):
        seed = session.seed + 100 * (index + 1)
        yield from scenario(dataclasses.replace(session, name=f"{session.name}{letter}", seed=seed))


Scenario = Callable[[Session], Steps]

SCENARIOS: dict[str, Scenario] = {
    "serialem": serialem,
    "dose-symmetric": dose_symmetric_series,
    "bidirectional": bidirectional,
    "pace": pace,
    "tomo5": tomo5,
    "aborted": aborted,
    "crashed": crashed,
    "restarted": restarted,
    "reshot": reshot,
    "montage": montage,
    "truncated": truncated,
    "mixed": mixed,
}


def scenario_paths(name: str, session: Session) -> list[Path]:
    """Where the stacks (for ``tomo5``: the mdoc) of a scenario's real tilt series stand at its end."""
    if name == "pace":
        return [session.folder / f"{session.name}_ts_{t + 1:03d}.mrc" for t in range(session.targets)]
    if name == "tomo5":
        return [session.folder / f"{session.name}.mdoc"]
    if name in ("montage", "mixed"):
        raise ValueError(f"The scenario {name} has no list of its own; ask for its parts.")
    return [session.stack_path]


def _plain(session: Session, angles_deg: Iterable[float]) -> Steps:
    acquisition = Acquisition(session, marker=_marker(session, default=False))
    yield from acquisition.open()
    for angle in angles_deg:
        yield from acquisition.shoot(angle, session.image_seconds)
    yield from acquisition.close()
    yield from _ended(acquisition)


def _ended(acquisition: Acquisition) -> Steps:
    if acquisition.session.rawtlt:
        yield from acquisition.write_rawtlt()


def _later(steps: Steps, delay_seconds: float) -> Steps:
    """The same steps, the first after a wait."""
    for delay, action in steps:
        yield Step(delay + delay_seconds, action)
        delay_seconds = 0.0


def _marker(session: Session, *, default: bool) -> bool:
    return default if session.open_marker is None else session.open_marker
