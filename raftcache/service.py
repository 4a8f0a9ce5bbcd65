"""What a front end may ask of a node: the seam between ``http`` (and other protocols) and
``router``.

Every answer is a ``Result``; futures returned here never raise and never hang: at the deadline they
end as ``UNAVAILABLE`` (surely not applied) or ``UNKNOWN`` (may have been, or may still be,
applied). ``STORAGE_FULL`` comes at once (surely not applied).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from raftcache.ops import Get, Read, Result, Write


class Consistency(enum.Enum):
    """How fresh a read must be."""

    LINEARIZABLE = "linearizable"
    """Sees every write that was acknowledged before it began, anywhere (ReadIndex)."""
    LEASE = "lease"
    """The same, provided that no two clocks drift apart by more than the stated bound."""
    STALE = "stale"
    """Any replica's state; with a bound, state no older than that."""


class MemberStatus(msgspec.Struct, frozen=True):
    """One node as this node sees it."""

    id: str
    http: str
    peer: str
    connected: bool
    self: bool


class GroupStatus(msgspec.Struct, frozen=True):
    """One Raft group as this node's replica sees it. ``lag`` is in log entries, of this replica
    behind the highest commit index it has heard of."""

    id: int
    replicas: tuple[str, ...]
    leader: str | None
    role: str
    term: int
    last_index: int
    commit_index: int
    applied_index: int
    lag: int
    has_room: bool
    """Whether this node's disk takes more of the log: it is neither full nor failing."""
    slots: int
    policy: str
    entries: int
    bytes: int
    budget_bytes: int
    hits: int
    misses: int
    evictions: int
    expirations: int


class ClusterStatus(msgspec.Struct, frozen=True):
    """What ``GET /v1/cluster`` shows."""

    cluster: str
    node: str
    version: str
    ready: bool
    members: tuple[MemberStatus, ...]
    groups: tuple[GroupStatus, ...]
    slot_ranges: tuple[tuple[int, int, int], ...]
    """(first slot, last slot, group), in slot order, covering all 16384."""


class Service(Protocol):
    """One node, seen from its front ends. ``deadline`` is on the runtime's monotonic clock, in
    seconds."""

    def now(self) -> float:
        """Monotonic seconds."""
        ...

    def wall(self) -> float:
        """Unix time in seconds, by this node's clock."""
        ...

    def draw(self) -> int:
        """A random number of 63 bits."""
        ...

    @property
    def name(self) -> str:
        """This node's id."""
        ...

    @property
    def durable(self) -> bool:
        """Whether what is acknowledged is on disk."""
        ...

    def leader_of(self, group: int) -> str | None:
        """Who leads ``group``, as far as this node knows."""
        ...

    def write(self, op: Write, deadline: float) -> asyncio.Future[Result]:
        """One write, acknowledged after commit and apply."""
        ...

    def read(
        self,
        key: bytes,
        deadline: float,
        consistency: Consistency = Consistency.LINEARIZABLE,
        max_staleness: float | None = None,
    ) -> asyncio.Future[Result]:
        """One read. ``max_staleness`` in seconds bounds a ``STALE`` read."""
        ...

    def batch(
        self, ops: Sequence[Get | Write], deadline: float, *, atomic: bool = False
    ) -> asyncio.Future[list[Result]]:
        """Several operations, results in order. They are applied in order per group; ``atomic``
        makes the part of each group all-or-nothing, and exactly once as a whole when its first
        write is a ``Once`` (a group's part that fails reports ``ABORTED``
        for the others)."""
        ...

    def submit(
        self,
        ops: Sequence[Read | Write],
        deadline: float,
        finish: Callable[[Sequence[Result]], None],
        *,
        group: int | None = None,
        max_staleness: float | None = None,
    ) -> None:
        """``batch`` without a future: ``finish`` is called once, perhaps at once. ``group``: of
        operations that have no key; a ``Scan`` goes alone. ``max_staleness`` (seconds): the reads
        of a group that nothing is written to may be answered by this node's replica."""
        ...

    def status(self) -> ClusterStatus:
        """Members, groups, slots."""
        ...

    def not_ready(self) -> str | None:
        """Why this node should get no traffic; ``None`` when it is ready."""
        ...

    def transfer(self, group: int, target: str | None, deadline: float) -> asyncio.Future[Result]:
        """Hand the leadership of ``group`` to ``target`` (or to the most caught-up replica).
        ``NOT_FOUND``: no such group or replica; ``UNAVAILABLE``: not done, try again."""
        ...
