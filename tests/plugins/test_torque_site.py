"""``tiltd check`` on a Torque site: what was recorded from a real one, and what may be wrong with one."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.torque_recorded import ran, recorded
from tiltd.daemon.core.model import NodeInfo
from tiltd.plugins.api import Finding, Unreachable
from tiltd.plugins.commandline import CommandLine, NotStarted, Ran
from tiltd.plugins.torque_settings import read
from tiltd.plugins.torque_site import attributes, examine

QSTAT = recorded("qstat")
NOW = 1_000_000.0


def as_recorded(name: str) -> Ran:
    return ran(QSTAT[name].code, QSTAT[name].out, QSTAT[name].err)


class Answering(CommandLine):
    def __init__(self, **answers: Ran | Exception) -> None:
        super().__init__()
        self.answers: dict[str, Ran | Exception] = {
            "-Bf": as_recorded("qstat_B"),
            "-Qf": as_recorded("qstat_Qf"),
            "0": ran(1, b"ERROR:    'checkjob' failed\nERROR:  cannot locate job '0'\n"),
        } | answers

    async def run(self, argv: Any, **more: Any) -> Ran:
        answer = self.answers[argv[1]]
        if isinstance(answer, Exception):
            raise answer
        return answer


def node(name: str = "core-012", **changes: Any) -> NodeInfo:
    known: dict[str, Any] = {
        "state": "free",
        "cores": 8,
        "cores_free": 8,
        "memory_bytes": 0,
        "scratch_total_bytes": 4 << 30,
        "scratch_free_bytes": 4 << 30,
        "scratch_path": "/scratch",
        "observed_at": NOW - 30.0,
    }
    return NodeInfo(name=name, **(known | changes))


async def findings(
    *nodes: NodeInfo, settings: dict[str, Any] | None = None, **answers: Ran | Exception
) -> dict[str, Finding]:
    async def seen() -> tuple[NodeInfo, ...]:
        return nodes or (node(),)

    found = await examine(read(settings or {}), Answering(**answers), seen, lambda: NOW)
    return {finding.what: finding for finding in found}


async def test_the_recorded_site_is_as_it_must_be() -> None:
    found = await findings()
    assert all(finding.ok for finding in found.values()), found
    assert list(found) == ["server", "keep_completed", "queue batch", "node core-012", "Maui"]
    assert found["server"].detail == "Torque 6.1.3.h5 is Active"
    assert "300 s" in found["keep_completed"].detail


def test_attributes_of_all_queues_and_lines_that_go_on() -> None:
    values = attributes(QSTAT["qstat_Qf"].out.decode())
    assert values["limited.resources_max.walltime"] == "02:00:00"
    assert values["disabled.enabled"] == "False"
    assert values["batch.state_count"].endswith("Complete:5")


@pytest.mark.parametrize(
    ("queue", "ok", "said"),
    [
        ("limited", True, "resources_max.walltime 02:00:00"),
        ("disabled", False, "not enabled and started"),
        ("stopped", False, "not enabled and started"),
        ("nosuch", False, "known are batch, disabled, limited, small, stopped"),
    ],
)
async def test_the_queue(queue: str, ok: bool, said: str) -> None:
    found = (await findings(settings={"queue": queue}))[f"queue {queue}"]
    assert (found.ok, said in found.detail) == (ok, True), found


@pytest.mark.parametrize("kept", ["0", "60", ""])
async def test_ended_jobs_must_stay_listed_for_longer_than_two_looks(kept: str) -> None:
    text = QSTAT["qstat_B"].out.replace(b"keep_completed = 300", f"keep_completed = {kept}".encode())
    found = await findings(**{"-Bf": ran(0, text)})
    assert not found["keep_completed"].ok
    assert "set server keep_completed = 300" in found["keep_completed"].detail


async def test_a_server_that_does_not_schedule() -> None:
    text = QSTAT["qstat_B"].out.replace(b"scheduling = True", b"scheduling = False")
    assert not (await findings(**{"-Bf": ran(0, text)}))["server"].ok


async def test_a_server_that_is_down_and_commands_that_are_not_there() -> None:
    found = await findings(**{"-Bf": ran(111, b"", b"qstat: cannot connect to server")})
    assert not found["qstat -Bf"].ok and "pbs_server" in found["qstat -Bf"].detail
    found = await findings(**{"-Bf": NotStarted("cannot start qstat: No such file"), "0": NotStarted("no")})
    assert "[torque] path" in found["qstat -Bf"].detail
    assert "maui = false" in found["Maui"].detail


async def test_maui_that_is_down_and_a_site_without_it() -> None:
    found = await findings(**{"0": ran(1, b"ERROR:  cannot connect to server")})
    assert not found["Maui"].ok
    assert "Maui" not in await findings(settings={"maui": False})


@pytest.mark.parametrize(
    ("changes", "what", "said"),
    [
        ({"scratch_total_bytes": 0}, "node core-012", "size[fs=/scratch]"),
        ({"state": "down"}, "node core-012", "pbs_mom"),
        ({"observed_at": NOW + 3600}, "clock of core-012", "3600 s in the future"),
        ({"observed_at": NOW - 3600}, "clock of core-012", "3600 s old"),
    ],
)
async def test_what_may_be_wrong_with_a_node(changes: dict[str, Any], what: str, said: str) -> None:
    found = (await findings(node(**changes)))[what]
    assert (found.ok, said in found.detail) == (False, True), found


async def test_no_nodes_and_no_answer_about_them() -> None:
    async def none() -> tuple[NodeInfo, ...]:
        return ()

    async def trouble() -> tuple[NodeInfo, ...]:
        raise Unreachable("pbsnodes did not answer")

    for nodes, what in ((none, "nodes"), (trouble, "pbsnodes")):
        found = await examine(read({"properties": ["gpu"]}), Answering(), nodes, lambda: NOW)
        assert [finding.what for finding in found if not finding.ok] == [what]
