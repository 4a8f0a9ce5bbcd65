"""What a system under test is: nodes that can be given faults, and clients that can ask them.

A run knows a system through these protocols only, so that raftcache and the controls meet the same
workloads, the same faults and the same judge. Everything is asyncio, in the loop of the run.

Two kinds of parts make up a system: its own (``System``: how its nodes are started, and how its
clients speak), and the ``Network`` that its nodes reach each other by, which any system may use.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

OPERATIONS: Final = (
    "get",
    "lease",
    "stale",
    "set",
    "ttl",
    "cas",
    "incr",
    "del",
    "txn",
    "append",
    "once",
    "batch",
    "order",
)
"""What a system may be able to do.

====== ================== =========================================================================
name   arguments          result
====== ================== =========================================================================
get    ()                 the value as text, ``None`` when there is none; linearizable
lease  ()                 the same, answered under a leader's lease; in the history it is a ``get``
stale  (max_staleness_ms) the same, at most so many milliseconds old
set    (value)            whether the key was absent; ``None`` when the system does not say
ttl    (value, ttl_ms)    a ``set`` with a time to live, and one in the history
cas    (expected, new)    whether the value was ``expected`` (``None``: absent) and is ``new`` now
incr   (by)               the new number; an absent key counts as 0
del    ()                 whether the key existed; ``None`` when the system does not say
txn    (micro, ...)       atomic; a list with one result for each micro-operation, in order:
                          ``["get", k]`` the value, ``["set", k, v]``, ``["append", k, v]`` and
                          ``["del", k]`` ``None``, ``["incr", k, by]`` the number. The key of the
                          operation is a tag; each ``k`` is a key of its slot, such as ``{tag}a``.
                          ``append`` adds text to the end of a value (absent: "")
append -                  no operation: a ``txn`` may have ``append`` in it
once   -                  no operation: writes take ``once=TOKEN``, and repeating one with the same
                          token, through whichever node, has no further effect and gets the answer
                          of the first
batch  (part, ...)        several of get, set, incr and del in one message, each on its own; a part
                          is (name, key, arguments). A list of what each came to, in order: its
                          result, or the ``Refused`` or ``Unknown`` that it would have raised
order  -                  no operation: parts of a batch that name the same key are done in order
====== ================== =========================================================================

Keys and values are text; values are unique per key but for those of ``incr``.
"""


class Refused(Exception):  # noqa: N818  (an outcome, not a mistake)
    """The operation was surely not done, and never will be."""


class StorageFull(Refused):
    """It was not done because there is no space on the disks."""


class Unknown(Exception):  # noqa: N818
    """The operation may have been done, or may still be done later."""


class Client(Protocol):
    """One connection to one node, used by one process, one operation at a time."""

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        """Do one of ``OPERATIONS``; its result. Ends within about ``timeout_s``, whatever the node
        does. ``Refused`` or ``Unknown`` when there is no answer; when in doubt ``Unknown``. An
        answer that the protocol does not allow is a ``ValueError``, which is a violation.

        The client connects when it has to, and again after an error: a connection that cannot be
        made is a ``Refused``. After an ``Unknown`` it must never take a late answer of the old
        request for one of the new."""
        ...

    async def close(self) -> None:
        """Close the connection; no error."""
        ...


class Cut(enum.Enum):
    """How one direction of a link is cut."""

    STALL = "stall"
    """Nothing arrives and nobody is told: packets are dropped."""
    REFUSE = "refuse"
    """Connections are reset, new ones refused (an administratively prohibited network)."""


@dataclass(frozen=True, slots=True)
class Link:
    """What one direction between two nodes is like. The default is a healthy one."""

    cut: Cut | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Up to so much more, drawn anew for each piece; one connection keeps its order, two do not."""
    loss: float = 0.0
    """Probability that a packet is lost; over TCP that is a retransmission, and so a delay."""
    duplicate: float = 0.0
    reorder: float = 0.0
    """Probability that a packet overtakes others. A network that cannot duplicate or reorder
    packets leaves ``Network.faults`` without it."""
    bytes_per_s: float | None = None


HEALTHY: Final = Link()


class FaultKind(enum.StrEnum):
    """What a system or a network can be given. A nemesis says which of them it needs."""

    KILL = "kill"
    PAUSE = "pause"
    RESTART = "restart"
    WIPE = "wipe"
    CUT = "cut"
    ONE_WAY = "one-way"
    """A link is cut in one direction only."""
    REFUSE = "refuse"
    RESET = "reset"
    ORPHAN = "orphan"
    DELAY = "delay"
    LOSS = "loss"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    RATE = "rate"
    TRANSFER = "transfer"
    PRESSURE = "pressure"
    SLOW_DISK = "slow-disk"
    FULL_DISK = "full-disk"
    CLOCK = "clock"


class Network(Protocol):
    """How nodes reach each other, and how it is made bad. A *service* is one port of every node
    (``peer``, ``http``, ``resp`` ...)."""

    faults: frozenset[FaultKind]

    async def open(self, nodes: Sequence[str], services: Sequence[str]) -> None:
        """Make ready for nodes of these names, each with these services. Called once, before any
        node is started."""
        ...

    def listen(self, node: str, service: str) -> tuple[str, int]:
        """Where a node's own process has to listen: host, port."""
        ...

    def reach(self, source: str, target: str, service: str) -> tuple[str, int]:
        """Where a process of ``source`` has to connect to reach ``target``. Not the same address
        for every source: that is how a proxy tells who is asking."""
        ...

    def client(self, node: str, service: str) -> tuple[str, int]:
        """Where clients, which are no part of the network and never cut off, reach a node."""
        ...

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """What to execute in order to run ``command`` on the node's part of the network."""
        ...

    async def shape(self, source: str, target: str, link: Link) -> None:
        """From now on the direction is like this, also for connections that exist. Where it has
        become healthy again, what was stalled goes on its way."""
        ...

    async def reset(self, a: str, b: str) -> None:
        """Reset all connections between two nodes, both ends."""
        ...

    async def orphan(self, source: str, target: str, late_s: float) -> None:
        """Reset ``source``'s ends of its connections to ``target`` only: bytes on their way still
        arrive, up to ``late_s`` seconds later, when ``target`` hears of the end, too."""
        ...

    async def close(self) -> None:
        """End everything ``open`` made."""
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for, as far as a system cares."""

    nodes: int = 3
    groups: int | None = None
    """Raft groups, shards ...; ``None``: the system's choice."""
    durable: bool = True
    """With data on disk, acknowledged when it is there; else memory only, where a system can."""
    seed: int = 0
    small_memory: bool = False
    """So little memory that filling one part of the keys makes that part evict."""
    small_disks: bool = False
    """With data where a disk can be made full (``FULL_DISK``)."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """``--setting NAME=VALUE``: further settings of the system's own."""


class StartError(Exception):
    """The system cannot run here or does not start; the message says why and what to do."""


class System(Protocol):
    """A cluster under test. Made by ``Factory``; used once: ``start``, faults and clients,
    ``stop``."""

    name: str
    nodes: tuple[str, ...]
    operations: frozenset[str]
    """Of ``OPERATIONS``."""
    protocols: tuple[str, ...]
    """Its ways to be asked (``http``, ``resp``); clients are spread over them."""
    faults: frozenset[FaultKind]
    """Those of its own and those of its network. Only these are asked for below."""
    replicas: tuple[tuple[str, ...], ...]
    """For each part (group, shard) the nodes that hold it; it works while a majority of them runs
    and is connected."""
    live: bool
    """Whether it promises that every node serves again when all faults are over, and that none ends
    by itself; else only what it answers is judged."""
    tolerated: int
    """How many nodes may lose their data (or, in memory, their process) at the same time without
    any acknowledged write being lost: what a nemesis spares, as the system promises no more."""
    staleness_ms: Mapping[str, tuple[int, ...]]
    """For each protocol that has ``stale`` the bounds that may be asked for."""
    ttl_slack_ms: float
    """How much earlier than asked a time to live may end; also of bounds of staleness."""
    ttl_drift: float
    """The same as a fraction of the time to live: the drift of clocks that is allowed."""

    async def start(self, directory: Path) -> None:
        """Start all nodes and wait until they serve. Files, data and one ``NODE.log`` each go to
        ``directory``, which exists and is absolute. ``StartError``."""
        ...

    async def stop(self) -> None:
        """End everything that was started, however it is; no error. Also after a failed start."""
        ...

    def supports(self, protocol: str, op: str) -> bool:
        """Whether clients of the protocol can do an operation: HTTP has tokens, RESP has none."""
        ...

    def connect(self, node: str, protocol: str) -> Client:
        """A new client of a node. It connects when it is first used."""
        ...

    def crowded(self, key: str) -> bool:
        """Whether the key lives where memory is short, so that it may be evicted. The others never
        are. Always false without ``PRESSURE``."""
        ...

    # -- faults. None of them raises for a node that is in the wrong state already.

    @property
    def network(self) -> Network:
        """Links between the nodes; cut and delayed there."""
        ...

    async def kill(self, node: str) -> None:
        """kill -9; returns when the process is gone."""
        ...

    async def terminate(self, node: str) -> None:
        """Ask it to stop in order, and wait until it has (by force after a while)."""
        ...

    async def launch(self, node: str) -> None:
        """Start a node that is down, with the data it has. Does not wait until it serves."""
        ...

    def running(self, node: str) -> bool:
        """Whether its processes run; a node that is paused does."""
        ...

    async def ready(self, node: str) -> bool:
        """Whether the node runs and has all the state it should have, so that the loss of another
        is no loss of data."""
        ...

    async def pause(self, node: str) -> None:
        """SIGSTOP."""
        ...

    async def resume(self, node: str) -> None:
        """SIGCONT."""
        ...

    async def wipe(self, node: str) -> None:
        """Empty the disk of a node that is down."""
        ...

    async def leaders(self) -> list[str]:
        """Nodes that lead something (primary, leader of a group), those that lead most first;
        empty when nobody knows."""
        ...

    async def transfer(self, part: int, target: str | None) -> None:
        """Hand the leadership of a part (modulo their number) over, to a node or to anybody."""
        ...

    async def slow_disk(self, node: str, seconds: float) -> None:
        """Writes to the node's disk take so much longer; 0 ends it."""
        ...

    async def fill_disk(self, node: str, full: bool) -> None:
        """Leave no space on the node's disk, or give it back."""
        ...

    async def shift_clock(self, node: str, seconds: float) -> None:
        """The node's wall clock is so far off from now on; 0 ends it."""
        ...


class Factory(Protocol):
    """How ``--system NAME`` makes one: a function of this shape in ``systems.SYSTEMS``."""

    def __call__(self, options: Options) -> System: ...
