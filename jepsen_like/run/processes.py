"""Nodes as child processes: the half of a ``System`` that is the same for all of them.

A system derives from ``ProcessSystem`` and says which processes a node consists of (``commands``)
and when it serves (``serves``). Whatever happens to the run, its nodes do not outlive it: they are
started with a parent-death signal, which the kernel sends even when the run is killed by SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jepsen_like.run.machine_faults import Machine
from jepsen_like.run.system import FaultKind, Network, StartError

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.05
PROCESS_FAULTS: Final = frozenset(
    {FaultKind.KILL, FaultKind.PAUSE, FaultKind.RESTART, FaultKind.WIPE}
)
"""What this class can do to any node."""
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None, use_errno=True)


class ProcessSystem:
    """Names nodes ``n1`` to ``nN``; each has a directory ``data/NODE`` and a log ``NODE.log``.

    ``services`` are the ports that every node has on the network. ``directory`` (absolute) is
    set when ``start`` is called, before ``prepare``."""

    services: Sequence[str] = ()
    live = True

    def __init__(self, count: int, network: Network, machine: Machine | None = None) -> None:
        self.nodes = tuple(f"n{i + 1}" for i in range(count))
        self.replicas: tuple[tuple[str, ...], ...] = (self.nodes,)
        self.directory = Path()
        self.machine = machine
        self._network = network
        self._processes: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._paused: set[str] = set()
        self._stopping = False

    @property
    def network(self) -> Network:
        """Links between the nodes."""
        return self._network

    # -- what a system says

    async def prepare(self) -> None:
        """Write the files that the nodes need; the network is open. Optional."""

    def commands(self, node: str) -> Sequence[Sequence[str]]:
        """The processes of a node, each as its arguments."""
        raise NotImplementedError

    def environment(self, node: str) -> Mapping[str, str]:
        """Of its processes, beside what the run has."""
        return {}

    async def serves(self, node: str) -> bool:
        """Whether the node takes part and has all it should have; false while it is down."""
        raise NotImplementedError

    # -- System

    def data(self, node: str) -> Path:
        """Where a node's data are, in durable mode."""
        return self.directory / "data" / node

    async def start(self, directory: Path) -> None:
        """Start all nodes and wait until they serve. ``StartError``."""
        self.directory = directory
        await self._network.open(self.nodes, self.services)
        for node in self.nodes:
            self.data(node).mkdir(parents=True, exist_ok=True)
        if self.machine is not None:
            self.machine.prepare(directory, {node: self.data(node) for node in self.nodes})
        await self.prepare()
        for node in self.nodes:
            await self.launch(node)
        await self.started()

    async def started(self) -> None:
        """Wait until every node serves. ``StartError`` when one ends before."""
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        waiting = list(self.nodes)
        while waiting:
            waiting = [node for node in waiting if not await self.serves(node)]
            for node in waiting:
                if not self.running(node):
                    raise StartError(f"{node} did not start:\n{self.log_tail(node)}")
            if waiting and asyncio.get_running_loop().time() > deadline:
                raise StartError(f"{waiting[0]} does not serve:\n{self.log_tail(waiting[0])}")
            if waiting:
                await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """End all nodes: in order first, by force after a while."""
        self._stopping = True
        await asyncio.gather(*(self.terminate(node) for node in self.nodes))
        if self.machine is not None:
            await self.machine.close()
        await self._network.close()

    def running(self, node: str) -> bool:
        """Whether all processes of a node run (or are stopped by a signal)."""
        processes = self._processes.get(node, [])
        return bool(processes) and all(process.poll() is None for process in processes)

    def pids(self, node: str) -> list[int]:
        """Of the processes that run."""
        return [x.pid for x in self._processes.get(node, []) if x.poll() is None]

    async def ready(self, node: str) -> bool:
        """See ``System.ready``."""
        return self.running(node) and node not in self._paused and await self.serves(node)

    async def launch(self, node: str) -> None:
        """Start a node that is down."""
        if self.running(node):
            return
        await self.kill(node)  # of several processes some may have ended
        environment = os.environ | dict(self.environment(node))
        if self.machine is not None:
            environment |= self.machine.environment(node)
        processes = []
        with (self.directory / f"{node}.log").open("ab") as log:
            for command in self.commands(node):
                processes.append(
                    subprocess.Popen(  # noqa: ASYNC220  (forks in less than a millisecond)
                        self._network.command(node, command),
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env=environment,
                        cwd=self.directory,
                        # A group of its own: a Ctrl-C in the terminal is for the run.
                        process_group=0,
                        preexec_fn=die_with(os.getpid()),
                    )
                )
        self._processes[node] = processes

    async def kill(self, node: str) -> None:
        """kill -9."""
        self._signal(node, signal.SIGKILL)
        self._paused.discard(node)
        await self._gone(node)

    async def terminate(self, node: str) -> None:
        """SIGTERM; SIGKILL when that takes too long."""
        self._signal(node, signal.SIGTERM)
        await self.resume(node)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._gone(node)
        except TimeoutError:
            await self.kill(node)

    async def pause(self, node: str) -> None:
        """SIGSTOP."""
        if self.running(node):
            self._paused.add(node)
            self._signal(node, signal.SIGSTOP)

    async def resume(self, node: str) -> None:
        """SIGCONT."""
        self._paused.discard(node)
        self._signal(node, signal.SIGCONT)

    async def wipe(self, node: str) -> None:
        """Empty the data directory."""
        shutil.rmtree(self.data(node), ignore_errors=True)
        self.data(node).mkdir(parents=True, exist_ok=True)

    def log_tail(self, node: str, lines: int = 12) -> str:
        """The end of a node's log."""
        with contextlib.suppress(OSError):
            text = (self.directory / f"{node}.log").read_text(errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    def _signal(self, node: str, number: signal.Signals) -> None:
        for process in self._processes.get(node, []):
            # A whole group: a command may be a wrapper around the node (``ip netns exec``).
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, number)

    async def _gone(self, node: str) -> None:
        for process in self._processes.get(node, []):
            while process.poll() is None:  # noqa: ASYNC110  (nothing tells of a child's end)
                await asyncio.sleep(0.005)

    # -- faults that need more than processes; a system that has them says so in ``faults``, and
    # has a machine for the first three

    async def slow_disk(self, node: str, seconds: float) -> None:
        """See ``machine_faults``."""
        assert self.machine is not None
        await self.machine.slow(node, self.pids(node), seconds)

    async def fill_disk(self, node: str, full: bool) -> None:
        """See ``machine_faults``."""
        assert self.machine is not None
        self.machine.fill(node, full)

    async def shift_clock(self, node: str, seconds: float) -> None:
        """See ``machine_faults``."""
        assert self.machine is not None
        self.machine.shift(node, seconds)

    async def transfer(self, part: int, target: str | None) -> None:
        raise NotImplementedError

    async def leaders(self) -> list[str]:
        return []

    def crowded(self, key: str) -> bool:
        del key
        return False


def die_with(parent: int) -> Callable[[], Any]:
    """To be called in the child: end when the parent does."""

    def prepare() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
