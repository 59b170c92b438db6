"""The table of commands: name, where its code is, one line, examples."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """``module`` offers ``add_arguments(parser)`` and ``main(args) -> int``."""

    name: str
    module: str
    summary: str
    examples: tuple[str, ...]


_CLI = "tiltd.daemon.cli"

COMMANDS = {
    command.name: command
    for command in (
        Command(
            "init",
            f"{_CLI}.starting",
            "write a commented configuration to start from",
            ("tiltd init /etc/tiltd",),
        ),
        Command(
            "check",
            f"{_CLI}.checking",
            "examine configuration, policy, plugins and folders",
            (
                "tiltd check",
                "tiltd check --config /etc/tiltd/tiltd.toml --json",
                "tiltd check --sandbox",
            ),
        ),
        Command(
            "run",
            f"{_CLI}.running",
            "run the daemon in the foreground",
            ("tiltd run --config /etc/tiltd/tiltd.toml",),
        ),
        Command(
            "status",
            f"{_CLI}.overview",
            "how the daemon and its queue are",
            ("tiltd status", "tiltd status --json"),
        ),
        Command(
            "list",
            f"{_CLI}.listing",
            "datasets as a table",
            (
                "tiltd list --state ready,running",
                "tiltd list --project apoferritin --json",
                "tiltd list --ignored",
            ),
        ),
        Command(
            "show",
            f"{_CLI}.showing",
            "one dataset: its story, attempts, failures, result",
            ("tiltd show TS_01", "tiltd show TS_01-3fa2c1d0.1.1 --json"),
        ),
        Command("why", f"{_CLI}.reasons", "why a dataset is where it is", ("tiltd why TS_01",)),
        Command(
            "hold",
            f"{_CLI}.acting",
            "let nothing new start for datasets",
            ("tiltd hold TS_01 --reason 'wrong pixel size'", "tiltd hold --session 2026-11-22 --yes"),
        ),
        Command(
            "release",
            f"{_CLI}.acting",
            "lift holds, or close a breaker",
            ("tiltd release TS_01", "tiltd release --breaker node:n04"),
        ),
        Command(
            "retry",
            f"{_CLI}.acting",
            "try failed or cancelled datasets again",
            ("tiltd retry TS_01", "tiltd retry --state failed --project apoferritin --dry-run"),
        ),
        Command(
            "rerun",
            f"{_CLI}.acting",
            "run the same input again with other parameters",
            ("tiltd rerun TS_01 --set binning=4 --set thickness_px=256",),
        ),
        Command("cancel", f"{_CLI}.acting", "withdraw datasets", ("tiltd cancel TS_01",)),
        Command(
            "accept",
            f"{_CLI}.acting",
            "run partial series with the tilts that they have",
            ("tiltd accept TS_07",),
        ),
        Command(
            "prioritize",
            f"{_CLI}.acting",
            "move waiting series in the queue",
            ("tiltd prioritize TS_01 --priority 10", "tiltd prioritize --session 2026-11-22 --priority 0"),
        ),
        Command(
            "prune",
            f"{_CLI}.pruning",
            "remove what is no longer needed",
            ("tiltd prune --spool --older-than 30d", "tiltd prune --results TS_01 --yes"),
        ),
        Command(
            "backup",
            f"{_CLI}.backing_up",
            "copy the journal; the daemon may run",
            ("tiltd backup /var/backups/tiltd --keep 14",),
        ),
        Command(
            "restore",
            f"{_CLI}.backing_up",
            "put a copy of the journal back; the daemon must be stopped",
            (
                "tiltd restore /var/backups/tiltd/journal-20261122T030000Z.sqlite",
                "tiltd restore journal.left-by-0.1.0.sqlite",
            ),
        ),
        Command(
            "nodes",
            f"{_CLI}.overview",
            "nodes with their cores and scratch",
            ("tiltd nodes", "tiltd nodes --json"),
        ),
        Command(
            "notices",
            f"{_CLI}.notices",
            "what people are to be told and were told; try the channels",
            ("tiltd notices", "tiltd notices test", "tiltd notices test --to anna@example.org"),
        ),
        Command(
            "token",
            f"{_CLI}.tokens",
            "let people and programs read or act over TCP",
            (
                "tiltd token add grafana",
                "tiltd token add anna --act --project apoferritin --expires 90d",
                "tiltd token revoke anna",
            ),
        ),
        Command(
            "policy",
            f"{_CLI}.policy",
            "check, test and explain the policy; try another one",
            (
                "tiltd policy check /etc/tiltd/policy.d/*.toml",
                "tiltd policy explain --size 2.6GB --tilts 41 --feed krios1 --at 'Sat 03:00'",
                "tiltd policy diff old.toml new.toml",
                "tiltd policy replay --since 30d --policy new.toml",
            ),
        ),
        Command(
            "directives",
            f"{_CLI}.directives",
            "what batchruntomo is given for a series, and what its directives mean",
            (
                "tiltd directives show TS_01",
                "tiltd directives explain THICKNESS",
                "tiltd directives check /etc/tiltd/templates/*.adoc --template",
            ),
        ),
        Command(
            "errors",
            f"{_CLI}.errors",
            "what programs say when something is wrong, and what to do",
            (
                "tiltd errors",
                "tiltd errors few_beads",
                "tiltd errors --match 'ERROR: BEADTRACK - READING SEED MODEL FILE'",
            ),
        ),
        Command(
            "calibrate",
            f"{_CLI}.calibrating",
            "measure how many nodes, cores and threads a series is worth here",
            ("tiltd calibrate --dataset DIR --nodes 1,2 --cores 1,2,4,8 --threads 1,2,4,8 --repeat 5",),
        ),
        Command(
            "feed",
            "tiltd.daemon.microscope.command",
            "a synthetic microscope writes tilt series",
            ("tiltd feed /data/krios1 --count 3",),
        ),
        Command(
            "demo",
            "tiltd.daemon.demo.command",
            "the whole flow on this machine, with synthetic series",
            ("tiltd demo",),
        ),
        Command(
            "simulate",
            "tiltd.daemon.simulate",
            "drive the same core with a synthetic cluster",
            ("tiltd simulate --help",),
        ),
        Command(
            "replay", "tiltd.daemon.replay", "fold a journal again and check it", ("tiltd replay --help",)
        ),
        Command("version", f"{_CLI}.version", "the version of tiltd", ("tiltd version",)),
    )
}
"""Every command by its name, in the order of the help."""
