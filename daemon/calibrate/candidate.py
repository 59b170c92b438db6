"""From what was measured to a policy that can be tried: two rules, and tests that hold it to them."""

from __future__ import annotations

from collections.abc import Sequence

from tiltd.daemon.core.model import NodeInfo, Record

from .figures import Summary

WORTH = 1.05
"""A shape that takes at most 5 % longer than the fastest is as good: what is saved of it serves others (the
study's choice of 4 cores and 4 threads, where 8 and more nodes gained nothing)."""


class Chosen(Record):
    """``usual`` for a series with nobody behind it, ``crowded`` for a long queue (least core seconds a
    series); ``waiting`` is how long a queue is long: as many series as run at once in the usual shape."""

    usual: Summary
    crowded: Summary
    waiting: int


def choose(found: Sequence[Summary], nodes: Sequence[NodeInfo]) -> Chosen | None:
    """``None`` when nothing ran well."""
    good = [each for each in found if each.runs]
    if not good:
        return None
    fastest = min(each.median for each in good)
    usual = min(
        (each for each in good if each.median <= WORTH * fastest),
        key=lambda each: (each.shape.nodes * each.shape.cores, each.shape.nodes, each.shape.threads),
    )
    crowded = min(good, key=lambda each: (each.shape.nodes * each.shape.cores * each.median, each.shape))
    at_once = sum(max(1, node.cores // usual.shape.cores) for node in nodes) // usual.shape.nodes
    return Chosen(usual=usual, crowded=crowded, waiting=max(2, at_once))


def policy_text(chosen: Chosen, size_bytes: int, pipeline: str, told: str) -> str:
    """A policy file for series of about this size: from half of it to twice it."""
    usual, crowded = chosen.usual.shape, chosen.crowded.shape
    least, most = size_bytes // 2, size_bytes * 2
    when = f'pipeline = "{pipeline}", size = {{ min = "{least}B", max = "{most}B" }}'
    dataset = f'pipeline = "{pipeline}", size = "{size_bytes}B"'
    text = f"""# Written by `tiltd calibrate`: {told}
# The fastest shapes differ by less than 5 %; of those this is the one with the fewest cores.
# Try it: tiltd policy check --site THIS, diff --site THIS, replay --site --policy THIS
[[rule]]
name = "calibrated"
when = {{ {when} }}
set = {{ nodes = {usual.nodes}, cores = {usual.cores}, threads = {usual.threads} }}

[[test]]
name = "a series as it was calibrated with"
dataset = {{ {dataset} }}
expect = {{ rules = ["calibrated"], nodes = {usual.nodes}, cores = {usual.cores}, threads = {usual.threads} }}
"""
    if crowded == usual:
        return text
    return f"""{text}
# A series takes longer so, and a long queue less: fewer core seconds a series.
[[rule]]
name = "calibrated-long-queue"
when = {{ {when}, waiting = {{ min = {chosen.waiting} }} }}
set = {{ nodes = {crowded.nodes}, cores = {crowded.cores}, threads = {crowded.threads} }}

[[test]]
name = "the same in a long queue"
dataset = {{ {dataset}, waiting = {chosen.waiting} }}
expect = {{ nodes = {crowded.nodes}, cores = {crowded.cores}, threads = {crowded.threads} }}
"""
