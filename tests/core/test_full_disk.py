"""What clients see of full disks: ``STORAGE_FULL`` through any node, and reads."""

from __future__ import annotations

from raftcache.ops import Incr, Once, Set, Status
from tests.core.conftest import Stage


def fill(stage: Stage, *names: str) -> dict[bytes, bytes]:
    """Write until a group refuses; what was acknowledged."""
    acknowledged: dict[bytes, bytes] = {}
    for name in names:
        stage.cluster.disks[name].free_bytes = 0
    for i in range(3000):
        key, value = stage.key_of(0, i % 20), b"%d" % i * 2000
        result = stage.set(key, value)
        if result.status is Status.STORAGE_FULL:
            return acknowledged
        assert result.status in (Status.OK, Status.CREATED)
        acknowledged[key] = value
    raise AssertionError("the disks do not get full")


def test_a_full_group_refuses_writes_through_every_node_at_once_and_serves_reads(
    stage: Stage,
) -> None:
    acknowledged = fill(stage, *stage.cluster.names)
    key = stage.key_of(0, 50)
    for via in stage.cluster.names:
        started = stage.scheduler.now
        assert stage.set(key, b"x", via).status is Status.STORAGE_FULL
        once = Once(b"session", 1, Incr(key))
        assert stage.write(once, via).status is Status.STORAGE_FULL
        assert [r.status for r in stage.batch([Set(key, b"x")], via)] == [Status.STORAGE_FULL]
        assert stage.scheduler.now - started < 0.1
        for acknowledged_key, value in acknowledged.items():
            assert stage.read(acknowledged_key, via).value == value
        assert stage.read(key, via).status is Status.NOT_FOUND


def test_writes_go_on_within_a_second_when_there_is_space_again(stage: Stage) -> None:
    acknowledged = fill(stage, *stage.cluster.names)
    for name in stage.cluster.names:
        stage.cluster.disks[name].free_bytes = None
    stage.wait(1.0)
    for via in stage.cluster.names:
        assert stage.set(b"key", b"after", via).status in (Status.OK, Status.CREATED)
    for key, value in acknowledged.items():
        assert stage.read(key).value == value


def test_one_full_disk_refuses_nothing(stage: Stage) -> None:
    """Its leaderships go elsewhere; the others are a majority."""
    leader = stage.leader(0)
    stage.cluster.disks[leader].free_bytes = 0
    raft = stage.node(leader).replicas[0].raft
    for i in range(3000):
        if not raft.has_room:
            break
        result = stage.set(stage.key_of(0, i % 20), b"%d" % i * 2000)
        assert result.status in (Status.OK, Status.CREATED)
    assert not raft.has_room
    for via in stage.cluster.names:
        assert stage.set(stage.key_of(0), b"x", via).status in (Status.OK, Status.CREATED)
    stage.wait(5.0)
    assert not raft.is_leader, "the balancer does not give it back either"
    assert not stage.node(leader).status().groups[0].has_room


def test_a_read_of_a_key_whose_time_is_up_is_refused_while_the_log_cannot_say_so(
    stage: Stage,
) -> None:
    """Neither dead, or it might be seen alive again, nor alive."""
    key = stage.key_of(0, 100)
    stage.set(key, b"x", ttl_ms=60_000)
    fill(stage, *stage.cluster.names)
    assert stage.read(key).value == b"x"
    stage.wait(61.0)
    assert stage.read(key).status is Status.STORAGE_FULL
    for name in stage.cluster.names:
        stage.cluster.disks[name].free_bytes = None
    stage.wait(1.0)
    assert stage.read(key).status is Status.NOT_FOUND
