"""``CLUSTER``: where slots are led, for clients that route by themselves.

Every node serves every key, so a client that never asks is served as well. One that has asked
(``CLUSTER SLOTS``, ``SHARDS`` or ``NODES``, ``READONLY``, ``ASKING``) is cluster-aware, and gets
``MOVED`` when it asks the wrong node. Slots of a group are those of ``partition.SlotMap``; the
group's leader is the primary, its other replicas are the replicas.
"""

from __future__ import annotations

import hashlib
from typing import Final

from raftcache.partition import slot_of
from raftcache.resp import iteration
from raftcache.resp.arguments import integer as integer_argument
from raftcache.resp.arguments import no_subcommand
from raftcache.resp.replies import EMPTY, RedisError, Reply, bulk, encode, integer
from raftcache.resp.session import Plan, Session
from raftcache.service import ClusterStatus

SLOTS: Final = 16384


def cluster(session: Session, args: list[bytes]) -> Plan:
    name, count = args[1].upper(), len(args)
    status = session.server.service.status()
    if name == b"KEYSLOT" and count == 3:
        return integer(slot_of(args[2]))
    if name == b"MYID" and count == 2:
        return bulk(node_id(status.node).encode())
    if name == b"INFO" and count == 2:
        return bulk(_info(status).encode())
    if name in (b"COUNTKEYSINSLOT", b"GETKEYSINSLOT"):
        slot = integer_argument(args[2]) if count > 2 else -1
        if not 0 <= slot < SLOTS:
            raise RedisError("ERR Invalid slot")
        if name == b"COUNTKEYSINSLOT" and count == 3:
            return iteration.count_in_slot(session, slot)
        if name == b"GETKEYSINSLOT" and count == 4:
            return iteration.keys_in_slot(session, slot, args[3])
    if name in (b"SLOTS", b"SHARDS", b"NODES") and count == 2:
        session.cluster_aware = True
        topology = Topology(session, status)
        if name == b"SLOTS":
            return encode(topology.slots(), session.resp3)
        if name == b"SHARDS":
            return encode(topology.shards(), session.resp3)
        return bulk(topology.nodes().encode())
    if name == b"LINKS":
        return EMPTY
    known = ("keyslot", "myid", "info", "slots", "shards", "nodes", "countkeysinslot")
    raise no_subcommand(args, *known, "getkeysinslot")


def node_id(name: str) -> str:
    """Forty hexadecimal digits, as Redis names its nodes."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def _info(status: ClusterStatus) -> str:
    led = sum(g.slots for g in status.groups if g.leader is not None)
    fields = {
        "cluster_state": "ok" if led == SLOTS or status.ready else "fail",
        "cluster_slots_assigned": SLOTS,
        "cluster_slots_ok": SLOTS,
        "cluster_slots_pfail": 0,
        "cluster_slots_fail": 0,
        "cluster_known_nodes": len(status.members),
        "cluster_size": len(status.members),
        "cluster_current_epoch": max((g.term for g in status.groups), default=0),
        "cluster_my_epoch": max((g.term for g in status.groups), default=0),
    }
    return "".join(f"{name}:{value}\r\n" for name, value in fields.items())


class Topology:
    """The cluster as one session is told of it. Members without a Redis address are left out."""

    def __init__(self, session: Session, status: ClusterStatus) -> None:
        self._status = status
        self._leader_of = session.server.service.leader_of
        self._placement = session.server.placement
        self._addresses = session.server.addresses

    def _node(self, name: str) -> list[Reply]:
        host, port = self._addresses[name]
        return [host, port, node_id(name), []]

    def slots(self) -> list[Reply]:
        """``CLUSTER SLOTS``."""
        found: list[Reply] = []
        for first, last, group in self._status.slot_ranges:
            nodes = self._ordered(group)
            if nodes:
                found.append([first, last, *(self._node(name) for name in nodes)])
        return found

    def _ordered(self, group: int) -> list[str]:
        """The group's nodes, its leader first; none while nobody leads it."""
        leader = self._leader_of(group)
        if leader is None:
            return []
        others = [name for name in self._placement[group] if name != leader]
        return [name for name in (leader, *others) if name in self._addresses]

    def shards(self) -> list[Reply]:
        """``CLUSTER SHARDS``: one for each group."""
        found: list[Reply] = []
        for group in range(len(self._placement)):
            ranges = [r for r in self._status.slot_ranges if r[2] == group]
            nodes: list[Reply] = []
            for place, name in enumerate(self._ordered(group)):
                host, port = self._addresses[name]
                nodes.append(
                    {
                        "id": node_id(name),
                        "port": port,
                        "ip": host,
                        "endpoint": host,
                        "role": "replica" if place else "master",
                        "replication-offset": 0,
                        "health": "online" if self._up(name) else "fail",
                    }
                )
            bounds: list[Reply] = [bound for first, last, _ in ranges for bound in (first, last)]
            found.append({"slots": bounds, "nodes": nodes})
        return found

    def _up(self, name: str) -> bool:
        return any(m.id == name and m.connected for m in self._status.members)

    def nodes(self) -> str:
        """``CLUSTER NODES``."""
        lines = []
        for member in self._status.members:
            if member.id not in self._addresses:
                continue
            host, port = self._addresses[member.id]
            flags = "myself,master" if member.self else "master"
            ranges = [
                f"{first}-{last}" if first < last else f"{first}"
                for first, last, group in self._status.slot_ranges
                if self._leader_of(group) == member.id
            ]
            link = "connected" if member.connected else "disconnected"
            fields = [node_id(member.id), f"{host}:{port}@{port}", flags, "-", "0", "0", "0", link]
            lines.append(" ".join([*fields, *ranges]) + "\n")
        return "".join(lines)
