"""The least of an asyncio event loop: enough for futures, tasks, sleeps and time-outs.

``asyncio.Future`` and ``asyncio.Task`` need ``call_soon``, ``time`` and a few more; everything that
would touch sockets, signals, threads or processes is left out and raises ``NotImplementedError``.
Each simulated process has a loop of its own; the scheduler makes it the running one while one of
the process's callbacks runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jepsen_like.sim.scheduler import Process


class Handle:
    """A scheduled callback, of a process or (``None``) of the world. ``when`` is in virtual
    seconds. Has what asyncio uses of its own handles; plain, because everything that happens needs
    one. ``function`` is ``None`` once it is cancelled."""

    __slots__ = ("args", "context", "function", "process", "when")

    def __init__(
        self,
        process: Process | None,
        function: Callable[..., object],
        args: tuple[Any, ...] = (),
        context: Context | None = None,
        when: float = 0.0,
    ) -> None:
        self.process = process
        self.function: Callable[..., object] | None = function
        self.args = args
        self.context = context
        self.when = when

    def cancel(self) -> None:
        self.function = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.function is None

    def __repr__(self) -> str:
        owner = "world" if self.process is None else self.process.name
        return f"<Handle {owner} {self.function!r} at {self.when:.6f}>"


class SimLoop(asyncio.AbstractEventLoop):
    """Event loop of one process, driven by the scheduler.

    The overrides are less generic than the stubs of asyncio: nobody calls them but asyncio itself.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._tasks: dict[asyncio.Task[Any], None] = {}  # strong references, in order of creation

    def time(self) -> float:
        return self._process.clock.now()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._process.alive

    def is_closed(self) -> bool:
        return not self._process.alive

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle:
        process = self._process
        handle = Handle(process, callback, args, context)
        if process.alive:
            process.scheduler.ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Handle:
        process = self._process
        delay = max(0.0, when - self.time()) / process.clock.rate
        return process.schedule(process.scheduler.now + delay, callback, args, context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
        **_: Any,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        # A task that dies with its process is no mistake of the program: do not warn about it.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)

    def drop_tasks(self) -> None:
        """Forget all tasks: their process is dead. Their ``finally`` clauses run now rather than
        whenever they are collected; no effect of a dead process reaches the world."""
        tasks = list(self._tasks)
        self._tasks.clear()
        for task in tasks:
            coroutine = task.get_coro()
            with contextlib.suppress(Exception):
                coroutine.close()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._process.alive:
            return
        message = context.get("message", "exception in the event loop")
        exception = context.get("exception")
        self._process.scheduler.violation(
            "a callback raised", f"{self._process.name}: {message}: {exception!r}"
        )
