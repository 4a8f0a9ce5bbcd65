"""What a load loses by something beside it: SET and GET over Redis's protocol, without and with.

    python benchmarks/degradation.py [--only keys,idle,large,slow,snapshot] [--durable] [--out DIR]

For each condition (``conditions.py``) in turn a new cluster of three nodes is measured without it,
and then with it; turns are repeated. Prints the medians, the share of the throughput that is left
(the median of the turns' own), and writes them to DIR as ``degradation.txt``, ``.md`` and
``.json``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvloop
from measuring import machine
from measuring.conditions import CONDITIONS, Address, Bench, Condition, Size
from measuring.figures import figures, markdown_table, number, rate, text_table
from measuring.report import DISTURBED

from raftcache.bench.dialects import DIALECTS
from raftcache.bench.load import fill, measure
from raftcache.bench.workload import Workload
from raftcache.demo import Cluster, Plan, cluster_status
from raftcache.open_files import allow_open_files

OPERATIONS = ("set", "get")
NAME = "degradation"
_SPARE_FILES = 1_000
HEADS = (
    "beside the load",
    "",
    "ops/s without",
    "lowest, highest",
    "with",
    "lowest, highest",
    "left",
    "p99 ms without, with",
    "leader CPU us/op",
    "other CPU",
    "failed",
)


class Turns:
    """What was measured: by (condition, operation, with it or not)."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self.runs: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
        self.said: dict[str, str] = {}

    def once(self, condition: Condition) -> None:
        """A new cluster, without and with."""
        args = self._args
        with tempfile.TemporaryDirectory(prefix="raftcache-degradation-", dir=args.data_dir) as at:
            plan = Plan(
                nodes=3,
                groups=args.groups,
                port=0,
                directory=Path(at),
                memory=not args.durable,
                settings={
                    "max_memory": "4gb",
                    "max_clients": str(args.idle + args.clients + _SPARE_FILES),
                },
            )
            with Cluster(plan) as cluster:
                cluster.wait_until_ready()
                bench = at_bench(cluster)
                without, with_it = condition.keys
                bench.fill(without)
                self._measure(condition, bench, without, beside=False)
                with condition.beside(bench) as said:
                    self._measure(condition, bench, with_it, beside=True)
                self.said[condition.name] = "; ".join(said)

    def _measure(self, condition: Condition, bench: Bench, keys: int, *, beside: bool) -> None:
        args = self._args
        for op in OPERATIONS:
            workload = Workload(op, keys, args.value_bytes, 0.0, args.pipeline)
            uvloop.run(load(bench, workload, args.clients, args.warm_up))
            leader = [bench.leader_pid]
            before = machine.cpu_seconds(leader)
            with machine.Watch(bench.cluster.pids) as watch:
                run = uvloop.run(load(bench, workload, args.clients, args.seconds))
            spent = machine.cpu_seconds(leader) - before
            run["server_cpu_us_per_op"] = spent * 1e6 / max(1, run["operations"])
            run["other_cpu"] = watch.others
            self.runs.setdefault((condition.name, op, beside), []).append(run)
            state = "with" if beside else "without"
            say(f"  {condition.name}, {op}, {state}: {run['ops_per_s']:,.0f}/s {run['p99_ms']} ms")

    def results(self) -> list[dict[str, Any]]:
        """A row for each condition and operation."""
        rows = []
        for name, op in dict.fromkeys((name, op) for name, op, _ in self.runs):
            without, with_it = (self.runs.get((name, op, beside), []) for beside in (False, True))
            pairs = list(zip(without, with_it, strict=False))
            if not pairs:
                continue
            rows.append(
                {
                    "condition": name,
                    "operation": op,
                    "without": figures([pair[0] for pair in pairs]),
                    "with": figures([pair[1] for pair in pairs]),
                    "left": statistics.median(b["ops_per_s"] / a["ops_per_s"] for a, b in pairs),
                    "said": self.said.get(name, ""),
                }
            )
        return rows


async def load(bench: Bench, workload: Workload, clients: int, seconds: float) -> dict[str, Any]:
    """Keep the leader busy for so long."""
    where = [bench.leader]
    report = await measure(
        DIALECTS["resp"], where, workload, clients, seconds, 0.0, fill_first=False
    )
    return report.summary()


def at_bench(cluster: Cluster) -> Bench:
    """Who leads, who does not, and how to fill."""
    status = cluster_status(cluster.urls[0])
    assert status is not None
    led = [group["leader"] for group in status["groups"]]
    order = sorted(range(len(cluster.nodes)), key=lambda at: led.count(cluster.nodes[at].id))
    host, _, port = cluster.nodes[order[-1]].resp.rpartition(":")
    leader: Address = (host, int(port))

    def store(keys: int) -> None:
        uvloop.run(fill(DIALECTS["resp"], [leader], Workload("set", keys)))

    return Bench(cluster, leader, cluster.pids[order[-1]], order[0], store)


def cells(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The table."""
    found = []
    for row in rows:
        states = row["without"], row["with"]
        other = max(state["other_cpu"] for state in states)
        columns = [row["condition"], row["operation"].upper()]
        for state in states:
            ops = state["ops_per_s"]
            columns += [rate(ops["median"]), f"{rate(ops['lowest'])}, {rate(ops['highest'])}"]
        columns.append(f"{row['left']:.0%}")
        for each in ("p99_ms", "server_cpu_us_per_op"):
            columns.append(", ".join(number(state[each], 1) for state in states))
        columns.append(f"{other:.0%}{'!' if other > DISTURBED else ''}")
        columns.append(number(sum(state["errors"] + state["misses"] for state in states)))
        found.append(columns)
    return found


def write(rows: list[dict[str, Any]], about: str, where: dict[str, Any], out: Path | None) -> str:
    """The text; with the other forms of it in ``out``."""
    table, remarks = cells(rows), dict.fromkeys(f"{r['condition']}: {r['said']}" for r in rows)
    on = machine.in_words(where)
    text = "\n".join([about, on, "", text_table(HEADS, table, 2), "", *remarks])
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        listed = "\n".join(f"- {each}" for each in remarks)
        (out / f"{NAME}.txt").write_text(text + "\n")
        (out / f"{NAME}.md").write_text(
            f"{about}.\n\n{markdown_table(HEADS, table, 2)}\n\n{on}.\n\n{listed}\n"
        )
        everything = {"machine": where, "conditions": about, "figures": rows}
        (out / f"{NAME}.json").write_text(json.dumps(everything, indent=2) + "\n")
    return text


def say(text: str) -> None:
    """Progress goes to standard error."""
    print(text, file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """The options."""
    size = Size()
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    made.add_argument("--only", default=",".join(CONDITIONS), help="conditions, with commas")
    kept = made.add_mutually_exclusive_group()
    kept.add_argument("--durable", action="store_true", help="keep the data on disk")
    kept.add_argument("--memory", action="store_true", help="keep nothing on disk (default)")
    made.add_argument("--clients", type=int, default=50)
    made.add_argument("--pipeline", type=int, default=1)
    made.add_argument("--value-bytes", type=int, default=100)
    made.add_argument("--groups", type=int, default=1)
    made.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    made.add_argument("--warm-up", type=float, default=1.0, help="seconds before each")
    made.add_argument("--repeats", type=int, default=3, help="turns")
    made.add_argument("--keys", type=int, default=size.keys)
    made.add_argument("--many-keys", type=int, default=size.many_keys, help="keys, snapshot")
    made.add_argument("--idle", type=int, default=size.idle, help="connections")
    made.add_argument("--large-per-second", type=float, default=size.large_per_second)
    made.add_argument("--stopped-ms", type=float, default=size.stopped_ms, help="slow follower")
    made.add_argument("--running-ms", type=float, default=size.running_ms, help="between stops")
    made.add_argument("--data-dir", type=Path, help="where durable data go; default: temporary")
    made.add_argument("--out", type=Path, metavar="DIR", help="for the reports")
    return made


def main() -> int:
    """Measure and print."""
    args = parser().parse_args()
    names = args.only.split(",")
    if unknown := [name for name in names if name not in CONDITIONS]:
        say(f"degradation.py: --only {unknown[0]}: there are {', '.join(CONDITIONS)}")
        return 2
    size = Size(**{name: getattr(args, name) for name in Size.__dataclass_fields__})
    chosen = [CONDITIONS[name](size) for name in names]
    needed = args.idle + args.clients + _SPARE_FILES
    if (allowed := allow_open_files(needed)) < needed:
        say(f"degradation.py: {needed:,} open files are needed, {allowed:,} allowed (ulimit -Hn)")
        return 2
    where = machine.describe()
    about = (
        f"3 nodes, data {'on disk' if args.durable else 'in memory'}, {args.groups} group(s);"
        f" {args.clients} clients at the leader, pipelines of {args.pipeline},"
        f" {args.value_bytes}-byte values; {args.repeats} turns of {args.seconds:g} s, medians"
    )
    turns = Turns(args)
    for repeat in range(args.repeats):
        say(f"turn {repeat + 1} of {args.repeats}")
        for condition in chosen:
            turns.once(condition)
        write(turns.results(), about, where, args.out)
    print(write(turns.results(), about, where, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
