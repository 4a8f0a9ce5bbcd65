"""A system in this process: correct, or with one defect, which the harness has to find."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepsen_like.run.proxy import ProxyNetwork
from jepsen_like.run.system import OPERATIONS, Client, FaultKind, Network, Refused, Unknown

DEFECTS = (
    "stale read",
    "lost write",
    "lost element",
    "torn transaction",
    "applied twice",
    "refused but applied",
    "dies early",
    "rises again",
    "too stale",
    "cas without a look",
    "batch without order",
    "batch done in part",
)


class Fake:
    """Implements ``system.System``: one dictionary behind three names."""

    name = "fake"
    nodes = ("n1", "n2", "n3")
    replicas = (("n1", "n2", "n3"),)
    operations = frozenset(OPERATIONS)
    protocols = ("one", "two")
    live = True
    tolerated = 1
    staleness_ms: Mapping[str, tuple[int, ...]] = {"one": (10, 100), "two": (50,)}
    ttl_slack_ms = 2.0
    ttl_drift = 0.0
    refusals = 0.05
    """Of the parts of batches."""
    faults: frozenset[FaultKind] = frozenset({FaultKind.KILL, FaultKind.PAUSE, FaultKind.PRESSURE})

    def __init__(self, defect: str = "", seed: int = 0) -> None:
        self.defect = defect
        self.random = random.Random(seed)
        self.values: dict[str, str] = {}
        self.before: dict[str, str | None] = {}
        self.dead: dict[str, str] = {}
        self.expiries: dict[str, float] = {}
        self.tokens: dict[str, Any] = {}
        self.down: set[str] = set()
        self.log: list[str] = []
        self.writes = 0

    async def start(self, directory: Path) -> None:
        self.log.append("start")

    async def stop(self) -> None:
        self.log.append("stop")

    def supports(self, protocol: str, op: str) -> bool:
        return True

    def connect(self, node: str, protocol: str) -> Client:
        return FakeClient(self, node)

    def crowded(self, key: str) -> bool:
        return sum(key.encode()) % 2 == 0

    @property
    def network(self) -> Network:
        return ProxyNetwork()

    def running(self, node: str) -> bool:
        return node not in self.down

    async def ready(self, node: str) -> bool:
        return node not in self.down

    async def kill(self, node: str) -> None:
        self.log.append(f"kill {node}")
        self.down.add(node)

    terminate = kill

    async def launch(self, node: str) -> None:
        self.log.append(f"launch {node}")
        self.down.discard(node)

    async def pause(self, node: str) -> None:
        self.log.append(f"pause {node}")

    async def resume(self, node: str) -> None:
        self.log.append(f"resume {node}")

    async def wipe(self, node: str) -> None:
        raise NotImplementedError

    async def leaders(self) -> list[str]:
        return ["n2", "n1"]

    async def transfer(self, part: int, target: str | None) -> None:
        raise NotImplementedError

    async def slow_disk(self, node: str, seconds: float) -> None:
        raise NotImplementedError

    async def fill_disk(self, node: str, full: bool) -> None:
        raise NotImplementedError

    async def shift_clock(self, node: str, seconds: float) -> None:
        raise NotImplementedError

    # -- the store

    def strikes(self, defect: str) -> bool:
        """Whether the defect shows now: once in a while."""
        return self.defect == defect and self.random.random() < 0.2

    def get(self, key: str) -> str | None:
        expiry = self.expiries.get(key)
        now = asyncio.get_running_loop().time()
        if expiry is not None and now >= expiry:
            self.dead[key] = self.values.pop(key)
            del self.expiries[key]
        elif expiry is not None and self.strikes("dies early"):
            return None
        if key not in self.values and key in self.dead and self.strikes("rises again"):
            return self.dead[key]
        if self.strikes("stale read"):
            return self.before.get(key)
        return self.values.get(key)

    def put(self, key: str, value: str | None, ttl_ms: int = 0) -> None:
        self.writes += 1
        self.before[key] = self.values.get(key)
        if self.strikes("lost write") or (key.startswith("s") and self.strikes("lost element")):
            return
        self.dead.pop(key, None)
        self.expiries.pop(key, None)
        self.values.pop(key, None)
        if value is not None:
            self.values[key] = value
        if ttl_ms:
            self.expiries[key] = asyncio.get_running_loop().time() + ttl_ms / 1000

    def do(self, op: str, key: str, args: tuple[Any, ...]) -> Any:
        match op:
            case "get" | "lease":
                return self.get(key)
            case "stale":
                return self.before.get(key) if self.defect == "too stale" else self.get(key)
            case "set" | "ttl":
                existed = self.get(key) is not None
                self.put(key, *args)
                return None if "stale read" in self.defect else not existed
            case "cas":
                if self.values.get(key) != args[0] and not self.strikes("cas without a look"):
                    return False
                self.put(key, args[1])
                return True
            case "incr":
                number = int(self.values.get(key, "0")) + args[0]
                self.put(key, str(number))
                return number
            case "del":
                existed = self.get(key) is not None
                self.put(key, None)
                return existed
            case "append":
                self.put(key, self.values.get(key, "") + args[0])
                return None
            case "txn":
                return self.transaction(args)
        raise AssertionError(op)

    def transaction(self, micros: tuple[Any, ...]) -> list[Any]:
        torn = self.strikes("torn transaction")
        results: list[Any] = []
        for place, (name, key, *args) in enumerate(micros):
            if torn and place and name != "get":
                results.append(None)
                continue
            result = self.do(name, key, tuple(args))
            results.append(result if name in ("get", "incr") else None)
        return results


class FakeClient:
    """Slow in both directions, so that operations overlap."""

    def __init__(self, fake: Fake, node: str) -> None:
        self.fake = fake
        self.node = node

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        fake = self.fake
        if self.node in fake.down:
            raise Refused("down")
        await asyncio.sleep(fake.random.random() * 0.003)
        if op == "batch":
            return await self.batch(args)
        # Repetitions are few: with the defect all of them count again.
        if once is not None and once in fake.tokens and fake.defect != "applied twice":
            result = fake.tokens[once]
        else:
            result = fake.do(op, key, args)
            if once is not None:
                fake.tokens[once] = result
        await asyncio.sleep(fake.random.random() * 0.003)
        if fake.random.random() < 0.03:
            raise Refused("no") if fake.strikes("refused but applied") else Unknown("who knows")
        return result

    async def batch(self, parts: tuple[Any, ...]) -> list[Any]:
        """Others come in between. Some parts fail."""
        fake, results = self.fake, {}
        places = list(range(len(parts)))
        if fake.strikes("batch without order"):
            places.reverse()
        lost = fake.strikes("batch done in part")
        for place in places:
            name, key, args = parts[place]
            await asyncio.sleep(fake.random.random() * 0.001)
            if fake.random.random() < fake.refusals:
                results[place] = Refused("no")
                continue
            doing = not lost or name in ("get", "incr")
            try:
                results[place] = fake.do(name, key, args) if doing else None
            except Refused as refusal:
                results[place] = refusal
            if fake.random.random() < 0.01:
                results[place] = Unknown("who knows")
        return [results[place] for place in range(len(parts))]

    async def close(self) -> None:
        pass
