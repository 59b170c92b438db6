"""What a series costs to run: the 2015 study's figures, or what was measured of it, carried to other shapes.

The study's series of 2.6 GB took 320 s on one core and 250 s on 4 cores and 4 threads; 270 s on 2 nodes, and
290 s on 4 and on 8: more nodes made it slower.
"""

from __future__ import annotations

from tiltd.daemon.core.model import Record, Sighting
from tiltd.policy.predict import prior

NODES_FACTOR = ((1, 1.0), (2, 270 / 250), (4, 290 / 250))
"""Times the run time on one node, from so many nodes on (2015 study, section 5.1)."""


class Arrival(Record):
    """One series that ends at the microscope at ``at``, and what running it truly costs.

    ``pace`` multiplies the study's seconds: 1 is the study's cluster and program.  Peaks of 0 mean that
    it used what its pipeline asks.
    """

    at: float
    feed: str
    sighting: Sighting
    pace: float = 1.0
    result_bytes: int = 0
    peak_memory_bytes: int = 0
    peak_scratch_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        return self.sighting.size_bytes


def run_seconds(size_bytes: int, nodes: int, cores: int, threads: int) -> float:
    """Seconds of computing by the study (staging not included).

    >>> [round(run_seconds(2_600_000_000, nodes, 4, 4)) for nodes in (1, 2, 4, 8)]
    [250, 270, 290, 290]
    """
    factor = 1.0
    for at_least, times in NODES_FACTOR:
        factor = times if nodes >= at_least else factor
    return factor * prior(cores=cores, threads=threads, size_bytes=size_bytes).seconds_p50


def pace_of(seconds: float, size_bytes: int, nodes: int, cores: int, threads: int) -> float:
    """How much slower (> 1) a measured run was than the study's would have been in the same shape."""
    return seconds / run_seconds(size_bytes, nodes, cores, threads)
