"""A part of ``make sim`` in every run of the tests: some seeds, all faults, both modes.

Bounded by the number of seeds, so that it means the same on every machine: about two minutes of one
core. What fails is printed with the command that replays it.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from jepsen_like.sim.coverage import COUNTERS
from jepsen_like.sim.faults import FAMILIES
from jepsen_like.sim.run import Options, Outcome, run

SECONDS = 15.0
BATCH = 4
DURABLE_3 = Options(seconds=SECONDS, nodes=3, durable=True)
MEMORY_3 = Options(seconds=SECONDS, nodes=3, durable=False)
DURABLE_5 = Options(seconds=SECONDS, nodes=5, durable=True)
MEMORY_5 = Options(seconds=SECONDS, nodes=5, durable=False)
DURABLE_3_OF_5 = Options(seconds=SECONDS, nodes=5, replication=3, groups=4, durable=True)
MEMORY_3_OF_5 = Options(seconds=SECONDS, nodes=5, replication=3, groups=4, durable=False)
SEEDS = {
    DURABLE_3: 72,
    MEMORY_3: 60,
    DURABLE_5: 24,
    MEMORY_5: 24,
    DURABLE_3_OF_5: 12,
    MEMORY_3_OF_5: 12,
}


@cache
def counts_of(seed: int, options: Options) -> tuple[Counter[str], tuple[str, ...]]:
    """What the run went through, and one line per violation."""
    outcome = run(seed, options)
    return outcome.counts, tuple(lines(outcome, options))


def lines(outcome: Outcome, options: Options) -> list[str]:
    found = [violation.line for violation in outcome.violations]
    found += ["undecided"] if outcome.undecided else []
    return [f"seed {outcome.seed}: {line}  [{options.command(outcome.seed)}]" for line in found]


def name(options: Options) -> str:
    of = f"{options.replication}-of-" if options.replication else ""
    return f"{'durable' if options.durable else 'memory'}-{of}{options.nodes}"


@pytest.mark.parametrize(
    ("options", "first"),
    [
        pytest.param(
            options,
            first,
            id=f"{name(options)}-seed-{first}",
        )
        for options, count in SEEDS.items()
        for first in range(0, count, BATCH)
    ],
)
def test_no_seed_finds_a_violation(options: Options, first: int) -> None:
    failures = [
        line for seed in range(first, first + BATCH) for line in counts_of(seed, options)[1]
    ]
    assert not failures, "\n".join(failures)


def test_every_fault_bites_within_a_handful_of_seeds() -> None:
    """A simulator whose faults do nothing proves nothing. And yet most operations succeed."""
    total: Counter[str] = Counter()
    for seed in range(24):
        total.update(counts_of(seed, DURABLE_3)[0])
    never = [name for name in COUNTERS if not total[name]]
    never += [family for family in FAMILIES if not total[f"fault {family}"]]
    assert never == []
    assert total["succeeded"] > 0.9 * total["operations"]
