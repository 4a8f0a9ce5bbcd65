"""``INFO``, ``CONFIG`` and what else clients and people ask about a server."""

from __future__ import annotations

import fnmatch
import os
import platform
import sys
from typing import Final

from raftcache import __version__
from raftcache.compiled import compiled
from raftcache.metrics import Histogram
from raftcache.resp.arguments import no_subcommand
from raftcache.resp.replies import EMPTY, OK, RedisError, array, bulk, encode, integer
from raftcache.resp.session import Plan, Session

REDIS_VERSION: Final = "7.2.4"
"""What clients take this server for; it decides which commands they use."""
ON_DEMAND: Final = ("Commandstats",)
"""Sections that are shown only when asked for, by name or with ``all``."""


def info(session: Session, args: list[bytes]) -> Plan:
    asked = {arg.decode(errors="replace").lower() for arg in args[1:]}
    usual = not asked or "default" in asked
    everything = bool(asked & {"all", "everything"})
    sections = _sections(session)
    lines: list[str] = []
    for name, fields in sections.items():
        if everything or (usual and name not in ON_DEMAND) or name.lower() in asked:
            lines += [f"# {name}", *(f"{field}:{value}" for field, value in fields.items()), ""]
    return bulk("\r\n".join(lines).encode())


def _sections(session: Session) -> dict[str, dict[str, object]]:
    server = session.server
    counters = server.counters
    status = server.service.status()
    uptime = int(server.service.now() - server.started)
    used = sum(group.bytes for group in status.groups)
    limit = sum(group.budget_bytes for group in status.groups)
    led = [group for group in status.groups if group.role == "leader"]
    policy = status.groups[0].policy if status.groups else "lru"
    return {
        "Server": {
            "redis_version": REDIS_VERSION,
            "raftcache_version": __version__,
            "raftcache_compiled": int(compiled()),
            "redis_mode": "standalone",
            "os": f"{platform.system()} {platform.release()} {platform.machine()}",
            "arch_bits": 64 if sys.maxsize > 2**32 else 32,
            "process_id": os.getpid(),
            "run_id": server.run_id,
            "tcp_port": server.port,
            "uptime_in_seconds": uptime,
            "uptime_in_days": uptime // 86400,
        },
        "Clients": {
            "connected_clients": len(server.sessions()),
            "maxclients": server.max_clients,
        },
        "Memory": {
            "used_memory": used,
            "used_memory_dataset": used,
            "maxmemory": limit,
            "maxmemory_policy": f"allkeys-{policy}",
        },
        "Persistence": {"loading": 0},
        "Stats": {
            "total_connections_received": counters.accepted,
            "total_commands_processed": counters.commands,
            "rejected_connections": counters.rejected,
            "total_error_replies": sum(counters.errors.values()),
            "expired_keys": sum(group.expirations for group in status.groups),
            "evicted_keys": sum(group.evictions for group in status.groups),
            "keyspace_hits": sum(group.hits for group in status.groups),
            "keyspace_misses": sum(group.misses for group in status.groups),
        },
        "Replication": {
            "role": "master",
            "connected_slaves": 0,
            "raft_groups": len(status.groups),
            "raft_groups_led": len(led),
        },
        "CPU": dict(zip(("used_cpu_user", "used_cpu_sys"), os.times()[:2], strict=True)),
        "Commandstats": {
            f"cmdstat_{name}": _command_stats(histogram)
            for name, histogram in counters.seconds.items()
        },
        "Errorstats": {
            f"errorstat_{word}": f"count={count}" for word, count in counters.errors.items()
        },
        "Cluster": {"cluster_enabled": 0},
        "Keyspace": _keyspace(sum(group.entries for group in status.groups)),
    }


def _command_stats(seconds: Histogram) -> str:
    """Times are from a command's coming to its reply, and so include what it waited for."""
    calls, microseconds = seconds.count, seconds.total * 1e6
    each = microseconds / calls if calls else 0.0
    return f"calls={calls},usec={microseconds:.0f},usec_per_call={each:.2f}"


def _keyspace(entries: int) -> dict[str, object]:
    """Of the groups that this node has a replica of."""
    return {"db0": f"keys={entries},expires=0,avg_ttl=0"} if entries else {}


def config(session: Session, args: list[bytes]) -> Plan:
    name = args[1].upper()
    if name == b"GET" and len(args) >= 3:
        known = session.server.configuration()
        patterns = [arg.decode(errors="replace").lower() for arg in args[2:]]
        found = {k: v for k, v in known.items() if any(fnmatch.fnmatch(k, p) for p in patterns)}
        return encode(found, session.resp3)
    if name == b"RESETSTAT" and len(args) == 2:
        session.server.counters.reset()
        return OK
    if name in (b"SET", b"REWRITE"):
        raise RedisError("ERR settings are changed by restarting the node with other ones")
    raise no_subcommand(args, "get", "resetstat")


def time_(session: Session, args: list[bytes]) -> Plan:
    wall = session.server.service.wall()
    seconds, rest = divmod(int(wall * 1_000_000), 1_000_000)
    return array([bulk(b"%d" % seconds), bulk(b"%d" % rest)])


def role(session: Session, args: list[bytes]) -> Plan:
    return array([bulk(b"master"), integer(0), EMPTY])


def lastsave(session: Session, args: list[bytes]) -> Plan:
    return integer(int(session.server.service.wall()))


def shutdown(session: Session, args: list[bytes]) -> Plan:
    raise RedisError("ERR stop the node's process instead (SIGTERM)")
