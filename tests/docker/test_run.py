"""``python -m jepsen_like run --system docker``: real faults, by docker alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.run.docker import DockerRaftcache
from jepsen_like.run.nemeses import possible
from jepsen_like.run.system import HEALTHY, Cut, Link, Options, Refused
from tests.docker.cluster import ROOT, Cluster, until
from tests.run.schedules import write_schedule

pytestmark = pytest.mark.docker
COMMAND = [sys.executable, "-m", "jepsen_like", "run", "--system", "docker"]


def environment(cluster: Cluster) -> dict[str, str]:
    """That of the engine, and the image that is there."""
    image = cluster.environment["RAFTCACHE_IMAGE"]
    return cluster.engine.environment | {"RAFTCACHE_IMAGE": image}


def left(cluster: Cluster) -> list[str]:
    """What is there of runs: containers, networks, volumes."""
    listed = [
        cluster.engine.docker("ps", "--all", "--format", "{{.Names}}"),
        cluster.engine.docker("network", "ls", "--format", "{{.Name}}"),
        cluster.engine.docker("volume", "ls", "--quiet"),
    ]
    return [name for name in "\n".join(listed).split() if name.startswith("raftcache-run-")]


def test_a_short_run_with_faults_is_valid(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "report"
    faults = [
        ("partition-leader", 1.0, 2.0),
        ("pause-leader", 6.0, 0.6),
        ("wipe", 9.0, 1.0),
        ("transfer-storm", 9.0, 1.0),
    ]
    played = write_schedule(tmp_path / "schedule.jsonl", faults)
    more = ["--seconds", "12", "--rate", "200", *played, "--out", str(out)]
    done = cluster.engine.run(
        [*COMMAND, *more], more=environment(cluster), directory=ROOT, timeout_s=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    assert verdict["verdict"] == "valid"
    assert set(verdict["faults"]) == {family for family, _, _ in faults}
    assert verdict["operations"] > 300
    for node in ("n1", "n2", "n3"):
        log = (out / "nodes" / f"{node}.log").read_text().splitlines()
        assert all(json.loads(line)["node"] == node for line in log)
    assert left(cluster) == []


def test_containers_do_not_outlive_a_run_that_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    more = ["--seconds", "60", "--faults", "none", "--rate", "50", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [*COMMAND, *more], cwd=ROOT, env=environment(cluster), stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "load and faults" in line:
                break
        assert len(left(cluster)) > 6
        run.kill()
    until(lambda: left(cluster) == [], "all of the run is gone")


def test_a_link_is_cut_until_nobody_wants_it_cut(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(cluster).items():
        monkeypatch.setenv(name, value)
    asyncio.run(cut_and_heal(tmp_path))


async def cut_and_heal(directory: Path) -> None:
    system = DockerRaftcache(Options(nodes=3))
    assert {"partition-halves", "kill-all", "wipe"} <= set(possible(system, durable=True))
    assert not {"partition-one-way", "clock", "disk-full"} & set(possible(system, durable=True))

    async def connected(node: str) -> dict[str, bool]:
        status = await system.connect(node, "http").request("GET", "/v1/cluster", b"", 3.0)  # type: ignore[attr-defined]
        return {each["id"]: each["connected"] for each in json.loads(status.body)["members"]}

    async def wait_for(node: str, wanted: dict[str, bool]) -> None:
        async with asyncio.timeout(60):
            while await connected(node) != wanted:
                await asyncio.sleep(0.1)

    try:
        await system.start(directory)
        shape = system.network.shape
        await shape("n1", "n2", Link(cut=Cut.STALL))
        await shape("n2", "n1", Link(cut=Cut.STALL))
        await wait_for("n1", {"n1": True, "n2": False, "n3": True})
        await wait_for("n3", {"n1": True, "n2": True, "n3": True})
        await shape("n1", "n2", HEALTHY)
        await asyncio.sleep(1)
        assert not (await connected("n2"))["n1"]
        await shape("n2", "n1", HEALTHY)
        await wait_for("n1", {"n1": True, "n2": True, "n3": True})
        await system.pause("n3")
        await system.kill("n3")
        await system.kill("n3")
        assert not system.running("n3")
        with pytest.raises(Refused):
            await system.connect("n3", "http").invoke("get", "key", (), 2.0)
        await system.wipe("n3")
        await system.launch("n3")
        async with asyncio.timeout(60):
            while not await system.ready("n3"):
                await asyncio.sleep(0.1)
    finally:
        await system.stop()
