"""A daemon that dies around the sending of a notice: none is lost, and none is sent twice by the restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shell.daemon_process import POLICY, DaemonProcess, Site, wait_until
from shell.town import Town

RULES = """
[notices]
gather = "0s"
[[notice]]
name = "all"
events = ["delivered"]
to = ["anna@example.org", "chat"]
"""
CHANNELS = """
[notices.email]
host = "127.0.0.1"
port = {mail}
tls = "none"
from = "tiltd@example.org"
timeout_seconds = 5
[[notices.webhook]]
name = "chat"
url = "{hook}"
"""

DYING = """
import os, signal, sys
from pathlib import Path
from tiltd.daemon import journal, posting, sent
from tiltd.daemon.core.facts import NoticeSent

POINT = Path(os.environ["DIE_AT"])

def die(point, to):
    if "@" in to and POINT.exists() and POINT.read_text() == point:
        POINT.unlink()
        os.kill(os.getpid(), signal.SIGKILL)

post, add, append = posting.Posting.post, sent.SentFile.add, journal.Journal.append_now

async def dying_post(self, notice, to):
    die("before it is sent", to)
    await post(self, notice, to)
    die("before the answer", to)

def dying_add(self, sent_id, to):
    die("before it is noted", to)
    add(self, sent_id, to)
    die("after it is noted", to)

def dying_append(self, steps):
    told = [fact.to for step in steps for fact in step.facts if isinstance(fact, NoticeSent)]
    for to in told:
        die("before the fact", to)
    append(self, steps)
    for to in told:
        die("after the fact", to)

posting.Posting.post, sent.SentFile.add, journal.Journal.append_now = dying_post, dying_add, dying_append
from tiltd.daemon.__main__ import main
sys.exit(main())
"""


def site_of(folder: Path, town: Town, **more: Any) -> Site:
    channels = CHANNELS.format(mail=town.office.port, hook=town.receiver.url)
    return Site(folder, policy=POLICY + RULES, more=channels, **more)


def all_told(site: Site) -> bool:
    return not site.client.get("notices")["due"]


@pytest.mark.slow
def test_a_daemon_killed_around_the_sending_tells_each_once(tmp_path: Path) -> None:
    points = (
        "before it is sent",
        "before it is noted",
        "after it is noted",
        "before the answer",
        "before the fact",
        "after the fact",
    )
    with Town().open() as town:
        site = site_of(tmp_path, town)
        die_at = tmp_path / "die-at"
        daemon = DaemonProcess(site, python=DYING, env={"DIE_AT": str(die_at)}).start()
        for number, point in enumerate(points):
            before = len(town.office.mails)
            die_at.write_text(point)
            site.feed(f"TS_{number}.mrc", fill=number)
            wait_until(lambda: not die_at.exists(), 30.0, site.log_text)
            wait_until(lambda: not daemon.alive(), 10.0)
            taken = len(town.office.mails) - before
            assert taken == (0 if point == "before it is sent" else 1), point
            daemon.start()
            wait_until(lambda: all_told(site), 30.0, site.log_text)
            again = 1 if point in ("before it is sent", "before it is noted") else 0
            assert len(town.office.mails) - before == taken + again, point
        daemon.stop()
        assert len(town.mails()) == len(town.ids()) == len(points), "one sent twice is the same mail again"
        assert len({body["notice_id"] for body in town.receiver.bodies}) == len(points)


@pytest.mark.slow
def test_a_daemon_that_is_stopped_while_the_server_thinks_does_not_send_it_again(tmp_path: Path) -> None:
    with Town().open() as town:
        site = site_of(tmp_path, town)
        town.office.thinks_seconds = 1.0
        daemon = DaemonProcess(site).start()
        site.feed("TS_1.mrc")
        wait_until(lambda: town.office.mails, 30.0, site.log_text)
        daemon.stop()
        daemon.start()
        wait_until(lambda: all_told(site), 30.0, site.log_text)
        daemon.stop()
        assert len(town.office.mails) == 1
