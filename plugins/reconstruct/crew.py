"""The workers: processes that share a task list, and the lines that tell how far they are."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from .faults import EXIT_MEMORY, Fault

Task = TypeVar("Task")
Answer = TypeVar("Answer")


class Crew:
    """Runs one function over many tasks on ``workers`` processes, in this process when there is one."""

    def __init__(self, workers: int, pool: Executor | None) -> None:
        self._workers = workers
        self._pool = pool

    def run(self, work: Callable[[Task], Answer], tasks: list[Task]) -> Iterator[Answer]:
        """Answers as they come, with a progress line after each.  Raises what ``work`` raises.

        A worker that vanishes was killed, by the kernel for want of memory as a rule: Fault (exit 4).
        """
        try:
            for done, answer in enumerate(self._answers(work, iter(tasks)), start=1):
                say_done(done, len(tasks))
                yield answer
        except BrokenProcessPool as error:
            raise Fault(EXIT_MEMORY, "a worker was killed, most likely for want of memory") from error

    def _answers(self, work: Callable[[Task], Answer], tasks: Iterator[Task]) -> Iterable[Answer]:
        if self._pool is None:
            yield from map(work, tasks)
            return
        pending: set[Future[Answer]] = {
            self._pool.submit(work, task) for task in islice(tasks, 2 * self._workers)
        }
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
            pending |= {self._pool.submit(work, task) for task in islice(tasks, len(finished))}


@contextmanager
def crew(workers: int) -> Iterator[Crew]:
    """Processes are forked: this program has no threads, and they inherit numpy already loaded."""
    if workers == 1:
        yield Crew(1, None)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        try:
            yield Crew(workers, pool)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def say_step(name: str) -> None:
    print(f"step {name}", flush=True)


def say_done(done: int, total: int) -> None:
    print(f"done {done}/{total}", flush=True)
