"""Linearizable reads of several groups at once.

A pipeline, or fifty clients, ask for keys of all groups in every turn of the event loop. Taking
that apart by groups, giving each replica its part and putting results together again costs more
than the reads. So every group that is concerned is only asked whether it may be read, and then all
keys are looked up in the order in which they were asked for.

A read is as fresh as its own group's answer, whenever that of another group comes. It must not wait
for another group that has lost its leader, though: then, or when an answer takes long that others
have given, reads go on by themselves, each to its group. They may be repeated without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from raftcache.forwarding import Ticket
from raftcache.gathering import Joint
from raftcache.ops import Get, Result
from raftcache.replica import Replica
from raftcache.runtime import Runtime

PATIENCE_S: Final = 0.02
"""How long an answer may be missing while others have come."""
APART_S: Final = 1.0
"""How long reads go by themselves after that."""


class JointReads:
    """One node's. ``replicas``: of the groups that are here, out of so many ``groups``;
    ``dispatch`` takes tickets that go by themselves, ``finish`` the results of a joint one."""

    def __init__(
        self,
        runtime: Runtime,
        replicas: Mapping[int, Replica],
        groups: int,
        dispatch: Callable[[Ticket], None],
        finish: Callable[[Ticket, Sequence[Result]], None],
    ) -> None:
        self._runtime = runtime
        self._replicas = [replicas.get(group) for group in range(groups)]
        self._dispatch = dispatch
        self._finish = finish
        self._under_way: dict[Joint, None] = {}
        self._several = len(replicas) > 1
        self._hosted = [self._several and group in replicas for group in range(groups)]
        self._nowhere = [False] * groups
        self._apart_until = -1e18
        self.here = self._hosted
        """Of each group, whether reads of it may be joint now."""

    @property
    def possible(self) -> bool:
        """Whether those of any may be."""
        return self._several and self.here is self._hosted

    def _replica(self, group: int) -> Replica:
        replica = self._replicas[group]
        assert replica is not None
        return replica

    def begin(self, joint: Joint) -> None:
        """Ask all groups that it concerns."""
        joint.asked = sorted(set(joint.groups))
        joint.left = len(joint.asked)
        for group in joint.asked:
            if not self._replica(group).may_confirm:
                self._take_apart(joint)
                return
        self._under_way[joint] = None

        def confirmed(ok: bool) -> None:
            self._on_answer(joint, ok)

        for group in joint.asked:
            self._replica(group).confirm(confirmed)

    def _on_answer(self, joint: Joint, ok: bool) -> None:
        if joint not in self._under_way:
            return  # apart, or at its end
        joint.left -= 1
        if not ok:
            self._take_apart(joint)
        elif joint.left == 0:
            del self._under_way[joint]
            if not joint.finished:
                self._look(joint)

    def _look(self, joint: Joint) -> None:
        replicas, groups = self._replicas, joint.groups
        seconds = self._runtime.now() - joint.started
        for group in joint.asked:
            self._replica(group).begin_looking(groups.count(group), seconds)
        results: list[Result] = []
        for place, op in enumerate(joint.ops):
            replica = replicas[groups[place]]
            assert type(op) is Get and replica is not None
            result = replica.look(op.key)
            if result is None:
                self._take_apart(joint)
                return
            results.append(result)
        self._finish(joint, results)

    def _take_apart(self, joint: Joint) -> None:
        self._under_way.pop(joint, None)
        for ticket in joint.split():
            self._dispatch(ticket)

    def on_timer(self) -> None:
        """To be called every half heartbeat."""
        now = self._runtime.now()
        late = now - PATIENCE_S
        for joint in list(self._under_way):
            if joint.finished:
                del self._under_way[joint]
            elif joint.left < len(joint.asked) and joint.started <= late:
                self._apart_until = now + APART_S
                self._take_apart(joint)
        self.here = self._hosted if now >= self._apart_until else self._nowhere
