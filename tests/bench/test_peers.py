"""Peers are files: those that come along run, and others can be added."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from measuring.wire import WireRunning
from peers import Load, PeerError, Setup, Through, load_peers

from raftcache.bench.dialects import DIALECTS
from raftcache.bench.workload import Workload
from tests.programs import program

from .conftest import BENCHMARKS, ServerFactory, Store

PLUG_IN = """
from peers import Peer

class Mine(Peer):
    name = "mine"
    about = "a store"
    programs = ("no-such-program-anywhere",)
    install = "build it from its sources"

PEERS = [Mine()]
"""


def test_a_file_adds_a_peer(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PLUG_IN)
    peers = load_peers([path])
    assert {"raftcache", "raftcache-http", "etcd", "redis-wait", "pysyncobj"} < set(peers)
    assert peers["mine"].missing() == "no no-such-program-anywhere on PATH"
    assert peers["mine"].how_to_install() == "build it from its sources"


def test_the_example_in_the_documentation_is_a_peer(tmp_path: Path) -> None:
    text = (BENCHMARKS / "peers" / "README.md").read_text()
    path = tmp_path / "redisraft.py"
    path.write_text(text.partition("```python\n")[2].partition("```")[0])
    peer = load_peers([path])["redisraft"]
    assert "redisraft.so" in peer.missing()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("PEERS = 1", "it sets no PEERS"),
        ("", "it sets no PEERS"),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        (PLUG_IN.replace('"mine"', '"etcd"'), "there is a peer 'etcd' already"),
    ],
)
def test_a_file_that_is_no_peer_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(PeerError, match=problem):
        load_peers([path])


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="no such Python file"):
        load_peers([tmp_path / "mine.py"])


def test_a_load_goes_where_it_is_told(tmp_path: Path, resp_server: ServerFactory) -> None:
    nodes = [resp_server(Store()) for _ in range(3)]
    addresses = [("127.0.0.1", node.port) for node in nodes]
    running = WireRunning([], lambda: addresses, DIALECTS["resp"])
    reached = []
    for through in Through:
        load = Load(Workload("set", 10), clients=3, seconds=0.1, through=through)
        running.run(*running.generators(load), load)
        reached.append([bool(node.commands) for node in nodes])
        for node in nodes:
            node.commands.clear()
    assert reached == [[True, False, False], [False, True, False], [True, True, True]]
    alone = WireRunning([], lambda: addresses[:1], DIALECTS["resp"])
    assert alone.generators(Load(Workload("set"), 1, 1.0, Through.FOLLOWER)) == ()


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("raftcache", None),
        ("raftcache-http", None),
        ("pysyncobj", None),
        ("redis-wait", ("redis-server", "redis-server")),
        ("redis-alone", ("redis-server", "redis-server")),
        ("etcd", ("etcd", "etcd-server")),
    ],
)
def test_a_peer_stores_and_finds(
    tmp_path: Path, name: str, needs: tuple[str, str] | None, durable: bool
) -> None:
    if needs is not None:
        program(*needs)
    peer = load_peers()[name]
    assert peer.missing() == ""
    assert peer.version()
    with peer.start(Setup(tmp_path, durable)) as running:
        assert len(running.pids) == (1 if name == "redis-alone" else 3)
        for op, depth in (("set", 1), ("get", 1), ("set", 5), ("get", 5)):
            load = Load(Workload(op, 100, 40, 0.0, depth), clients=4, seconds=0.3)
            generators = running.generators(load)
            if depth == 1:
                assert generators
            if op == "get" and generators:
                running.fill(load)
            for generator in generators:
                found = running.run(generator, load)
                if not found["operations"]:
                    # A disk may stand still for that long.
                    found = running.run(generator, replace(load, seconds=10.0))
                assert found["operations"] > 0
                assert found["ops_per_s"] > 0
                assert (found["errors"], found.get("misses", 0)) == (0, 0), found
    assert not any(Path(f"/proc/{pid}").exists() for pid in running.pids)
