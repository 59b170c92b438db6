"""``tiltd policy explain``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tiltd.daemon.client import Answered, Client, NotRunning, socket_path
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.core.model import Features, NodeInfo, Placement, Policy, ResourceRequest, Unplaceable
from tiltd.daemon.core.units import parse_bytes, show_bytes, show_seconds, shown_value
from tiltd.daemon.journal_file import JournalError
from tiltd.daemon.policy_files import known
from tiltd.daemon.questions.dataset import at_time, labels_of, series_like
from tiltd.daemon.questions.explain import Explanation, submit_filter, summary
from tiltd.daemon.questions.explain import explain as explained
from tiltd.daemon.questions.files import PolicyRefused, accepted, policy_of
from tiltd.daemon.questions.scene import (
    Scene,
    SceneError,
    asked_by,
    nodes_of,
    nodes_of_answer,
    pipelines_of,
    state_of,
)
from tiltd.daemon.text import one_line, shown
from tiltd.policy.known import did_you_mean, pipeline_fault
from tiltd.policy.predict import Samples
from tiltd.policy.rules import decide
from tiltd.policy.schema_parts import parse_spacing

from .asking import print_json
from .exits import OK, USAGE
from .policy_files import add_site, file_name, named_files, settings_of, site_files, told_faults

SHOWN_KEYS = ("nodes", "cores", "threads", "memory_bytes", "scratch_bytes", "walltime_seconds")


def add_explain(parser: argparse.ArgumentParser) -> None:
    dataset = parser.add_argument_group("the dataset (what is not given is not known of it)")
    dataset.add_argument(
        "--size", required=True, type=amount, metavar="BYTES", help='its input, as in "2.6GB"'
    )
    dataset.add_argument("--tilts", type=count, metavar="N", help="number of its tilts")
    dataset.add_argument("--image-size", type=pixels, metavar="NXxNY", help="pixels of its images")
    dataset.add_argument(
        "--pixel-size", type=pixel_angstrom, metavar="A", help='in angstrom, or as in "0.135nm"'
    )
    for name in ("feed", "microscope", "project", "session", "name", "pipeline"):
        dataset.add_argument(f"--{name}", default="", metavar=name.upper())
    dataset.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="another label")
    dataset.add_argument("--attempt", type=count, default=1, metavar="N", help="the attempt to be placed")
    dataset.add_argument("--waiting", type=whole, default=0, metavar="N", help="so many series wait")
    dataset.add_argument(
        "--at", default="", metavar="TIME", help="'Sat 03:00' in the rules' zones (default: now)"
    )
    asked = parser.add_argument_group("where it is asked (default: the site's policy, nodes and history)")
    asked.add_argument(
        "--policy",
        action="append",
        type=file_name,
        default=[],
        metavar="FILE",
        help="over the shipped policy",
    )
    add_site(asked)
    asked.add_argument("--shipped", action="store_true", help="the policy as shipped, without the site's")
    asked.add_argument(
        "--nodes", metavar="FILE", help="[[node]] tables, or what `tiltd nodes --json` printed"
    )
    asked.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )
    asked.add_argument("--socket", metavar="PATH", help="the daemon's unix socket")
    told = parser.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="print JSON, for programs")
    told.add_argument(
        "--submit-filter", action="store_true", help="print the file that deploy/torque/submitfilter reads"
    )


def amount(text: str) -> int:
    if text.strip().replace(".", "").isdigit():
        raise argparse.ArgumentTypeError(f'{text!a} has no unit: did you mean "{text.strip()}GB"?')
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def whole(text: str) -> int:
    if not (text.strip().isascii() and text.strip().isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!a} is no whole number from 0")
    return int(text)


def count(text: str) -> int:
    if not (found := whole(text)):
        raise argparse.ArgumentTypeError(f"{text!a} is too small: allowed is 1 or more")
    return found


def pixel_angstrom(text: str) -> float:
    """With its unit as in a policy, or a bare number of angstrom."""
    bare = text.strip().replace(".", "", 1)
    try:
        return parse_spacing(f"{text.strip()}A" if bare.isascii() and bare.isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pixels(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!a} is no size of images; allowed is NXxNY, as in 4096x4096")
    return int(width), int(height)


def explain(args: argparse.Namespace) -> int:
    try:
        settings = None if args.shipped else settings_of(args.config)
        scene = _scene(args, settings)
        features = _features(args, settings, scene.policy)
    except PolicyRefused as refused:
        return told_faults(refused.faults, args.json)
    except (ConfigError, SceneError, ValueError) as error:
        print(f"tiltd policy explain: {one_line(str(error))}", file=sys.stderr)
        return USAGE
    asked, why = _asked(features, settings, scene.policy)
    found = explained(features, scene.policy, asked=asked, samples=scene.samples, nodes=scene.nodes)
    if args.submit_filter:
        sys.stdout.write("\n".join(submit_filter(found, args.size)) + "\n")
    elif args.json:
        print_json(summary(found) | {"explanation": _plain(found), "source": {**scene.source, "asked": why}})
    else:
        sys.stdout.write("\n".join(_lines(found, {**scene.source, "asked": why})) + "\n")
    return OK


def _scene(args: argparse.Namespace, settings: Settings | None) -> Scene:
    files = named_files(args.policy, args, settings)
    own = [] if files or args.shipped or settings is None else site_files(args.config)
    policy, source = _policy(files or own, settings, fallback=not files)
    nodes, source["nodes"] = _nodes(args, settings)
    samples, source["history"] = Samples(), "none: the 2015 study's figures"
    if settings is not None:
        try:
            samples = state_of(settings.journal).samples
            source["history"] = str(settings.journal)
        except JournalError as error:
            source["history"] = f"none ({one_line(str(error))})"
    return Scene(policy=policy, samples=samples, nodes=nodes, source=source)


def _policy(files: list[Path], settings: Settings | None, *, fallback: bool) -> tuple[Policy, dict[str, str]]:
    """That of the files; the one that the daemon goes on with where it refused the site's files."""
    try:
        return policy_of(files, settings), {"policy": ", ".join(map(str, files)) or "as shipped"}
    except PolicyRefused as refused:
        policy = accepted(settings.state_dir) if settings is not None and fallback else None
        if policy is None:
            raise
        told = f"as accepted last; the files as they are now are refused: {refused.faults[0]}"
        return policy, {"policy": told}


def _nodes(args: argparse.Namespace, settings: Settings | None) -> tuple[tuple[NodeInfo, ...], str]:
    if args.nodes:
        return nodes_of(Path(args.nodes)), args.nodes
    if settings is None and not args.socket:
        return (), "none given"
    try:
        path = settings.socket if settings is not None and not args.socket else socket_path(args.socket, None)
        return nodes_of_answer(Client(path).get("nodes")), f"as the daemon sees them ({path})"
    except (NotRunning, Answered) as error:
        return (), f"none ({one_line(str(error))})"


def _features(args: argparse.Namespace, settings: Settings | None, policy: Policy) -> Features:
    if wrong := pipeline_fault(args.pipeline, known(settings)):
        raise ValueError(f"--pipeline {wrong}")
    labels = dict(labels_of(args.label))
    feed = next((f for f in settings.feeds if f.name == args.feed), None) if settings else None
    labels = {**(feed.labels if feed else {}), **labels}
    for name in ("microscope", "project", "session"):
        if getattr(args, name):
            labels[name] = getattr(args, name)
    features = Features(
        feed=args.feed,
        microscope=labels.get("microscope", ""),
        project=labels.get("project", ""),
        session=labels.get("session", ""),
        name=args.name,
        size_bytes=args.size,
        tilt_count=args.tilts,
        image_size=args.image_size,
        pixel_spacing_angstrom=args.pixel_size,
        pipeline=args.pipeline or (feed.pipeline if feed else ""),
        attempt_number=args.attempt,
        labels=labels,
        waiting_count=args.waiting,
    )
    return at_time(features, policy, args.at, time.time())


def _asked(features: Features, settings: Settings | None, policy: Policy) -> tuple[ResourceRequest, str]:
    """What the pipeline asks for a series like this one; by size where none is named or it cannot tell."""
    decision = decide(features, policy)
    name = decision.pipeline or features.pipeline
    feeds = [feed.name for feed in settings.feeds] if settings else []
    if settings and features.feed and features.feed not in feeds:
        named = f"{shown_value(features.feed)} is no feed of the settings: there are {', '.join(feeds)}"
        return ResourceRequest(), f"by size: {named}{did_you_mean(features.feed, feeds)}"
    if not name:
        return ResourceRequest(), "by size: no pipeline was named"
    feed = next((f for f in settings.feeds if f.name == features.feed), None) if settings else None
    options = {**(feed.options if feed else {}), **decision.options}
    asked, why = asked_by(pipelines_of(settings, {name}).get(name), series_like(features), options)
    return asked, f"by size: {why}" if why else f"by pipeline {name}, for a series of that size"


# -- told ----------------------------------------------------------------------------------------------------


def _plain(found: Explanation) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    return plain


def _lines(found: Explanation, source: dict[str, str]) -> Iterator[str]:
    decided = summary(found)
    yield f"policy {found.policy_version} ({shown(source['policy'])}), rule {shown(found.decision.rule)}"
    for rule in found.rules:
        mark = "matched" if rule.matched else "tried  "
        yield f"  {mark}  {shown(rule.name)} ({shown(rule.origin)}) {one_line(rule.failed)}".rstrip()
    if not found.rules:
        yield "  there are no rules: the defaults hold"
    for key in SHOWN_KEYS:
        base = key.replace("_bytes", "").replace("_seconds", "")
        yield f"{base:9} {_value(key, decided[key]):12} {shown(_where(base, found))}".rstrip()
    for key in ("queue", "account", "priority", "properties", "pipeline", "destination", "hold"):
        value = getattr(found.decision, key)
        if value:
            yield f"{key:9} {shown(str(value)):12} {shown(found.origins.get(key, ''))}".rstrip()
    yield f"asked     {one_line(source['asked'])}"
    yield from _predicted(found, source)
    yield from _placed(found, source)
    for told in found.told:
        what = "in a digest" if told.how == "digest" else f"at once of {', '.join(told.events)}"
        yield f"notices   {shown(told.name)} ({shown(told.origin)}) tells {shown(', '.join(told.to))} {what}"


def _where(base: str, found: Explanation) -> str:
    keys = (base, f"{base}_factor", f"{base}_min", f"{base}_max", f"{base}_by_size")
    learnt = {"memory": found.needs.memory_runs, "scratch": found.needs.scratch_runs}.get(base, 0)
    history = (
        [f"history of {learnt} runs"] if learnt and getattr(found.decision, f"{base}_bytes") is None else []
    )
    return ", ".join([*(f"{key} {found.origins[key]}" for key in keys if key in found.origins), *history])


def _value(key: str, value: Any) -> str:
    if key.endswith("_bytes"):
        return show_bytes(value)
    return show_seconds(value) if key.endswith("_seconds") else str(value)


def _predicted(found: Explanation, source: dict[str, str]) -> Iterator[str]:
    p = found.prediction
    basis = f"{p.samples} runs in {shown(source['history'])}" if p.samples else "no such run yet: 2015 study"
    yield (
        f"expected  {show_seconds(round(p.seconds_p50))} (p50), {show_seconds(round(p.seconds_p99))} (p99), "
        f"memory {_quantiles(p.memory_bytes_p50, p.memory_bytes_p99)}, "
        f"scratch {_quantiles(p.scratch_bytes_p50, p.scratch_bytes_p99)}; {basis}"
    )


def _quantiles(usual: int, most: int) -> str:
    """The median only where one was measured."""
    return (f"{show_bytes(usual)} (p50), " if usual else "") + f"{show_bytes(most)} (p99)"


def _placed(found: Explanation, source: dict[str, str]) -> Iterator[str]:
    match found.placement:
        case Placement() as placement:
            yield f"placed    on {shown(' '.join(placement.nodes))}"
        case Unplaceable() as none:
            yield f"placed    nowhere: {one_line(none.detail)}"
        case None:
            yield f"nodes     {one_line(source['nodes'])}"
    for refused in found.refused:
        yield f"  {shown(refused.node)} refuses: {refused.reason} ({one_line(refused.detail)})"
