"""A switch in userspace for the packets of bad links: delayed, doubled, overtaken, metered.

Each node's namespace has a TUN device; a process of ours (``python -m jepsen_like.run.detour``)
holds their other ends. What is routed into one device comes out of the device of the node it is
for, later and otherwise as the direction's ``Link`` says. The process reads its orders from its
standard input and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from jepsen_like.run.system import Link, StartError

DEVICE: Final = "detour"
QUEUE_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""More than this on its way in one direction and packets are dropped, as a router's queue does."""
_SHAPES: Final = ("delay_s", "jitter_s", "duplicate", "reorder", "bytes_per_s")
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_CLONE_NEWNET: Final = 0x40000000
_PACKET: Final = 65536
_TCP: Final = 6
_SYN: Final = 0x02
_READY: Final = b"ready\n"


class Detour:
    """The process, as the network sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._used: set[tuple[str, str]] = set()

    @classmethod
    async def start(cls, nodes: Mapping[str, tuple[str, str]]) -> Detour:
        """``nodes``: name -> namespace, IPv4 address. ``StartError``."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "jepsen_like.run.detour", json.dumps(dict(nodes))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        if await process.stdout.readline() != _READY:
            raise StartError("the switch of the network namespaces does not start (see above)")
        return cls(process)

    @staticmethod
    def wanted(link: Link) -> bool:
        """Whether the link needs the detour."""
        return any(getattr(link, name) for name in _SHAPES)

    def used(self, source: str, target: str) -> bool:
        """Whether the direction takes the detour now."""
        return (source, target) in self._used

    async def shape(self, source: str, target: str, link: Link) -> None:
        """What happens to packets of this direction from now on."""
        if self.wanted(link):
            self._used.add((source, target))
        else:
            self._used.discard((source, target))
        shapes = {name: value for name, value in asdict(link).items() if name in _SHAPES}
        await self._order({"source": source, "target": target, "link": shapes})

    async def hold(self, source: str, target: str, seconds: float) -> None:
        """Packets of TCP connections that exist are so late from now on; those of newer ones are
        not. 0 ends it."""
        await self._order({"source": source, "target": target, "hold_s": seconds})

    async def _order(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            await self._process.stdin.drain()

    async def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@dataclass(slots=True)
class _Direction:
    """What is to be done with the packets of one direction, and what is on its way."""

    link: Link
    queued_bytes: int = 0
    last_release: float = 0.0
    line_free: float = 0.0
    """When the last byte of what is queued has left, at ``bytes_per_s``."""
    hold_s: float = 0.0
    last_held: float = 0.0
    newer: set[bytes] = field(default_factory=set)
    """Ports of the connections that are not held up, being made after ``hold``."""


class Switch:
    """Sans-I/O: when each packet, and how many times, comes out. Times in seconds."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._directions: dict[tuple[str, str], _Direction] = {}
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, tuple[str, str], bytes]] = []

    def shape(self, source: str, target: str, link: Link) -> None:
        direction = self._directions.setdefault((source, target), _Direction(link))
        direction.link = link

    def hold(self, source: str, target: str, seconds: float) -> None:
        direction = self._directions.setdefault((source, target), _Direction(Link()))
        direction.hold_s = seconds
        direction.newer.clear()

    def take(self, source: str, target: str, packet: bytes, now: float) -> None:
        """A packet has come in."""
        direction = self._directions.setdefault((source, target), _Direction(Link()))
        if direction.queued_bytes + len(packet) > QUEUE_LIMIT_BYTES:
            return
        if direction.hold_s and _is_of_old(packet, direction.newer):
            direction.last_held = max(direction.last_held, now + direction.hold_s)
            release = direction.last_held
        else:
            release = self._release(direction, len(packet), now)
        copies = 2 if self._draw.random() < direction.link.duplicate else 1
        for _ in range(copies):
            direction.queued_bytes += len(packet)
            entry = (release, next(self._order), (source, target), packet)
            heapq.heappush(self._waiting, entry)

    def _release(self, direction: _Direction, size: int, now: float) -> float:
        link = direction.link
        if link.bytes_per_s:
            direction.line_free = max(direction.line_free, now) + size / link.bytes_per_s
            now = direction.line_free
        if self._draw.random() < link.reorder:
            return now  # overtakes all that is delayed
        release = now + link.delay_s + self._draw.random() * link.jitter_s
        # Jitter alone keeps the order, as a queue does.
        direction.last_release = max(release, direction.last_release)
        return direction.last_release

    def due(self, now: float) -> list[tuple[str, bytes]]:
        """Target and packet of all that has to come out by now, in order."""
        out = []
        while self._waiting and self._waiting[0][0] <= now:
            _, _, pair, packet = heapq.heappop(self._waiting)
            self._directions[pair].queued_bytes -= len(packet)
            out.append((pair[1], packet))
        return out

    def next_due(self) -> float | None:
        """When the next packet has to come out."""
        return self._waiting[0][0] if self._waiting else None


def _is_of_old(packet: bytes, newer: set[bytes]) -> bool:
    """Whether a packet (IPv4 without options) is of a connection that is not among the ``newer``,
    to which one is added when this is its first packet from this side."""
    if packet[9] != _TCP:
        return False
    ports = packet[20:24]
    if packet[33] & _SYN:
        newer.add(ports)
    return ports not in newer


def main(nodes: Mapping[str, tuple[str, str]]) -> None:
    """Switch packets until standard input ends."""
    devices = {node: _open_device(namespace) for node, (namespace, _) in nodes.items()}
    names = {device: node for node, device in devices.items()}
    at = {bytes(map(int, address.split("."))): node for node, (_, address) in nodes.items()}
    switch = Switch(random.Random())
    poll = select.epoll()
    for descriptor in (sys.stdin.fileno(), *names):
        os.set_blocking(descriptor, False)
        poll.register(descriptor, select.EPOLLIN)
    os.write(sys.stdout.fileno(), _READY)
    orders = b""
    while True:
        due = switch.next_due()
        timeout = -1 if due is None else max(0.0, due - time.monotonic())
        for descriptor, _ in poll.poll(timeout):
            if descriptor in names:
                _read_packets(descriptor, names[descriptor], at, switch)
                continue
            chunk = os.read(descriptor, 65536)
            if not chunk:
                return
            *lines, orders = (orders + chunk).split(b"\n")
            for line in lines:
                order: dict[str, Any] = json.loads(line)
                if "link" in order:
                    switch.shape(order["source"], order["target"], Link(**order["link"]))
                else:
                    switch.hold(order["source"], order["target"], order["hold_s"])
        for target, packet in switch.due(time.monotonic()):
            with contextlib.suppress(OSError):  # its queue is full: the packet is lost
                os.write(devices[target], packet)


def _read_packets(device: int, source: str, at: Mapping[bytes, str], switch: Switch) -> None:
    now = time.monotonic()
    with contextlib.suppress(BlockingIOError):
        for _ in range(64):  # then it is others' turn
            packet = os.read(device, _PACKET)
            target = at.get(packet[16:20]) if packet[:1] == b"\x45" else None
            if target is not None:
                switch.take(source, target, packet, now)


def _open_device(namespace: str) -> int:
    """Our end of the device ``DEVICE`` of a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
        device = os.open("/dev/net/tun", os.O_RDWR)
        request = struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(device, _TUNSETIFF, request)
        libc.setns(here, _CLONE_NEWNET)
    finally:
        os.close(here)
        os.close(there)
    return device


if __name__ == "__main__":
    main({node: (place[0], place[1]) for node, place in json.loads(sys.argv[1]).items()})
