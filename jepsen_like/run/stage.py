"""What faults act on: a system, what is wrong with it now, and when what was.

Faults may overlap. So a link is as bad as all that are on it together, a node is up again when
nobody wants it down any more, and of nodes whose loss would lose data no more are taken than the
system promises to survive.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from jepsen_like.partitions import Pair
from jepsen_like.run.system import HEALTHY, Cut, FaultKind, Link, System

READY_TIMEOUT_S: Final = 120.0
LOOK_S: Final = 0.05
REFILL_S: Final = 0.3
"""What becomes free on a disk that is to be full is taken so often."""


@dataclass(slots=True)
class Band:
    """A fault as it was: what, and from when to when (seconds since the run began). ``end_s``:
    ``None`` while it lasts; a node that has to come back belongs to it until it serves again."""

    family: str
    what: str
    start_s: float
    end_s: float | None = None


def merged(links: Iterable[Link]) -> Link:
    """As bad as all of them together."""
    found = list(links)
    if not found:
        return HEALTHY
    rates = [link.bytes_per_s for link in found if link.bytes_per_s is not None]
    cuts = [link.cut for link in found if link.cut is not None]
    return Link(
        cut=Cut.REFUSE if Cut.REFUSE in cuts else (Cut.STALL if cuts else None),
        delay_s=sum(link.delay_s for link in found),
        jitter_s=max(link.jitter_s for link in found),
        loss=max(link.loss for link in found),
        duplicate=max(link.duplicate for link in found),
        reorder=max(link.reorder for link in found),
        bytes_per_s=min(rates, default=None),
    )


class Stage:
    """One run's system under faults. ``say`` takes each change in words; ``clock`` gives seconds
    since the run began; ``violation`` takes (kind, what)."""

    def __init__(
        self,
        system: System,
        clock: Callable[[], float],
        say: Callable[[str], None],
        violation: Callable[[str, str], None],
        *,
        durable: bool,
    ) -> None:
        self.system = system
        self.durable = durable
        self.bands: list[Band] = []
        self.minority_s: list[tuple[float, float]] = []
        """Spans in which some part of the system had no majority that is up, connected and with
        space on its disks."""
        self.pressure = 0
        """How many faults want memory to be short now."""
        self._clock = clock
        self._say = say
        self._violation = violation
        self._links: dict[Pair, list[Link]] = {}
        self._down: dict[str, int] = dict.fromkeys(system.nodes, 0)
        """How many faults keep a node down."""
        self._falls: dict[str, int] = dict.fromkeys(system.nodes, 0)
        """How often a node was taken down: who waits for it to serve waits no longer than until it
        is taken down anew, which another fault may do, and undo, between two looks."""
        self._paused: dict[str, int] = dict.fromkeys(system.nodes, 0)
        self._full: dict[str, int] = dict.fromkeys(system.nodes, 0)
        """How many faults leave no space on a node's disk."""
        self._lost: set[str] = set()
        """Nodes that are not known to have all their data."""
        self._away: set[str] = set()
        """Nodes that were down and do not serve yet."""
        self._minority_since: float | None = None
        self.over = False

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their names."""
        return self.system.nodes

    def able(self, kind: FaultKind) -> bool:
        """Whether the system can be given such a fault."""
        return kind in self.system.faults

    def say(self, text: str) -> None:
        """Tell of a change."""
        self._say(text)

    async def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the end of all faults."""
        until = self._clock() + seconds
        while not self.over and (left := until - self._clock()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, LOOK_S))

    async def leader(self, draw: random.Random) -> str:
        """Who leads most; anybody when nobody knows."""
        leaders = await self.system.leaders()
        return leaders[0] if leaders else draw.choice(self.nodes)

    @asynccontextmanager
    async def band(self, family: str, what: str) -> AsyncIterator[None]:
        """The time of a fault."""
        band = Band(family, what, self._clock())
        self.bands.append(band)
        self.say(f"{family}: {what}")
        try:
            yield
        finally:
            band.end_s = self._clock()
            self.say(f"{family} ends")

    # -- links

    @asynccontextmanager
    async def links(self, pairs: Sequence[Pair], link: Link) -> AsyncIterator[None]:
        """These directions are like that, whatever else they are, for so long."""
        for pair in pairs:
            await self._change(pair, self._links.setdefault(pair, []).append, link)
        try:
            yield
        finally:
            for pair in pairs:
                await self._change(pair, self._links[pair].remove, link)

    async def _change(self, pair: Pair, change: Callable[[Link], object], link: Link) -> None:
        change(link)
        self._look()
        await self.system.network.shape(*pair, merged(self._links[pair]))

    # -- nodes

    def take(self, wanted: Sequence[str]) -> list[str]:
        """Those of ``wanted`` that may lose their data now; they count as lost until they serve
        again. A system that keeps its data over a kill has to be asked for wipes only."""
        taken = []
        for node in wanted:
            if node not in self._lost and len(self._lost) < self.system.tolerated:
                self._lost.add(node)
                taken.append(node)
        return taken

    @asynccontextmanager
    async def down(self, nodes: Sequence[str], *, gently: bool = False) -> AsyncIterator[None]:
        """The nodes are killed (``gently``: asked to stop), and started again at the end, which
        waits until they serve."""
        for node in nodes:
            self._down[node] += 1
            self._falls[node] += 1
            self._away.add(node)
        self._look()
        end = self.system.terminate if gently else self.system.kill
        try:
            await asyncio.gather(*(end(node) for node in nodes))
            yield
        finally:
            for node in nodes:
                self._down[node] -= 1
            up = [(node, self._falls[node]) for node in nodes if not self._down[node]]
            await asyncio.gather(*(self._launch(node, fall) for node, fall in up))
            await asyncio.gather(*(self._back(node, fall) for node, fall in up))

    async def _launch(self, node: str, fall: int) -> None:
        """Start a node, unless it was taken down anew since that fall."""
        if self._falls[node] == fall:
            await self.system.launch(node)

    async def back(self, node: str) -> None:
        """Wait until a node serves and has all its data, or is taken down."""
        if not self._down[node]:
            await self._back(node, self._falls[node])

    async def _back(self, node: str, fall: int) -> None:
        """The same, or until it is taken down anew since that fall."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self._falls[node] == fall and not await self.system.ready(node):
            if self._disturbed():  # other faults are in the way
                deadline = time.monotonic() + READY_TIMEOUT_S
            if self._falls[node] != fall:
                return  # while it was asked
            if self._full[node] and not self.system.running(node):
                await self.system.launch(node)  # as a supervisor does, until there is space
            elif time.monotonic() > deadline or not self.system.running(node):
                self._violation("no recovery", f"{node} does not serve again")
                return
            await asyncio.sleep(LOOK_S)
        if self._falls[node] == fall:
            self._away.discard(node)
            self._lost.discard(node)
            self._look()

    def _disturbed(self) -> bool:
        """Whether any fault is on some link, or keeps some node from working."""
        wanted = (self._links, self._down, self._paused, self._full)
        return any(any(each.values()) for each in wanted)

    @asynccontextmanager
    async def paused(self, nodes: Sequence[str]) -> AsyncIterator[None]:
        """The nodes are stopped (SIGSTOP) for so long."""
        for node in nodes:
            self._paused[node] += 1
        self._look()
        try:
            for node in nodes:
                await self.system.pause(node)
            yield
        finally:
            for node in nodes:
                self._paused[node] -= 1
                if not self._paused[node]:
                    await self.system.resume(node)
            self._look()

    async def full_disks(self, nodes: Sequence[str], seconds: float) -> None:
        """There is no space on the nodes' disks for so long."""
        until = self._clock() + seconds
        for node in nodes:
            self._full[node] += 1
        self._look()
        try:
            while not self.over and (left := until - self._clock()) > 0:
                for node in nodes:
                    await self.system.fill_disk(node, True)
                await self.sleep(min(left, REFILL_S))
        finally:
            for node in nodes:
                self._full[node] -= 1
                if not self._full[node]:
                    await self.system.fill_disk(node, False)
            self._look()

    @property
    def some_disks_full(self) -> bool:
        """Whether there is a node without space now."""
        return any(self._full.values())

    def check_alive(self) -> None:
        """A node that nobody ended has to run."""
        for node in self.nodes:
            if not self._down[node] and node not in self._away and not self.system.running(node):
                self._violation("a node ended", f"{node} ended by itself")
                self._away.add(node)

    # -- majorities

    def _look(self) -> None:
        """Note when some part loses its majority, and when all have theirs again."""
        lost = any(not self._led(part) for part in self.system.replicas)
        if lost and self._minority_since is None:
            self._minority_since = self._clock()
        elif not lost and self._minority_since is not None:
            self.minority_s.append((self._minority_since, self._clock()))
            self._minority_since = None

    def _led(self, part: Sequence[str]) -> bool:
        """Whether some node of the part could lead it and take writes: it hears, and is heard by, a
        majority that has space."""
        unfit = (self._paused, self._full)
        up = [x for x in part if x not in self._away and not any(each[x] for each in unfit)]

        def connected(a: str, b: str) -> bool:
            return a == b or not any(
                link.cut is not None
                for pair in ((a, b), (b, a))
                for link in self._links.get(pair, ())
            )

        return any(2 * sum(connected(a, b) for b in up) > len(part) for a in up)

    def end(self) -> None:
        """No more faults: all under way end now."""
        self.over = True
        self._look()
