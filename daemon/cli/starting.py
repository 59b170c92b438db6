"""``tiltd init DIR``: a configuration to start from, and the folders that it names."""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib import resources
from pathlib import Path

from tiltd.daemon.text import shown

from .exits import FAILED, OK

FOLDERS = ("incoming", "tomograms", "state", "scratch", "policy.d")
POLICY = "policy.d/10-site.toml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = f"Write DIR/tiltd.toml and DIR/{POLICY}, commented, and folders. Overwrites nothing."
    parser.add_argument("folder", metavar="DIR", help="where; made if it is not there")


def main(args: argparse.Namespace) -> int:
    folder = Path(args.folder).absolute()
    if trouble := _trouble(folder):
        print(f"tiltd init: {trouble}", file=sys.stderr)
        return FAILED
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, text in (("tiltd.toml", settings_text(folder)), (POLICY, policy_text())):
            with open(folder / name, "x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        print(f"tiltd init: {shown(str(error.filename))}: {error.strerror}", file=sys.stderr)
        return FAILED
    print(f"Wrote {folder / 'tiltd.toml'} and {POLICY}. Next:")
    print(f"  edit {folder / 'tiltd.toml'}: the folder of your microscope, where tomograms go, your nodes")
    print(f"  tiltd check --config {folder / 'tiltd.toml'}")
    print(f"  tiltd policy check {folder / 'policy.d'}  (whenever you change something there)")
    print(f"  tiltd run --config {folder / 'tiltd.toml'}")
    return OK


def _trouble(folder: Path) -> str:
    """Why nothing can be written there; "" if it can."""
    name = os.fspath(folder)
    if not name.isprintable() or any(mark in name for mark in "{}\\\"'"):
        return f"{shown(name)}: take a folder whose name has no quotes, braces, backslashes or odd characters"
    for file in ("tiltd.toml", POLICY):
        if os.path.lexists(folder / file):
            return f"{folder / file} is there already; nothing was written"
    return ""


def settings_text(folder: Path) -> str:
    """A tiltd.toml that `tiltd check` finds right, every key shown."""

    def quoted(*parts: str) -> str:
        return json.dumps("/".join([os.fspath(folder), *parts]), ensure_ascii=False)

    memory_gb = max(1, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4 // 10**9)
    return TEMPLATE.format(
        state=quoted("state"),
        policy=quoted("policy.d"),
        incoming=quoted("incoming"),
        tomograms=quoted("tomograms", "{project}", "{session}", "{series}"),
        scratch=quoted("scratch"),
        cores=len(os.sched_getaffinity(0)),
        memory=f'"{memory_gb}GB"',
    )


def policy_text() -> str:
    """The shipped policy, every line a comment: what is uncommented here goes over it; then a rule and a test
    to begin with."""
    shipped = resources.files("tiltd.policy").joinpath("default.toml").read_text(encoding="utf-8")
    values = shipped.partition("\n#\n")[2]  # its head speaks of itself
    lines = [line if not line or line.startswith("#") else f"# {line}" for line in values.splitlines()]
    return "\n".join([POLICY_HEAD, *lines, POLICY_EXAMPLE])


POLICY_HEAD = """\
# The site's policy: what stands here goes over what tiltd ships.  Uncomment a key, with the [section] above
# it, to change it; what stays a comment is as shown.  Further files of this folder are laid over this one in
# the order of their names.  `tiltd policy check` with this folder's name tells every fault with its line,
# `tiltd policy explain --size 2.6GB` what a series gets and why.  A running tiltd takes a sound file at once,
# and stays with what it has if there is a fault.
"""

POLICY_EXAMPLE = """
# Rules set values for some series, tests keep watch over them: a policy whose tests fail is refused.
# Whom to tell of what is said by [[notice]] rules: docs/notices.md.
#
# [[rule]]
# name = "urgent"
# when = { project = "covid-*" }
# set = { priority = 100, due = "4h" }
#
# [[test]]
# name = "an urgent series goes first, with the usual cores"
# dataset = { project = "covid-17", size = "2.6GB" }
# expect = { rules = ["urgent"], priority = 100, cores = 4 }
"""

TEMPLATE = """\
# tiltd's configuration; docs/settings.md explains every key. Commented values are the defaults.
# Sizes have their unit ("200MB"), spans are seconds, folders are absolute.

state_dir = {state}  # the journal lives here: a local disk
# spool_dir = ""                # default: spool below state_dir; every node must see it
resource_manager = "local"      # this machine
policy_dir = {policy}  # every *.toml there, in the order of their names, over the shipped policy

[listen]
# address = "127.0.0.1"         # /metrics, /healthz, /readyz and reading; never acting
# port = 9178                   # 0: no TCP port at all
# socket = ""                   # default: tiltd.sock below state_dir; acting goes through it

[[feed]]                        # one for each incoming folder
name = "microscope"
path = {incoming}  # tiltd only ever reads here
# detector = "serialem"
# pipeline = "wbp"
destination = {tomograms}
# labels = {{ microscope = "krios1" }}
# pattern = "{{project}}/{{session}}"   # labels from the folders below path, level by level
# node_path = ""                # the same folder as nodes see it, if they see it elsewhere
# import = ""                   # or: a folder that nodes see, to which completed series are copied first
# import_bytes_per_second = "200MB"
# options = {{ binning = 4 }}     # for the pipeline
# scan_seconds = 15
# inotify = true

[publish]
# dir_mode = "0755"
# file_mode = "0644"
# group = ""                    # "" leaves the group as it is
# verify = "full"               # or "sizes"

[[local.node]]                  # this machine as a node; several are possible
name = "here"
cores = {cores}
memory = {memory}
scratch = {scratch}

# For the pipeline batchruntomo a table [imod] tells where IMOD and the templates are; docs/directives.md.

[poll]
# jobs_seconds = 2
# queue_seconds = 5             # of a resource manager with a queue of its own, at least
# queue_seconds_max = 60        # and at most, while nothing moves
# nodes_seconds = 15
# spool_seconds = 0.5

# How people are told, by mail or in a chat: [notices.email] and [[notices.webhook]]; docs/notices.md.

[log]
# format = "console"            # or "json"
# level = "info"                # debug, info, warning, error
"""
