"""Steps in real time: each is due a span after the one before it, and a late one is not waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from .plan import Action, Steps


def play(
    steps: Steps,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[Action]:
    """Perform the steps when they are due and yield each action once it is done.

    ``sleep`` may return true to stop (as ``threading.Event.wait`` does).  Time that an action took is not
    added to the waits, so a rate is kept as long as the machine can.  Raises OSError as the actions do.
    """
    due = now()
    for delay_seconds, action in steps:
        due += delay_seconds
        wait = due - now()
        if wait > 0:
            if sleep(wait):
                return
        else:
            due = max(due, now() - 1.0)  # a suspended machine does not shoot the missed hours at once
        action()
        yield action
