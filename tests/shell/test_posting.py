"""One notice to one destination: once, by its own channel, and remembered over a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from tiltd.daemon import posting
from tiltd.daemon.core.model import Notice
from tiltd.daemon.posting import AT_ONCE, Posting
from tiltd.daemon.sent import NAME, SentFile
from tiltd.plugins.api import Temporary

NOTICE = Notice(
    notice_id="failed:x", event="failed", summary="it failed", due_at=5.0, to=("log", "a@b.c", "chat")
)


class Channel:
    """Counts what it is given; can be made to fail, or to hang."""

    def __init__(self) -> None:
        self.told: list[Notice] = []
        self.at_once = self.most_at_once = 0
        self.fails = False
        self.hangs: asyncio.Event | None = None

    async def notify(self, notice: Notice) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hangs is not None:
                await self.hangs.wait()
            if self.fails:
                raise Temporary("away")
            self.told.append(notice)
        finally:
            self.at_once -= 1


def office(folder: Path, *due: Notice) -> tuple[Posting, dict[str, Channel]]:
    channels = {name: Channel() for name in ("log", "email", "chat")}
    return Posting(channels, folder, lambda: {notice.notice_id: notice for notice in due}), channels


async def test_each_destination_has_its_channel_and_sees_itself_alone(tmp_path: Path) -> None:
    post, channels = office(tmp_path, NOTICE)
    for to in NOTICE.to:
        await post.post(NOTICE, to)
    told = {name: [notice.to for notice in channel.told] for name, channel in channels.items()}
    assert told == {"log": [("log",)], "email": [("a@b.c",)], "chat": [("chat",)]}


async def test_what_was_sent_is_not_sent_again_by_the_next_daemon_but_what_failed_is(tmp_path: Path) -> None:
    post, channels = office(tmp_path, NOTICE)
    await post.post(NOTICE, "a@b.c")
    channels["chat"].fails = True
    with pytest.raises(Temporary):
        await post.post(NOTICE, "chat")
    after, again = office(tmp_path, NOTICE)
    for to in ("a@b.c", "chat"):
        await after.post(NOTICE, to)
    assert again["email"].told == [] and len(again["chat"].told) == 1
    later = replace(NOTICE, due_at=6.0)
    await after.post(later, "a@b.c")
    assert len(again["email"].told) == 1, "the same thing that happened again is news"


async def test_what_the_journal_has_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    post, _ = office(tmp_path, NOTICE)
    await post.post(NOTICE, "chat")
    assert len((tmp_path / NAME).read_text().split()) == 1
    office(tmp_path)
    assert (tmp_path / NAME).read_text() == ""
    monkeypatch.setattr(posting, "SENT_MAX", 10)
    post, channels = office(tmp_path)
    for number in range(35):
        await post.post(replace(NOTICE, notice_id=f"n{number}"), "chat")
    assert len((tmp_path / NAME).read_text().split()) <= 11 and len(channels["chat"].told) == 35


async def test_a_channel_that_hangs_holds_up_itself_alone_and_takes_few_at_once(tmp_path: Path) -> None:
    post, channels = office(tmp_path)
    channels["email"].hangs = asyncio.Event()
    tasks = [asyncio.create_task(post.post(replace(NOTICE, notice_id=f"{n}"), "a@b.c")) for n in range(20)]
    await asyncio.sleep(0)
    await post.post(NOTICE, "chat")
    assert channels["chat"].told and channels["email"].most_at_once == AT_ONCE
    channels["email"].hangs.set()
    await asyncio.gather(*tasks)
    assert len(channels["email"].told) == 20 and channels["email"].most_at_once == AT_ONCE


async def test_a_destination_that_the_settings_lost_is_trouble_in_words(tmp_path: Path) -> None:
    post, _ = office(tmp_path)
    with pytest.raises(Temporary, match="has no webhook gone any more") as told:
        await post.post(NOTICE, "gone")
    assert told.value.delay_seconds >= 900.0


async def test_a_note_that_cannot_be_written_is_told_and_stops_nothing(tmp_path: Path) -> None:
    post, channels = office(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).mkdir()
    await post.post(NOTICE, "chat")
    assert len(channels["chat"].told) == 1


def test_a_damaged_file_is_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\xff\x00 nonsense\n" * 100)
    assert len(SentFile(tmp_path, [("x", "y")])) == 0
