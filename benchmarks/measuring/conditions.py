"""What ``degradation.py`` puts beside a load: each a thing that a busy cluster has to live with."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from typing import ClassVar, Final

from raftcache.bench.dialects import resp_command
from raftcache.demo import START_TIMEOUT_S, Cluster, is_ready

LARGE: Final = 1024 * 1024
_LARGE_NAMES: Final = 32
_TIMEOUT_S: Final = 20.0

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Bench:
    """What a condition works with."""

    cluster: Cluster
    leader: Address
    leader_pid: int
    follower: int
    """Position of a node that leads nothing."""
    fill: Callable[[int], None]
    """Stores so many keys."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each; ``degradation.py`` says what the options are."""

    keys: int = 10_000
    many_keys: int = 1_000_000
    idle: int = 10_000
    large_per_second: float = 20.0
    stopped_ms: float = 200.0
    running_ms: float = 200.0


class Condition:
    """``with condition.beside(bench) as said``: holds meanwhile. ``said`` is told at the end what
    has really been there."""

    name: ClassVar[str]

    def __init__(self, size: Size) -> None:
        self.size = size

    @property
    def keys(self) -> tuple[int, int]:
        """Key space of the load: without, with."""
        return self.size.keys, self.size.keys

    @contextmanager
    def beside(self, bench: Bench) -> Iterator[list[str]]:
        """Make it so."""
        raise NotImplementedError
        yield []


class ManyKeys(Condition):
    """The load's key space, all of it stored."""

    name = "many keys"

    @property
    def keys(self) -> tuple[int, int]:
        return self.size.keys, self.size.many_keys

    @contextmanager
    def beside(self, bench: Bench) -> Iterator[list[str]]:
        bench.fill(self.size.many_keys)
        yield [f"{self.size.many_keys:,} keys instead of {self.size.keys:,}"]


class IdleConnections(Condition):
    """Clients that were answered once and then say nothing."""

    name = "idle connections"

    @contextmanager
    def beside(self, bench: Bench) -> Iterator[list[str]]:
        with contextlib.ExitStack() as stack:
            for _ in range(self.size.idle):
                idle = stack.enter_context(socket.create_connection(bench.leader, _TIMEOUT_S))
                idle.sendall(b"PING\r\n")
                if not idle.recv(64).startswith(b"+PONG"):
                    raise OSError(f"connection {_ + 1} was refused")
            yield [f"{self.size.idle:,} connections at the leader"]


class LargeValues(Condition):
    """One client that writes and reads values of 1 MiB, at a steady rate."""

    name = "1 MiB values"

    @contextmanager
    def beside(self, bench: Bench) -> Iterator[list[str]]:
        context = multiprocessing.get_context("spawn")
        done = context.Value("q", 0)
        process = context.Process(
            target=use_large_values,
            args=(bench.leader, self.size.large_per_second, done),
            daemon=True,
        )
        process.start()
        while not done.value and process.is_alive():
            time.sleep(0.01)
        before, started = done.value, time.monotonic()
        said: list[str] = []
        try:
            yield said
        finally:
            rate = (done.value - before) / (time.monotonic() - started)
            alive = process.is_alive()
            process.kill()
            process.join()
        if not alive:
            raise OSError("the client of large values ended")
        said.append(f"{rate:.1f} a second, every second one a SET")


def use_large_values(where: Address, per_second: float, done: Synchronized[int]) -> None:
    """A process of its own: SET and GET by turns until it is ended."""
    value, answer = os.urandom(LARGE), bytearray(LARGE + 64)
    expected = len(b"$%d\r\n" % LARGE) + LARGE + 2
    due = time.monotonic()
    with socket.create_connection(where, _TIMEOUT_S) as connection:
        while True:
            name = b"large:%d" % (done.value // 2 % _LARGE_NAMES)
            if done.value % 2 == 0:
                connection.sendall(resp_command(b"SET", name, value))
                _receive(connection, answer, len(b"+OK\r\n"))
                assert answer.startswith(b"+OK"), bytes(answer[:80])
            else:
                connection.sendall(resp_command(b"GET", name))
                _receive(connection, answer, expected)
            done.value += 1
            due = max(due + 1.0 / per_second, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))


def _receive(connection: socket.socket, into: bytearray, count: int) -> None:
    have = 0
    with memoryview(into) as view:
        while have < count:
            got = connection.recv_into(view[have:])
            if got == 0:
                raise ConnectionError("connection closed")
            have += got


class SlowFollower(Condition):
    """A follower that stops and goes on."""

    name = "slow follower"

    @contextmanager
    def beside(self, bench: Bench) -> Iterator[list[str]]:
        pid = bench.cluster.pids[bench.follower]
        times = 0

        def turn(ended: threading.Event) -> None:
            nonlocal times
            os.kill(pid, signal.SIGSTOP)
            ended.wait(self.size.stopped_ms / 1000)
            os.kill(pid, signal.SIGCONT)
            times += 1
            ended.wait(self.size.running_ms / 1000)

        said: list[str] = []
        with _repeated(turn):
            yield said
        said.append(
            f"stopped for {self.size.stopped_ms:g} of every"
            f" {self.size.stopped_ms + self.size.running_ms:g} ms, {times} times"
        )


class Snapshots(Condition):
    """A follower that is killed, emptied and started, again and again, with a large state."""

    name = "snapshot in progress"

    @property
    def keys(self) -> tuple[int, int]:
        return self.size.many_keys, self.size.many_keys

    @contextmanager
    def beside(self, bench: Bench) -> Iterator[list[str]]:
        cluster, took = bench.cluster, list[float]()

        def turn(ended: threading.Event) -> None:
            node = cluster.nodes[bench.follower]
            node.process.kill()
            node.process.wait()
            if not cluster.memory:
                shutil.rmtree(cluster.directory / node.id)
            started = time.monotonic()
            cluster.restart(bench.follower)
            while not is_ready(node.url):
                if time.monotonic() > started + START_TIMEOUT_S:
                    raise OSError("the emptied follower does not become ready")
                time.sleep(0.1)
            took.append(time.monotonic() - started)

        said: list[str] = []
        with _repeated(turn):
            yield said
        said.append(
            f"followers emptied: {len(took)}, ready again after"
            f" {statistics.median(took):.1f} s; {self.size.many_keys:,} keys in both columns"
        )


@contextmanager
def _repeated(turn: Callable[[threading.Event], None]) -> Iterator[None]:
    """``turn`` again and again in a thread; the last one is finished at the end. What it raises is
    raised here."""
    ended = threading.Event()
    problems: list[Exception] = []

    def work() -> None:
        try:
            while not ended.is_set():
                turn(ended)
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if problems:
        raise problems[0]


CONDITIONS: Final[dict[str, type[Condition]]] = {
    "keys": ManyKeys,
    "idle": IdleConnections,
    "large": LargeValues,
    "slow": SlowFollower,
    "snapshot": Snapshots,
}
"""By their names in ``--only``."""
