"""``tiltd policy diff | replay``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tiltd.daemon.client import Answered, Client, NotRunning
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.core.model import Dataset, NodeInfo
from tiltd.daemon.core.units import parse_seconds, show_bytes, show_seconds
from tiltd.daemon.journal_file import JournalError
from tiltd.daemon.questions.differ import Change, Difference, difference
from tiltd.daemon.questions.files import PolicyRefused, policy_of
from tiltd.daemon.questions.history import cases, pipelines_for, recorded, used_nodes
from tiltd.daemon.questions.replay import Replayed
from tiltd.daemon.questions.replay import replay as replayed
from tiltd.daemon.questions.scene import SceneError, nodes_of, nodes_of_answer, pipelines_of, state_of
from tiltd.daemon.text import one_line, shown

from .asking import print_json
from .exits import FAILED, OK, USAGE
from .policy_explain import amount
from .policy_files import add_config, add_site, file_name, named_files, settings_of, site_files, told_faults
from .tables import table

SINCE_SECONDS = 30 * 86400.0
ROWS_SHOWN = 40
_TROUBLE = (ConfigError, SceneError, JournalError, PolicyRefused, ValueError)


def add_diff(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "What comes out otherwise from one policy to another, and who would be told otherwise: over example "
        "datasets, over the datasets of both policies' tests, and over the journal's history. Exit code 1 if "
        "anything changes."
    )
    parser.add_argument(
        "old", type=file_name, metavar="OLD", help="a policy file or folder, over the shipped policy"
    )
    parser.add_argument("new", type=file_name, metavar="NEW", nargs="?", help="likewise")
    add_site(parser)
    _add_history(parser)


def diff(args: argparse.Namespace) -> int:
    try:
        settings = settings_of(args.config)
        if not (args.new or args.site):
            raise ValueError("name OLD and NEW; with --site NEW alone is compared with the site's own policy")
        files = [named_files([name], args, settings) for name in (args.old, args.new) if name]
        old, new = (policy_of(each, settings) for each in [site_files(args.config), *files][-2:])
        datasets = _datasets(args, settings)
        pipelines = pipelines_for(
            datasets, pipelines_of(settings, {dataset.pipeline for dataset in datasets})
        )
        found = difference(
            old,
            new,
            feeds={feed.name: feed.pipeline for feed in settings.feeds} if settings else {},
            history=cases(datasets, old, pipelines),
            nodes=nodes_of(Path(args.nodes)) if args.nodes else (),
            samples=state_of(settings.journal).samples if datasets and settings else None,
        )
    except _TROUBLE as error:
        return _trouble("diff", error, args.json)
    if args.json:
        print_json(msgspec.to_builtins(found))
    else:
        sys.stdout.write("\n".join(_diff_lines(found)) + "\n")
    return FAILED if found.values or found.examples or found.history else OK


def add_replay(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "The history's arrivals through the simulator under another policy, beside what really happened and "
        "beside the policy in force in the same simulator (how far the model is from the truth)."
    )
    parser.add_argument(
        "--policy", action="append", type=file_name, required=True, metavar="FILE", help="the candidate"
    )
    add_site(parser)
    parser.add_argument("--server", type=amount, metavar="BYTES", help="the file server, per second (1.25GB)")
    parser.add_argument(
        "--link", type=amount, metavar="BYTES", help="a node, per second (default: as measured)"
    )
    _add_history(parser)


def replay(args: argparse.Namespace) -> int:
    try:
        settings = settings_of(args.config)
        candidate = policy_of(named_files(args.policy, args, settings), settings)
        in_force = policy_of(site_files(args.config), settings)
        datasets = _datasets(args, settings, needed=True)
        if not datasets:
            print("tiltd policy replay: the journal has no complete series in that time", file=sys.stderr)
            return FAILED
        nodes, source = _nodes(args, settings, datasets)
        found = replayed(
            datasets,
            {"in force": in_force, "candidate": candidate},
            pipelines_of(settings, {dataset.pipeline for dataset in datasets}),
            nodes,
            link_bytes_per_second=args.link,
            server_bytes_per_second=args.server,
        )
    except _TROUBLE as error:
        return _trouble("replay", error, args.json)
    if args.json:
        versions = {"in force": in_force.version, "candidate": candidate.version}
        print_json(
            msgspec.to_builtins(found) | {"nodes": len(nodes), "nodes_from": source, "versions": versions}
        )
    else:
        where = f"{len(nodes)} nodes ({one_line(source)})"
        print(f"{found.series} series on {where}, {found.reruns} reruns left out")
        if left := _left_out(args):
            print(f"the candidate goes without {one_line(', '.join(left))}: --site lays it over them")
        sys.stdout.write(figures_table(found))
    return FAILED if any(found.unfinished.values()) else OK


def _left_out(args: argparse.Namespace) -> list[str]:
    """Files of the site that have no part in the candidate: it may differ by more than is meant."""
    named = {Path(name).resolve() for name in args.policy}
    own = [] if args.site else site_files(args.config)
    return [str(file) for file in own if not {file.resolve(), file.parent.resolve()} & named]


def figures_table(found: Replayed) -> str:
    columns = {"really": found.really, **found.simulated}
    rows = [
        ("delivered", [str(c.delivered) for c in columns.values()]),
        ("failed", [str(c.failed) for c in columns.values()]),
        ("attempts", [str(c.attempts) for c in columns.values()]),
        ("queue wait p50", [_span(c.wait_p50) for c in columns.values()]),
        ("queue wait p95", [_span(c.wait_p95) for c in columns.values()]),
        ("last tilt to tomogram p50", [_span(c.tomogram_p50) for c in columns.values()]),
        ("last tilt to tomogram p95", [_span(c.tomogram_p95) for c in columns.values()]),
        ("node hours", [f"{c.node_hours:.1f}" for c in columns.values()]),
        ("core hours", [f"{c.core_hours:.1f}" for c in columns.values()]),
        ("scratch booked at most", [show_bytes(c.scratch_peak_bytes) for c in columns.values()]),
        ("on one node at most", [show_bytes(c.node_scratch_peak_bytes) for c in columns.values()]),
        ("killed by walltime", ["-", *(str(n) for n in found.killed.values())]),
        ("never finished", ["-", *(str(n) for n in found.unfinished.values())]),
    ]
    head = ("", "REALLY", *(f"SIMULATED, {name.upper()}" for name in found.simulated))
    return table(head, [(name, *values) for name, values in rows])


def _span(seconds: float) -> str:
    return show_seconds(round(seconds))


# -- shared -------------------------------------------------------------------------------------------------


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", type=_since, default=SINCE_SECONDS, metavar="SPAN", help="of the history (default: 30d)"
    )
    parser.add_argument(
        "--nodes", metavar="FILE", help="[[node]] tables, or what `tiltd nodes --json` printed"
    )
    parser.add_argument("--journal", metavar="FILE", help="the journal (default: the site's)")
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def _since(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _datasets(args: argparse.Namespace, settings: Settings | None, needed: bool = False) -> list[Dataset]:
    """The history in question; empty without a journal, unless one is needed or named.

    Raises JournalError.
    """
    named = Path(args.journal) if args.journal else settings.journal if settings else None
    if named is not None and (named.is_file() or args.journal or needed):
        if not named.is_file():
            raise JournalError(f"there is no journal {named}")
        return recorded(named, time.time() - args.since)
    if needed:
        raise JournalError("no journal is known; name the site's tiltd.toml by --config, or one by --journal")
    return []


def _nodes(
    args: argparse.Namespace, settings: Settings | None, datasets: list[Dataset]
) -> tuple[tuple[NodeInfo, ...], str]:
    if args.nodes:
        return nodes_of(Path(args.nodes)), args.nodes
    if settings is not None and not args.journal:
        try:
            if found := nodes_of_answer(Client(settings.socket).get("nodes")):
                return found, "as the daemon knows them"
        except (NotRunning, Answered):
            pass
    return used_nodes(datasets), "as far as the history shows them"


def _trouble(question: str, error: Exception, as_json: bool) -> int:
    if isinstance(error, PolicyRefused):
        return told_faults(error.faults, as_json)
    for sentence in str(error).splitlines():
        print(f"tiltd policy {question}: {one_line(sentence)}", file=sys.stderr)
    return USAGE


def _diff_lines(found: Difference) -> Iterator[str]:
    yield f"policy {found.old_version} -> {found.new_version}"
    yield f"values: {len(found.values)} differ"
    yield from (f"  {shown(change.title)}: {one_line(', '.join(_told(change)))}" for change in found.values)
    yield f"examples: {len(found.examples)} of {found.example_count} come out otherwise"
    yield from _change_lines(found.examples)
    yield f"history: {len(found.history)} of {found.history_count} come out otherwise"
    yield from _change_lines(found.history)


def _change_lines(changes: tuple[Change, ...]) -> Iterator[str]:
    """Those that change alike stand in one line."""
    alike: dict[str, list[str]] = {}
    for change in changes:
        alike.setdefault(", ".join(_told(change)), []).append(change.title)
    for told, titles in list(alike.items())[:ROWS_SHOWN]:
        more = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
        yield f"  {shown(titles[0])}{more}: {one_line(told)}"
    if len(alike) > ROWS_SHOWN:
        yield f"  ... and {len(alike) - ROWS_SHOWN} more lines (--json has all)"


def _told(change: Change) -> Iterator[str]:
    for key, (old, new) in change.fields.items():
        if change.title.startswith(("rule.", "notice.")):
            yield from _rule_told(old, new)
        elif key == "value":
            yield f"{_value(change.title, old)} -> {_value(change.title, new)}"
        else:
            yield f"{key} {_value(key, old)} -> {_value(key, new)}"


def _rule_told(old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[str]:
    """What of a rule differs; what it sets by key, in seconds and bytes, or whom it tells of what."""
    if old is None or new is None:
        yield "is new" if old is None else "is gone"
        return
    if old["conditions"] != new["conditions"]:
        yield "matches otherwise"
    for key in ("stop", "to", "events", "how"):
        if old.get(key) != new.get(key):
            yield f"{key} {_value(key, old[key])} -> {_value(key, new[key])}"
    before, after = old.get("sets", {}), new.get("sets", {})
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            yield f"{key} {_set_value(before.get(key))} -> {_set_value(after.get(key))}"


def _set_value(value: Any) -> str:
    """A value by size that is the same for all sizes is that value."""
    if isinstance(value, dict) and "base" in value:
        value = {key: each for key, each in value.items() if each not in (None, 0.0, ())}
        value = f"{value['base']:g}" if value.keys() == {"base"} else value
    return "(not set)" if value is None else shown(str(value))


def _value(key: str, value: Any) -> str:
    if isinstance(value, int | float) and key.endswith("_bytes"):
        return show_bytes(value)
    if isinstance(value, int | float) and key.endswith("_seconds"):
        return show_seconds(value)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        value = " ".join(value)
    return "(none)" if value in (None, "", [], {}) else shown(str(value))
