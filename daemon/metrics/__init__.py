"""What /metrics says: one table of names, units and meanings (:mod:`.table`), values counted from facts and
observations as they pass (:mod:`.counted`), and values read from the core at scrape time (:mod:`.view`)."""

from .counted import Metrics
from .table import METRICS, Metric

__all__ = ["METRICS", "Metric", "Metrics"]
