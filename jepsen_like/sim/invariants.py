"""What must hold inside the cluster, whatever clients see: Raft's own promises.

- Election safety: at most one leader per term and group (Raft, figure 3).
- Committed entries never change: what any replica counts as committed at an index is the same
  everywhere and for ever (state machine safety, at the log).
- Nothing that a replica knows to be committed is ever cut off its log, not even for a moment.
- Replicas that have applied the same index have the same state, byte for byte.
- Machine time runs no faster than time does (``machine_time``).

``Watcher.look`` is called at short intervals; leaders are noticed when they report.
"""

from __future__ import annotations

import zlib

from jepsen_like.sim.cluster import Cluster, SimNode
from jepsen_like.sim.machine_time import MachineTime

STATES_KEPT = 50
"""Per group, the last so many observed (applied index, state) pairs are compared with."""


class Watcher:
    """Looks into all nodes; what it finds goes to the scheduler's violations."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._leaders: dict[tuple[int, int], str] = {}
        self._committed: dict[tuple[int, int], tuple[int, int]] = {}
        self._seen: dict[tuple[str, int, int], int] = {}
        self._states: list[dict[int, tuple[str, int]]] = [{} for _ in range(cluster.groups)]
        self._times = [MachineTime(cluster.scheduler, group) for group in range(cluster.groups)]
        self.elections = 0
        cluster.on_group_change = self.on_group_change
        cluster.on_truncate = self.on_truncate

    def on_group_change(self, node: SimNode, group: int) -> None:
        """A node has a new view of a group's leader."""
        raft = node.replicas[group].raft if group in node.replicas else None
        if raft is None or not raft.is_leader:
            return
        who = f"{node.settings.node}/{node.process.incarnation}"
        key = (group, raft.engine.term)
        if key not in self._leaders:
            self.elections += 1
            self._scheduler.say(node.settings.node, f"leads group {group} in term {key[1]}")
        first = self._leaders.setdefault(key, who)
        if first != who:
            self._scheduler.violation(
                "two leaders in a term", f"group {group} term {key[1]}: {first} and {who}"
            )

    def on_truncate(self, node: SimNode, group: int, index: int) -> None:
        """A node's log loses its entries from ``index`` on."""
        commit = node.replicas[group].raft.engine.commit_index
        if index <= commit:
            self._scheduler.violation(
                "a committed entry was cut off",
                f"group {group} index {index} at {node.settings.node}: committed up to {commit}",
            )

    def look(self, states: bool = False) -> None:
        """Compare what has been committed since the last look; with ``states`` the states too."""
        for group in range(self._cluster.groups):
            self._times[group].look(self._cluster.replicas(group))
            for node, replica in self._cluster.replicas(group):
                commit = replica.raft.engine.commit_index
                if len(self._cluster.names) == 1:
                    # A lone leader commits at once; what counts is what its disk has, too.
                    commit = min(commit, node.journals[group].durable_index)
                self._compare_log(group, node, commit)
                self.on_group_change(node, group)
                if states:
                    self._compare_state(group, node)

    def _compare_log(self, group: int, node: SimNode, commit: int) -> None:
        journal = node.journals[group]
        place = (node.settings.node, node.process.incarnation, group)
        start = self._seen.get(place, 0) + 1
        for index in range(start, commit + 1):
            entry = journal.at(index)
            if entry is None or index == journal.first_index:
                continue  # covered by a snapshot (the first one kept stands in for an entry that
                # is): the states are compared
            found = (entry[2], zlib.crc32(entry[0]))
            first = self._committed.setdefault((group, index), found)
            if first != found:
                self._scheduler.violation(
                    "a committed entry changed",
                    f"group {group} index {index} at {place[0]}: was {first}, is {found}",
                )
        self._seen[place] = max(commit, start - 1)

    def _compare_state(self, group: int, node: SimNode) -> None:
        replica = node.replicas[group]
        state = zlib.crc32(b"".join(replica.machine.snapshot()))
        states = self._states[group]
        who, first = states.setdefault(replica.raft.applied_index, (node.settings.node, state))
        if first != state:
            self._scheduler.violation(
                "replicas differ",
                f"group {group} at applied index {replica.raft.applied_index}:"
                f" {who} and {node.settings.node}",
            )
        if len(states) > STATES_KEPT:
            del states[next(iter(states))]

    def converged(self) -> list[str]:
        """What keeps the replicas from being equal now, in words."""
        problems = []
        for group in range(self._cluster.groups):
            applied = {
                node.settings.node: replica.raft.applied_index
                for node, replica in self._cluster.replicas(group)
            }
            if len(set(applied.values())) > 1 or len(applied) < self._cluster.replication:
                problems.append(f"group {group}: applied {applied}")
        return problems
