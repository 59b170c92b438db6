"""A site for the experiment: cluster and pipeline are the real one's, all else has a folder of its own.

It has a daemon of its own, so that neither the site's policy nor its journal nor its results are touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiltd.daemon.config import Settings
from tiltd.daemon.demo.site import SOCKET_PATH_MAX, Site, quoted

from .plan import Shape

FEED = "calibrate"


def lay_out(
    folder: Path,
    settings: Settings | None,
    *,
    pipeline: str,
    detector: str,
    options: Mapping[str, Any],
    walltime: str,
    at_once: int,
    chosen: Sequence[Shape],
) -> Site:
    """Make the folders, and write (again) the two files.  Raises OSError, or ValueError with a sentence."""
    site = Site(folder, folder / "state" / "tiltd.sock")
    if len(os.fsencode(site.socket)) > SOCKET_PATH_MAX:
        raise ValueError(f"the path of {folder} is too long for a unix socket; choose a shorter --folder")
    for path in (site.incoming, site.results, site.state):
        path.mkdir(parents=True, exist_ok=True)
    site.config.write_text(_config(site, settings, pipeline, detector, options), encoding="utf-8")
    site.policy.write_text(_policy(chosen, walltime, at_once), encoding="utf-8")
    return site


def _config(
    site: Site, settings: Settings | None, pipeline: str, detector: str, options: Mapping[str, Any]
) -> str:
    manager = settings.resource_manager if settings else "local"
    tables = dict(settings.tables) if settings else {}
    if manager == "local":
        tables["local"] = _local(site, tables.get("local", {}))
    written = "".join(f"{_key(name)} = {toml(value)}\n" for name, value in tables.items() if value)
    spool = quoted(
        (settings.spool_dir / "calibrate") if settings and manager != "local" else site.state / "spool"
    )
    return f"""# Written by `tiltd calibrate`.
state_dir = {quoted(site.state)}
spool_dir = {spool}
resource_manager = {quoted(manager)}
policy_file = {quoted(site.policy)}
{written}
[listen]
port = 0
socket = {quoted(site.socket)}

[[feed]]
name = "{FEED}"
path = {quoted(site.incoming)}
detector = {quoted(detector)}
pipeline = {quoted(pipeline)}
options = {toml(dict(options))}
destination = {quoted(str(site.results) + "/{project}/{session}/{series}")}
pattern = "{{project}}/{{session}}"
scan_seconds = 0.5

[poll]
jobs_seconds = 1
nodes_seconds = 5
spool_seconds = 0.2
"""


def _local(site: Site, table: Mapping[str, Any]) -> dict[str, Any]:
    """The site's own nodes, in a folder of their own on the same disks; without a site, this machine."""
    nodes = table.get("node") or [
        {"name": "here", "cores": len(os.sched_getaffinity(0)), "memory": _memory_bytes(), "scratch": ""}
    ]
    made = []
    for node in nodes:
        scratch = Path(node["scratch"]) / "calibrate" if node.get("scratch") else site.scratch(node["name"])
        scratch.mkdir(parents=True, exist_ok=True)
        made.append({**node, "scratch": str(scratch)})
    return {**table, "node": made}


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _policy(chosen: Sequence[Shape], walltime: str, at_once: int) -> str:
    rules = "".join(
        f"""
[[rule]]
name = "{shape.name}"
when = {{ project = "{shape.name}" }}
set = {{ nodes = {shape.nodes}, cores = {shape.cores}, threads = {shape.threads} }}
"""
        for shape in chosen
    )
    return f"""# Written by `tiltd calibrate`: every shape has its folder in the feed.
[completeness]
quiet_min = "2s"
gap_max = "2s"
positive_sign = "1s"
short_series_wait = "2s"
stale = "10s"
partial = "run"

[resources]
walltime_min = "{walltime}"

[limits]
running_max = {at_once}

[retry]
attempts_max = 1
{rules}"""


def toml(value: Any) -> str:
    """A value as TOML, tables inline.  Raises ValueError for what TOML cannot hold."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str() | Path():
            return quoted(value)
        case Mapping():
            return "{ " + ", ".join(f"{_key(k)} = {toml(v)}" for k, v in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            raise ValueError(f"{value!r} cannot be written as TOML")


def _key(name: str) -> str:
    return quoted(name)
