"""Linearizable reads of several groups at once.

A pipeline, or fifty clients, ask for keys of all groups in every turn of the event loop. Taking
that apart by groups, giving each replica its part and putting results together again costs more
than the reads. So every group that is concerned is only asked whether it may be read, and then all
keys are looked up in the order in which they were asked for.

A read is as fresh as its own group's answer, whenever that of another group comes. It should not
wait for that of a group that it does not concern, though. So those go together whose groups are led
by the same node, which answers for all of these at the same time; and apart from them, together,
those that concern groups of several leaders. When a leader is lost, or an answer takes long that
others have given, reads go on by themselves, each to its group. They may be repeated without harm.
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
APART: Final = -1
SEVERAL_LEADERS: Final = -2


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
        self._leaders: dict[str, int] = {}
        self._led = [APART] * groups
        self._apart = [APART] * groups
        self._apart_until = -1e18
        self.ways = self._led
        """Of each group, with what number reads of it are joint; ``APART``: they are not."""

    def way_of(self, groups: Sequence[int]) -> int:
        """The number for reads of all of these."""
        ways = self.ways
        way = ways[groups[0]]
        for group in groups:
            each = ways[group]
            if each == APART:
                return APART
            if each != way:
                way = SEVERAL_LEADERS
        return way

    def on_change(self, group: int) -> None:
        """The group has another leader, or none."""
        leader = self._replica(group).leader
        if leader is None or len(self._replicas) == 1:
            self._led[group] = APART
        else:
            self._led[group] = self._leaders.setdefault(leader, len(self._leaders))

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
        self.ways = self._led if now >= self._apart_until else self._apart
