"""``tiltd check``: one line for each thing examined, with the remedy where something is wrong."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from pathlib import Path

from tiltd.daemon import policy_files, registry
from tiltd.daemon.client import config_file
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.core.model import SeriesKind
from tiltd.daemon.core.units import parse_bytes
from tiltd.daemon.plugged import channels
from tiltd.daemon.text import one_line, shown
from tiltd.daemon.tokens import SECRET_BYTES_MIN, TokenError, TokenFile
from tiltd.plugins.api import Context, DirectiveBook, Pipeline, PluginError

from . import sandbox
from .asking import print_json
from .exits import FAILED, OK
from .node_checking import examine_nodes, examine_site, manager_of
from .probing import (
    Check,
    bad,
    good,
    probe_feed,
    probe_group,
    probe_local,
    probe_memory,
    probe_options,
    probe_writable,
)

OLDEST_PYTHON = (3, 11)
PROBE_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Examine configuration, policy, plugins and folders. Writes one small file into each "
        "folder that tiltd writes to, and removes it; never into a feed. Exit code 1 if anything is wrong."
    )
    parser.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "--submit",
        action="store_true",
        help="also send a job to every node, which looks whether a run would find there what it needs",
    )
    parser.add_argument(
        "--node", action="append", default=[], metavar="NAME", help="with --submit: only to this node"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=300.0,
        metavar="N",
        help="with --submit: how long a job may take to start and to look (default 300)",
    )
    parser.add_argument(
        "--sandbox",
        nargs="?",
        const="tiltd.service",
        metavar="UNIT",
        help="do all this in the sandbox of the systemd unit (default tiltd.service), as its user; for root",
    )


def main(args: argparse.Namespace) -> int:
    if args.sandbox:
        return sandbox.run(args.sandbox, _other_options(args))
    checks = []
    for check in everything(args):
        checks.append(check)
        if not args.json:
            mark = "ok  " if check.ok else "FAIL"
            print(f"{mark}  {shown(check.what)}: {one_line(check.detail)}", flush=True)
    if args.json:
        print_json([check._asdict() for check in checks])
    else:
        wrong = sum(not check.ok for check in checks)
        print(f"{wrong} of {len(checks)} checks failed" if wrong else f"all {len(checks)} checks passed")
    return OK if all(check.ok for check in checks) else FAILED


def _other_options(args: argparse.Namespace) -> list[str]:
    """What else was said, for the check inside; the path of the settings is made absolute."""
    path = config_file(args.config)
    options = ["--config", str(path.absolute())] if path is not None else []
    options += ["--json"] * args.json + ["--submit"] * args.submit
    for node in args.node:
        options += ["--node", node]
    return [*options, "--seconds", str(args.seconds)]


def everything(args: argparse.Namespace) -> Iterator[Check]:
    """This machine, then the resource manager's site, then, if that is asked for, its nodes."""
    path = config_file(args.config)
    usable = True
    for check in examine(path):
        usable &= check.ok or check.what != "configuration"
        yield check
    if path is not None and usable:
        yield from _site(Settings.load(path), args)


def _site(settings: Settings, args: argparse.Namespace) -> Iterator[Check]:
    """Nothing is asked of ``local`` unless jobs are to be sent: making it looks for its jobs."""
    if settings.resource_manager == "local" and not args.submit:
        return
    try:
        manager = manager_of(settings)
    except registry.RegistryError as error:
        yield bad(f"resource manager {settings.resource_manager}", str(error))
        return
    with asyncio.Runner() as runner:
        yield from runner.run(examine_site(manager))
        if args.submit:
            told = examine_nodes(settings, manager, args.node, args.seconds)
            while (check := runner.run(_next(told))) is not None:
                yield check


async def _next(told: AsyncIterator[Check]) -> Check | None:
    return await anext(told, None)


def examine(path: Path | None) -> Iterator[Check]:
    """Everything; what follows from the configuration only if that can be read."""
    yield _python()
    if path is None:
        yield bad("configuration", "no tiltd.toml here or in /etc/tiltd; `tiltd init DIR` writes one")
        return
    try:
        settings = Settings.load(path)
    except ConfigError as error:
        for sentence in error.sentences:
            yield bad("configuration", sentence)
        return
    yield good("configuration", str(path))
    if not settings.feeds:
        yield bad("feeds", "none is configured, so nothing will ever arrive; add a [[feed]]")
    yield from _policy(settings)
    yield from _plugins(settings)
    yield from _folders(settings)
    yield from _access(settings)
    yield from _channels(settings)


def _channels(settings: Settings) -> Iterator[Check]:
    """Can those be reached who tell people?  Nothing is sent."""
    context = Context(state_folder="", spool_folder="", journal_id="check", owner="")
    try:
        notifiers = channels(settings, context)
    except registry.RegistryError as error:
        yield bad("notices", str(error))
        return
    for name, notifier in notifiers.items():
        what = "notices by e-mail" if name == "email" else f"notices to {name}"
        probe = getattr(notifier, "probe", None)
        if probe is None:
            yield good(what, "found; it cannot be asked without being told")
            continue
        try:
            yield good(what, asyncio.run(_in_time(probe())))
        except (PluginError, OSError, TimeoutError) as error:
            yield bad(what, str(error) or "no answer in time")


async def _in_time(probe: Awaitable[str]) -> str:
    async with asyncio.timeout(PROBE_SECONDS):
        return await probe


def _access(settings: Settings) -> Iterator[Check]:
    """The files that say who may come in."""
    try:
        count = len(TokenFile(settings.tokens_file).read())
    except TokenError as error:
        yield bad("tokens", str(error))
    else:
        yield good("tokens", f"{count} in {settings.tokens_file}")
    secret = settings.access.proxy_secret_file
    if secret is None:
        return
    try:
        long_enough = len(secret.read_bytes().split(b"\n", 1)[0].strip()) >= SECRET_BYTES_MIN
    except OSError as error:
        yield bad("proxy secret", f"{secret}: cannot be read: {error.strerror}")
    else:
        told = (
            str(secret)
            if long_enough
            else f"{secret}: its first line must have {SECRET_BYTES_MIN} characters"
        )
        yield good("proxy secret", told) if long_enough else bad("proxy secret", told)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if tuple(sys.version_info) >= OLDEST_PYTHON:
        return good("python", version)
    return bad("python", f"{version} is too old; tiltd needs {'.'.join(map(str, OLDEST_PYTHON))}")


def _policy(settings: Settings) -> Iterator[Check]:
    try:
        policy = policy_files.read_policy(settings)
    except policy_files.PolicyRefused as refused:
        for fault in refused.faults:
            yield bad("policy", str(fault))
        return
    files = ", ".join(map(str, policy_files.files_of(settings)))
    yield good("policy", f"{files or 'as shipped'}, version {policy.version}")


def _plugins(settings: Settings) -> Iterator[Check]:
    """Resource managers are only imported, not made: making one may look for its jobs."""
    context = Context(
        state_folder=str(settings.state_dir),
        spool_folder=str(settings.spool_dir),
        journal_id="check",
        owner="",
    )
    wanted: dict[tuple[registry.Kind, str], None] = {("resource_manager", settings.resource_manager): None}
    wanted |= {("detector", feed.detector): None for feed in settings.feeds}
    wanted |= {("pipeline", feed.pipeline): None for feed in settings.feeds}
    kinds: dict[str, SeriesKind] = {}
    for kind, name in wanted:
        what = f"{kind.replace('_', ' ')} {name}"
        try:
            if kind == "resource_manager":
                registry.factory(kind, name)
            else:
                plugin = registry.make(kind, name, settings.table(name), context)
        except registry.RegistryError as error:
            yield bad(what, str(error))
        else:
            yield good(what, "found")
            if kind == "detector":
                kinds[name] = getattr(plugin, "kind", "stack")
            elif kind == "pipeline":
                if hasattr(plugin, "directives"):
                    yield from _directives(name, plugin.directives)
                yield from _options(settings, name, plugin, kinds)


def _directives(name: str, book: DirectiveBook) -> Iterator[Check]:
    """What it goes by; what is wrong with a file is told even if no feed names it, as a reload would."""
    found, troubles = book.sources()
    yield good(f"directives of {name}", found)
    for trouble in troubles:
        yield bad(f"directives of {name}", trouble)


def _options(
    settings: Settings, name: str, pipeline: Pipeline, kinds: Mapping[str, SeriesKind]
) -> Iterator[Check]:
    """What a feed's series would be refused for, asked of the pipeline itself.  ``kinds``: what the detectors
    find, by their names."""
    for feed in settings.feeds:
        kind = kinds.get(feed.detector, "stack")
        asked = feed.options or hasattr(pipeline, "directives") or kind == "frames"
        if feed.pipeline == name and asked:
            yield probe_options(f"options of feed {feed.name}", pipeline, feed.options, kind)


def _folders(settings: Settings) -> Iterator[Check]:
    for feed in settings.feeds:
        yield probe_feed(f"feed {feed.name}", feed.path)
    written = {settings.state_dir: "state_dir", settings.spool_dir: "spool_dir"}
    for feed in settings.feeds:
        fixed = Path(feed.destination.split("{", 1)[0].rpartition("/")[0] or "/")
        written.setdefault(fixed, f"destination of feed {feed.name}")
        if feed.import_dir is not None:
            written.setdefault(feed.import_dir, f"import of feed {feed.name}")
    nodes = settings.local.get("node", []) if settings.resource_manager == "local" else []
    for node in nodes:
        if scratch := node.get("scratch"):
            written.setdefault(Path(scratch), f"scratch of node {node['name']}")
    yield probe_local("journal", settings.journal)
    for folder, what in written.items():
        yield probe_writable(what, folder)
    if promised := sum(parse_bytes(node.get("memory") or 0) for node in nodes):
        yield probe_memory("memory of local jobs", promised)
    if settings.publish.group:
        yield probe_group(settings.publish.group)
