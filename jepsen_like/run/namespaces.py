"""A network of the kernel's: every node in a network namespace of its own. Needs root.

The nodes' namespaces hang on a bridge in one more namespace; a veth pair leads from there to the
run, whose clients reach the nodes by their addresses. Nothing else of the machine is touched, and
``close`` removes it all; so does the next run when this one was killed.

- Cuts are nftables rules at the receiver: ``STALL`` drops, ``REFUSE`` answers with resets. Loss,
  too: every packet draws.
- What this kernel has no queueing discipline for (delay, jitter, duplicates, reordering, a rate)
  is done by ``detour``: while a direction is shaped so, its packets are routed through a userspace
  switch; all others stay in the kernel.
- Connections are reset as ``ss -K`` does it: the socket is destroyed, and its peer told.

All faults are those of IP packets; what a node sees of them is what its TCP makes of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jepsen_like.run.detour import DEVICE, Detour
from jepsen_like.run.system import HEALTHY, Cut, FaultKind, Link, StartError

PROGRAMS: Final = {"ip": "iproute2", "ss": "iproute2", "nft": "nftables", "nsenter": "util-linux"}
"""What it runs, and Debian's packages that have it."""
FIRST_PORT: Final = 7001
UNDERWAY_S: Final = 0.02
"""Before an end of a connection is destroyed, what it sends for so long is on its way."""
_NAMES: Final = Path("/run/netns")
_PREFIX: Final = "jepsen"
_OURS: Final = re.compile(rf"{_PREFIX}-(\d+)-.+")
_RANGE: Final = ipaddress.IPv4Network("198.18.0.0/15")
"""For tests of networks, routed nowhere (RFC 2544)."""


def why_not() -> str | None:
    """What is missing here, in words for the user; ``None`` when nothing is."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for name, package in PROGRAMS.items():
        if shutil.which(name) is None:
            return f"there is no {name} (Debian: apt-get install {package})"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun"
    probe = f"{_PREFIX}-{os.getpid()}-probe"
    try:
        _run(["ip", "netns", "add", probe])
        _run(["ip", "netns", "del", probe])
    except StartError as error:
        return f"network namespaces cannot be made: {error}"
    return None


class Namespaces:
    """``Network`` of namespaces."""

    faults: frozenset[FaultKind] = frozenset(
        {
            FaultKind.CUT,
            FaultKind.ONE_WAY,
            FaultKind.REFUSE,
            FaultKind.RESET,
            FaultKind.ORPHAN,
            FaultKind.DELAY,
            FaultKind.LOSS,
            FaultKind.DUPLICATE,
            FaultKind.REORDER,
            FaultKind.RATE,
        }
    )

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._services: tuple[str, ...] = ()
        self._subnet = _RANGE
        self._links: dict[tuple[str, str], Link] = {}
        self._detour: Detour | None = None
        self._lock = asyncio.Lock()

    # -- addresses

    def namespace(self, node: str) -> str:
        """The name that ``ip netns`` knows."""
        return f"{_PREFIX}-{os.getpid()}-{node}"

    def address(self, node: str) -> str:
        return str(self._subnet.network_address + 11 + self._names.index(node))

    def listen(self, node: str, service: str) -> tuple[str, int]:
        """The same for everybody: ports are fixed, each namespace has its own."""
        return self.address(node), FIRST_PORT + self._services.index(service)

    def reach(self, source: str, target: str, service: str) -> tuple[str, int]:
        del source
        return self.listen(target, service)

    def client(self, node: str, service: str) -> tuple[str, int]:
        return self.listen(node, service)

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net={_NAMES / self.namespace(node)}", "--", *command]

    # -- from beginning to end

    async def open(self, nodes: Sequence[str], services: Sequence[str]) -> None:
        """``StartError`` where this is not possible."""
        reason = why_not()
        if reason is not None:
            raise StartError(reason)
        self._names, self._services = tuple(nodes), tuple(services)
        await asyncio.to_thread(self._build)
        self._detour = await Detour.start(
            {node: (self.namespace(node), self.address(node)) for node in nodes}
        )

    def _build(self) -> None:
        _remove_leftovers()
        self._subnet = _free_subnet()
        switch = self.namespace("switch")
        ours = f"jl{os.getpid()}"
        here = f"{self._subnet.network_address + 1}/{self._subnet.prefixlen}"
        for name in (switch, *map(self.namespace, self._names)):
            _run(["ip", "netns", "add", name])
        _batch(None, [f"link add {ours} type veth peer name run netns {switch}"])
        _batch(None, [f"addr add {here} dev {ours}", f"link set {ours} up"])
        _batch(switch, ["link add bridge type bridge", "link set bridge up"])
        _batch(switch, ["link set run master bridge", "link set run up"])
        for node in self._names:
            name = self.namespace(node)
            _batch(name, [f"link add eth0 type veth peer name {node} netns {switch}"])
            _batch(switch, [f"link set {node} master bridge", f"link set {node} up"])
            _batch(
                name,
                [
                    f"addr add {self.address(node)}/{self._subnet.prefixlen} dev eth0",
                    "link set eth0 up",
                    "link set lo up",
                    f"tuntap add dev {DEVICE} mode tun",
                    f"link set {DEVICE} up",
                ],
            )

    async def close(self) -> None:
        """No error, whatever there is."""
        if self._detour is not None:
            await self._detour.close()
        with contextlib.suppress(StartError):
            await asyncio.to_thread(_remove, os.getpid())

    # -- faults

    async def shape(self, source: str, target: str, link: Link) -> None:
        async with self._lock:
            before = self._links.get((source, target), HEALTHY)
            self._links[source, target] = link
            await asyncio.to_thread(self._filter, target)
            await self._divert(source, target, link)
        if link.cut is Cut.REFUSE and before.cut is not Cut.REFUSE:
            await self.reset(source, target)

    async def reset(self, a: str, b: str) -> None:
        await asyncio.to_thread(self._destroy, a, b)
        await asyncio.to_thread(self._destroy, b, a)

    async def orphan(self, source: str, target: str, late_s: float) -> None:
        """The detour holds up what the old connections send, the resets at their end included."""
        detour, route = self._detour, f"{self.address(target)}/32 dev {DEVICE}"
        assert detour is not None
        async with self._lock:
            if detour.used(source, target):  # shaped otherwise: then only the reset
                await asyncio.to_thread(self._destroy, source, target)
                return
            await detour.hold(source, target, late_s)
            await self._route(source, f"route replace {route} src {self.address(source)}")
            await asyncio.sleep(UNDERWAY_S)
            await asyncio.to_thread(self._destroy, source, target)
            await asyncio.sleep(late_s)
            await self._route(source, f"route del {route}")
            await detour.hold(source, target, 0.0)

    def _destroy(self, here: str, there: str) -> None:
        """A node's ends of all connections with another one."""
        # What it cannot destroy (ends that are closed already) it says, and is done.
        command = ["ss", "-K", "-t", "dst", self.address(there)]
        _run(self.command(here, command), lenient=True)

    async def _route(self, node: str, line: str) -> None:
        await asyncio.to_thread(_batch, self.namespace(node), [line])

    def _filter(self, target: str) -> None:
        """Write the rules for all that arrives at a node, in one transaction."""
        # The resets that refuse what the node itself sends come from itself.
        rules, answers = ["iif lo accept"], []
        for (source, receiver), link in self._links.items():
            if receiver != target:
                continue
            match = f"ip saddr {self.address(source)}"
            if link.cut is Cut.STALL:
                rules.append(f"{match} drop")
            elif link.cut is Cut.REFUSE:
                refuse = "reject with tcp reset"
                rules.append(f"{match} meta l4proto tcp {refuse}")
                # No connection the other way either: its answers would be refused.
                other = f"ip daddr {self.address(source)} tcp flags & rst != rst"
                answers.append(f"{other} {refuse}")
            if link.loss > 0:
                rules.append(f"{match} numgen random mod 10000 < {round(link.loss * 10000)} drop")
        text = "table ip faults\ndelete table ip faults\ntable ip faults {\n"
        for hook, lines in (("input", rules), ("output", answers)):
            head = f"type filter hook {hook} priority 0; policy accept;"
            text += "\n".join([f"chain {hook} {{", head, *lines, "}", ""])
        text += "}\n"
        _run(self.command(target, ["nft", "-f", "-"]), text)

    async def _divert(self, source: str, target: str, link: Link) -> None:
        """Lead a direction through the detour, or back."""
        detour = self._detour
        assert detour is not None
        shaped = detour.wanted(link)
        if not shaped and not detour.used(source, target):
            return
        route = f"{self.address(target)}/32 dev {DEVICE}"
        if shaped:
            await detour.shape(source, target, link)
            await self._route(source, f"route replace {route} src {self.address(source)}")
        else:
            await self._route(source, f"route del {route}")
            await detour.shape(source, target, HEALTHY)


def _run(command: Sequence[str], text: str | None = None, lenient: bool = False) -> str:
    """The output of a command; ``StartError`` with what it said when it fails."""
    done = subprocess.run(
        command,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 and not lenient:
        raise StartError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _batch(namespace: str | None, lines: Sequence[str]) -> None:
    """Several commands of ``ip``, in a namespace or here."""
    where = [] if namespace is None else ["-n", namespace]
    _run(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")


def _free_subnet() -> ipaddress.IPv4Network:
    taken = _run(["ip", "-4", "-o", "addr"]) + _run(["ip", "-4", "route"])
    subnets = _RANGE.subnets(new_prefix=24)
    return next(x for x in subnets if str(x.network_address).rsplit(".", 1)[0] + "." not in taken)


def _remove_leftovers() -> None:
    """What runs that were killed have left."""
    for entry in _NAMES.iterdir() if _NAMES.is_dir() else ():
        match = _OURS.fullmatch(entry.name)
        if match is not None and not Path(f"/proc/{match[1]}").exists():
            _remove(int(match[1]))


def _remove(pid: int) -> None:
    """All namespaces of a run, with what is in them."""
    _run(["ip", "link", "del", f"jl{pid}"], lenient=True)
    for entry in list(_NAMES.iterdir()) if _NAMES.is_dir() else ():
        match = _OURS.fullmatch(entry.name)
        if match is not None and int(match[1]) == pid:
            _run(["ip", "netns", "del", entry.name], lenient=True)
