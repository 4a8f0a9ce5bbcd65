"""raftcache and its peers on this machine, three nodes each, under the same loads, in turns.

    python benchmarks/compare.py [--peers raftcache,etcd] [--durable] [--out DIR]
    python benchmarks/compare.py --list

In each turn every peer found here (``peers/``) is started, measured and ended, one after the other;
turns are repeated. Clients, keys, values and durability are the same for all. DIR gets the medians
and their spread as a table (``comparison.txt`` and ``.md``), all of it as ``comparison.json``, and
bars as ``comparison.png`` and ``.html``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import machine, report
from measuring.figures import figures
from measuring.servers import ServerError
from peers import Load, Peer, PeerError, Running, Setup, Through, load_peers

from raftcache.bench.load import BenchError
from raftcache.bench.workload import Workload

OPERATIONS = ("set", "get")


def loads(args: argparse.Namespace) -> list[Load]:
    """What every peer is measured with."""
    return [
        Load(
            Workload(op, args.keys, args.value_bytes, 0.0, depth),
            args.clients,
            args.seconds,
            Through(args.through),
        )
        for op in OPERATIONS
        for depth in args.pipeline
    ]


class Comparison:
    """The turns, and what they found."""

    def __init__(self, peers: Sequence[Peer], args: argparse.Namespace) -> None:
        self._peers = peers
        self._args = args
        self._loads = loads(args)
        self._runs: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        self._machine = machine.describe()
        self.failed: dict[str, str] = {}

    def turn(self, number: int) -> None:
        """Every peer once; each turn begins with another one."""
        first = number % len(self._peers)
        for peer in [*self._peers[first:], *self._peers[:first]]:
            directory = Path(tempfile.mkdtemp(prefix="raftcache-compare-", dir=self._args.data_dir))
            setup = Setup(directory, self._args.durable, self._args.groups)
            try:
                with peer.start(setup) as running:
                    for load in self._loads:
                        self._measure(peer, running, load)
            except (PeerError, ServerError, BenchError, subprocess.SubprocessError) as error:
                self.failed[peer.name] = str(error)
                say(f"  {peer.name}: {error}")
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def _measure(self, peer: Peer, running: Running, load: Load) -> None:
        generators = running.generators(load)
        if generators and load.workload.reads:
            running.fill(load)
        for generator in generators:
            warm_up = Load(load.workload, load.clients, self._args.warm_up, load.through)
            running.run(generator, warm_up)
            with machine.Watch(running.pids, running.client_pids) as watch:
                run = dict(running.run(generator, load))
            run["server_cpu_us_per_op"] = watch.servers_s * 1e6 / max(1, run["operations"])
            run["other_cpu"] = watch.others
            self._runs.setdefault((load.name, peer.name, generator), []).append(run)
            say(f"  {peer.name}: {load.name}, {generator}: {run['ops_per_s']:,.0f}/s")

    def results(self) -> dict[str, Any]:
        """All that a report is made of."""
        args = self._args
        setup = Setup(Path(), args.durable, args.groups)
        order = [load.name for load in self._loads]
        found = [
            {"load": load, "peer": peer, "generator": generator, **figures(runs)}
            for (load, peer, generator), runs in self._runs.items()
        ]
        found.sort(key=lambda row: (order.index(row["load"]), -row["ops_per_s"]["median"]))
        return {
            "machine": self._machine,
            "conditions": {
                "nodes": 3,
                "durable": args.durable,
                "clients": args.clients,
                "value_bytes": args.value_bytes,
                "keys": args.keys,
                "groups": args.groups,
                "through": args.through,
                "seconds": args.seconds,
                "repeats": args.repeats,
            },
            "peers": {
                peer.name: {
                    "about": peer.about,
                    "version": peer.version(),
                    "linearizable": peer.linearizable,
                    "notes": list(peer.notes(setup)),
                }
                for peer in self._peers
            },
            "failed": self.failed,
            "figures": found,
        }


def choose(known: dict[str, Peer], asked: str | None) -> list[Peer]:
    """Those asked for, all of which have to be here; else all that are here."""
    if asked is None:
        return [peer for peer in known.values() if not peer.missing()]
    chosen = []
    for name in asked.split(","):
        peer = known.get(name)
        if peer is None:
            raise PeerError(f"there is no peer {name!r}; there are {', '.join(known)}")
        if missing := peer.missing():
            raise PeerError(f"{name}: {missing}; {peer.how_to_install()}")
        chosen.append(peer)
    return chosen


def show(known: dict[str, Peer]) -> None:
    """``--list``."""
    for peer in known.values():
        missing = peer.missing()
        state = f"missing ({missing}): {peer.how_to_install()}" if missing else peer.version()
        print(f"{peer.name:<16}{state}\n{'':<16}{peer.about}")


def install(known: dict[str, Peer]) -> None:
    """Debian's packages of the peers that are missing. ``PeerError`` when that cannot be."""
    packages = sorted({each for peer in known.values() if peer.missing() for each in peer.packages})
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PeerError(f"--install needs root and apt-get: apt-get install {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], env=environment, capture_output=True, text=True
        )
        if done.returncode != 0 and command[0] == "install":
            raise PeerError(f"apt-get install {' '.join(packages)}: {done.stderr.strip()[-400:]}")


def say(text: str) -> None:
    """Progress goes to standard error."""
    print(text, file=sys.stderr, flush=True)


def depths(text: str) -> list[int]:
    """``1,16``"""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    made.add_argument("--peers", help="their names, with commas; default: all that are here")
    made.add_argument("--peer-file", type=Path, action="append", default=[], help="another peer")
    made.add_argument("--list", action="store_true", help="list the peers, found and missing")
    made.add_argument("--install", action="store_true", help="install missing ones, as root")
    kept = made.add_mutually_exclusive_group()
    kept.add_argument("--durable", action="store_true", help="on disk before acknowledged")
    kept.add_argument("--memory", action="store_true", help="nothing need be kept (default)")
    made.add_argument("--clients", type=int, default=50)
    made.add_argument("--pipeline", type=depths, default=[1, 16], metavar="N[,N]")
    made.add_argument("--value-bytes", type=int, default=100)
    made.add_argument("--keys", type=int, default=10_000)
    made.add_argument("--groups", type=int, default=1, help="Raft groups, of those who have some")
    made.add_argument(
        "--through",
        choices=[each.value for each in Through],
        default=Through.LEADER.value,
        help="where clients are: at the leader (default), at one follower, or at all nodes",
    )
    made.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    made.add_argument("--warm-up", type=float, default=1.0, help="seconds before each")
    made.add_argument("--repeats", type=int, default=3, help="turns")
    made.add_argument("--data-dir", type=Path, help="where durable data go; default: temporary")
    made.add_argument("--out", type=Path, metavar="DIR", help="for the reports")
    made.add_argument("--redraw", type=Path, metavar="JSON", help="reports of an earlier run")
    return made


def main() -> int:
    """Measure, print the table, write the reports."""
    args = parser().parse_args()
    try:
        if args.redraw is not None:
            print(report.write(json.loads(args.redraw.read_text()), args.out))
            return 0
        known = load_peers(args.peer_file)
        if args.install:
            install(known)
        if args.list:
            show(known)
            return 0
        comparison = Comparison(choose(known, args.peers), args)
    except PeerError as error:
        say(f"compare.py: {error}")
        return 2
    for name, peer in known.items():
        if missing := peer.missing():
            say(f"{name} is left out: {missing}; {peer.how_to_install()}")
    if os.getloadavg()[0] > machine.QUIET:
        say(f"The load average is {os.getloadavg()[0]:.1f}: other work will disturb the figures.")
    for number in range(args.repeats):
        say(f"turn {number + 1} of {args.repeats}")
        comparison.turn(number)
        if args.out is not None:
            report.write_json(comparison.results(), args.out)
    print(report.write(comparison.results(), args.out))
    return 1 if comparison.failed else 0


if __name__ == "__main__":
    sys.exit(main())
