"""Resident size against the byte budget: what ``raftcache/machine/costs.py`` is calibrated with.

For each policy and shape of entry a fresh process fills a machine through encoded batches, as a
replica does, churns it (new keys, reads, rewrites), and compares the growth of its resident size
with the bytes the machine counted. Linux only.

    python benchmarks/memory.py [--entries 1000000] [--policy lru] [--value 100] [--ttl]
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import subprocess
import sys
from pathlib import Path

CASES = [
    ("lru", 100, False),
    ("lru", 100, True),
    ("lru", 10, False),
    ("lru", 1000, False),
    ("lru", 10_000, False),
    ("lfu", 100, False),
    ("fifo", 100, False),
    ("sieve", 100, False),
    ("s3fifo", 100, False),
]


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure(policy: str, entries: int, value: int, ttl: bool) -> None:
    """Print one row."""
    from raftcache.machine import Machine
    from raftcache.ops import Batch, Configure, Set, encode_batch

    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    choice = random.Random(1)
    machine = Machine()
    blob = os.urandom(value)
    base = resident_bytes()

    def apply(keys: list[int], touched: tuple[int, ...] = ()) -> None:
        ttl_ms = choice.randrange(10**7, 10**8) if ttl else 0
        ops = tuple(Set(b"key:%012d" % key, blob, ttl_ms) for key in keys)
        touches = tuple(b"key:%012d" % key for key in touched)
        machine.apply_payload(encode_batch(Batch(1_700_000_000_000, touches, ops)))

    def report(when: str) -> None:
        stats, grown = machine.stats, resident_bytes() - base
        print(
            f"{policy:7} {value:6} {'yes' if ttl else 'no':4} {when:9} {stats.entries:9,} "
            f"{grown / stats.entries:8.0f} {stats.bytes / stats.entries:8.0f} "
            f"{grown / stats.bytes - 1:+8.1%}",
            flush=True,
        )

    apply([])
    machine.apply(Batch(0, (), (Configure(0, policy, 1000, 1000),)))
    for start in range(0, entries, 100):
        apply(list(range(start, start + 100)))
    report("filled")
    machine.apply(Batch(0, (), (Configure(machine.stats.bytes, policy, 1000, 1000),)))
    for start in range(entries, 2 * entries, 100):
        oldest = start - entries // 2
        apply(
            [*range(start, start + 100), *(choice.randrange(oldest, start) for _ in range(50))],
            tuple(choice.randrange(oldest, start) for _ in range(50)),
        )
        if start % (entries // 4) == 0 and start > entries:
            report(f"+{start / entries - 1:.0%}")
    report("churned")


def main() -> None:
    """Run the cases, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--policy")
    parser.add_argument("--value", type=int, default=100)
    parser.add_argument("--ttl", action="store_true")
    parser.add_argument("--here", action="store_true", help="measure in this process")
    options = parser.parse_args()
    if options.here:
        measure(options.policy, options.entries, options.value, options.ttl)
        return
    print("policy   value ttl  when        entries  RSS/ent cost/ent   RSS off by")
    cases = [(options.policy, options.value, options.ttl)] if options.policy else CASES
    for policy, value, ttl in cases:
        entries = min(options.entries, 2_000_000_000 // (value + 300))
        command = [sys.executable, __file__, "--here", "--policy", policy, "--value", str(value)]
        command += ["--entries", str(entries // 400 * 400)] + ["--ttl"] * ttl
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
