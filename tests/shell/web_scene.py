"""A facility for the tests of the pages: two projects, datasets in every state, nodes, a real policy, behind
real servers; and the string that must never be seen by the other project."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, time
from types import SimpleNamespace
from typing import Any

from msgspec.structs import replace

from shell.fake_daemon import FakeDaemon, dataset, free_port
from tiltd.daemon.config import Settings
from tiltd.daemon.core import facts as f
from tiltd.daemon.core.model import (
    Attempt,
    Dataset,
    Decided,
    Evidence,
    Failure,
    Features,
    FilePrint,
    Fingerprint,
    Hold,
    Measured,
    NodeInfo,
    Placement,
    Prediction,
    Progress,
    Reservation,
    ResourceRequest,
    RunEnd,
    State,
    TiltSeries,
    Unplaceable,
)
from tiltd.daemon.policy_files import read_policy
from tiltd.plugins.api import DirectiveFault, DirectiveRow
from tiltd.policy.breaker import Breaker, Breakers, Mark

NOW = float(round(time()))
"""Browsers tell how long ago something was."""
SECRET = "zebrafish"
"""Stands in every text of the other project."""
XSS = "<img src=x onerror=document.title='owned'>\"'><script>document.title='owned'</script>"
POLICY = """
[[rule]]
name = "large-series"
when = { size = { min = "4GB" } }
set = { cores = 8, memory_factor = 1.5 }

[[rule]]
name = "zebrafish-first"
when = { project = "zebrafish*" }
set = { priority = 10 }

[[test]]
name = "large-series-get-eight-cores"
dataset = { size = "9GB" }
expect = { cores = 8 }
"""


def png(side: int = 64) -> bytes:
    """A grey picture with rings, as an 8-bit PNG."""
    rows = b"".join(
        b"\0" + bytes((x - side // 2) ** 2 + (y - side // 2) ** 2 >> 2 & 255 for x in range(side))
        for y in range(side)
    )

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def series(name: str, size_bytes: int = 2_600_000_000) -> TiltSeries:
    file = FilePrint(
        relative_path=f"{name}.mrc", size_bytes=size_bytes, piece_bytes=65536, head_sha256="0" * 64
    )
    return TiltSeries(
        tilt_series_name=name,
        kind="stack",
        fingerprint=Fingerprint(files=(file,)),
        stack_path=f"{name}.mrc",
        tilt_angles_deg=tuple(float(-60 + 3 * n) for n in range(41)),
        image_size=(4096, 4096),
        pixel_spacing_angstrom=1.35,
    )


def attempt(key: str, number: int = 1, **changes: Any) -> Attempt:
    placement = Placement(
        nodes=("n1",),
        cores=4,
        threads=4,
        memory_bytes=8_000_000_000,
        scratch_bytes=55_000_000_000,
        walltime_seconds=1800.0,
        queue="",
        rule="default",
        policy_version="0123456789ab",
    )
    predicted = Prediction(
        seconds_p50=600.0, seconds_p99=900.0, memory_bytes_p99=7_000_000_000, scratch_bytes_p99=50_000_000_000
    )
    decided = Decided(rules=("default",), features=Features(feed="krios1"), predicted=predicted)
    values: dict[str, Any] = {
        "attempt_id": f"{key}.a{number}",
        "number": number,
        "kind": "run",
        "placement": placement,
        "request": ResourceRequest(),
        "placed_at": NOW - 500.0,
        "job_id": "4711.server",
        "started_at": NOW - 400.0,
        "nodes": ("n1",),
        "decided": decided,
    }
    return Attempt(**(values | changes))


EVIDENCE = (
    Evidence(check="quiet", holds=True, detail="nothing changed for 320 s, 300 s are asked"),
    Evidence(check="sections agree with the mdoc", holds=True, detail="41 and 41"),
    Evidence(check="sentinel", holds=False, detail="none is configured"),
)
OOM = Failure(
    failure_class="memory",
    reason="killed for want of memory",
    detail="the kernel ended newstack at 8.1GB",
    remedy="raise memory_factor in the policy, then retry",
)


def datasets(project: str, tag: str) -> Iterator[tuple[Dataset, bool]]:
    """One in every state; the flag tells whether it is live."""

    def one(number: int, state: State, **changes: Any) -> Dataset:
        name = f"{tag}_{number:02}"
        key = f"{name}-0000000{number}.1.1"
        values: dict[str, Any] = {
            "labels": {"project": project, "session": f"{tag}-session", "microscope": "krios1"},
            "series": series(name),
            "evidence": EVIDENCE,
            "state": state,
            "state_since_at": NOW - 60.0 * number,
            "last_change_at": NOW - 60.0 * number - 900.0,
            "found_at": NOW - 60.0 * number - 4000.0,
            "completed_at": NOW - 60.0 * number - 600.0,
            "options": {"binning": 4, "align": True},
            "series_key": f"{project}/{name}.mrc",
        }
        return dataset(key, name, **(values | changes))

    end = RunEnd(
        job_id="4711.server",
        nonce="n",
        outcome="success",
        ended_at=NOW,
        node="n1",
        log_tail=(f"{tag} says {XSS}",),
        measured=Measured(run_seconds=512.0, peak_memory_bytes=6_100_000_000),
    )
    hold = Hold(cause="partial", origin="policy", detail=f"{tag}: 17 tilts of 41", since_at=0.0)
    running = one(4, State.RUNNING)
    failed = one(6, State.FAILED, failure=OOM)
    yield one(1, State.ARRIVING, series=None, evidence=(), completed_at=None), True
    yield one(2, State.ARRIVING, holds=(hold,), evidence=(), completed_at=None), True
    yield one(3, State.READY), True
    yield replace(running, attempts=(attempt(running.dataset_id),)), True
    yield one(5, State.QUEUED, attempts=(attempt("q", started_at=None),)), True
    bad_end = replace(end, outcome="failed")
    ended = attempt(failed.dataset_id, failure=OOM, end=bad_end, ended_at=NOW)
    yield replace(failed, attempts=(ended,), attempts_spent=3), False
    yield one(7, State.CANCELLED, cancel_reason="no longer wanted"), False


def crooked() -> Dataset:
    """Markup wherever a name, an mdoc, a program, an option or a person could have put it."""
    key = "x-00000009.1.1"
    failure = Failure(failure_class="program", reason=XSS, detail=XSS, remedy=XSS)
    end = RunEnd(
        job_id=XSS,
        nonce="",
        outcome="failed",
        ended_at=NOW,
        node=XSS,
        reason=XSS,
        detail=XSS,
        log_tail=(XSS,),
    )
    return dataset(
        key,
        XSS,
        series_key=f"{XSS}.mrc",
        labels={"project": "apoferritin", "session": XSS, XSS: XSS},
        state_since_at=NOW - 30.0,
        completed_at=NOW - 600.0,
        evidence=(Evidence(check=XSS, holds=False, detail=XSS),),
        holds=(Hold(cause="operator", origin=XSS, detail=XSS, since_at=NOW),),
        options={XSS: XSS},
        quality={XSS: 1.0},
        failure=failure,
        cancel_reason=XSS,
        pipeline=XSS,
        attempts=(attempt(key, job_id=XSS, nodes=(XSS,), failure=failure, end=end, ended_at=NOW),),
    )


def delivered(tmp_path: Path, project: str, tag: str, number: int) -> Dataset:
    name = f"{tag}_{number:02}"
    folder = tmp_path / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "central.png").write_bytes(png())
    (folder / "report.html").write_text(f"<h1>The report on {name}</h1>{XSS}", encoding="utf-8")
    files = [{"name": "tomogram.mrc", "size_bytes": 1_900_000_000}, {"name": f"{tag}.png", "size_bytes": 9}]
    (folder / "manifest.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    return dataset(
        f"{name}-000000{number}.1.1",
        name,
        state=State.DELIVERED,
        state_since_at=NOW - 100.0 * number,
        last_change_at=NOW - 100.0 * number - 1200.0,
        labels={"project": project, "session": f"{tag}-session"},
        series=series(name),
        evidence=EVIDENCE,
        result_path=str(folder),
        result_bytes=1_900_000_000,
        verdict="good",
        quality={"residual_mean_px": 0.43, "view_count": 41.0},
        series_key=f"{project}/{name}.mrc",
        attempts=(attempt(f"{name}-000000{number}.1.1", ended_at=NOW),),
    )


def node(name: str, used: int) -> NodeInfo:
    return NodeInfo(
        name=name,
        state="free" if used < 8 else "busy",
        cores=8,
        cores_free=8 - used,
        memory_bytes=64_000_000_000,
        scratch_total_bytes=200_000_000_000,
        scratch_free_bytes=200_000_000_000 - used * 20_000_000_000,
        scratch_path="/scratch",
        observed_at=NOW,
        comment=f"{SECRET} asked for it" if used == 8 else "",
    )


def booked(attempt_id: str, cores: int) -> Reservation:
    return Reservation(
        attempt_id=attempt_id,
        node="n1",
        reserved_bytes=10_000_000_000,
        cores=cores,
        memory_bytes=1,
        reserved_at=NOW,
    )


def directives(d: Dataset) -> tuple[tuple[DirectiveRow, ...], tuple[DirectiveFault, ...]]:
    rows = (
        DirectiveRow(
            key="setupset.copyarg.gold",
            value=f"10 {d.tilt_series_name}",
            origin=f"the feed {XSS}",
            layer="feed",
            overruled=(f"5 by {XSS}",),
        ),
    )
    fault = DirectiveFault(sentence=f"no such key {XSS}", key=XSS, file=XSS, line=3, severity="warning")
    return rows, (fault,)


def facility(tmp_path: Path, access: str = "", more: int = 0) -> FakeDaemon:
    """``more`` datasets wait beside the two projects'.  ``access`` is the ``[access]`` table's text."""
    (tmp_path / "policy.toml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "tiltd.toml").write_text(
        f'state_dir = "{tmp_path}"\npolicy_file = "{tmp_path}/policy.toml"\n[listen]\nport = {free_port()}\n'
        f"[access]\n{access}\n"
        f'[[feed]]\nname = "krios1"\npath = "/data/krios1"\ndestination = "/tomo/{{series}}"\n'
        f'pattern = "{{project}}/{{session}}"\n'
        f'[[feed]]\nname = "krios2"\npath = "/data/{SECRET}"\ndestination = "/tomo/{{series}}"\n'
        f'labels = {{ project = "{SECRET}" }}\npattern = ""\n',
        encoding="utf-8",
    )
    both = [*datasets("apoferritin", "TS"), *datasets(SECRET, SECRET)]
    hostile = crooked()
    live = [d for d, is_live in both if is_live] + [hostile]
    live += [
        dataset(
            f"L{n:05}-0badcafe.1.1",
            f"L{n:05}",
            series_key=f"many/L{n:05}.mrc",
            labels={"project": "many", "session": f"s{n % 7}"},
            state_since_at=NOW - 10_000.0 - n,
            series=series(f"L{n:05}"),
        )
        for n in range(more)
    ]
    finished = [d for d, is_live in both if not is_live]
    finished += [delivered(tmp_path, "apoferritin", "TS", number) for number in (11, 12)]
    finished.append(delivered(tmp_path, SECRET, SECRET, 13))
    daemon = FakeDaemon(Settings.load(tmp_path / "tiltd.toml"), live, finished)
    began = perf_counter()
    daemon.clock = SimpleNamespace(now=lambda: NOW + perf_counter() - began)
    for each in finished:
        key = (each.feed, each.state)
        daemon.metrics.finished[key] = daemon.metrics.finished.get(key, 0) + 1
    _fill(daemon, live)
    for each in live + finished:
        for number in each.attempts:
            folder = daemon.settings.spool_dir / "attempts" / number.attempt_id
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "runner.log").write_text(f"{each.tilt_series_name} log {XSS}\n", encoding="utf-8")
    return daemon


def _fill(daemon: FakeDaemon, live: list[Dataset]) -> None:
    core = daemon.core
    core.policy = read_policy(daemon.settings)
    core.nodes = {f"n{number}": node(f"n{number}", used) for number, used in enumerate((3, 8, 0), 1)}
    other = next(d for d in live if d.project == SECRET and d.state is State.READY)
    marks = (Mark(failure_class="node", series=other.dataset_id, at=0.0),)
    core.state.breakers = Breakers(
        by_scope={
            "node:n2": Breaker(marks=marks, opened_at=1.0, failure_class="node", probing=other.dataset_id)
        }
    )
    blocked = Unplaceable(rejected={"scratch": 2}, unblocked_by=("node",))
    core.blocked_by = lambda key: blocked if key.startswith("TS_03") else None
    core.progress = lambda d: Progress(
        phase="run", step="tilt alignment", done=17, total=41, at=NOW - 5, node="n1"
    )
    core.why = lambda key, now: [
        f"{key} is what it is.",
        f"the breaker of node:n2 is open: node failures of 3 series; {other.dataset_id} probes it",
        "  + quiet: nothing changed for 320 s",
    ]
    core.directives = lambda d: directives(d) if d.series is not None else None
    core.release_troubles = lambda attempt_id, node: [f"{attempt_id} cannot be swept: {node} is down"]
    ours = next(d for d in live if d.state is State.RUNNING and d.project != SECRET)
    theirs = next(d for d in live if d.state is State.RUNNING and d.project == SECRET)
    over = "TS_98-00000098.1.1.a1", f"{SECRET}_99-00000099.1.1.a1"  # of series that have left long ago
    for attempt_id in (f"{ours.dataset_id}.a1", f"{theirs.dataset_id}.a1"):
        core.state.ledger.book(booked(attempt_id, cores=1))
    for attempt_id in (f"{ours.dataset_id}.a0", *over):
        core.state.ledger.book(booked(attempt_id, cores=0))
    daemon.policy_refused = [f"policy.toml:9: rule {SECRET}: no such key"]
    daemon.reader.acted = [
        (9, f.OperatorActed(at=NOW, by="ada", via="socket", action="hold", dataset_id="TS_02-00000002.1.1",
                            project="apoferritin", reason=XSS, message="TS_02 is held")),
        (8, f.OperatorActed(at=NOW, by="eve", via="token", action="hold", dataset_id=f"{SECRET}_02",
                            project=SECRET, message=f"{SECRET} is held")),
    ]  # fmt: skip
