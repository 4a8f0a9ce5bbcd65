"""Real disks that really fill up: a small tmpfs under each node's data directory."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from raftcache.demo import Cluster, Plan, cluster_status
from tests.cluster.conftest import NODES, kill, missing

SIZE_MIB = 24
BALLAST_MIB = 8
"""What somebody else takes of it, and gives back."""
VALUE = 50_000


@pytest.fixture
def small_disks(tmp_path: Path) -> Iterator[Path]:
    """A directory for a cluster in which the data of every node have little room."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    mounted: list[Path] = []
    try:
        for i in range(NODES):
            place = tmp_path / "data" / f"n{i + 1}"
            place.mkdir(parents=True)
            command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(place)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
            mounted.append(place)
            (place / "ballast").write_bytes(bytes(BALLAST_MIB * 2**20))
        yield tmp_path / "data"
    finally:
        for place in mounted:
            subprocess.run(["umount", "-l", str(place)], check=False)


async def fill(http: aiohttp.ClientSession, urls: list[str]) -> dict[str, str]:
    """Write through all nodes in turn until each has refused; what was acknowledged."""
    acknowledged: dict[str, str] = {}
    refused: set[str] = set()
    for i in range(10_000):
        url, key, value = urls[i % NODES], f"key-{i}", f"{i}" * (VALUE // len(f"{i}"))
        async with http.put(f"{url}/v1/keys/{key}", data=value) as answer:
            if answer.status == 201:
                acknowledged[key] = value
                refused.clear()
                continue
            problem = await answer.json(content_type="application/problem+json")
            assert (answer.status, problem["type"]) == (503, "urn:raftcache:problem:storage-full")
            assert answer.headers["Retry-After"] == "1"
            refused.add(url)
        if len(refused) == NODES:
            return acknowledged
    raise AssertionError("the disks do not get full")


async def write_again(http: aiohttp.ClientSession, url: str, key: str) -> str:
    """Write as a client does that is told to retry later; the value."""
    async with asyncio.timeout(10):
        while True:
            async with http.put(f"{url}/v1/keys/{key}", data="again") as answer:
                if answer.status == 201:
                    return "again"
                assert answer.status == 503, await answer.text()
            await asyncio.sleep(0.05)


async def test_a_full_disk_refuses_writes_serves_reads_loses_nothing_and_heals(
    small_disks: Path, http: aiohttp.ClientSession
) -> None:
    with Cluster(Plan(nodes=NODES, groups=1, port=0, directory=small_disks)) as cluster:
        cluster.wait_until_ready()
        acknowledged = await fill(http, cluster.urls)
        assert len(acknowledged) > 100
        status = cluster_status(cluster.urls[0])
        assert status is not None and not status["groups"][0]["has_room"]
        for url in cluster.urls:
            assert await missing(http, url, acknowledged) == {}

        for i in range(NODES):
            kill(cluster, i)
            cluster.restart(i)
        await asyncio.to_thread(cluster.wait_until_ready)
        assert await missing(http, cluster.urls[0], acknowledged) == {}

        for i in range(NODES):
            (small_disks / f"n{i + 1}" / "ballast").unlink()
        for i, url in enumerate(cluster.urls):
            acknowledged[f"again-{i}"] = await write_again(http, url, f"again-{i}")
        for url in cluster.urls:
            assert await missing(http, url, acknowledged) == {}
