"""Placement: every no counted, never beyond what is free, the same answer to the same question."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tiltd.daemon.core.ledger import Free
from tiltd.daemon.core.model import NodeInfo, Placement, PlacementPolicy, Policy, ResourceRequest, Unplaceable
from tiltd.policy.filters import REASONS
from tiltd.policy.place import fits, on, place, shape, still_excluded
from tiltd.policy.policy import load
from tiltd.policy.scores import SCORES

GB = 10**9
POLICY = Policy(version="v1", placement=PlacementPolicy(scratch_margin_bytes=GB))
ASK = ResourceRequest(cores=4, threads=4, memory_bytes=4 * GB, scratch_bytes=40 * GB, walltime_seconds=3600)


def node(name: str = "n1", **changes: object) -> NodeInfo:
    usual = NodeInfo(
        name=name,
        state="free",
        cores=8,
        cores_free=8,
        memory_bytes=16 * GB,
        scratch_total_bytes=200 * GB,
        scratch_free_bytes=200 * GB,
        scratch_path="/scratch",
        observed_at=1000.0,
    )
    return replace(usual, **changes)


def free(node: NodeInfo) -> Free:
    return Free(
        cores=node.cores_free, memory_bytes=node.memory_bytes, scratch_bytes=node.scratch_free_bytes - GB
    )


def placed(request: ResourceRequest, *nodes: NodeInfo, **more: object) -> Placement:
    found = place(request, nodes, free, POLICY, **more)  # type: ignore[arg-type]
    assert isinstance(found, Placement), found
    return found


def refused(request: ResourceRequest, *nodes: NodeInfo, **more: object) -> Unplaceable:
    found = place(request, nodes, free, POLICY, **more)  # type: ignore[arg-type]
    assert isinstance(found, Unplaceable), found
    return found


@pytest.mark.parametrize(("cores", "given_"), [(16, 4), (4, 4), (2, 2), (1, 1)])
def test_the_shipped_policy_gives_the_studys_answer_or_the_nodes_maximum(cores: int, given_: int) -> None:
    text = (Path(__file__).parents[2] / "policy" / "default.toml").read_text("utf-8")
    policy = load([("default.toml", text)])
    assert isinstance(policy, Policy)
    request = shape(ResourceRequest(cores=7, threads=9), 2_600_000_000, policy)
    found = place(request, [node(cores=cores, cores_free=cores)], free, policy)
    assert isinstance(found, Placement)
    assert (len(found.nodes), found.cores, found.threads) == (1, given_, given_)
    assert (found.rule, found.policy_version) == ("default", policy.version)
    assert found.walltime_seconds == 1800 * (4 / given_) ** 0.5


REFUSALS: list[tuple[str, NodeInfo, dict[str, object]]] = [
    ("node_down", node(state="down"), {}),
    ("node_offline", node(state="offline"), {}),
    ("node_unknown", node(state="unknown"), {}),
    ("stale", node(), {"now": 1301.0}),
    ("excluded", node(), {"excluded": {"n1"}}),
    ("breaker", node(), {"excluded": {"n1": "breaker"}}),
    ("other_node", node(), {"only_node": "n2"}),
    ("cores", node(cores_free=3), {}),
    ("cores", node(cores=0, cores_free=0), {}),
    ("cores", node(cores=2, cores_free=1), {}),
    ("memory", node(memory_bytes=3 * GB), {}),
    ("scratch", node(scratch_free_bytes=41 * GB - 1), {}),
]


@pytest.mark.parametrize(("reason", "where", "more"), REFUSALS)
def test_each_no_has_its_reason(reason: str, where: NodeInfo, more: dict[str, object]) -> None:
    found = refused(ASK, where, **more)
    assert found.rejected == {reason: 1}
    assert reason in found.detail or found.permanent
    assert fits(ASK, where, free(where), POLICY, **more) == reason  # type: ignore[arg-type]
    assert reason in REASONS or reason == "breaker"


def test_properties() -> None:
    ask = replace(ASK, properties=("tomo", "ssd"))
    assert refused(ask, node(properties=("tomo",))).rejected == {"properties": 1}
    assert placed(ask, node(properties=("ssd", "gpu", "tomo"))).nodes == ("n1",)


@pytest.mark.parametrize(
    "where",
    [
        node(now := "n1"),
        node(now, state="busy"),
        node(now, scratch_free_bytes=41 * GB),
        node(now, memory_bytes=0),
        node(now, cores=2, cores_free=2),
        node(now, observed_at=9000.0),
    ],
)
def test_what_fits_fits(where: NodeInfo) -> None:
    assert fits(ASK, where, free(where), POLICY, now=1299.0) == ""
    assert placed(ASK, where, now=1299.0).nodes == ("n1",)


def test_a_rescue_goes_to_its_full_node() -> None:
    rescue = ResourceRequest(cores=1, threads=1)
    full = node("n2", scratch_free_bytes=0)
    assert placed(rescue, node(), full, only_node="n2").nodes == ("n2",)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (node("z"), node("a", cores=2, cores_free=2)),
        (node("z", cores_free=4), node("a")),
        (node("z", scratch_free_bytes=60 * GB), node("a")),
        (node("z"), node("a", properties=("gpu",))),
        (node("a"), node("z")),
    ],
)
def test_which_is_best(better: NodeInfo, worse: NodeInfo) -> None:
    assert placed(ASK, better, worse).nodes == placed(ASK, worse, better).nodes == (better.name,)


def test_a_weight_of_zero_switches_a_wish_off() -> None:
    nothing = replace(POLICY, placement=replace(POLICY.placement, weights=dict.fromkeys(SCORES, 0.0)))
    found = place(ASK, [node("z", cores_free=4), node("a")], free, nothing)
    assert isinstance(found, Placement) and found.nodes == ("a",)


def test_several_nodes() -> None:
    ask = replace(ASK, nodes=2)
    found = placed(ask, node("c"), node("b", cores=2, cores_free=2), node("a", state="down"))
    assert (found.nodes, found.cores, found.threads) == (("b", "c"), 2, 2)
    assert refused(ask, node("c"), node("a", state="down")).rejected == {"node_down": 1, "too_few_nodes": 1}


@pytest.mark.parametrize(
    ("nodes", "permanent"),
    [
        ([], False),
        ([node(cores_free=0)], False),
        ([node(scratch_total_bytes=40 * GB, scratch_free_bytes=40 * GB)], True),
        ([node(memory_bytes=3 * GB)], True),
        ([node(state="down")], False),
        ([node(memory_bytes=3 * GB), node("n2", state="offline")], False),
        ([node(memory_bytes=3 * GB), node("n2", state="unknown", cores=0, scratch_total_bytes=0)], False),
    ],
)
def test_permanent_only_if_no_known_node_could_ever(nodes: list[NodeInfo], permanent: bool) -> None:
    found = refused(ASK, *nodes)
    assert found.permanent is permanent
    assert ("could ever take it" in found.detail) is permanent
    assert "node" in found.unblocked_by


def test_the_closest_node_is_named() -> None:
    found = refused(ASK, node("a", cores_free=1), node("b", cores_free=3), node("c", state="down"))
    assert found.best_effort_node == "b"
    assert refused(ASK, node("a", cores_free=1), node("b", memory_bytes=GB)).best_effort_node == "a"


@pytest.mark.parametrize(
    ("others", "holds"),
    [
        ([node("n2")], True),
        ([node("n2", cores_free=0)], True),
        ([node("n2", state="down")], False),
        ([node("n2", memory_bytes=GB)], False),
        ([], False),
    ],
)
def test_another_node_is_a_wish_where_there_is_no_other(others: list[NodeInfo], holds: bool) -> None:
    assert still_excluded(ASK, [node(), *others], POLICY, ("n1",)) == ({"n1"} if holds else set())


_nodes = st.lists(
    st.builds(
        node,
        st.sampled_from([f"n{i}" for i in range(9)]),
        state=st.sampled_from(["free", "busy", "down", "offline", "unknown"]),
        cores=st.integers(0, 8),
        cores_free=st.integers(-2, 8),
        memory_bytes=st.integers(0, 8).map(lambda n: n * GB),
        scratch_total_bytes=st.just(100 * GB),
        scratch_free_bytes=st.integers(0, 100).map(lambda n: n * GB),
        properties=st.sampled_from([(), ("a",), ("a", "b")]),
    ),
    max_size=9,
    unique_by=lambda n: n.name,
)
_requests = st.builds(
    ResourceRequest,
    nodes=st.integers(1, 3),
    cores=st.integers(1, 8),
    threads=st.integers(1, 8),
    memory_bytes=st.integers(0, 8).map(lambda n: n * GB),
    scratch_bytes=st.integers(0, 100).map(lambda n: n * GB),
    properties=st.sampled_from([(), ("a",), ("b",)]),
)


@settings(max_examples=300, deadline=None)
@given(_requests, _nodes, st.sets(st.sampled_from(["n0", "n1"])))
def test_never_beyond_what_is_free_and_never_no_while_a_node_fits(
    request: ResourceRequest, nodes: list[NodeInfo], excluded: set[str]
) -> None:
    found = place(request, nodes, free, POLICY, excluded=excluded)
    assert found == place(request, nodes[::-1], free, POLICY, excluded=excluded)
    fitting = [n.name for n in nodes if not fits(request, n, free(n), POLICY, excluded=excluded)]
    if isinstance(found, Unplaceable):
        assert len(fitting) < request.nodes
        assert sum(found.rejected.values()) == len(nodes)
        return
    assert len(set(found.nodes)) == request.nodes and set(found.nodes) <= set(fitting)
    for name in found.nodes:
        where = next(n for n in nodes if n.name == name)
        assert where.state in ("free", "busy") and name not in excluded
        assert 1 <= found.cores <= min(where.cores, where.cores_free, request.cores)
        assert 1 <= found.threads <= min(where.cores, request.threads)
        assert not where.memory_bytes or found.memory_bytes <= where.memory_bytes
        assert found.scratch_bytes <= max(0, where.scratch_free_bytes - GB)
        assert set(request.properties) <= set(where.properties)


def test_on_the_named_nodes() -> None:
    assert on(ASK, [node("b"), node("a")], POLICY, free).nodes == ("a", "b")


def test_nodes_that_the_policy_names() -> None:
    request = replace(ASK, only_nodes=("fast*",), not_nodes=("fast2",))
    assert placed(request, node("n1"), node("fast1"), node("fast2")).nodes == ("fast1",)
    found = refused(request, node("n1"), node("fast2"))
    assert found.rejected == {"only_nodes": 1, "not_nodes": 1}
    assert found.permanent and "a node named fast* not named fast2, " in found.detail


# -- as few cores as cores_min -------------------------------------------------------------------------------

FEW = replace(ASK, cores_min=1, memory_bytes=int(3.7 * GB), scratch_bytes=10 * GB)


@pytest.mark.parametrize(
    ("cores", "free_cores", "each", "given_"),
    [
        (4, 4, None, 4),  # it waits alone
        (4, 4, 9, 4),  # never more than asked
        (4, 3, None, 3),
        (4, 1, None, 1),
        (4, 4, 0, 1),  # a long queue: 4 by memory, so one core each
        (8, 8, 0, 2),  # and two of eight
        (8, 4, 0, 1),  # of which four are busy
        (8, 8, 3, 3),  # a short queue
        (4, 1, 3, 1),  # no more than is free
    ],
)
def test_cores_between_the_least_and_what_is_asked(
    cores: int, free_cores: int, each: int | None, given_: int
) -> None:
    found = placed(FEW, node(cores=cores, cores_free=free_cores), each=each)
    assert (found.cores, found.threads) == (given_, given_)
    assert found.walltime_seconds == pytest.approx(3600 * (4 / given_) ** 0.5)


def test_what_is_left_is_given_to_the_last_that_fits() -> None:
    """Three fit by memory: of eight cores they get two, three and three."""
    ask, left, cores = replace(FEW, memory_bytes=5 * GB), node(), []
    for _ in range(3):
        found = placed(ask, left, each=0)
        cores.append(found.cores)
        left = replace(
            left, cores_free=left.cores_free - found.cores, memory_bytes=left.memory_bytes - 5 * GB
        )
    assert cores == [2, 3, 3]


def test_fewer_than_the_least_are_refused_and_without_a_least_fewer_than_asked() -> None:
    assert refused(replace(FEW, cores_min=2), node(cores_free=1)).rejected == {"cores": 1}
    assert refused(replace(FEW, cores_min=0), node(cores_free=3)).rejected == {"cores": 1}
    assert placed(replace(FEW, cores_min=0), node(), each=0).cores == 4
    assert placed(replace(FEW, cores_min=8, cores=8), node(cores=4, cores_free=4)).cores == 4


def test_a_node_with_more_of_the_cores_asked_comes_first() -> None:
    one, four = node("a", cores_free=1), node("b", cores_free=4)
    assert placed(FEW, one, four).nodes == ("b",)
    assert placed(replace(FEW, nodes=2), one, four).cores == 1, "over two nodes the smaller one counts"
