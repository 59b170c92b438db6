"""The policy's word over the pipeline's request."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tiltd.daemon.core.model import Measured, Policy, ResourcePolicy, ResourceRequest
from tiltd.policy import predict, shape
from tiltd.policy.shape import on_cores, round_up_bytes, round_up_seconds

POLICY = Policy(version="test")
GB = 10**9


def shaped(request: ResourceRequest, size_bytes: int = 2 * GB, **rules: object) -> ResourceRequest:
    policy = replace(POLICY, resources=replace(ResourcePolicy(), **rules))
    return shape.shape(request, size_bytes, policy)


def test_factor_then_floor() -> None:
    request = ResourceRequest(memory_bytes=1 << 30, scratch_bytes=1 << 33, walltime_seconds=3600)
    found = shaped(request, memory_factor=2.0, scratch_bytes_min=1 << 34, walltime_factor=2.0)
    assert (found.memory_bytes, found.scratch_bytes, found.walltime_seconds) == (1 << 31, 1 << 34, 7200)


def test_what_the_pipeline_leaves_open_is_by_size() -> None:
    found = shaped(ResourceRequest(), 2 * GB)
    assert 3.8 * GB <= found.memory_bytes <= 3.8 * GB * 1.25
    assert 43 * GB <= found.scratch_bytes <= 43 * GB * 1.25
    assert found.walltime_seconds == 1800


def test_a_walltime_for_other_cores_is_stretched() -> None:
    request = ResourceRequest(cores=16, walltime_seconds=3600)
    assert shaped(request, walltime_factor=1.0).walltime_seconds == 7200


def test_more_is_more_even_at_the_floor_and_never_beyond_the_ceiling() -> None:
    request = ResourceRequest(memory_bytes=1000, walltime_seconds=1)
    policy = replace(POLICY, resources=ResourcePolicy(memory_bytes_min=1 << 20))
    plain = shape.shape(request, GB, policy)
    more = shape.shape(request, GB, policy, changes={"memory_factor": 1.5, "walltime_factor": 2.0, "x": "y"})
    assert more.memory_bytes == 1.5 * plain.memory_bytes
    assert more.walltime_seconds == 2 * plain.walltime_seconds
    most = shape.shape(request, GB, policy, changes={"walltime_factor": 1e9})
    assert most.walltime_seconds <= policy.resources.walltime_seconds_max


def test_history_speaks_before_the_pipeline() -> None:
    samples = predict.Samples()
    for _ in range(300):
        samples = predict.learn(
            samples, pipeline="wbp", cores=4, threads=4, size_bytes=GB, measured=Measured(run_seconds=3000.0)
        )
    request = ResourceRequest(walltime_seconds=60)
    found = shape.shape(request, GB, POLICY, pipeline="wbp", samples=samples)
    assert 9000 < found.walltime_seconds < 9000 * 1.25 * 1.1
    assert shape.shape(request, GB, POLICY, pipeline="other", samples=samples).walltime_seconds == 1800


def test_properties_and_queue() -> None:
    policy = replace(
        POLICY,
        placement=replace(POLICY.placement, properties=("tomo", "ssd")),
        resources=ResourcePolicy(queue="fast"),
    )
    found = shape.shape(ResourceRequest(properties=("gpu", "ssd"), queue="slow"), GB, policy)
    assert (found.properties, found.queue) == (("gpu", "ssd", "tomo"), "fast")
    assert shape.shape(ResourceRequest(queue="slow"), GB, POLICY).queue == "slow"


@given(st.integers(0, 10**15))
def test_bytes_are_rounded_up_by_a_quarter_at_most(amount: int) -> None:
    rounded = round_up_bytes(amount)
    assert amount <= rounded <= amount * 1.25 and round_up_bytes(rounded) == rounded


@given(st.floats(0, 1e7))
def test_seconds_are_rounded_up_by_a_quarter_at_most(seconds: float) -> None:
    rounded = round_up_seconds(seconds)
    assert seconds <= rounded <= seconds * 1.25 + 1800 / 1024 and round_up_seconds(rounded) == rounded


def test_a_thousand_sizes_make_a_handful_of_shapes() -> None:
    sizes = range(1_300_000_000, 2_800_000_000, 1_500_000)
    keys = {shape.key(shaped(ResourceRequest(scratch_bytes=5 * n, memory_bytes=n), n)) for n in sizes}
    assert len(keys) < 20


@pytest.mark.parametrize(("asked", "given_", "seconds"), [(4, 4, 100), (4, 8, 100), (4, 1, 200), (8, 2, 200)])
def test_walltime_on_fewer_cores(asked: int, given_: int, seconds: float) -> None:
    assert on_cores(100, asked, given_) == seconds


def test_docstring_examples_hold() -> None:
    assert doctest.testmod(shape).failed == 0
