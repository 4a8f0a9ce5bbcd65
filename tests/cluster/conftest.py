"""Real processes on loopback, and clients that behave as well-made ones do."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from raftcache.demo import Cluster, Plan, cluster_status

NODES = 3


@pytest.fixture
def durable_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes with four groups and data directories, ready."""
    with Cluster(Plan(nodes=NODES, groups=4, port=0, directory=tmp_path / "data")) as cluster:
        cluster.wait_until_ready()
        yield cluster


@pytest.fixture
def memory_cluster() -> Iterator[Cluster]:
    """Three nodes with four groups, nothing on disk, ready."""
    with Cluster(Plan(nodes=NODES, groups=4, port=0, memory=True)) as cluster:
        cluster.wait_until_ready()
        yield cluster


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client session without limits of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


def leads_most(cluster: Cluster) -> int:
    """Position of the node that leads the most groups."""
    status = cluster_status(cluster.urls[0])
    assert status is not None
    leaders = [group["leader"] for group in status["groups"]]
    return max(range(NODES), key=lambda i: leaders.count(cluster.nodes[i].id))


def kill(cluster: Cluster, position: int) -> None:
    """kill -9."""
    cluster.nodes[position].process.send_signal(signal.SIGKILL)
    cluster.nodes[position].process.wait()


class Writer:
    """Writes ever new keys, one after the other, through whichever node takes them, and remembers
    what was acknowledged. A refused connection is tried at the next node, since nothing was sent on
    it."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str], name: str) -> None:
        self._session = session
        self._urls = itertools.cycle(urls)
        self._name = name
        self.acknowledged: dict[str, str] = {}
        self.errors: list[str] = []
        self.finished_at: list[float] = []
        self.stopped = False

    async def run(self) -> None:
        """Until ``stopped``."""
        url = next(self._urls)
        for i in itertools.count():
            if self.stopped:
                return
            key, value = f"{self._name}-{i}", f"value {i} of {self._name}"
            try:
                async with self._session.put(f"{url}/v1/keys/{key}", data=value) as answer:
                    await answer.read()
                    if answer.status == 201:
                        self.acknowledged[key] = value
                        self.finished_at.append(asyncio.get_running_loop().time())
                    else:
                        self.errors.append(f"{answer.status} {await answer.text()}")
            except aiohttp.ClientConnectorError:
                url = next(self._urls)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.errors.append(repr(error))
                url = next(self._urls)


async def missing(
    session: aiohttp.ClientSession, url: str, expected: dict[str, str]
) -> dict[str, str]:
    """Of ``expected``, what a linearizable read at ``url`` does not show."""
    wrong: dict[str, str] = {}

    async def check(items: list[tuple[str, str]]) -> None:
        for key, value in items:
            async with session.get(f"{url}/v1/keys/{key}") as answer:
                body = await answer.text()
                if answer.status != 200 or body != value:
                    wrong[key] = f"{answer.status} {body!r}, not {value!r}"

    items = list(expected.items())
    await asyncio.gather(*(check(items[i::16]) for i in range(16)))
    return wrong
