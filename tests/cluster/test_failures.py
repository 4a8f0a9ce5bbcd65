"""What applications notice when nodes die, stop and come back: nothing is lost."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import pytest

from raftcache.demo import Cluster, is_ready
from tests.cluster.conftest import NODES, Writer, kill, leads_most, missing

WRITERS = 12


async def _start(writers: list[Writer]) -> asyncio.Future[list[None]]:
    load = asyncio.gather(*(writer.run() for writer in writers))
    while sum(len(writer.acknowledged) for writer in writers) < 300:
        assert not load.done()
        await asyncio.sleep(0.01)
    return load


async def _stop(writers: list[Writer], load: asyncio.Future[list[None]]) -> dict[str, str]:
    for writer in writers:
        writer.stopped = True
    await load
    return {k: v for writer in writers for k, v in writer.acknowledged.items()}


async def _more(writers: list[Writer], count: int, limit_s: float = 30.0) -> None:
    """Wait until so many more writes were acknowledged."""
    start = sum(len(writer.acknowledged) for writer in writers)
    async with asyncio.timeout(limit_s):
        while sum(len(writer.acknowledged) for writer in writers) < start + count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("mode", ["memory_cluster", "durable_cluster"])
async def test_every_acknowledged_write_survives_kill_9_of_the_busiest_leader(
    mode: str, request: pytest.FixtureRequest, http: aiohttp.ClientSession
) -> None:
    cluster: Cluster = request.getfixturevalue(mode)
    victim = leads_most(cluster)
    survivors = [url for i, url in enumerate(cluster.urls) if i != victim]
    writers = [Writer(http, cluster.urls, f"w{i}") for i in range(WRITERS)]
    load = await _start(writers)

    kill(cluster, victim)

    await _more(writers, 500)  # writes resume
    expected = await _stop(writers, load)
    for url in survivors:
        assert await missing(http, url, expected) == {}


async def test_a_rolling_restart_shows_clients_no_error(
    durable_cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    cluster = durable_cluster
    writers = [Writer(http, cluster.urls, f"w{i}") for i in range(WRITERS)]
    load = await _start(writers)

    for i in range(NODES):
        node = cluster.nodes[i]
        node.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(node.process.wait, 20) == 0
        cluster.restart(i)
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(is_ready, node.url):
                await asyncio.sleep(0.02)
        await _more(writers, 100)

    expected = await _stop(writers, load)
    assert [error for writer in writers for error in writer.errors] == []
    assert await missing(http, cluster.urls[0], expected) == {}


async def test_all_nodes_killed_at_once_come_back_with_everything_acknowledged(
    durable_cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    cluster = durable_cluster
    writers = [Writer(http, cluster.urls, f"w{i}") for i in range(WRITERS)]
    load = await _start(writers)

    for i in range(NODES):
        kill(cluster, i)
    expected = await _stop(writers, load)
    for i in range(NODES):
        cluster.restart(i)
    await asyncio.to_thread(cluster.wait_until_ready)

    for url in cluster.urls:
        assert await missing(http, url, expected) == {}
