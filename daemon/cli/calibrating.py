"""``tiltd calibrate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tiltd.daemon.calibrate import candidate, chart, figures, plan, site, study
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.core.units import parse_seconds, show_bytes
from tiltd.daemon.demo.daemon import DaemonFailed, running
from tiltd.daemon.questions.scene import nodes_of_answer
from tiltd.daemon.text import one_line, shown

from .asking import print_json
from .exits import FAILED, OK, USAGE
from .policy_files import settings_of
from .tables import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run one series in every shape, repeatedly, through a daemon of its own on the site's cluster: "
        "reserved, staged, run and verified as always. Prints medians and spread, draws the bar chart of the "
        "2015 study and writes a candidate policy with its tests. What was measured is kept: run it again to "
        "go on after an interruption, or with more --repeat. Choose a quiet time: it does not see what the "
        "site's own daemon has reserved."
    )
    parser.add_argument("--dataset", required=True, metavar="DIR", help="holds the files of one series")
    for name, default in (("nodes", "1"), ("cores", "1,2,4,8"), ("threads", "1,2,4,8")):
        parser.add_argument(
            f"--{name}", type=numbers, default=default, metavar="N,N", help=f"default: {default}"
        )
    parser.add_argument(
        "--repeat", type=positive, default=5, metavar="N", help="runs of each shape (default: 5)"
    )
    parser.add_argument(
        "--at-once", type=positive, default=1, metavar="N", help="runs at a time (default: 1)"
    )
    parser.add_argument("--folder", default="calibrate-tiltd", metavar="DIR", help="everything is kept there")
    parser.add_argument(
        "--feed", default="", help="pipeline, options and detector of this feed (default: the first)"
    )
    parser.add_argument("--pipeline", default="", help="another pipeline")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of it")
    parser.add_argument(
        "--walltime", type=span, default="5h", metavar="SPAN", help="of each run (default: 5h)"
    )
    parser.add_argument("--keep-results", action="store_true", help="do not remove each run's result")
    parser.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def numbers(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def positive(text: str) -> int:
    if not (text.strip().isascii() and text.strip().isdigit() and 1 <= int(text) <= 4096):
        raise argparse.ArgumentTypeError(f"{text!a} is no whole number from 1 to 4096")
    return int(text)


def span(text: str) -> str:
    try:
        parse_seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def main(args: argparse.Namespace) -> int:
    try:
        return _calibrate(args)
    except (ConfigError, ValueError) as error:
        print(f"tiltd calibrate: {one_line(str(error))}", file=sys.stderr)
        return USAGE
    except (study.StudyFailed, DaemonFailed, OSError) as error:
        print(f"tiltd calibrate: {error}", file=sys.stderr)
        return FAILED


def _calibrate(args: argparse.Namespace) -> int:
    settings, folder = settings_of(args.config), Path(args.folder).absolute()
    files = study.series_files(Path(args.dataset).absolute())
    pipeline, detector, options = _how(args, settings)
    wanted = [
        plan.Shape(nodes=n, cores=c, threads=t) for n in args.nodes for c in args.cores for t in args.threads
    ]
    laid_out = site.lay_out(
        folder,
        settings,
        pipeline=pipeline,
        detector=detector,
        options=options,
        walltime=args.walltime,
        at_once=args.at_once,
        chosen=sorted(set(wanted)),
    )
    with running(laid_out) as daemon:
        daemon.wait_ready()
        nodes = nodes_of_answer(daemon.client.get("nodes"))
        chosen, left_out = plan.shapes(
            args.nodes, args.cores, args.threads, nodes, one_node=_one_node(settings)
        )
        for sentence in left_out:
            print(f"left out: {sentence}", file=sys.stderr)
        if not chosen:
            raise study.StudyFailed("no shape is left that this cluster could run")
        todo, runs_file = plan.plan(chosen, args.repeat), laid_out.folder / "runs.jsonl"
        known = {each.planned for each in figures.read(runs_file) if not each.trouble}
        rest = [each for each in todo if each not in known]
        print(f"{len(todo)} runs, {len(todo) - len(rest)} of them known already", file=sys.stderr)
        work = study.Study(
            laid_out,
            daemon.client,
            files,
            args.at_once,
            _Progress(len(rest)),
            daemon.check_alive,
            args.keep_results,
        )
        work.wait_for_feed()
        work.run(rest)
    size = sum(file.stat().st_size for file in files)
    return _told(args, laid_out.folder, todo, size, pipeline, nodes)


def _one_node(settings: Settings | None) -> bool:
    return settings is None or settings.resource_manager == "local"


def _how(
    args: argparse.Namespace, settings: Settings | None
) -> tuple[str, str, dict[str, str | int | float | bool]]:
    """Pipeline, detector and options: as asked, else as the feed has them."""
    feeds = settings.feeds if settings else []
    feed = next((each for each in feeds if args.feed in ("", each.name)), None)
    if args.feed and feed is None:
        raise ValueError(f"there is no feed {args.feed}")
    options: dict[str, str | int | float | bool] = {}
    if feed is not None and args.pipeline in ("", feed.pipeline):
        options |= feed.options
    for pair in args.set:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"{pair!a} is no option: allowed is KEY=VALUE")
        options[key] = _option(text)
    pipeline = args.pipeline or (feed.pipeline if feed else "wbp")
    return pipeline, feed.detector if feed else "serialem", options


def _option(text: str) -> str | int | float | bool:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


class _Progress:
    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0

    def __call__(self, planned: plan.Planned, measured: figures.Measurement) -> None:
        self._done += 1
        told = f"FAILED {measured.trouble}" if measured.trouble else f"{measured.run_seconds:.1f} s"
        print(
            f"{self._done}/{self._total}  {planned.shape}, repeat {planned.repeat}: {told}",
            file=sys.stderr,
            flush=True,
        )


def _told(
    args: argparse.Namespace,
    folder: Path,
    todo: Sequence[plan.Planned],
    size: int,
    pipeline: str,
    nodes: Sequence[object],
) -> int:
    wanted = set(todo)
    latest = {each.planned: each for each in figures.read(folder / "runs.jsonl") if each.planned in wanted}
    found = figures.summaries(latest.values())
    title = f"{pipeline}, one series of {show_bytes(size)}, medians of {args.repeat} runs"
    drawn, policy = folder / "chart.svg", folder / "candidate.toml"
    drawn.write_text(chart.svg(found, title), encoding="utf-8")
    chosen = candidate.choose(found, nodes)  # type: ignore[arg-type]
    if chosen is not None:
        policy.write_text(candidate.policy_text(chosen, size, pipeline, title), encoding="utf-8")
    if args.json:
        files = {
            "chart": str(drawn),
            "candidate": str(policy) if chosen else "",
            "runs": str(folder / "runs.jsonl"),
        }
        print_json({"shapes": msgspec.to_builtins(found), "chosen": msgspec.to_builtins(chosen), **files})
    else:
        sys.stdout.write(table(figures.HEAD, figures.rows(found)))
        print(f"chart     {shown(str(drawn))}")
        if chosen is not None:
            print(f"usual     {chosen.usual.shape}")
            print(f"crowded   {chosen.crowded.shape}, from {chosen.waiting} waiting series on")
            print(f"candidate {shown(str(policy))}")
    return OK if chosen is not None and not any(each.failed for each in found) else FAILED
