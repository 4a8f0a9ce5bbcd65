"""Virtual time: one heap of timers, one FIFO of ready callbacks, any number of processes.

Time moves only from one timer to the next; nothing sleeps. A ``Process`` is one incarnation of a
node: its callbacks, tasks and timers belong to it, so that a crash drops them all at once (between
two callbacks, as a kill between two instructions that have an effect) and a pause holds them back
and lets them go on later, in order, as SIGSTOP and SIGCONT would.

A callback that raises is a violation with its traceback; it is never swallowed. Callbacks take no
virtual time unless the process is slow (``Process.slow``).
"""

from __future__ import annotations

import asyncio
import heapq
import random
import traceback
from collections import deque
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

from jepsen_like.sim.loop import Handle, SimLoop

EPOCH: Final = 1_700_000_000.0
"""Unix time at virtual time 0."""

STANDSTILL: Final = 200_000
"""So many callbacks without time moving on are an endless loop, not work."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: when (virtual seconds), which promise, and what was seen."""

    time: float
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.time:.6f} s: {self.detail}"

    @property
    def line(self) -> str:
        """The same in one line: of a traceback only the place and the error."""
        lines = [line.strip() for line in self.detail.splitlines() if line.strip()]
        if len(lines) < 2:
            return str(self)
        place = next((x for x in reversed(lines) if x.startswith("File ")), "")
        return f"{self.kind} at {self.time:.6f} s: {lines[0]} {lines[-1]} ({place})"


class StandstillError(Exception):
    """The processes keep scheduling callbacks for the present moment: virtual time cannot move."""


class Clock:
    """The clocks of one process: ``now`` is monotonic, ``wall`` may jump. ``rate`` is seconds of
    this clock per true second. A timer keeps the true instant computed when it was set."""

    def __init__(self, scheduler: Scheduler, offset: float, rate: float = 1.0) -> None:
        self._scheduler = scheduler
        self._base = offset
        self._since = scheduler.now
        self.rate = rate
        self._wall_offset = EPOCH + scheduler.now - offset

    def now(self) -> float:
        return self._base + (self._scheduler.now - self._since) * self.rate

    def wall(self) -> float:
        return self.now() + self._wall_offset

    def set_rate(self, rate: float) -> None:
        """Drift from now on; neither clock jumps."""
        self._base = self.now()
        self._since = self._scheduler.now
        self.rate = rate

    def jump(self, seconds: float) -> None:
        """Move the wall clock only; the monotonic one does not notice."""
        self._wall_offset += seconds


class Process:
    """One incarnation of a node: what a crash ends and a pause stops."""

    def __init__(self, scheduler: Scheduler, name: str, incarnation: int, clock: Clock) -> None:
        self.scheduler = scheduler
        self.name = name
        self.incarnation = incarnation
        self.clock = clock
        self.alive = True
        self.loop = SimLoop(self)  # type: ignore[abstract]  # asyncio's methods raise, none is abstract
        self.closers: list[Callable[[bool], None]] = []
        """Called once, in order, at a crash with ``power``: the network and the disk."""
        self.runs = True
        """Whether its callbacks may run now: alive, not paused, not busy."""
        self.watched = False
        """Whether ``ran`` has something to do after each callback."""
        self._paused = False
        self._busy = False
        self._cost = 0.0
        self._unit_cost = 0.0
        self.progress: Callable[[], int] = lambda: 0
        """How many units of work it has done so far."""
        self._worked = 0
        self._held: deque[Handle] = deque()
        self._fuse = -1
        self._fuse_action: Callable[[], None] | None = None

    @property
    def disturbed(self) -> bool:
        """Whether it is paused or slow: no promise about time holds for it."""
        return self._paused or self._cost > 0.0

    def call_soon(self, function: Callable[..., object], *args: Any) -> Handle:
        handle = Handle(self, function, args)
        if self.alive:
            self.scheduler.ready.append(handle)
        return handle

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Handle:
        """``delay`` is in seconds of this process's monotonic clock."""
        when = self.scheduler.now
        if delay > 0.0:
            when += delay / self.clock.rate
        return self.schedule(when, function, args, None)

    def schedule(
        self,
        when: float,
        function: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
    ) -> Handle:
        """Run at ``when`` (virtual seconds), not before all that is ready now."""
        handle = Handle(self, function, args, context, when)
        if self.alive:
            self.scheduler.push(handle)
        return handle

    def crash(self, power: bool = False) -> None:
        """End here and now. ``power``: the machine goes with it, un-synced writes and all."""
        if not self.alive:
            return
        self.alive = self.runs = False
        self._held.clear()
        for closer in self.closers:
            closer(power)
        self.loop.drop_tasks()

    def crash_after(self, callbacks: int, action: Callable[[], None]) -> None:
        """Call ``action`` (which crashes this process) right after its next ``callbacks``-th
        callback: a crash in the middle of one instant of virtual time."""
        self._fuse = callbacks
        self._fuse_action = action
        self._changed()

    def _changed(self) -> None:
        self.runs = self.alive and not self._paused and not self._busy
        self.watched = self._cost > 0.0 or self._fuse > 0

    def pause(self) -> None:
        """Stop running callbacks (SIGSTOP). Kernel and clocks go on."""
        self._paused = True
        self._changed()

    def resume(self) -> None:
        """Run what was held back, in order (SIGCONT)."""
        self._paused = False
        self._changed()
        if not self._busy:
            self._release()

    def slow(self, seconds: float, unit_seconds: float = 0.0) -> None:
        """Let every callback from now on take ``seconds`` of virtual time, and ``unit_seconds`` for
        each unit of work that it does; 0 ends it."""
        self._cost, self._unit_cost = seconds, unit_seconds
        self._worked = self.progress()
        self._changed()

    def hold(self, handle: Handle) -> None:
        """``handle`` cannot run now (not ``runs``): it is dropped (dead) or held back."""
        if self.alive:
            self._held.append(handle)

    def ran(self) -> None:
        """Account for one callback that has run (when ``watched``)."""
        if self._cost > 0.0:
            self._busy = True
            self._changed()
            before, self._worked = self._worked, self.progress()
            units = max(0, self._worked - before)
            self.scheduler.call_later(self._cost + units * self._unit_cost, self._idle)
        if self._fuse > 0:
            self._fuse -= 1
            if self._fuse == 0:
                self._changed()
                if self._fuse_action is not None and self.alive:
                    self._fuse_action()

    def _idle(self) -> None:
        self._busy = False
        self._changed()
        if not self._paused:
            self._release()

    def _release(self) -> None:
        """Held callbacks are older than those of this process in the ready queue: they go first."""
        if self._cost > 0.0:
            if self._held:
                self.scheduler.ready.appendleft(self._held.popleft())
        else:
            self.scheduler.ready.extendleft(reversed(self._held))
            self._held.clear()


class Scheduler:
    """The world's clock and queue. ``now`` is the true time in seconds, from 0."""

    def __init__(self, seed: int | str) -> None:
        self.seed = seed
        self.now = 0.0
        self.ready: deque[Handle] = deque()
        self.violations: list[Violation] = []
        self.current: Process | None = None
        self.callbacks = 0
        self.trace: Callable[[str], None] | None = None
        """Where the story of the run goes, one line per event; ``None``: nowhere."""
        self._timers: list[tuple[float, int, Handle]] = []
        self._sequence = 0
        self._incarnations: dict[str, int] = {}

    def generator(self, purpose: str) -> random.Random:
        """A random generator of its own for one purpose, the same for the same seed."""
        return random.Random(f"{self.seed}/{purpose}")

    def process(self, name: str, rate: float = 1.0) -> Process:
        """Start a new incarnation of ``name``. Its monotonic clock starts anywhere."""
        incarnation = self._incarnations.get(name, 0) + 1
        self._incarnations[name] = incarnation
        offset = self.generator(f"clock/{name}/{incarnation}").uniform(10.0, 100_000.0)
        return Process(self, name, incarnation, Clock(self, offset, rate))

    def say(self, who: str, what: str) -> None:
        """One line of the story, when somebody listens."""
        if self.trace is not None:
            self.trace(f"{self.now:12.6f} {who:>6} {what}")

    def violation(self, kind: str, detail: str) -> None:
        self.violations.append(Violation(self.now, kind, detail))
        self.say("!", f"VIOLATION {kind}: {detail}")

    def push(self, handle: Handle) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (handle.when, self._sequence, handle))

    def call_at(self, when: float, function: Callable[..., object], *args: Any) -> Handle:
        """A callback of the world itself (network, disk, faults): no crash or pause stops it."""
        now = self.now
        handle = Handle(None, function, args, None, when if when > now else now)
        self._sequence += 1
        heapq.heappush(self._timers, (handle.when, self._sequence, handle))
        return handle

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> Handle:
        return self.call_at(self.now + delay, function, *args)

    def run(self, until: float) -> None:
        """Run everything due up to and including ``until``; then it is ``until``."""
        self._run(until, None)
        self.now = max(self.now, until)

    def run_until(self, predicate: Callable[[], bool], limit: float) -> bool:
        """Run until ``predicate()`` holds (looked at after every callback) or it is ``limit``;
        return whether it holds."""
        if predicate():
            return True
        self._run(limit, predicate)
        if predicate():
            return True
        self.now = max(self.now, limit)
        return False

    def _run(self, until: float, predicate: Callable[[], bool] | None) -> None:
        outer = asyncio._get_running_loop()
        try:
            self._turn(until, predicate)
        finally:
            self.current = None
            asyncio._set_running_loop(outer)

    def _turn(self, until: float, predicate: Callable[[], bool] | None) -> None:
        """The loop that everything passes through: flat, because its own cost, and not what it
        calls, was a fifth of a run."""
        ready, timers = self.ready, self._timers
        take, pop = ready.popleft, heapq.heappop
        set_loop = asyncio._set_running_loop
        current: Process | None = None
        self.current = None
        set_loop(None)
        still = 0
        while True:
            if ready:
                handle = take()
            elif timers and timers[0][0] <= until:
                when, _, handle = pop(timers)
                if when > self.now:
                    self.now = when
                    still = 0
            else:
                return
            still += 1
            if still > STANDSTILL:
                self.violation("standstill", f"{STANDSTILL} callbacks in one instant")
                raise StandstillError(f"at {self.now:.6f} s")
            function = handle.function
            if function is None:
                continue
            process = handle.process
            if process is None:
                if current is not None:
                    self.current = current = None
                    set_loop(None)
                function(*handle.args)
            elif process.runs:
                if process is not current:
                    self.current = current = process
                    set_loop(process.loop)
                self.callbacks += 1
                try:
                    if handle.context is None:
                        function(*handle.args)
                    else:
                        handle.context.run(function, *handle.args)
                except Exception:
                    story = f"{process.name}: {traceback.format_exc()}"
                    self.violation("a callback raised", story)
                if process.watched:
                    process.ran()
            else:
                process.hold(handle)
            if predicate is not None and predicate():
                return
