"""``tiltd notices``: what people are to be told, and a trial of every channel."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Sequence

from tiltd.daemon import policy_files, registry
from tiltd.daemon.client import config_file
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.core.model import Notice, channel_of
from tiltd.daemon.core.units import show_seconds
from tiltd.daemon.plugged import channels
from tiltd.daemon.text import one_line, shown
from tiltd.plugins.api import Context, Notifier, PluginError

from .asking import add_connection, client_of, print_json
from .exits import FAILED, OK
from .tables import table

TRIAL_SECONDS = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action", nargs="?", choices=("list", "test"), default="list",
        help="list what is due and was told (the default), or test the channels by a trial message",
    )  # fmt: skip
    parser.add_argument(
        "--to", action="append", default=[], metavar="WHOM",
        help="with test: this address or webhook (default: everyone whom the policy names)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="told lately: so many (default 20)"
    )
    add_connection(parser)


def main(args: argparse.Namespace) -> int:
    return _test(args) if args.action == "test" else _list(args)


# -- what the daemon knows ---------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    answer = client_of(args).get("notices", limit=str(args.limit))
    if args.json:
        print_json(answer)
        return OK
    now = answer["now_at"]

    def ago(at: float) -> str:
        return show_seconds(max(0, round(now - at)))

    due = [
        (e["to"], e["event"], ago(e["due_at"]), e["trouble"] or "being sent", e["summary"])
        for e in answer["due"]
    ]
    _titled("Due:", ("TO", "EVENT", "SINCE", "TROUBLE", "WHAT"), due)
    digests = [
        (each["rule"], each["feed"], each["project"] or "-", each["session"] or "-", ago(each["since_at"]),
         f"{each['came_in']} came in, {each['delivered']} delivered, {each['needs_a_person']} need a person")
        for each in answer["digests"]
    ]  # fmt: skip
    _titled("Digests of sessions that go on:", ("RULE", "FEED", "PROJECT", "SESSION", "SINCE", ""), digests)
    gathered = [
        (each["to"], each["event"], str(each["count"]), show_seconds(max(0, round(each["until_at"] - now))))
        for each in answer["gathered"]
    ]
    _titled("Gathered, of a cause that was told a short while ago:", ("TO", "EVENT", "COUNT", "IN"), gathered)
    lately = [
        (
            ago(each["at"]),
            each["to"],
            "sent" if each["sent"] else f"given up: {each['reason']}",
            _about(each["notice_id"]),
        )
        for each in answer["lately"]
    ]
    _titled("Told lately:", ("AGO", "TO", "", "NOTICE"), lately)
    if not (due or digests or gathered or lately):
        print("Nothing is due, and nothing was told yet.")
    return OK


def _about(notice_id: str) -> str:
    """The id without what only makes it unique: its parts, the instant, the destination of what was gathered.

    >>> _about(r"gathered:delivered\\x00\\x00krios1\\x00apoferritin@1795392013:anna@example.org")
    'gathered: delivered, krios1, apoferritin'
    """
    event, _, rest = notice_id.partition(":")
    parts = re.sub(r"@\d{9,}(:.*)?$", "", rest).replace(r"\x00", "\0").split("\0")
    return f"{event}: {', '.join(part for part in parts if part)}"


def _titled(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        print(title)
        sys.stdout.write(table(tuple(head), [tuple(row) for row in rows]))
        print()


# -- a trial -----------------------------------------------------------------------------------------------


def _test(args: argparse.Namespace) -> int:
    """Without the daemon, from the files alone; as whoever calls, who must be able to read the passwords."""
    path = config_file(args.config)
    if path is None:
        print("no tiltd.toml here or in /etc/tiltd; --config names one", file=sys.stderr)
        return FAILED
    try:
        settings = Settings.load(path)
        named = args.to or destinations(settings)
    except (ConfigError, policy_files.PolicyRefused) as error:
        print(f"{error}\nmend that first; 'tiltd check' tells more", file=sys.stderr)
        return FAILED
    if not named:
        print("no [[notice]] rule of the policy names anybody: --to WHOM says whom to try", file=sys.stderr)
        return FAILED
    results = asyncio.run(trial(settings, named))
    if args.json:
        print_json([{"to": to, "ok": ok, "detail": detail} for to, ok, detail in results])
    else:
        for to, ok, detail in results:
            print(f"{'ok  ' if ok else 'FAIL'}  {shown(to)}: {one_line(detail)}")
    return OK if all(ok for _, ok, _ in results) else FAILED


def destinations(settings: Settings) -> list[str]:
    """Everyone whom a rule of the policy names.  Raises PolicyRefused."""
    policy = policy_files.read_policy(settings)
    return list(dict.fromkeys(to for rule in policy.notice_rules for to in rule.to))


async def trial(settings: Settings, named: Sequence[str]) -> list[tuple[str, bool, str]]:
    """(destination, did it work, what to say), in the order given."""
    context = Context(state_folder="", spool_folder="", journal_id="trial", owner="")
    try:
        notifiers = channels(settings, context)
    except registry.RegistryError as error:
        return [(to, False, str(error)) for to in named]
    return [await _try(notifiers, to) for to in named]


async def _try(notifiers: dict[str, Notifier], to: str) -> tuple[str, bool, str]:
    name = "email" if channel_of(to) == "email" else to
    notifier = notifiers.get(name)
    if notifier is None:
        what = "[notices.email]" if name == "email" else f"webhook of the name {shown(to)}"
        return to, False, f"tiltd.toml has no {what}"
    now = time.time()
    notice = Notice(
        notice_id=f"trial:{now:.3f}",
        event="trial",
        summary="this is a trial: tiltd can reach you here",
        due_at=now,
        to=(to,),
        remedy="nothing; somebody said 'tiltd notices test'",
    )
    try:
        async with asyncio.timeout(TRIAL_SECONDS):
            await notifier.notify(notice)
    except (PluginError, OSError, TimeoutError) as error:
        return to, False, str(error) or "it took too long"
    return (
        to,
        True,
        "the mail server has taken a trial mail" if name == "email" else "a trial message was posted",
    )
