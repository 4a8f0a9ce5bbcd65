"""How often random runs convict a system with one guard less: ``python -m
jepsen_like.sim.guards.search --seeds 60 [GUARD[,GUARD] ...]`` prints the rows of a Markdown table.

Seeds alternate between clusters with disks and without, and a quarter have five nodes, where
both make sense for the guard. Zero means that only the scenario shows why the guard is there.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final

from jepsen_like.sim.faults import FAMILIES, expand
from jepsen_like.sim.guards import GUARDS, Guard, chosen, disk
from jepsen_like.sim.run import Options, run

DURABLE_ONLY: Final = ("ack-durability", "leader-durability", "vote-durability")
MEMORY_ONLY: Final = ("diskless-recovery", "recovery-deaf", "crash-vector", "recovered-vote")

FAULTS: Final = {
    "ack-durability": ("crash", "disk"),
    "leader-durability": ("crash", "disk"),
    "vote-durability": ("crash", "disk", "reset"),
    "meta-durability": ("crash", "partition", "reset"),
    "diskless-recovery": ("crash", "partition"),
    "recovery-deaf": ("crash", "partition"),
    "crash-vector": ("crash", "partition"),
    "read-index": ("partition", "pause"),
    "pre-vote": ("partition",),
    "stickiness": ("partition",),
    "snapshot-keeps-log": ("crash",),
    "compaction-order": ("crash",),
    "recovery-mark": ("crash",),
}
"""Where all faults at once would dilute those that matter."""


def options_of(guards: Sequence[Guard], seed: int, seconds: float) -> Options:
    """How ``seed`` is run without ``guards``."""
    durable = seed % 2 == 0
    names = tuple(guard.name for guard in guards)
    if guards[0] in disk.GUARDS or names[0] in DURABLE_ONLY:
        durable = True
    elif names[0] in MEMORY_ONLY:
        durable = False
    return Options(
        seconds=seconds,
        nodes=5 if seed % 4 == 3 else 3,
        groups=1,
        families=expand(FAULTS.get(names[0], FAMILIES)),
        durable=durable,
        without=names,
    )


def row(guards: Sequence[Guard], seeds: int, seconds: float) -> str:
    """One row: what the guards prevent and how many seeds convict without them, of what."""
    convicted, kinds, first = 0, Counter[str](), ""
    for seed in range(seeds):
        options = options_of(guards, seed, seconds)
        outcome = run(seed, options)
        convicted += bool(outcome.violations)
        kinds.update({violation.kind for violation in outcome.violations})
        if outcome.violations and not first:
            first = options.command(seed)
    names = ", ".join(f"`{guard.name}`" for guard in guards)
    what = ", ".join(kind for kind, _ in kinds.most_common(3))
    return f"| {names} | {guards[0].harm} | {convicted} of {seeds} | {what} |  <!-- {first} -->"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("guards", nargs="*", default=list(GUARDS), help="default: each")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # PySyncObj notices some of the harm, and says so
    for names in arguments.guards:
        print(row(chosen(*names.split(",")), arguments.seeds, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
