"""Rules that two or more settings must keep together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from raftcache.config.kinds import DURATION, show, split_address
from raftcache.units import format_size

if TYPE_CHECKING:
    from raftcache.config.settings import Settings

_LOOPBACK: Final = re.compile(r"127\.\d+\.\d+\.\d+|::1|localhost")
_FRAME_OVERHEAD: Final = 1024 * 1024


def contradictions(settings: Settings) -> Iterable[str]:
    """What no single setting shows: one line for each rule that two or more of them break."""
    yield from _membership_problems(settings)
    s = settings
    if s.memory == (s.data_dir is not None):
        state = "both are given" if s.memory else "neither is given"
        yield f"data_dir, memory: {state}; exactly one of the two says where the data live"
    if not s.heartbeat_interval * 3 < s.election_timeout:
        yield (
            f"heartbeat_interval: {_seconds(s.heartbeat_interval)}; it should be less than a third"
            f" of election_timeout ({_seconds(s.election_timeout)})"
        )
    stretched = s.lease_duration * (1 + s.max_clock_drift) / (1 - s.max_clock_drift)
    if not stretched < s.election_timeout:
        yield (
            f"lease_duration: {_seconds(s.lease_duration)}; stretched by max_clock_drift"
            f" ({s.max_clock_drift}) it should be less than election_timeout"
            f" ({_seconds(s.election_timeout)})"
        )
    if s.default_timeout_s > s.max_timeout_s:
        yield (
            f"default_timeout_s: {_seconds(s.default_timeout_s)}; it should be at most"
            f" max_timeout_s ({_seconds(s.max_timeout_s)})"
        )
    largest = max(s.max_batch_bytes, s.max_value_bytes + s.max_key_bytes) + _FRAME_OVERHEAD
    if s.max_frame < largest:
        yield (
            f"max_frame: {format_size(s.max_frame)}; it should be at least {format_size(largest)},"
            " to carry max_batch_bytes, max_value_bytes and 1mb around them"
        )


def _seconds(value: float) -> str:
    return show(DURATION, value)


def _membership_problems(settings: Settings) -> Iterable[str]:
    s = settings
    for what in ("id", "peer", "http", "resp"):
        values = [value for member in s.members if (value := getattr(member, what)) is not None]
        for value in sorted({value for value in values if values.count(value) > 1}):
            yield f"members: {what} {value} appears more than once; it should be one member's only"
    for member in s.members:
        if member.peer == member.http:
            yield f"members: {member.id} has {member.peer} for both peers and http; use two ports"
        if member.resp in (member.peer, member.http):
            yield f"members: {member.id} has {member.resp} for resp and more; use two ports"
    if s.node not in s.member_ids:
        yield f"node: {s.node!r}; it should be one of the members: {', '.join(s.member_ids)}"
    if s.replication > len(s.members):
        yield (
            f"replication: {s.replication}; it should be at most the number of members"
            f" ({len(s.members)})"
        )
    peers = [member.peer for member in s.members] + [s.peer_bind or s.members[0].peer]
    outside = [peer for peer in peers if not _LOOPBACK.fullmatch(split_address(peer)[0])]
    if outside and s.secret is None:
        yield (
            f"secret: not given; it should be, because {outside[0]} can be reached from other"
            f" machines (set RAFTCACHE_SECRET or secret in the TOML file)"
        )
