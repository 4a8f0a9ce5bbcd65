"""A node refuses, in plain words, a data directory that it must not use."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from raftcache.demo import Cluster, Plan, serve_command


@pytest.fixture
async def stopped(tmp_path: Path, http: aiohttp.ClientSession) -> Cluster:
    """A single node with some data, stopped."""
    with _running(tmp_path) as cluster:
        await asyncio.to_thread(cluster.wait_until_ready)
        for i in range(50):
            async with http.put(f"{cluster.urls[0]}/v1/keys/key-{i}", data="v" * 100) as answer:
                assert answer.status == 201
    return cluster


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    """The same, running and without data."""
    with _running(tmp_path) as cluster:
        cluster.wait_until_ready()
        yield cluster


def _running(tmp_path: Path) -> Cluster:
    return Cluster(Plan(nodes=1, groups=1, port=0, directory=tmp_path / "data"))


def refusal(config: Path) -> str:
    """What a ``raftcache serve`` with these settings says, which must not start."""
    done = subprocess.run(serve_command(config), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [li for li in done.stderr.splitlines() if li.startswith("raftcache serve: ")]
    return line


def test_a_second_process_with_the_same_directory_is_refused(running: Cluster) -> None:
    said = refusal(running.nodes[0].config)
    assert "another process is using this data directory" in said
    assert running.nodes[0].ended is None


@pytest.mark.parametrize(
    "setting, value", [("cluster", '"another"'), ("groups", "2"), ("node", '"n9"')]
)
def test_a_directory_of_another_node_or_cluster_is_refused(
    stopped: Cluster, setting: str, value: str
) -> None:
    config = stopped.nodes[0].config
    lines = [li for li in config.read_text().splitlines() if not li.startswith(f"{setting} =")]
    text = "\n".join([f"{setting} = {value}", *lines]) + "\n"
    config.write_text(text.replace('id = "n1"', f"id = {value}") if setting == "node" else text)
    said = refusal(config)
    assert "this data directory belongs to" in said and str(stopped.directory / "n1") in said


def test_corruption_in_the_middle_is_refused_with_the_file_and_what_to_do(
    stopped: Cluster,
) -> None:
    path = stopped.directory / "n1" / "group-0000" / "journal-0000000001"
    data = bytearray(path.read_bytes())
    data[len(data.rstrip(b"\0")) // 2] ^= 1
    path.write_bytes(data)
    said = refusal(stopped.nodes[0].config)
    assert f"{path}: corrupt at byte" in said and "restore the data directory" in said


def test_a_directory_of_an_older_format_is_refused(stopped: Cluster) -> None:
    path = stopped.directory / "n1" / "identity.json"
    path.write_text(path.read_text().replace('"format":2', '"format":1'))
    assert "belongs to format 1, not 2" in refusal(stopped.nodes[0].config)
