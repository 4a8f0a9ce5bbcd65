"""One process of a simulated cluster: ``raftcache.runtime.Runtime`` over virtual effects."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from jepsen_like.sim.disk import DiskView, SimDisk
from jepsen_like.sim.network import Network, SimListener
from jepsen_like.sim.scheduler import Process, Scheduler


class SimRuntime:
    """All effects of one process. After ``process.crash()`` none of them reaches the world."""

    def __init__(
        self, scheduler: Scheduler, network: Network, disk: SimDisk, node: str, rate: float = 1.0
    ) -> None:
        self.process: Process = scheduler.process(node, rate)
        self._scheduler = scheduler
        self._network = network
        self._store = disk
        self._view = DiskView(disk, self.process)
        self._random = scheduler.generator(f"node/{node}/{self.process.incarnation}")
        self._jobs: dict[int, tuple[int, Callable[[], Any]]] = {}
        self._job = 0
        self.process.closers.append(self._crashed)  # before the network: data first, then silence
        network.attach(self.process)
        self.call_soon = self.process.call_soon
        self.call_later = self.process.call_later
        self.future = self.process.loop.create_future
        self.now = self.process.clock.now
        self.wall = self.process.clock.wall

    @property
    def random(self) -> random.Random:
        return self._random

    @property
    def disk(self) -> DiskView:
        return self._view

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        if not self.process.alive:
            coroutine.close()
        task = self.process.loop.create_task(coroutine, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that nobody waits for must not raise."""
        if not task.cancelled() and (error := task.exception()) is not None:
            story = "".join(traceback.format_exception(error))
            self._scheduler.violation(
                "a callback raised", f"{self.process.name}: task {task.get_name()}: {story}"
            )

    def in_thread(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """The effect takes place when the call ends; a crash before that means that it took place,
        or did not, or in part."""
        future = self.process.loop.create_future()
        if self.process.alive:
            self._job += 1
            self._jobs[self._job] = (self._store.mark(), function)
            shortest, longest = self._store.sync_seconds
            delay = self._store.random.uniform(shortest, longest)
            self._scheduler.call_later(delay, self._complete, self._job, future)
        return future

    def _complete(self, job: int, future: asyncio.Future[Any]) -> None:
        entry = self._jobs.pop(job, None)
        if entry is None:
            return
        mark, function = entry
        try:
            result = self._store.run(mark, function)
        except Exception as error:  # handed to whoever waits, as an executor does
            if not future.done():
                future.set_exception(error)
        else:
            # Who waits is told by callbacks of the process: when it is paused, they wait, too.
            if not future.done():
                future.set_result(result)

    def _crashed(self, power: bool) -> None:
        jobs = list(self._jobs.values())
        self._jobs.clear()
        for mark, function in jobs:
            self._store.cut_off(mark, function)
        if power:
            self._store.power_failure()

    async def connect(
        self, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        return await self._network.connect(self.process, host, port, factory)

    async def listen(
        self, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> SimListener:
        return self._network.listen(self.process, host, port, factory)


if TYPE_CHECKING:
    from raftcache.runtime import Runtime

    _check: type[Runtime] = SimRuntime  # it is one, as far as the type checker can tell
