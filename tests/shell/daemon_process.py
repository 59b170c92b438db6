"""The real daemon as a process of its own, in a folder of its own: fed, asked, killed, waited for.

Nothing here sleeps for a fixed time: every wait polls a condition until a deadline and then says what it saw.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from plugins.series_files import write_series
from tiltd.daemon.client import Answered, Client, NotRunning

T = TypeVar("T")

STEP = """
stack=$1 output=$2 folder=$3 seconds=$4
echo "$TILTD_JOB_ID" >>"$folder/runs"
case ${PBS_JOBNAME:-$TILTD_JOB_ID} in
  *fails_once*.a1) exit 3 ;;
  *fails_always*) exit 4 ;;
esac
sleep "$seconds"
cp "$stack" "$output/volume.bin"
"""
"""A reconstruction in a hurry: notes that it ran, takes its time, leaves a copy of the stack."""


POLICY = """
[completeness]
quiet_min = "0.3s"
gap_max = "0.3s"
short_series_wait = "0.3s"
stale = "2s"
[placement]
scratch_margin = "1MB"
[retry]
delay = "0.2s"
delay_factor = 1.0
[resources]
cores = { base = 1 }
threads = { base = 1 }
[jobs]
marker_grace = "1s"
"""
"""Tenths of seconds where a real session takes minutes."""


class Site:
    """Folders, ``tiltd.toml`` and policy of one daemon.  ``more`` goes to the end of tiltd.toml."""

    def __init__(
        self, folder: Path, *, step_seconds: float = 0.1, scratch_bytes: int = 10**9, cores: int = 4,
        scan_seconds: float = 0.2, feeds: tuple[str, ...] = ("krios1",), feed_lines: str = "",
        listen: str = "", more: str = "", policy: str = POLICY, spool: Path | None = None,
        results: Path | None = None, state: Path | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.state = state or folder / "state"
        self.spool = spool or self.state / "spool"
        self.scratch = folder / "scratch"
        self.results = results or folder / "results"
        self.runs_file = folder / "runs"
        self.step = folder / "step.sh"
        self.log = folder / "tiltd.log"
        self.config = folder / "tiltd.toml"
        self.feeds = {name: folder / f"feed-{name}" for name in feeds}
        # A unix socket's path may have 107 bytes, and pytest's folders are long.
        self.socket = Path(tempfile.mkdtemp(prefix="tiltd-")) / "s"
        self.client = Client(self.socket)
        for path in (self.state, self.scratch, self.results, *self.feeds.values()):
            path.mkdir(parents=True, exist_ok=True)
        self.step.write_text(STEP)
        self.policy = folder / "policy.toml"
        self.policy.write_text(policy)
        command = f"sh {self.step} {{stack}} {{output}} {folder}"
        feed_tables = "".join(
            f"""
[[feed]]
name = "{name}"
path = "{path}"
pipeline = "command"
destination = "{self.results}/{name}/{{project}}/{{session}}/{{series}}"
pattern = "{{project}}/{{session}}"
scan_seconds = {scan_seconds}
options = {{ command = "{command} {step_seconds}", results = "volume.bin", memory = 1e8, walltime = 60 }}
{feed_lines}
"""
            for name, path in self.feeds.items()
        )
        self.config.write_text(
            f"""
state_dir = "{self.state}"
spool_dir = "{self.spool}"
policy_file = "{self.policy}"
[listen]
port = 0
socket = "{self.socket}"
{listen}
{feed_tables}
[[local.node]]
name = "here"
cores = {cores}
memory = 1_000_000_000
scratch = "{self.scratch}"
scratch_bytes = {scratch_bytes}
[poll]
jobs_seconds = 0.2
nodes_seconds = 0.5
spool_seconds = 0.1
{more}
"""
        )

    def feed(self, name: str | bytes, folder: str = "p/s", feed: str = "krios1", fill: int = 7) -> Path:
        """A small whole series, old enough to be nobody's work in progress."""
        return write_series(self.feeds[feed] / folder if folder else self.feeds[feed], name, fill=fill)

    def runs(self) -> list[str]:
        """The job id of every time that the step ran, in order."""
        return self.runs_file.read_text().split() if self.runs_file.exists() else []

    def scratch_left(self) -> list[str]:
        return sorted(os.listdir(self.scratch))

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def published(self) -> list[Path]:
        """Folders with a manifest; a walk by names, because folders are renamed meanwhile."""
        walked = os.walk(self.results)
        return sorted(Path(folder) for folder, _, names in walked if "manifest.json" in names)

    def staged(self) -> list[Path]:
        walked = os.walk(self.results)
        return sorted(
            Path(folder, name) for folder, names, _ in walked for name in names if name.startswith(".tiltd-")
        )


def wait_until(what: Callable[[], T], seconds: float, tell: Callable[[], object] = lambda: "") -> T:
    """The first true value of ``what``.  Raises AssertionError with what ``tell`` tells."""
    deadline = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {seconds} s: {tell()}")
        time.sleep(0.02)


def as_a_plain_user() -> None:
    """Root reads and writes what it likes; without two capabilities it must ask like everyone else."""
    libc, drop_from_bounding_set, dac_override, dac_read_search = ctypes.CDLL(None), 24, 1, 2
    for capability in (dac_override, dac_read_search):
        libc.prctl(drop_from_bounding_set, capability, 0, 0, 0)


class DaemonProcess:
    """``tiltd run`` of a site.  ``python`` replaces ``-m tiltd.daemon`` by code that ends in running it,
    ``interpreter`` is that of another installation."""

    def __init__(
        self, site: Site, *, python: str = "", env: dict[str, str] | None = None, interpreter: str = ""
    ) -> None:
        self.site = site
        self._interpreter = interpreter or sys.executable
        self._code = python
        self._env = env or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True, seconds: float = 20.0) -> DaemonProcess:
        program = ["-c", self._code] if self._code else ["-m", "tiltd.daemon"]
        with open(self.site.log, "ab") as log:
            self._process = subprocess.Popen(
                [self._interpreter, "-P", *program, "run", "--config", str(self.site.config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, env=os.environ | self._env, preexec_fn=as_a_plain_user,
            )  # fmt: skip
        if wait:
            self.wait(lambda: self.ready() and self.feeds_met(), seconds)
        return self

    def feeds_met(self) -> bool:
        """Whether every feed was looked at once: what comes from now on is no baseline."""
        return None not in [feed["up"] for feed in self.site.client.get("feeds")["feeds"]]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, to the daemon alone: its jobs live in sessions of their own."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not stop:\n{self.tail()}") from None

    def wait(self, what: Callable[[], T], seconds: float = 20.0) -> T:
        """As :func:`wait_until`; a daemon that ends by itself ends the waiting."""

        def look() -> T:
            assert self.alive(), f"the daemon ended by itself:\n{self.tail()}"
            return what()

        return wait_until(look, seconds, lambda: f"{self.summary()}\n{self.tail()}")

    # -- questions ---------------------------------------------------------------------------------

    def ready(self) -> bool:
        return self.readiness()[0]

    def readiness(self) -> tuple[bool, list[str]]:
        """Ready, and if not, the sentences why; not answering is not ready."""
        try:
            answer = self.site.client._ask("GET", "/readyz")
        except Answered as refused:
            return False, list(refused.body.get("reasons", []))
        except NotRunning as error:
            return False, [str(error)]
        return True, list(answer["reasons"])

    def rows(self) -> dict[str, dict[str, Any]]:
        """Series name -> its newest dataset's line."""
        try:
            found = self.site.client.get("datasets", limit="10000")["datasets"]
        except (NotRunning, Answered):
            return {}
        return {row["name"]: row for row in sorted(found, key=lambda row: row["dataset_id"])}

    def states(self) -> dict[str, str]:
        return {name: row["state"] for name, row in self.rows().items()}

    def held(self, name: str) -> list[str]:
        return list(self.rows().get(name, {}).get("held", []))

    def why(self, name: str) -> str:
        try:
            return "\n".join(self.site.client.get("why", name)["lines"])
        except (NotRunning, Answered) as error:
            return str(error)

    def ignored(self) -> dict[str, str]:
        return {row["series_key"]: row["reason"] for row in self.site.client.get("ignored")["ignored"]}

    def reserved_bytes(self) -> int:
        return sum(node["scratch_reserved_bytes"] for node in self.site.client.get("nodes")["nodes"])

    def act(self, action: str, **fields: Any) -> list[dict[str, Any]]:
        return list(self.site.client.post("actions", {"action": action} | fields)["results"])

    def delivered(self, *names: str, seconds: float = 20.0) -> None:
        """Wait until all these are delivered."""
        self.wait(lambda: {self.states().get(name) for name in names} == {"delivered"}, seconds)

    def settled(self, seconds: float = 20.0) -> None:
        """Wait until every dataset has left the working set and nothing is reserved or left on scratch."""
        self.wait(
            lambda: (
                all(row["finalized_at"] for row in self.rows().values())
                and self.reserved_bytes() == 0
                and not self.site.scratch_left()
            ),
            seconds,
        )

    def summary(self) -> str:
        return json.dumps({n: [r["state"], r["why"]] for n, r in self.rows().items()}) + str(self.readiness())

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.site.log_text().splitlines()[-lines:])


@contextlib.contextmanager
def running(site: Site, **more: Any) -> Iterator[DaemonProcess]:
    """A daemon that has met its (empty) feeds, ended whatever happens; jobs it leaves end by themselves."""
    daemon = DaemonProcess(site, **more)
    try:
        yield daemon.start()
    finally:
        if daemon.alive():
            daemon.kill()
        shutil.rmtree(site.socket.parent, ignore_errors=True)
