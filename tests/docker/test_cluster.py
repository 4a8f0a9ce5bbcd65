"""A real cluster in containers: what it is made of, and that it stays right when a node is killed
or cut off."""

from __future__ import annotations

import json
import os
import time

import pytest
import redis

from jepsen_like.checkers.linearizability import Verdict, check
from raftcache.partition import SlotMap
from tests.docker.cluster import NODES, Cluster, until
from tests.docker.workload import Workload

pytestmark = pytest.mark.docker
FAULT_S = 3.0
MIB = 1024 * 1024


def test_five_healthy_nodes_hold_eight_groups_three_times(cluster: Cluster) -> None:
    for node in NODES:
        assert cluster.inspect(node)["State"]["Health"]["Status"] == "healthy"
        status = cluster.status(node)
        assert [member["id"] for member in status["members"]] == list(NODES)
        assert all(member["connected"] for member in status["members"])
    replicas = {
        group["id"]: group["replicas"] for node in NODES for group in cluster.status(node)["groups"]
    }
    assert sorted(replicas) == list(range(8))
    assert all(len(nodes) == 3 for nodes in replicas.values())
    assert "ready" in cluster.exec("n4", "raftcache", "status")


def test_both_protocols_are_published_by_every_node(cluster: Cluster) -> None:
    for node in NODES:
        client = redis.Redis(port=cluster.resp_port(node), decode_responses=True)
        assert client.set(f"from-{node}", node)
        for other in NODES:
            assert cluster.get(other, f"/v1/keys/from-{node}") == (200, node.encode())


def test_a_node_can_do_no_more_than_it_has_to(cluster: Cluster) -> None:
    host = cluster.inspect("n1")["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["Init"]
    status = dict(
        line.split(":", 1) for line in cluster.exec("n1", "cat", "/proc/self/status").splitlines()
    )
    assert status["Uid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert int(status["NoNewPrivs"]) == 1
    first = cluster.exec("n1", "cat", "/proc/1/cmdline").split("\0")
    assert "init" in first[0]
    refused = cluster.engine.run(["docker", "exec", cluster.container("n1"), "touch", "/tmp/x"])
    assert "Read-only file system" in refused.stderr


def test_the_image_adds_little_to_its_base(cluster: Cluster) -> None:
    def size(image: str) -> int:
        return int(json.loads(cluster.engine.docker("image", "inspect", image))[0]["Size"])

    image, base = cluster.environment["RAFTCACHE_IMAGE"], cluster.environment["RAFTCACHE_BASE"]
    assert size(image) - size(base) < 80 * MIB
    run = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", image]
    for module in ("pip", "setuptools", "jepsen_like"):
        code = f"import importlib.util as u; raise SystemExit(u.find_spec('{module}') is not None)"
        assert cluster.engine.run([*run, "-c", code]).returncode == 0, module


def test_the_image_is_compiled_when_that_was_asked_for(cluster: Cluster) -> None:
    asked = os.environ.get("RAFTCACHE_COMPILED", "") != ""
    assert cluster.exec("n1", "raftcache", "--version").endswith("(compiled)") is asked


def test_reads_and_writes_stay_right_when_a_node_is_killed(cluster: Cluster) -> None:
    with Workload(cluster) as workload:
        time.sleep(1)
        cluster.engine.docker("kill", "--signal", "KILL", cluster.container("n2"))
        until_all_groups_work(cluster, "n1", "n3", "n4", "n5")
        time.sleep(FAULT_S)
        assert cluster.get("n2", "/healthz", 2.0)[0] == 0
        cluster.compose("up", "--detach", "--wait", "n2")
        until_all_groups_work(cluster, *NODES)
    judge(workload)


def test_reads_and_writes_stay_right_when_a_node_is_cut_off(cluster: Cluster) -> None:
    network, node = f"{cluster.project}_peers", cluster.container("n3")
    others = [each for each in NODES if each != "n3"]
    key = f"%7B{key_led_by(cluster, 'n3')}%7D-cut"
    assert cluster.put("n3", key, "old") == 201
    with Workload(cluster) as workload:
        time.sleep(1)
        cluster.engine.docker("network", "disconnect", network, node)
        until_all_groups_work(cluster, *others)
        assert cluster.put("n1", key, "new") == 200
        # Its clients reach it, but it must not tell them what was true before.
        assert cluster.get("n3", f"/v1/keys/{key}?timeout=2s")[0] == 503
        assert cluster.put("n3", f"{key}?timeout=2s", "lost") in (503, 504)
        time.sleep(FAULT_S)
        until(lambda: health(cluster, "n3") == "unhealthy", "n3 is seen to be cut off")
        cluster.engine.docker("network", "connect", "--alias", "n3.peers", network, node)
        until_all_groups_work(cluster, *NODES)
        until(lambda: health(cluster, "n3") == "healthy", "n3 is healthy again")
        assert cluster.get("n3", f"/v1/keys/{key}") == (200, b"new")
    judge(workload)


def test_data_outlive_their_containers(cluster: Cluster) -> None:
    assert cluster.put("n1", "kept", "on the volumes") in (200, 201)
    # All at once and without notice; the containers are gone, the volumes are not.
    cluster.compose("down", "--timeout", "0")
    cluster.compose("up", "--detach", "--wait")
    for node in NODES:
        assert cluster.get(node, "/v1/keys/kept") == (200, b"on the volumes")


def health(cluster: Cluster, node: str) -> str:
    """What docker's health check says."""
    return str(cluster.inspect(node)["State"]["Health"]["Status"])


def key_of(group: int) -> str:
    """A key of the group, by the placement that the compose file asks for."""
    slots = SlotMap(8)
    return next(key for key in map(str, range(10_000)) if slots.group_of(key.encode()) == group)


def key_led_by(cluster: Cluster, node: str) -> str:
    """A key of a group that a node leads; leadership is handed to it when it leads none."""
    groups = cluster.status(node)["groups"]
    for group in groups:
        if group["leader"] == node:
            return key_of(group["id"])
    group = groups[0]
    path = f"/v1/cluster/groups/{group['id']}/transfer?to={node}"
    assert cluster.request("POST", group["leader"], path)[0] == 204
    until(lambda: cluster.leader_of(group["id"], node) == node, f"{node} leads a group")
    return key_of(group["id"])


def until_all_groups_work(cluster: Cluster, *nodes: str) -> None:
    """Until a write and a read of each group succeed through each of these nodes."""
    for node in nodes:
        for group in range(8):
            path = f"/v1/keys/%7B{key_of(group)}%7D-{node}?timeout=2s"
            until(
                lambda n=node, p=path: cluster.request("PUT", n, p, "x")[0] in (200, 201),
                f"{node} writes keys of group {group}",
            )
            until(
                lambda n=node, p=path: cluster.get(n, p) == (200, b"x"),
                f"{node} reads keys of group {group}",
            )


def judge(workload: Workload) -> None:
    """The history has something in it from every node, and is linearizable."""
    assert all(workload.acknowledged[node] > 50 for node in NODES), workload.acknowledged
    report = check(workload.history, seconds=60)
    assert report.verdict is Verdict.VALID, report.bad
