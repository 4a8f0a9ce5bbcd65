"""How often random runs convict a system with one guard less: ``python -m
jepsen_like.sim.guards.search --seeds 60 [GUARD ...]`` prints the rows of a Markdown table.

Seeds alternate between clusters with disks and without, and a quarter have five nodes, where
both make sense for the guard. Zero means that only the scenario shows why the guard is there.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import Final

from jepsen_like.sim.faults import FAMILIES
from jepsen_like.sim.guards import GUARDS, Guard, chosen, disk
from jepsen_like.sim.run import Options, run

DURABLE_ONLY: Final = ("ack-durability", "leader-durability", "vote-durability")
MEMORY_ONLY: Final = ("diskless-recovery", "recovery-deaf", "crash-vector", "recovered-vote")

FAULTS: Final = {
    "ack-durability": ("crash", "disk"),
    "leader-durability": ("crash", "disk"),
    "vote-durability": ("crash", "disk", "reset"),
    "meta-durability": ("crash", "partition", "reset"),
    "diskless-recovery": ("crash", "partition", "one-way"),
    "recovery-deaf": ("crash", "partition", "one-way"),
    "crash-vector": ("crash", "partition", "one-way"),
    "read-index": ("partition", "one-way", "pause"),
    "pre-vote": ("partition", "one-way"),
    "stickiness": ("partition", "one-way"),
    "snapshot-keeps-log": ("crash",),
    "compaction-order": ("crash",),
    "recovery-mark": ("crash",),
}
"""Where all faults at once would dilute those that matter."""


def options_of(guard: Guard, seed: int, seconds: float) -> Options:
    """How ``seed`` is run without ``guard``."""
    durable = seed % 2 == 0
    if guard in disk.GUARDS or guard.name in DURABLE_ONLY:
        durable = True
    elif guard.name in MEMORY_ONLY:
        durable = False
    return Options(
        seconds=seconds,
        nodes=5 if seed % 4 == 3 else 3,
        groups=1,
        families=FAULTS.get(guard.name, FAMILIES),
        durable=durable,
        without=(guard.name,),
    )


def row(guard: Guard, seeds: int, seconds: float) -> str:
    """One row: what the guard prevents and how many seeds convict without it, of what."""
    convicted, kinds, first = 0, Counter[str](), ""
    for seed in range(seeds):
        options = options_of(guard, seed, seconds)
        outcome = run(seed, options)
        convicted += bool(outcome.violations)
        kinds.update({violation.kind for violation in outcome.violations})
        if outcome.violations and not first:
            first = options.command(seed)
    what = ", ".join(kind for kind, _ in kinds.most_common(3))
    return f"| `{guard.name}` | {guard.harm} | {convicted} of {seeds} | {what} |  <!-- {first} -->"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("guards", nargs="*", help="default: all")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    for guard in chosen(*arguments.guards) if arguments.guards else GUARDS.values():
        print(row(guard, arguments.seeds, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
