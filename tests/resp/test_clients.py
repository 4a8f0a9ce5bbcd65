"""Real clients, unmodified, against a real three-node cluster."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from redis.cluster import RedisCluster

from raftcache.demo import Cluster, Plan
from tests.programs import program


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(Plan(nodes=3, groups=4, port=0, memory=True)) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(params=[0, 1, 2], ids=["n1", "n2", "n3"])
def client(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[redis.Redis]:
    host, port = cluster.resp[request.param].split(":")
    with redis.StrictRedis(host=host, port=int(port), db=0) as connected:
        connected.flushall()
        yield connected


def test_the_few_lines_everybody_writes(client: redis.Redis) -> None:
    assert client.set("key", "value") is True
    assert client.get("key") == b"value"


def test_redis_py_through_any_node(client: redis.Redis) -> None:
    assert client.ping()
    assert client.set("lock", "me", nx=True, ex=30) is True
    assert client.set("lock", "you", nx=True, ex=30) is None
    assert 0 < client.ttl("lock") <= 30
    assert [client.incr("n"), client.incrby("n", 4), client.decr("n")] == [1, 5, 4]
    assert client.incrbyfloat("f", 0.1) == 0.1
    client.mset({"{m}a": 1, "{m}b": 2})
    assert client.mget("{m}a", "{m}b", "none") == [b"1", b"2", None]
    assert client.delete("{m}a", "lock", "none") == 2
    assert client.getex("n", ex=100) == b"4"
    assert client.dbsize() == 3
    assert sorted(client.scan_iter()) == sorted(client.keys()) == [b"f", b"n", b"{m}b"]
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.set("text", "x") and client.incr("text")


def test_pipelines_and_transactions(client: redis.Redis) -> None:
    with client.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.set(f"k{i}", i)
        assert pipe.execute() == [True] * 1000
        for i in range(1000):
            pipe.get(f"k{i}")
        assert pipe.execute() == [b"%d" % i for i in range(1000)]

    def add_one(pipe: redis.client.Pipeline) -> None:
        value = int(pipe.get("counter") or 0)
        pipe.multi()
        pipe.set("counter", value + 1)

    for _ in range(5):
        client.transaction(add_one, "counter")
    assert client.get("counter") == b"5"


def test_the_lock_of_redis_py_needs_a_script_and_says_so(client: redis.Redis) -> None:
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.eval("return 1", 0)


def test_resp3(cluster: Cluster) -> None:
    host, port = cluster.resp[0].split(":")
    with redis.Redis(host=host, port=int(port), protocol=3) as client:
        assert client.get("none") is None
        assert client.config_get("maxclients") == {"maxclients": "10000"}
        assert client.set("k", b"\x00\xff")
        assert client.get("k") == b"\x00\xff"


async def test_redis_py_asyncio(cluster: Cluster) -> None:
    host, port = cluster.resp[1].split(":")
    client = redis.asyncio.Redis(host=host, port=int(port))
    try:
        name = uuid.uuid4().hex
        assert await client.set(name, "v")
        assert await client.get(name) == b"v"
        async with client.pipeline(transaction=True) as pipe:
            assert await pipe.incr(f"{{{name}}}a").incr(f"{{{name}}}a").execute() == [1, 2]
    finally:
        await client.aclose()


def test_a_cluster_client_finds_the_leaders(cluster: Cluster) -> None:
    host, port = cluster.resp[2].split(":")
    with RedisCluster(host=host, port=int(port)) as client:
        for i in range(300):
            assert client.set(f"key:{i}", i)
        assert [client.get(f"key:{i}") for i in range(300)] == [b"%d" % i for i in range(300)]
        assert client.mget_nonatomic([f"key:{i}" for i in range(20)]) == [
            b"%d" % i for i in range(20)
        ]
        primaries = {node.port for node in client.get_primaries()}
        assert primaries <= {int(address.split(":")[1]) for address in cluster.resp}
        with client.pipeline() as pipe:
            pipe.set("{t}a", 1).incr("{t}a")
            assert pipe.execute() == [True, 2]


def redirections(cluster: Cluster) -> int:
    """How many of the nodes send an aware client away for a given key, each to a node of the
    cluster; a plain one none of them."""
    moved = 0
    for address in cluster.resp:
        host, port = address.split(":")
        with redis.Redis(host=host, port=int(port), single_connection_client=True) as client:
            assert client.set("some key", 1)
            client.execute_command("CLUSTER SLOTS")
            try:
                client.get("some key")
            except redis.exceptions.MovedError as error:
                assert error.slot_id == client.execute_command("CLUSTER KEYSLOT", "some key")
                assert f"{error.host}:{error.port}" in cluster.resp
                moved += 1
    return moved


def test_an_aware_client_is_sent_to_the_leader_and_a_plain_one_is_served(cluster: Cluster) -> None:
    """Of three nodes two do not lead a given key. On a busy machine leadership may move while they
    are asked one after the other."""
    assert any(redirections(cluster) == 2 for _ in range(20))


def run(*command: str, given: str = "") -> str:
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_redis_cli(cluster: Cluster) -> None:
    cli = program("redis-cli", "redis-tools")
    host, port = cluster.resp[0].split(":")
    given = "SET greeting hello\nGET greeting\nINCRBY {c}n 5\nMULTI\nINCR {c}n\nEXEC\n"
    lines = run(cli, "-h", host, "-p", port, given=given).splitlines()
    assert lines == ["OK", "hello", "5", "OK", "QUEUED", "6"]
    assert run(cli, "-c", "-h", host, "-p", port, "GET", "greeting") == "hello\n"
    assert "redis_version:7" in run(cli, "-h", host, "-p", port, "INFO", "server")
    assert "cluster_state:ok" in run(cli, "-h", host, "-p", port, "CLUSTER", "INFO")
    assert "greeting" in run(cli, "-h", host, "-p", port, "--scan")


@pytest.mark.parametrize("more", [[], ["-P", "16"], ["--cluster"]])
def test_redis_benchmark(cluster: Cluster, more: list[str]) -> None:
    tool = program("redis-benchmark", "redis-tools")
    host, port = cluster.resp[0].split(":")
    output = run(
        tool,
        "-h",
        host,
        "-p",
        port,
        "-t",
        "set,get,incr",
        "-n",
        "1000",
        "-r",
        "100",
        "-q",
        *more,
    )
    assert "SET: " in output and "GET: " in output
