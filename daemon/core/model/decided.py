"""What a placement was decided from: it stands in the ``Placed`` fact, and so in the history."""

from __future__ import annotations

from .job import Options
from .policy import Features
from .series import Record


class Prediction(Record):
    """What a run is expected to take: seconds with staging, bytes at the peak.

    ``samples`` is how many runs of its kind it was learnt from; 0 when it is the study's prior.  Medians of
    memory and scratch are 0 while none was measured.
    """

    seconds_p50: float
    seconds_p99: float
    memory_bytes_p99: int
    scratch_bytes_p99: int
    samples: int = 0
    memory_bytes_p50: int = 0
    scratch_bytes_p50: int = 0


class Decided(Record):
    """The policy's reasons for one attempt.

    ``rules`` are the names of those that matched, in order; ``features`` what they saw; ``charged`` the core
    seconds that fair sharing books for it until its end is known.  ``due_at`` of 0: never.  ``pipeline``,
    ``options`` and ``destination`` (a template) are what it runs with; an empty destination is the feed's.
    ``asked_*_bytes`` are the pipeline's own words, before history and policy; 0: it named none.
    """

    rules: tuple[str, ...]
    features: Features
    predicted: Prediction
    charged_core_seconds: float = 0.0
    due_at: float = 0.0
    pipeline: str = ""
    options: Options = {}
    destination: str = ""
    asked_memory_bytes: int = 0
    asked_scratch_bytes: int = 0
