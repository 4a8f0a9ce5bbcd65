"""raftcache as its users run it, through ``python -m jepsen_like run``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jepsen_like.checkers.history import load
from jepsen_like.run.local import Raftcache, local
from jepsen_like.run.nemeses import FAMILIES, possible
from jepsen_like.run.system import HEALTHY, Cut, Link, Options, Refused, Unknown
from tests.run.schedules import write_schedule

COMMAND = [sys.executable, "-m", "jepsen_like", "run", "--system", "local"]


def nodes_of(out: Path) -> list[int]:
    """Process ids of nodes that were started by the run in ``out``."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if str(out / "nodes").encode() in command:
            found.append(int(entry.name))
    return found


def test_a_short_run_with_faults_is_valid(tmp_path: Path) -> None:
    out = tmp_path / "report"
    faults = [
        ("partition-leader", 1.0, 2.0),
        ("pause-leader", 4.0, 0.6),
        ("kill-one", 6.0, 1.0),
        ("reset", 9.5, 0.5),
        ("transfer-storm", 9.5, 1.0),
    ]
    played = write_schedule(tmp_path / "schedule.jsonl", faults)
    more = ["--seconds", "14", "--rate", "300", *played, "--out", str(out)]
    ended = subprocess.run([*COMMAND, *more], capture_output=True, text=True, timeout=150)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    assert verdict["verdict"] == "valid"
    assert set(verdict["faults"]) >= {"partition-leader", "pause-leader", "kill-one"}
    assert verdict["operations"] > 500
    assert len(load(out / "history.jsonl")) == verdict["operations_judged"]
    assert all((out / "nodes" / f"n{i}.log").stat().st_size for i in (1, 2, 3))
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert nodes_of(out) == []


def test_batches_pipelines_and_stale_reads_of_both_protocols_are_valid(tmp_path: Path) -> None:
    out = tmp_path / "report"
    faults = [("transfer-storm", 1.0, 2.0), ("partition-leader", 4.0, 1.0), ("kill-one", 6.0, 0.5)]
    played = write_schedule(tmp_path / "schedule.jsonl", faults)
    more = ["--seconds", "8", "--rate", "200", "--workloads", "batch,stale", "--out", str(out)]
    more += ["--setting", "readonly_staleness=250ms", *played]
    ended = subprocess.run([*COMMAND, *more], capture_output=True, text=True, timeout=150)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    verdict: dict[str, Any] = json.loads((out / "verdict.json").read_text())
    assert verdict["verdict"] == "valid"
    batched = {f"batched {op}" for op in ("get", "set", "incr", "del")}
    assert batched | {"stale"} <= set(verdict["by_operation"])
    history = load(out / "history.jsonl")
    done = [x for x in history if x.ok]
    assert {x.args[0] for x in done if x.op == "stale"} == {10, 100, 1000, 250}
    pipelines = Counter((x.pipeline, x.key) for x in done if x.pipeline is not None)
    assert max(pipelines.values()) > 1
    together = Counter((x.process % 24, x.start) for x in done if x.pipeline is None)
    assert max(together.values()) > 1


def test_nodes_do_not_outlive_a_run_that_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "report"
    more = ["--seconds", "60", "--faults", "none", "--rate", "50", "--out", str(out)]
    run = subprocess.Popen([*COMMAND, *more], stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    said = []
    for line in run.stderr:
        said.append(line)
        if "load and faults" in line:
            break
    assert len(nodes_of(out)) == 3, said
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    run.stderr.close()
    for _ in range(100):
        if not nodes_of(out):
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(f"still there: {nodes_of(out)}")


def test_a_run_can_be_stopped_early_and_is_judged(tmp_path: Path) -> None:
    out = tmp_path / "report"
    more = ["--seconds", "600", "--faults", "none", "--rate", "100", "--out", str(out)]
    run = subprocess.Popen([*COMMAND, *more], stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    for line in run.stderr:
        if "ops/s" in line:
            break
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=120)
    assert run.returncode == 0
    assert json.loads((out / "verdict.json").read_text())["stopped_early"] is True


def test_a_directory_with_something_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    ended = subprocess.run([*COMMAND, "--out", str(tmp_path)], capture_output=True, text=True)
    assert ended.returncode == 2
    assert "is not empty" in ended.stderr


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[Raftcache]:
    system = local(Options(nodes=3))
    try:
        await system.start(tmp_path)
        yield system
    finally:
        await system.stop()


async def test_clients_of_both_protocols_mean_the_same(system: Raftcache) -> None:
    for protocol in system.protocols:
        client = system.connect("n2", protocol)

        async def ask(op: str, *args: Any, key: str = f"k-{protocol}") -> Any:
            return await client.invoke(op, key, args, 5.0)  # noqa: B023

        assert await ask("get") is None
        assert await ask("cas", "1", "2") is False
        assert await ask("cas", None, "1") is True
        assert await ask("cas", None, "2") is False
        assert await ask("cas", "0", "2") is False
        for old, new in (("1", "2"), ("2", "3"), ("3", "4"), ("4", "5")):
            assert await ask("cas", old, new) is True
        assert await ask("get") == "5"
        assert await ask("set", "6") in (False, None)
        assert await ask("ttl", "7", 60_000) in (False, None)
        assert await ask("del") is True
        assert await ask("del") is False
        assert await ask("incr", 5) == 5
        assert await ask("incr", -7) == -2
        tag = f"t-{protocol}"
        a, n = f"{{{tag}}}a", f"{{{tag}}}n"
        parts = (("get", a), ("set", a, "x"), ("incr", n, 3), ("get", a), ("del", a), ("get", a))
        assert await ask("txn", *parts, key=tag) == [None, None, 3, "x", None, None]
        assert await ask("txn", ("incr", n, 3), key=tag) == [6]
        b, c = f"b-{protocol}", f"c-{protocol}"
        parts = (("set", b, ("1",)), ("incr", c, (5,)), ("get", c, ()), ("del", "nowhere", ()))
        written, *others = await ask("batch", *parts)
        assert written in (True, None) and others == [5, "5", False]
        assert await ask("batch", ("get", b, ()), ("incr", b, (1,))) == ["1", 2]
        assert await ask("stale", *system.staleness_ms[protocol][:1], key="nowhere") is None
        await client.close()


async def test_an_operation_with_a_token_is_done_once(system: Raftcache) -> None:
    first, second = system.connect("n1", "http"), system.connect("n3", "http")
    assert await first.invoke("incr", "c", (5,), 5.0, once="token") == 5
    assert await second.invoke("incr", "c", (5,), 5.0, once="token") == 5
    assert await second.invoke("get", "c", (), 5.0) == "5"
    await first.close()
    await second.close()


@pytest.mark.parametrize("protocol", ["http", "resp"])
async def test_a_node_without_a_majority_gives_stale_reads(protocol: str, tmp_path: Path) -> None:
    system = local(Options(nodes=3, settings={"readonly_staleness": "10m"}))
    assert system.staleness_ms["resp"] == (600_000,)
    try:
        await system.start(tmp_path)
        client = system.connect("n1", protocol)
        await client.invoke("set", "k", ("1",), 5.0)
        # The first one asks the leader; from then on the replica knows how old its state is.
        assert await client.invoke("stale", "k", (600_000,), 5.0) == "1"
        await system.pause("n2")
        await system.pause("n3")
        assert await client.invoke("stale", "k", (600_000,), 5.0) == "1"
        with pytest.raises((Refused, Unknown)):
            await client.invoke("get", "k", (), 1.0)
        await client.close()
    finally:
        await system.stop()


async def test_an_isolated_node_serves_nobody_and_comes_back(system: Raftcache) -> None:
    pairs = [pair for other in ("n2", "n3") for pair in (("n1", other), (other, "n1"))]
    for pair in pairs:
        await system.network.shape(*pair, Link(cut=Cut.STALL))
    client = system.connect("n1", "http")
    for op, args in (("set", ("1",)), ("get", ())):
        with pytest.raises((Refused, Unknown)):
            await client.invoke(op, "k", args, 1.0)
    other = system.connect("n2", "http")
    async with asyncio.timeout(20):
        while True:
            try:
                assert await other.invoke("get", "k", (), 1.0) is None
                break
            except (Refused, Unknown):
                continue
        for pair in pairs:
            await system.network.shape(*pair, HEALTHY)
        while not await system.ready("n1"):
            await asyncio.sleep(0.05)
    await client.close()
    await other.close()


async def test_a_node_is_killed_wiped_and_comes_back_with_everything(system: Raftcache) -> None:
    client = system.connect("n1", "resp")
    await client.invoke("set", "k", ("1",), 5.0)
    await system.kill("n3")
    assert not system.running("n3")
    await system.wipe("n3")
    await system.launch("n3")
    async with asyncio.timeout(30):
        while not await system.ready("n3"):
            await asyncio.sleep(0.05)
    other = system.connect("n3", "resp")
    assert await other.invoke("get", "k", (), 5.0) == "1"
    await client.close()
    await other.close()


def test_what_a_cluster_can_be_given_depends_on_where_its_data_are() -> None:
    durable, memory = local(Options(nodes=5)), local(Options(nodes=5, durable=False))
    assert set(FAMILIES) - set(possible(durable, durable=True)) >= {"pressure"}
    assert "pressure" in possible(local(Options(small_memory=True)), durable=True)
    alone = local(Options(groups=1, small_memory=True))
    assert "pressure" not in possible(alone, durable=True)
    assert not alone.crowded("k")
    assert {"wipe", "kill-all"}.isdisjoint(possible(memory, durable=False))
    assert {"wipe", "kill-all", "kill-one"} <= set(possible(durable, durable=True))
    assert durable.tolerated == 1
    assert local(Options(nodes=5, settings={"replication": "5"})).tolerated == 2
