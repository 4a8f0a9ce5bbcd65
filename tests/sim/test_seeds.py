"""A part of ``make sim`` in every run of the tests: some seeds, all faults, both modes.

Bounded by the number of seeds, so that it means the same on every machine: about three minutes of
one core. What fails is printed with the command that replays it.
"""

from __future__ import annotations

from collections import Counter

import pytest

from jepsen_like.sim.coverage import COUNTERS
from jepsen_like.sim.faults import FAMILIES
from jepsen_like.sim.run import Options, Outcome, run

SECONDS = 15.0
BATCH = 4
HANDFUL = 24
DURABLE_3 = Options(seconds=SECONDS, nodes=3, durable=True)
MEMORY_3 = Options(seconds=SECONDS, nodes=3, durable=False)
DURABLE_5 = Options(seconds=SECONDS, nodes=5, durable=True)
MEMORY_5 = Options(seconds=SECONDS, nodes=5, durable=False)
DURABLE_3_OF_5 = Options(seconds=SECONDS, nodes=5, replication=3, groups=4, durable=True)
MEMORY_3_OF_5 = Options(seconds=SECONDS, nodes=5, replication=3, groups=4, durable=False)
SEEDS = {
    DURABLE_3: 48,
    MEMORY_3: 40,
    DURABLE_5: 16,
    MEMORY_5: 16,
    DURABLE_3_OF_5: 12,
    MEMORY_3_OF_5: 12,
}


def lines(outcome: Outcome, options: Options) -> list[str]:
    found = [violation.line for violation in outcome.violations]
    found += ["undecided"] if outcome.undecided else []
    return [f"seed {outcome.seed}: {line}  [{options.command(outcome.seed)}]" for line in found]


def name(options: Options) -> str:
    of = f"{options.replication}-of-" if options.replication else ""
    return f"{'durable' if options.durable else 'memory'}-{of}{options.nodes}"


def test_every_fault_bites_within_a_handful_of_seeds() -> None:
    """A simulator whose faults do nothing proves nothing. And yet most operations succeed."""
    total: Counter[str] = Counter()
    failures: list[str] = []
    for seed in range(HANDFUL):
        outcome = run(seed, DURABLE_3)
        total.update(outcome.counts)
        failures += lines(outcome, DURABLE_3)
    never = [name for name in COUNTERS if not total[name]]
    never += [family for family in FAMILIES if not total[f"fault {family}"]]
    assert never == []
    assert total["succeeded"] > 0.9 * total["operations"]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize(
    ("options", "first"),
    [
        pytest.param(
            options,
            first,
            id=f"{name(options)}-seed-{first}",
        )
        for options, count in SEEDS.items()
        for first in range(HANDFUL if options is DURABLE_3 else 0, count, BATCH)
    ],
)
def test_no_seed_finds_a_violation(options: Options, first: int) -> None:
    failures = [
        line for seed in range(first, first + BATCH) for line in lines(run(seed, options), options)
    ]
    assert not failures, "\n".join(failures)
