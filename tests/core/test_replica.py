"""What the leader of a group does beside replicating: the clock, recency, settings, freshness."""

from __future__ import annotations

from raftcache.machine import Machine
from raftcache.ops import Incr, Set, Status
from raftcache.service import Consistency
from tests.core.conftest import Stage


def state(machine: Machine) -> bytes:
    """The whole state, as bytes."""
    return b"".join(machine.snapshot())


def test_replicas_hold_the_same_state_to_the_byte(stage: Stage) -> None:
    for i in range(100):
        stage.set(b"key-%d" % (i % 30), b"v%d" % i, ttl_ms=0 if i % 3 else 60_000)
        stage.read(b"key-%d" % (i % 7), "n2")
    stage.wait(1.0)
    for group in (0, 1):
        states = {state(replica.machine) for _, replica in stage.cluster.replicas(group)}
        assert len(states) == 1


def test_a_key_expires_on_time_and_stays_expired_under_the_next_leader(stage: Stage) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    survivor = stage.followers(0)[0]
    stage.set(key, b"v", ttl_ms=1000)
    assert 900 < stage.read(key).ttl_ms <= 1000
    stage.wait(0.95)
    assert stage.read(key).status is Status.OK
    stage.wait(0.06)
    assert stage.read(key).status is Status.NOT_FOUND
    stage.cluster.crash(leader, power=False)
    assert stage.read(key, survivor).status is Status.NOT_FOUND


def test_time_goes_on_when_an_idle_leader_dies(stage: Stage) -> None:
    """The next leader goes on from what it heard last, not from the last entry."""
    key, leader = stage.key_of(0), stage.leader(0)
    survivor = stage.followers(0)[0]
    stage.set(key, b"v", ttl_ms=10_000)
    stage.wait(8.0)
    stage.cluster.crash(leader, power=False)
    assert stage.read(key, survivor).status is Status.OK
    stage.wait(2.1)
    assert stage.read(key, survivor).status is Status.NOT_FOUND


def test_a_node_that_restarts_learns_the_time_of_an_idle_group(stage: Stage) -> None:
    """Nobody has written since; if only entries told the time, the key would live 8 s longer."""
    key, leader = stage.key_of(0), stage.leader(0)
    stage.set(key, b"v", ttl_ms=10_000)
    stage.wait(8.0)
    for name in stage.followers(0):
        stage.cluster.crash(name, power=False)
        stage.wait(0.5)
        stage.cluster.start(name)
        stage.until(stage.ready)
    stage.cluster.crash(leader, power=False)
    survivor = next(name for name in stage.cluster.names if name != leader)
    assert stage.read(key, survivor).status is Status.OK
    stage.wait(2.1)
    assert stage.read(key, survivor).status is Status.NOT_FOUND


def test_wall_clocks_have_no_say(stage: Stage) -> None:
    key = stage.key_of(0)
    stage.set(key, b"v", ttl_ms=10_000)
    for name in stage.cluster.names:
        process = stage.cluster.process(name)
        assert process is not None
        process.clock.jump(86_400.0)
    stage.wait(1.0)
    assert stage.read(key).status is Status.OK


def test_reads_are_noted_in_the_log_and_keep_keys_from_eviction(stage: Stage) -> None:
    """LRU order survives a failover, though reads go through no log entry of their own."""
    old, young = stage.key_of(0, 0), stage.key_of(0, 1)
    stage.set(old, b"v")
    stage.set(young, b"v")
    stage.read(old)
    stage.wait(1.0)
    for _, replica in stage.cluster.replicas(0):
        assert list(replica.machine.cache.entries) == [young, old]


def test_the_settings_of_the_leader_are_everybodys(stage: Stage) -> None:
    stage.wait(1.0)
    settings = {
        (
            r.machine.settings.budget_bytes,
            r.machine.settings.policy,
            r.machine.settings.max_sessions,
        )
        for group in (0, 1)
        for _, r in stage.cluster.replicas(group)
    }
    assert len(settings) == 1
    budget, policy, sessions = settings.pop()
    assert (policy, sessions) == ("lru", 100_000)
    assert budget > 0


def test_lease_reads_need_no_round_while_the_lease_lasts(stage: Stage) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    stage.set(key, b"v")
    reads = stage.node(leader).replicas[0].raft.reads
    assert stage.read(key, leader, consistency=Consistency.LEASE).value == b"v"
    before = reads.rounds
    for _ in range(10):
        assert stage.read(key, leader, consistency=Consistency.LEASE).value == b"v"
    assert reads.rounds == before


def test_a_cut_off_leader_serves_no_read_once_somebody_else_may_lead(stage: Stage) -> None:
    key, leader = stage.key_of(0), stage.leader(0)
    other = stage.followers(0)[0]
    stage.set(key, b"old")
    assert stage.read(key, leader, consistency=Consistency.LEASE).value == b"old"
    stage.isolate(leader)
    stage.until(lambda: stage.cluster.leader(0) not in (None, leader))
    stage.set(key, b"new", other)
    node = stage.node(leader)
    for consistency in (Consistency.LINEARIZABLE, Consistency.LEASE):
        read = node.read(key, node.now() + 0.5, consistency)
        assert stage.result(read).status is Status.UNAVAILABLE
    stage.cluster.network.heal()
    assert stage.read(key, leader).value == b"new"


def test_a_stale_read_within_its_bound_sees_what_was_written_before_the_bound(
    stage: Stage,
) -> None:
    key = stage.key_of(0)
    follower = stage.followers(0)[0]
    stage.set(key, b"1")
    stage.wait(0.5)
    stage.write(Incr(key))
    stage.wait(0.11)
    assert stage.stale(key, follower, 0.1).value == b"2"


def test_a_cut_off_follower_serves_stale_reads_only_without_a_bound(stage: Stage) -> None:
    key = stage.key_of(0)
    follower = stage.followers(0)[0]
    stage.set(key, b"old")
    stage.wait(0.5)
    stage.isolate(follower)
    stage.wait(1.0)
    assert stage.stale(key, follower).value == b"old"
    node = stage.node(follower)
    bounded = node.read(key, node.now() + 0.5, Consistency.STALE, 0.1)
    assert stage.result(bounded).status is Status.UNAVAILABLE


def test_a_large_value_reaches_every_replica(stage: Stage) -> None:
    value = bytes(range(256)) * 4096 * 4  # 4 MiB
    stage.set(b"large", value)
    for name in stage.cluster.names:
        assert stage.read(b"large", name).value == value


def test_a_memory_only_node_that_restarts_gets_everything_back() -> None:
    stage = Stage(durable=False)
    for i in range(200):
        stage.set(b"key-%d" % i, b"v%d" % i)
    stage.cluster.crash("n2", power=True)
    stage.set(b"meanwhile", b"v")
    stage.cluster.start("n2")
    stage.until(stage.ready, 10.0)
    stage.wait(0.2)
    for i in range(200):
        assert stage.stale(b"key-%d" % i, "n2").value == b"v%d" % i
    assert stage.stale(b"meanwhile", "n2").value == b"v"


def test_a_memory_only_cluster_survives_restarts_of_all_nodes_one_after_the_other() -> None:
    stage = Stage(durable=False)
    stage.set(b"key", b"value")
    for name in stage.cluster.names:
        stage.cluster.crash(name, power=True)
        stage.wait(1.0)
        stage.cluster.start(name)
        stage.until(stage.ready, 10.0)
    assert stage.read(b"key").value == b"value"


def test_a_node_whose_disk_was_emptied_votes_for_nobody_until_it_has_recovered() -> None:
    """Majority {n1, n2} has the write; n2 forgets it; n3, which never had it, must not be elected
    by n2's vote (PYSYNCOBJ S3)."""
    stage = Stage()
    key, leader = stage.key_of(0), stage.leader(0)
    keeper, behind = stage.followers(0)
    stage.isolate(behind)
    stage.wait(1.0)
    stage.set(key, b"acknowledged", leader)
    # The one follower that has it loses its disk; the leader can be reached by nobody.
    stage.cluster.crash(keeper, power=True)
    stage.cluster.disks[keeper] = type(stage.cluster.disks[keeper])(
        stage.scheduler.generator("new disk")
    )
    stage.cluster.network.heal()
    stage.isolate(leader)
    stage.cluster.start(keeper)
    stage.wait(5.0)
    assert stage.node(keeper).replicas[0].raft.recovering
    assert not any(stage.node(name).replicas[0].raft.is_leader for name in (keeper, behind))
    stage.cluster.network.heal()
    stage.until(stage.ready, 10.0)
    assert stage.read(key, behind).value == b"acknowledged"


def test_a_batch_of_writes_shares_one_log_entry(stage: Stage) -> None:
    leader = stage.leader(0)
    node = stage.node(leader)
    keys = [stage.key_of(0, i) for i in range(50)]
    before = node.replicas[0].raft.last_index
    pending = [node.write(Set(key, b"v"), node.now() + 5.0) for key in keys]
    for future in pending:
        stage.result(future)
    assert node.replicas[0].raft.last_index == before + 1


def test_what_raft_counts_reaches_the_metrics() -> None:
    stage = Stage(durable=False)
    leader = stage.leader(0)
    stage.set(stage.key_of(0), b"v")
    stage.read(stage.key_of(0), leader)
    for _, replica in stage.cluster.replicas(0):
        replica.raft._options = type(replica.raft._options)(log_retention_bytes=1)
    victim = stage.followers(0)[0]
    stage.cluster.crash(victim, power=True)
    for _ in range(5):
        stage.set(stage.key_of(0), b"v" * 1000, leader)
    stage.cluster.start(victim)
    stage.until(stage.ready, 10.0)
    stage.wait(0.1)
    sent = stage.node(leader).group_metrics[0]
    assert sent.elections >= 1 and sent.read_rounds >= 1 and sent.snapshots_sent >= 1
    assert stage.node(victim).group_metrics[0].snapshots_received >= 1
