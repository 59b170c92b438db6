"""The page and the API, opened for tests of who may see and do what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shell.web_place import PROXY, Opened, Place
from shell.web_scene import facility
from tiltd.daemon.web import Servers


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    running: list[Servers] = []

    async def begin(access: str = "") -> Place:
        daemon = facility(tmp_path, access)
        servers = Servers(daemon)
        await servers.start()
        running.append(servers)
        return Place(daemon, servers)

    yield begin
    for servers in running:
        await servers.stop()


@pytest.fixture
async def place(opened: Opened) -> Place:
    return await opened()


@pytest.fixture
async def behind(opened: Opened, tmp_path: Path) -> Place:
    (tmp_path / "secret").write_text("a-long-shared-secret\n")
    return await opened(PROXY.format(secret=tmp_path / "secret"))
