"""Five nodes, each group on three of them: a node answers for groups it does not hold."""

from __future__ import annotations

import aiohttp

from raftcache.demo import Cluster, Plan
from tests.cluster.conftest import kill

KEYS = 120


async def test_any_of_five_nodes_answers_for_every_key_also_when_one_dies(
    http: aiohttp.ClientSession,
) -> None:
    with Cluster(Plan(nodes=5, groups=8, port=0, memory=True)) as cluster:
        cluster.wait_until_ready()
        for i in range(KEYS):
            url = f"{cluster.urls[i % 5]}/v1/keys/key-{i}"
            async with http.put(url, data=f"{i}") as answer:
                assert answer.status == 201, await answer.text()

        kill(cluster, 1)

        living = [url for i, url in enumerate(cluster.urls) if i != 1]
        for i in range(KEYS):
            async with http.get(f"{living[i % 4]}/v1/keys/key-{i}") as answer:
                assert (answer.status, await answer.text()) == (200, f"{i}")
