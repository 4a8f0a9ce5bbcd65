"""Blocking calls off the event loop, with as little as possible between the two.

``loop.run_in_executor`` makes a future of ``concurrent.futures`` for each call, with a lock and a
condition, chains it to one of asyncio's, and wakes the loop for each. A journal has a blocking call
for every block that it writes, and a node a journal for every group. Here a call is a tuple in a
queue, and calls that end at about the same time share one waking of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

THREADS: Final = 8
"""At most so many blocking calls at a time; others wait. They do nothing but wait for a disk, or
for an ``fsync`` of megabytes, which must not keep everything else waiting."""


class Threads:
    """A pool of threads of one event loop, made as they are needed. They end with ``close``, at the
    latest with the process."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None]
        self._calls = SimpleQueue()
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told = False
        """Whether the loop has been told of what has ended, and not looked yet."""
        self._open = 0
        """Calls that were made and whose end the loop has not seen."""
        self._threads = 0

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Call ``function`` in a thread; the future gets its result, or what it raised. To be
        called on the loop."""
        future = self._loop.create_future()
        self._open += 1
        if self._threads < min(self._open, THREADS):
            self._threads += 1
            name = f"blocking-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        self._calls.put((function, future))
        return future

    def close(self) -> None:
        """What was asked for is still done; nothing is asked for any more."""
        for _ in range(self._threads):
            self._calls.put(None)

    def _work(self) -> None:
        take, ended = self._calls.get, self._ended
        while (call := take()) is not None:
            function, future = call
            try:
                ended.append((future, function(), None))
            except BaseException as error:  # handed to whoever waits, as an executor does
                ended.append((future, None, error))
            del call, function, future  # not kept until the next call comes
            if not self._told:
                self._told = True
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        # Before anything is taken: what ends from here on is told anew.
        self._told = False
        ended = self._ended
        while ended:
            future, result, error = ended.popleft()
            self._open -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
