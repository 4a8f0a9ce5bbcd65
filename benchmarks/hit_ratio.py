"""Hit ratios of the eviction policies on a real trace: the table in ``docs/policies.md``.

    python benchmarks/hit_ratio.py [--write]

``--write`` puts the table into the page, between its two marks.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cachetools import LRUCache

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "machine"))

from cache_trace import Trace, load_trace, machine_hits, reference_hits  # noqa: E402

PAGE = ROOT / "docs" / "policies.md"
BEGIN, END = "<!-- table: benchmarks/hit_ratio.py --write -->", "<!-- end of table -->"
FRACTIONS = (0.003, 0.01, 0.03, 0.1, 0.3)
POLICIES = ("lru", "fifo", "lfu", "sieve", "s3fifo")


def rows(trace: Trace) -> list[list[str]]:
    """Per policy the hit ratio at each size; the size is a fraction of what all objects cost under
    ``lru``, so policies that need more memory per entry hold fewer."""
    costs = trace.costs("lru")
    budgets = [int(fraction * sum(costs)) for fraction in FRACTIONS]
    requests = len(trace.requests)
    table = [
        [policy, *(f"{machine_hits(trace, policy, b) / requests:.2%}" for b in budgets)]
        for policy in POLICIES
    ]
    reference = [reference_hits(trace, LRUCache(b, lambda cost: cost), costs) for b in budgets]
    table.append(["cachetools.LRUCache", *(f"{hits / requests:.2%}" for hits in reference)])
    return table


def main() -> None:
    """Print the table, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    header = ["policy", *(f"{fraction:.1%}" for fraction in FRACTIONS)]
    lines = [header, ["---"] * len(header), *rows(load_trace())]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(table)
    if write:
        text = PAGE.read_text()
        before, rest = text.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
