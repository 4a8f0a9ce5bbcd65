"""Carries out a schedule of faults, episode by episode."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from jepsen_like.run.nemeses import NEMESES, QUIET_S
from jepsen_like.run.stage import Stage
from jepsen_like.sim.faults import Fault


def episodes(faults: Sequence[Fault]) -> list[list[Fault]]:
    """Faults that overlap belong together."""
    found: list[list[Fault]] = []
    end = -1.0
    for fault in sorted(faults, key=lambda fault: fault.start):
        if not found or fault.start > end:
            found.append([])
        found[-1].append(fault)
        end = max(end, fault.start + fault.seconds)
    return found


class Injector:
    """``run`` begins each fault when it is due, but no episode before the quiet that has to follow
    the one before: some faults, such as a rolling restart, take as long as they take."""

    def __init__(self, stage: Stage, faults: Sequence[Fault]) -> None:
        self._stage = stage
        self._episodes = episodes(faults)

    async def run(self, clock: float) -> None:
        """From ``clock`` (seconds since the run began) until the stage is over, or all is done."""
        loop = asyncio.get_running_loop()
        epoch = loop.time() - clock
        free = 0.0
        for episode in self._episodes:
            start = max(free, episode[0].start)
            await self._stage.sleep(start - (loop.time() - epoch))
            if self._stage.over:
                return
            first = episode[0].start
            async with asyncio.TaskGroup() as group:
                for fault in episode:
                    group.create_task(self._play(fault, fault.start - first))
            free = loop.time() - epoch + QUIET_S[0]

    async def _play(self, fault: Fault, after_s: float) -> None:
        await self._stage.sleep(after_s)
        if not self._stage.over:
            action = NEMESES[fault.family].action
            await action(self._stage, random.Random(fault.seed), fault.seconds)
