"""HTTP throughput of a three-node cluster on this machine, load generator included.

    python benchmarks/http_speed.py [--seconds 5] [--repeats 3] [--connections 64] [--durable]

Starts ``raftcache demo``, fills 10,000 keys of 16 bytes with values of 100, and measures single-key
PUT and linearizable GET, and ``/v1/batch`` with 100 operations per request, in turns; prints the
medians.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable

import uvloop
from load import Report, request, run

KEYS = 10_000
VALUE = b"v" * 100
PER_BATCH = 100


def key() -> str:
    """A random one of the keys, 16 bytes."""
    return f"key-{random.randrange(KEYS):012d}"


def put() -> bytes:
    """A single-key PUT."""
    return request("PUT", f"/v1/keys/{key()}", VALUE)


def get() -> bytes:
    """A single-key linearizable GET."""
    return request("GET", f"/v1/keys/{key()}")


def batch(kind: str) -> bytes:
    """A batch of sets or gets of random keys."""
    value = VALUE.decode()
    ops = [
        {"op": "set", "key": key(), "value": value}
        if kind == "set"
        else {"op": "get", "key": key()}
        for _ in range(PER_BATCH)
    ]
    body = json.dumps({"operations": ops}).encode()
    return request("POST", "/v1/batch", body, "Content-Type: application/json\r\n")


def loads() -> dict[str, tuple[Callable[[], bytes], int]]:
    """Name -> (requests, operations in each). Batches are prepared: making them is not the
    cluster's work."""
    sets = [batch("set") for _ in range(200)]
    gets = [batch("get") for _ in range(200)]
    return {
        "PUT": (put, 1),
        "GET (linearizable)": (get, 1),
        f"batch of {PER_BATCH} sets": (lambda: random.choice(sets), PER_BATCH),
        f"batch of {PER_BATCH} gets": (lambda: random.choice(gets), PER_BATCH),
    }


async def measure(urls: list[str], seconds: float, repeats: int, connections: int) -> None:
    """Run every load ``repeats`` times, in turns, and print the table."""
    for i in range(0, KEYS, PER_BATCH):
        ops = [
            {"op": "set", "key": f"key-{j:012d}", "value": VALUE.decode()}
            for j in range(i, i + PER_BATCH)
        ]
        once = iter([request("POST", "/v1/batch", json.dumps({"operations": ops}).encode())])
        await run(urls[:1], 1, 0.05, lambda once=once: next(once, get()))
    results: dict[str, list[Report]] = {}
    for _ in range(repeats):
        for name, (make, _count) in loads().items():
            report = await run(urls, connections, seconds, make)
            results.setdefault(name, []).append(report)
            print(f"  {name}: {report.requests_per_second:,.0f} requests/s", file=sys.stderr)
    print(f"\n{connections} connections over {len(urls)} nodes, {seconds:g} s x {repeats}, medians")
    print(f"{'load':<24}{'ops/s':>12}{'min':>12}{'max':>12}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}")
    counts = {name: count for name, (_, count) in loads().items()}
    for name, reports in results.items():
        rates = [report.requests_per_second * counts[name] for report in reports]
        p50 = statistics.median(report.percentile_ms(50) for report in reports)
        p99 = statistics.median(report.percentile_ms(99) for report in reports)
        failed = sum(report.failures for report in reports)
        print(
            f"{name:<24}{statistics.median(rates):>12,.0f}{min(rates):>12,.0f}{max(rates):>12,.0f}"
            f"{p50:>9.2f}{p99:>9.2f}{failed:>8}"
        )


def main() -> int:
    """Start the cluster with this script inside, or be inside."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--durable", action="store_true", help="keep the data on disk")
    args = parser.parse_args()
    urls = os.environ.get("RAFTCACHE_URLS")
    if urls:
        uvloop.run(measure(urls.split(","), args.seconds, args.repeats, args.connections))
        return 0
    inside = shlex.join([sys.executable, *sys.argv])
    where = [] if args.durable else ["--memory"]
    demo = [sys.executable, "-m", "raftcache", "demo", "--port", "0", "--groups", str(args.groups)]
    return subprocess.call([*demo, *where, "--run", inside])


if __name__ == "__main__":
    sys.exit(main())
