"""Carries out a schedule of faults, and ends all of it when the time for faults is over."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from jepsen_like.sim import disk_faults, network_faults, process_faults, raft_faults
from jepsen_like.sim.cluster import Cluster
from jepsen_like.sim.faults import Fault
from jepsen_like.sim.stage import Action, Stage

ACTIONS: Final[dict[str, Action]] = {
    **network_faults.ACTIONS,
    **process_faults.ACTIONS,
    **raft_faults.ACTIONS,
    **disk_faults.ACTIONS,
}
"""Every family, and what it does."""


class Injector:
    """Begins each fault of a schedule when it is due; ``end`` repairs everything."""

    def __init__(self, cluster: Cluster, faults: Sequence[Fault]) -> None:
        self._stage = Stage(cluster)
        for fault in faults:
            cluster.scheduler.call_at(fault.start, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        self._stage.cluster.counts[f"fault {fault.family}"] += 1
        ACTIONS[fault.family](self._stage, random.Random(fault.seed), fault.seconds)

    def end(self) -> None:
        """No more faults: everything is repaired, everybody is up."""
        stage, cluster = self._stage, self._stage.cluster
        stage.over = True
        stage.say("all faults end")
        cluster.network.heal()
        cluster.duplication, cluster.ambush = 0.0, None
        cluster.attended = True
        for name in cluster.names:
            disk = cluster.disks[name]
            disk.free_bytes, disk.fail_syncs, disk.fail_writes = None, 0, 0
            disk.sync_seconds = disk_faults.QUICK_SYNC_S
            cluster.replace_disk(name)
            cluster.slow(name, 0.0)
            process = cluster.process(name)
            if process is None:
                cluster.start(name)
            else:
                process.resume()
                process.crash_after(-1, lambda: None)
