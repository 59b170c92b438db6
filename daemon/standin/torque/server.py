"""The server's end of the socket: ``python -m tiltd.daemon.standin.torque.server FOLDER``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from .batch import Batch, Pace
from .commands import Commands
from .control import Control
from .execution import Processes
from .records import Answer, BatchJob, Call, Node, Pretend, Queue

LINE_BYTES = 1 << 22


class Server:
    """One cluster, from the ``cluster.json`` of its folder; see :mod:`.site` for what stands there."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "cluster.json").read_text())
        self._socket = settings["socket"]
        loop = asyncio.get_running_loop()
        processes = Processes(self._finished)
        self.batch = Batch(
            [node_in(folder, Pretend(**{**each, "properties": tuple(each["properties"])}))
             for each in settings["nodes"]],
            processes, time.time, loop.call_later, Pace(**settings["pace"]),
            [Queue(**queue) for queue in settings["queues"]],
        )  # fmt: skip
        self.commands = Commands(self.batch, loop.call_later)
        self.control = Control(self.commands)

    def _finished(self, job: BatchJob, status: int, start_count: int) -> None:
        self.batch.finished(job, status, start_count)

    async def run(self) -> None:
        """Until TERM.  Jobs that run go on without it, as with the real one."""
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        os.makedirs(os.path.dirname(self._socket), exist_ok=True)  # noqa: PTH103 - before anyone asks
        server = await asyncio.start_unix_server(self._serve, self._socket, limit=LINE_BYTES, backlog=512)
        async with server:
            await ended.wait()
            server.close()
        os.unlink(self._socket)  # noqa: PTH108 - nothing else runs any more

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            line = await reader.readline()
            if line.startswith(b"{"):
                writer.write(self._controlled(line))
            elif line:
                await self._command(line, reader, writer)
            await writer.drain()
        writer.close()

    def _controlled(self, line: bytes) -> bytes:
        try:
            fields: dict[str, Any] = json.loads(line)
            answer = {"answer": self.control.do(fields.pop("operation"), fields)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        return json.dumps(answer).encode() + b"\n"

    async def _command(self, line: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = await read_call(line, reader)
        with self.control.under_way(call.name):
            answer = self.commands.run(call)
            if answer.hang:
                await reader.read()  # until the other end is killed
                return
            if answer.delay_seconds:
                await asyncio.sleep(answer.delay_seconds)
            writer.write(framed(answer))


async def read_call(line: bytes, reader: asyncio.StreamReader) -> Call:
    """As :mod:`.client` writes it."""
    lengths, _, given = line.partition(b"|")
    words = [os.fsdecode(await reader.readexactly(int(length))) for length in lengths.split()]
    name, folder, *rest = words
    split = rest.index("")
    environment = dict(item.partition("=")[::2] for item in rest[:split])
    stdin = await reader.readexactly(int(given))
    return Call(name, tuple(rest[split + 1 :]), folder, environment, stdin)


def framed(answer: Answer) -> bytes:
    head = f"{answer.rc} {len(answer.out)} {len(answer.err)}\n".encode()
    return head + answer.out + answer.err


def node_in(folder: Path, pretend: Pretend) -> Node:
    """A node in its folder ``nodes/NAME``, with its scratch below."""
    home = folder / "nodes" / pretend.name
    scratch = home / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    scratch.chmod(0o1777)
    return Node(pretend, str(scratch), str(home))


async def _main(folder: Path) -> None:
    await Server(folder).run()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
