"""Large values that nobody reads: they fill memory where it is to be short, and use up what nodes
have allocated ahead on disks that are to be full.

Memory is filled by many keys, in that part of the system that may evict; disks by writing a few
keys of all parts again and again, which leaves memory as it is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import count, islice
from typing import Final

from jepsen_like.run.stage import Stage
from jepsen_like.run.system import Client, Refused, System, Unknown

WRITERS: Final = 4
CROWDED_KEYS, CROWDED_BYTES = 600, 32 * 1024
SPREAD_KEYS, SPREAD_BYTES = 40, 64 * 1024
PRESSURE_PAUSE_S: Final = 0.02
DISK_PAUSE_S: Final = 0.002
REFUSED_PAUSE_S: Final = 0.02
IDLE_S: Final = 0.1
TIMEOUT_S: Final = 1.0


class Filler:
    """Writes while ``stage`` wants it."""

    def __init__(self, system: System, stage: Stage, seed: int) -> None:
        self._system = system
        self._stage = stage
        self._draw = random.Random(f"run/{seed}/filler")
        self._spread = _keys(SPREAD_KEYS, lambda key: True)
        self._crowded: list[str] = []
        if any(system.crowded(key) for key in self._spread):
            self._crowded = _keys(CROWDED_KEYS, system.crowded)

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(self._write())

    async def _write(self) -> None:
        system, stage, draw = self._system, self._stage, self._draw
        places = [(node, protocol) for node in system.nodes for protocol in system.protocols]
        clients: list[Client] = [system.connect(*place) for place in places]
        small, large = "x" * CROWDED_BYTES, "x" * SPREAD_BYTES
        try:
            while True:
                keys, value, pause_s = self._crowded, small, PRESSURE_PAUSE_S
                if stage.some_disks_full:
                    keys, value, pause_s = self._spread, large, DISK_PAUSE_S
                elif not stage.pressure or not keys:
                    await asyncio.sleep(IDLE_S)
                    continue
                try:
                    await draw.choice(clients).invoke("set", draw.choice(keys), (value,), TIMEOUT_S)
                except (Refused, Unknown):
                    pause_s = REFUSED_PAUSE_S
                await asyncio.sleep(pause_s)
        finally:
            for client in clients:
                await client.close()


def _keys(number: int, fitting: Callable[[str], bool]) -> list[str]:
    names = (f"f{i}" for i in count())
    return list(islice((name for name in names if fitting(name)), number))
