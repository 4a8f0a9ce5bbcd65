"""The same seed gives the same run, to the byte, whatever the hash seed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys

from .conftest import World

NAMES = ("a", "b", "c")


class Gossip(asyncio.Protocol):
    """Adds up the numbers it hears, one per line."""

    def __init__(self, heard: dict[str, int]) -> None:
        self._heard = heard
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            name, count = line.decode().split("=")
            self._heard[name] = max(self._heard.get(name, 0), int(count))


async def gossip(world: World, name: str) -> None:
    """Tell a random neighbour all that is known, reconnecting as needed; log it to disk."""
    node = world.nodes[name]
    node.disk.make_directory("/data")
    names = node.disk.list("/data")
    log = node.disk.open("/data/log") if "log" in names else node.disk.create("/data/log")
    before = node.disk.read("/data/log")
    heard: dict[str, int] = {name: before.count(b"\n")}
    end = len(before)
    await node.listen("0.0.0.0", 7000, lambda: Gossip(heard))
    links: dict[str, asyncio.Transport] = {}
    while True:
        await asyncio.sleep(node.random.uniform(0.01, 0.1))
        heard[name] += 1
        line = f"{heard}\n".encode()
        log.write(line, end)
        end += len(line)
        try:
            await node.in_thread(log.sync)
            other = node.random.choice([n for n in NAMES if n != name])
            if other not in links or links[other].is_closing():
                connecting = node.connect(other, 7000, lambda: Gossip(heard))
                links[other] = await asyncio.wait_for(connecting, 0.5)
        except OSError:
            continue
        text = "".join(f"{n}={c}\n" for n, c in heard.items())
        links[other].write(text.encode())
        world.scheduler.say(name, text.replace("\n", " "))


def fault(world: World) -> None:
    """One fault, drawn from the seed, and the next one later."""
    draw = world.scheduler.generator(f"fault/{world.scheduler.now:.3f}")
    name, other = draw.sample(NAMES, 2)
    process = world.nodes[name].process
    kind = draw.choice(("kill", "power", "pause", "cut", "one-way", "reset", "heal", "slow", "eio"))
    world.scheduler.say("fault", f"{kind} {name} {other}")
    if kind in ("kill", "power"):
        process.crash(power=kind == "power")
        world.start(name)
        world.nodes[name].spawn(gossip(world, name), "gossip")
    elif kind == "pause":
        process.pause()
        world.scheduler.call_later(draw.uniform(0.1, 1.0), process.resume)
    elif kind == "cut":
        world.network.partition([[name], [n for n in NAMES if n != name]])
    elif kind == "one-way":
        world.network.block(name, other)
    elif kind == "reset":
        world.network.reset(name, other)
    elif kind == "heal":
        world.network.heal()
    elif kind == "slow":
        process.slow(draw.choice((0.0, 0.001)))
    else:
        world.disks[name].fail_syncs += 1
    world.scheduler.call_later(draw.uniform(0.05, 0.5), fault, world)


def story(seed: int, seconds: float = 20.0) -> bytes:
    """The whole trace of one run."""
    world = World(seed)
    lines: list[str] = []
    world.scheduler.trace = lines.append
    world.network.loss = 0.02
    for name in NAMES:
        world.start(name).spawn(gossip(world, name), "gossip")
    world.scheduler.call_later(1.0, fault, world)
    world.run(seconds)
    assert world.scheduler.violations == []
    return "\n".join(lines).encode()


def test_the_same_seed_tells_the_same_story_to_the_byte() -> None:
    first = story(7)
    assert first == story(7)
    assert len(first) > 10_000
    assert first != story(8)


def test_the_hash_seed_does_not_matter() -> None:
    digests = set()
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", f"from {__name__} import digest; print(digest(3))"],
            env={
                **os.environ,
                "PYTHONHASHSEED": hash_seed,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def digest(seed: int) -> str:
    return hashlib.sha256(story(seed, 5.0)).hexdigest()
