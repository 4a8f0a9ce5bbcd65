"""``raftcache bench``: how fast a cluster (or anything that speaks Redis's protocol) is."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftcache.bench.report import Report

DEFAULTS = {"resp": "127.0.0.1:6379", "http": "127.0.0.1:8001"}
_ENVIRONMENT = {"resp": "RAFTCACHE_RESP", "http": "RAFTCACHE_URLS"}


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("bench")(bench)


def bench(
    protocol: Annotated[str, typer.Option(metavar="resp|http", help="What to speak.")] = "resp",
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            "-a",
            metavar="HOST:PORT",
            help="Where to; may be given several times, clients are spread. Default: RAFTCACHE_RESP"
            " or RAFTCACHE_URLS, else 127.0.0.1:6379 or :8001.",
            show_default=False,
        ),
    ] = None,
    workload: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="set, get, mixed (nine reads to a write), incr; several separated by commas.",
        ),
    ] = "set,get",
    clients: Annotated[int, typer.Option("--clients", "-c", min=1, max=20_000)] = 50,
    pipeline: Annotated[
        int, typer.Option("--pipeline", "-P", min=1, max=1000, help="Requests sent at a time.")
    ] = 1,
    value_size: Annotated[int, typer.Option(min=0, max=8 * 1024 * 1024, help="In bytes.")] = 100,
    keys: Annotated[int, typer.Option(min=1, max=10_000_000, help="Different keys.")] = 10_000,
    zipf: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Skew of the keys' popularity; 0: none.")
    ] = 0.0,
    seconds: Annotated[float, typer.Option("--seconds", "-s", min=0.1, max=86_400)] = 5.0,
    warm_up: Annotated[float, typer.Option(min=0.0, max=3600, help="Seconds before.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Measure throughput and latency: reads are linearizable, and of keys that exist."""
    import asyncio

    import uvloop

    from raftcache.bench.dialects import DIALECTS
    from raftcache.bench.load import BenchError, measure
    from raftcache.bench.workload import WORKLOADS, Workload

    if protocol not in DIALECTS:
        raise typer.BadParameter(f"--protocol is one of {', '.join(DIALECTS)}")
    names = [name.strip() for name in workload.split(",")]
    if unknown := [name for name in names if name not in WORKLOADS]:
        raise typer.BadParameter(f"--workload {unknown[0]!r}: there are {', '.join(WORKLOADS)}")
    where = _addresses(protocol, address)
    results = {}
    if not as_json:
        print(
            f"{protocol}, {clients} clients, pipeline {pipeline}, {value_size} bytes, {keys} keys"
        )
        print(f"{'':<8}{'ops/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'p99.9 ms':>10}{'errors':>8}")
    for name in names:
        load = Workload(name, keys, value_size, zipf, pipeline)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(
                    measure(DIALECTS[protocol], where, load, clients, seconds, warm_up, _live(name))
                )
        except BenchError as error:
            print(f"raftcache bench: {error}", file=sys.stderr)
            raise typer.Exit(3) from None
        _clear()
        results[name] = summary = report.summary()
        if not as_json:
            print(
                f"{name:<8}{summary['ops_per_s']:>12,.0f}{summary['p50_ms']:>10.2f}"
                f"{summary['p99_ms']:>10.2f}{summary['p999_ms']:>10.2f}{summary['errors']:>8}"
            )
            if report.first_error:
                print(f"        first error: {report.first_error}")
    if as_json:
        print(json.dumps(results, indent=2))
    raise typer.Exit(1 if any(each["errors"] for each in results.values()) else 0)


def _addresses(protocol: str, given: list[str] | None) -> list[tuple[str, int]]:
    texts = given or os.environ.get(_ENVIRONMENT[protocol], DEFAULTS[protocol]).split(",")
    found = []
    for text in texts:
        host, _, port = text.removeprefix("http://").rstrip("/").rpartition(":")
        if not host or not port.isdigit():
            raise typer.BadParameter(f"{text!r} is not HOST:PORT")
        found.append((host.strip("[]"), int(port)))
    return found


def _live(name: str) -> Callable[[str, float, Report], None]:
    def show(phase: str, left: float, report: Report) -> None:
        if sys.stderr.isatty():
            rate = f"{report.per_second:,.0f} ops/s" if report.latencies.count else ""
            sys.stderr.write(f"\r\x1b[K{name}: {phase} {left:4.1f} s  {rate}")
            sys.stderr.flush()

    return show


def _clear() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
