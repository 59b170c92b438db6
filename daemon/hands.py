"""Work that blocks, done in worker threads: by few at a time, and by more only where those hang.

Threads that do small things side by side mostly wait for one another (there is one interpreter lock), and
each switch costs more than what is done between two of them.  So one hand does all of it, one thing after
another without asking the loop for the next, as long as it is quick; behind a file server that does not
answer, or a large result that is read, whoever has waited long enough begins all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import functools
import gc
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from time import monotonic
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

FEW = 1
M_ARENA_MAX, HEAPS = -8, 2
GC_THRESHOLDS = (5_000, 20, 20)
PATIENCE_SECONDS = 0.25
"""Work of a healthy daemon takes milliseconds; after that long the hands are taken to hang."""
TOLD_SECONDS = 0.02
"""A hand with more to do tells the loop what is done no sooner than that: being woken is dear."""


class _Piece:
    """One piece of work: what is to be called, who does it, and what came of it."""

    __slots__ = ("answer", "call", "error", "result", "taken")

    def __init__(self, call: Callable[[], Any], answer: asyncio.Future[Any]) -> None:
        self.call, self.answer = call, answer
        self.taken = threading.Lock()
        self.result: Any = None
        self.error: BaseException | None = None

    def take(self) -> bool:
        """Whether it is for the caller to do: not done by anyone else, and still waited for."""
        return self.taken.acquire(blocking=False) and not self.answer.cancelled()

    def do(self) -> None:
        try:
            self.result = self.call()
        except StopIteration as error:  # which no future can hold
            self.error = RuntimeError(f"a worker's call ended with {error!r}")
        except BaseException as error:
            self.error = error

    def tell(self) -> None:
        """In the loop's thread, to who waits for it."""
        error, self.error = self.error, None  # its traceback holds this very piece
        if self.answer.done():
            return
        if error is not None:
            self.answer.set_exception(error)
        else:
            self.answer.set_result(self.result)


class Hands:
    """Shared by those who touch files for the loop.  The number that hang is bounded by the loop's own
    executor, which does what the hands did not come to in time.

    What is asked for in one turn of the loop is handed over together, and what is done meanwhile is told
    together: a thread that is woken costs more than most of what it is woken for.

    With ``patience_seconds=None`` nobody else does their work: what is asked of one hand is done in order.
    """

    def __init__(
        self, few: int = FEW, patience_seconds: float | None = PATIENCE_SECONDS, name: str = "hand"
    ) -> None:
        self._few = few
        self._patience_seconds = patience_seconds
        self._name = name
        self._asked: list[_Piece] = []
        self._queue: SimpleQueue[_Piece | None] = SimpleQueue()
        self._done: deque[_Piece] = deque()
        self._handed: deque[tuple[float, Sequence[_Piece]]] = deque()
        self._told_at = 0.0
        self._begun = False

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``work`` in a worker thread; what it returns or raises."""
        return await self.ask(work, *args, **kwargs)

    def ask(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """The same, to be waited for later."""
        loop = asyncio.get_running_loop()
        call = functools.partial(contextvars.copy_context().run, work, *args, **kwargs)
        piece = _Piece(call, loop.create_future())
        if not self._asked:
            loop.call_soon(self._hand_over, loop)
        self._asked.append(piece)
        return piece.answer

    def close(self) -> None:
        """The hands go when they have done what was handed over."""
        if self._begun:
            for _ in range(self._few):
                self._queue.put(None)
            self._begun = False

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        pieces, self._asked = self._asked, []
        for piece in pieces:
            self._queue.put(piece)
        if not self._begun:
            self._begun = True
            for number in range(self._few):
                # A hand that hangs in a dead file system must not keep a daemon that was stopped from ending.
                name = f"{self._name}_{number}"
                threading.Thread(target=self._work, args=(loop,), name=name, daemon=True).start()
        if self._patience_seconds is None:
            return
        self._handed.append((loop.time() + self._patience_seconds, pieces))
        if len(self._handed) == 1:
            loop.call_later(self._patience_seconds, self._impatient, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (piece := self._queue.get()) is not None:
            if piece.take():
                self._do(piece)
            # Asked only now: what waits in the queue may have been taken by somebody else.
            if self._queue.empty() or monotonic() >= self._told_at + TOLD_SECONDS:
                self._tell_soon(loop)

    def _do(self, piece: _Piece) -> None:
        piece.do()
        self._done.append(piece)

    def _do_and_tell(self, loop: asyncio.AbstractEventLoop, piece: _Piece) -> None:
        self._do(piece)
        self._tell_soon(loop)

    def _tell_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._told_at = monotonic()
        if self._done:
            with contextlib.suppress(RuntimeError):  # the loop has ended; nobody waits
                loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        while self._done:
            self._done.popleft().tell()

    def _impatient(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have others do what the hands have not come to in time; work that has begun is waited for however
        long it takes.  Looks only for the oldest that is not done."""
        self._tell()  # a hand that hangs may not have come to tell what it did before
        while self._handed:
            due_at, pieces = self._handed[0]
            if due_at > loop.time() and not all(piece.answer.done() for piece in pieces):
                loop.call_at(due_at, self._impatient, loop)
                return
            self._handed.popleft()
            for piece in pieces:
                if piece.take():
                    loop.run_in_executor(None, self._do_and_tell, loop, piece)


def settle() -> None:
    """Once all is made, before the threads begin: for a process that lives for months.

    What a start has made stays, and need not be looked through at every collection of garbage; and threads
    share their heaps, where glibc would give each one of its own to keep.
    """
    with contextlib.suppress(AttributeError):  # another libc
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, HEAPS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
