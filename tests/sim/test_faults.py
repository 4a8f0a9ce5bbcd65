"""The faults are what they are called, and what must be refused is."""

from __future__ import annotations

import random

import pytest

from jepsen_like.partitions import bridge, majorities_ring
from jepsen_like.sim.cluster import Cluster, trace_logs
from jepsen_like.sim.disk_faults import flip_bit
from jepsen_like.sim.faults import FAMILIES, Fault, expand
from jepsen_like.sim.injector import Injector
from jepsen_like.sim.run import Options, run
from jepsen_like.sim.scheduler import Scheduler
from raftcache.ops import Set

NAMES = ["n1", "n2", "n3", "n4", "n5"]


def heard(names: list[str], cut: list[tuple[str, str]]) -> dict[str, set[str]]:
    """Whom each node still hears, itself included."""
    return {target: {source for source in names if (source, target) not in cut} for target in names}


def test_a_family_is_named_by_itself_or_with_all_its_kin() -> None:
    assert expand(["loss"]) == ("loss",)
    assert expand(["disk", "transfer-storm"])[0] == "transfer-storm"
    assert expand(["transfer"]) == ("transfer", "transfer-storm")
    assert len(expand(["partition"])) == 6
    assert expand(FAMILIES) == FAMILIES
    with pytest.raises(ValueError, match="earthquake"):
        expand(["earthquake"])


def test_a_bridge_is_one_node_that_hears_both_sides() -> None:
    assert heard(NAMES, bridge(NAMES)) == {
        "n1": {"n1", "n2", "n3"},
        "n2": {"n1", "n2", "n3"},
        "n3": set(NAMES),
        "n4": {"n3", "n4", "n5"},
        "n5": {"n3", "n4", "n5"},
    }
    assert heard(NAMES[:3], bridge(NAMES[:3])) == {
        "n1": {"n1", "n2"},
        "n2": {"n1", "n2", "n3"},
        "n3": {"n2", "n3"},
    }


@pytest.mark.parametrize("size", [3, 5])
def test_in_a_ring_everybody_hears_a_majority_and_no_two_the_same(size: int) -> None:
    names = NAMES[:size]
    seen = heard(names, majorities_ring(names))
    assert all(name in hears and len(hears) == size // 2 + 1 for name, hears in seen.items())
    assert len({frozenset(hears) for hears in seen.values()}) == size


# -- disks ----------------------------------------------------------------------------------------


class Old(Cluster):
    """A durable cluster that has run for a while, with snapshots on its disks."""

    def __init__(self, seed: int) -> None:
        super().__init__(Scheduler(seed), 3, 1, durable_mode=True)
        self._snapshot_bytes = 2_000
        self.start_all()
        self.scheduler.run(1.0)
        for number in range(100):
            node = self.nodes[self.leader(0) or ""]
            node.process.call_soon(
                node.write, Set(b"k%d" % (number % 7), b"v" * 50), node.now() + 1.0
            )
            self.scheduler.run(self.scheduler.now + 0.02)


@pytest.fixture(scope="module")
def disk() -> dict[str, bytes]:
    """What a node that was killed in mid-flight leaves."""
    before = trace_logs(None)
    cluster = Old(1)
    cluster.crash("n2", power=False)
    import structlog

    structlog.configure(**before)
    assert not cluster.scheduler.violations
    contents = cluster.disks["n2"].contents()
    assert any("snapshot-" in path for path in contents)
    return contents


def test_any_flipped_bit_is_refused(disk: dict[str, bytes]) -> None:
    """In the identity, the state, the journal but for its last block, the snapshot's header and its
    body: a node never starts with other content than it wrote."""
    flipped = set()
    for seed in range(60):
        cluster = Cluster(Scheduler(seed), 3, 1, durable_mode=True)
        trace_logs(cluster)
        for path, content in disk.items():
            cluster.disks["n2"].make_directory(path.rpartition("/")[0])
            cluster.disks["n2"].replace(path, content)
        path = flip_bit(cluster.disks["n2"], random.Random(seed))
        assert path is not None
        flipped.add(path.rpartition("/")[2].partition("-")[0])
        cluster.damage("n2")
        cluster.start("n2")
        cluster.scheduler.run(0.5)
        assert not cluster.scheduler.violations, f"seed {seed}: {path}"
        assert cluster.counts["corruptions refused"] == 1, f"seed {seed}: {path}"
    assert flipped == {"identity.json", "state", "journal", "snapshot"}


def test_a_node_that_refuses_gets_an_empty_disk_and_recovers() -> None:
    options = Options(seconds=6.0, groups=1)
    faults = [Fault(2.0, 1.0, "disk-flip", seed) for seed in range(5)]
    outcome = run(1, options, faults=faults)
    assert outcome.violations == []
    assert outcome.counts["corruptions refused"] > 0
    assert outcome.counts["recoveries without disk"] > 0


def test_never_more_than_a_minority_of_the_disks_is_damaged() -> None:
    """Whatever is asked for at once."""
    cluster = Old(2)
    faults = [Fault(cluster.scheduler.now, 1.0, "disk-wipe", seed) for seed in range(20)]
    Injector(cluster, faults)
    cluster.scheduler.run(cluster.scheduler.now)
    assert len(cluster.damaged()) == 1


# -- what must be refused, and what must not matter -----------------------------------------------


def test_an_old_connection_played_again_is_refused() -> None:
    faults = [Fault(1.0 + 0.1 * i, 0.1, "replay", i) for i in range(10)]
    outcome = run(1, Options(seconds=3.0), faults=faults)
    assert outcome.violations == []
    assert outcome.counts["replays refused"] == 10


def test_bytes_of_an_old_connection_arrive_after_the_new_one_is_up() -> None:
    faults = [Fault(1.0 + i, 0.5, "reorder", i) for i in range(6)]
    outcome = run(1, Options(seconds=8.0), faults=faults)
    assert outcome.violations == []
    assert outcome.counts["late pieces of old connections"] > 6
