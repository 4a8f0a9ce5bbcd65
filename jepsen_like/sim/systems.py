"""What a run may put under test: raftcache, or a control that must be convicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from jepsen_like.sim.cluster import SimNode
from jepsen_like.sim.faults import FAMILIES
from jepsen_like.sim.scheduler import Violation
from jepsen_like.sim.stock import StockNode

LIVENESS: Final = frozenset(
    {
        "the cluster does not start",
        "no recovery",
        "replicas do not converge",
        "a request hangs",
    }
)
"""Kinds of violations of promises that only raftcache makes."""


@dataclass(frozen=True, slots=True)
class System:
    """``flag`` names it on the command line. ``plain``: what it is asked is kept to registers, cas
    and counters. ``live``: it promises to be available again soon after the last fault."""

    flag: str
    node_type: type[SimNode]
    families: tuple[str, ...]
    """Faults that it must stand."""
    plain: bool
    start_s: float
    recovery_s: float
    live: bool

    def judged(self, violations: list[Violation]) -> list[Violation]:
        """Those that break a promise of this system."""
        return [found for found in violations if self.live or found.kind not in LIVENESS]


STOCK_STANDS: Final = (
    "partition-",
    "reset",
    "delay",
    "loss",
    "crash-",
    "pause",
    "slow",
    "clock-",
    "transfer",
)

RAFTCACHE: Final = System("", SimNode, FAMILIES, False, 5.0, 3.0, True)
STOCK: Final = System(
    "--stock",
    StockNode,
    # No disk that fails: it never syncs, and what a full disk does to mapped pages is not modelled.
    # No message twice on a connection: its own transport has none either.
    tuple(name for name in FAMILIES if name.startswith(STOCK_STANDS)),
    True,
    30.0,
    10.0,
    False,
)
"""Elections of up to 1.4 s that may split, and no pre-vote: it gets more time."""
