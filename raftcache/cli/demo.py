"""``raftcache demo``: a cluster on this machine, by one command."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from raftcache.demo import Cluster

_WATCH_S = 0.2


class Stop(BaseException):
    """Somebody wants the demo to end. Not an ``Exception``: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        self.number = number


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("demo")(demo)


def demo(
    nodes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=99, help="Number of nodes.", show_default="3"),
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(metavar="G", min=1, max=1024, help="Raft groups.", show_default="4"),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            metavar="P",
            min=0,
            max=65_000,
            help="HTTP port of the first node, the others follow; 0 finds free ones.",
        ),
    ] = 8001,
    resp_port: Annotated[
        int | None,
        typer.Option(
            metavar="P",
            min=0,
            max=65_000,
            help="Redis port of the first node, the others follow; 0 finds free ones.",
            show_default="6379, or free ones when that is taken",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep data and logs here, and go on with what is there already.",
            show_default="a new directory, removed at the end",
        ),
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Keep nothing on disk (except logs).")
    ] = False,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory for entries on each node.", show_default="256mb"),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="lru|lfu|fifo|sieve|s3fifo", help="Eviction policy.", show_default="lru"
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="CMD",
            help="Run this shell command against the cluster, then stop all and exit with its"
            " status. It finds RAFTCACHE_URLS (comma-separated base URLs), RAFTCACHE_RESP"
            " (host:port for Redis clients, same order) and RAFTCACHE_PIDS (the nodes' process ids,"
            " same order) in its environment.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start a cluster of separate processes on this machine; Ctrl-C stops it."""
    if memory and data_dir is not None:
        raise typer.BadParameter("--memory and --data-dir exclude each other")
    from raftcache.demo import DemoError, Plan
    from raftcache.ports import PortsError

    settings = {"max_memory": max_memory, "policy": policy}
    given = {name: value for name, value in settings.items() if value is not None}
    plan = Plan(nodes, groups, port, resp_port, data_dir, memory, given)
    _on_signals(_raise_stop)
    try:
        status = _play(plan, run)
    except (DemoError, PortsError) as error:
        for line in str(error).splitlines():
            typer.echo(f"raftcache demo: {line}", err=True)
        status = 1
    except Stop as stop:
        # Asked to end: for Ctrl-C in an interactive demo that is the normal end.
        status = 0 if run is None and stop.number == signal.SIGINT else 128 + stop.number
    raise typer.Exit(status)


def _on_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _raise_stop(number: int, _frame: FrameType | None) -> None:
    raise Stop(number)


def _play(plan: Any, command: str | None) -> int:
    from raftcache.demo import Cluster

    started = time.monotonic()
    with Cluster(plan) as cluster:
        from rich.console import Console

        console = Console(stderr=command is not None, highlight=False)
        console.print(f"Starting {len(cluster.nodes)} nodes, logs in {cluster.directory} ...")
        status = cluster.wait_until_ready()
        seconds = time.monotonic() - started
        _introduce(console, cluster, status, seconds, brief=command is not None)
        try:
            deaths = Deaths(console, cluster)
            if command is None:
                return _watch(deaths)
            return _run(cluster, deaths, command)
        finally:
            console.print("Stopping ...")
            if cluster.temporary and cluster.keep:
                console.print(f"Logs are kept in {cluster.directory}", soft_wrap=True)


class Deaths:
    """Tells of nodes that ended by themselves, once each."""

    def __init__(self, console: Console, cluster: Cluster) -> None:
        self._console = console
        self._cluster = cluster
        self._gone: set[str] = set()

    def report(self) -> bool:
        """Report those that are new. Whether any node is left."""
        from raftcache.demo import serve_command

        for node in self._cluster.nodes:
            if node.id in self._gone or node.ended is None:
                continue
            self._gone.add(node.id)
            self._cluster.keep = True
            self._console.print(
                f"\n[bold red]{node.id} ended: {node.ended}[/]. Its log: {node.log}\n"
                f"Start it again, in another terminal: {shlex.join(serve_command(node.config))}",
                soft_wrap=True,
            )
        return len(self._gone) < len(self._cluster.nodes)


def _watch(deaths: Deaths) -> int:
    """Until somebody stops the demo."""
    while deaths.report():
        time.sleep(_WATCH_S)
    return 1


def _run(cluster: Cluster, deaths: Deaths, command: str) -> int:
    """Run the command, hand signals on to it, and return its status as a shell would."""
    environment = os.environ | {
        "RAFTCACHE_URLS": ",".join(cluster.urls),
        "RAFTCACHE_RESP": ",".join(cluster.resp),
        "RAFTCACHE_PIDS": ",".join(map(str, cluster.pids)),
    }
    # On a terminal the command stays in our process group, or it could not read from the terminal;
    # Ctrl-C then reaches it by itself. Elsewhere a group of its own lets us end all of it.
    interactive = sys.stdin.isatty()
    received: list[int] = []
    _on_signals(lambda number, _frame: received.append(number))
    process = subprocess.Popen(
        command, shell=True, env=environment, process_group=None if interactive else 0
    )
    while process.poll() is None:
        while received:
            number = received.pop(0)
            if not interactive:
                os.killpg(process.pid, number)
            elif number != signal.SIGINT:
                process.send_signal(number)
        deaths.report()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_WATCH_S)
    _on_signals(_raise_stop)
    cluster.keep = process.returncode != 0
    return 128 - process.returncode if process.returncode < 0 else process.returncode


def _introduce(
    console: Console, cluster: Cluster, status: dict[str, Any], seconds: float, *, brief: bool
) -> None:
    """Say what runs, where, and how to use it."""
    from raftcache.cli.status import table

    where = "in memory only" if cluster.memory else f"in {cluster.directory}/NODE"
    console.print(f"Ready after {seconds:.1f} s; data {where}", soft_wrap=True)
    end = " (removed at the end)" if cluster.temporary else ""
    console.print(f"Logs in {cluster.directory}/NODE.log{end}\n", soft_wrap=True)
    if brief:
        return
    nodes = table("Nodes", ("node", "url", "redis"), ("pid",))
    for node in cluster.nodes:
        nodes.add_row(node.id, node.url, node.resp, str(node.process.pid))
    console.print(nodes)
    leaders = table("Who leads what", ("group", "leader", "replicas"), ("slots",))
    for group in status["groups"]:
        replicas = ", ".join(group["replicas"])
        leaders.add_row(str(group["id"]), group["leader"], replicas, str(group["slots"]))
    console.print(leaders)
    console.print("[bold]Try[/] (any node answers for any key)\n")
    for comment, line in samples(cluster.urls):
        if comment:
            console.print(f"  [dim]# {comment}[/]")
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print("\nCtrl-C stops the cluster.")


def _program() -> str:
    """This command, as the user can call it again."""
    import shutil

    return "raftcache" if shutil.which("raftcache") else shlex.quote(sys.argv[0])


def samples(urls: list[str]) -> list[tuple[str, str]]:
    """Commands to begin with: (what it shows, command)."""
    first, last = urls[0], urls[-1]
    return [
        ("store, and read it at another node", f"curl -i -X PUT -d world {first}/v1/keys/hello"),
        ("", f"curl -i {last}/v1/keys/hello"),
        (
            "compare and set: only when nobody changed it since (ETag of the answer above)",
            f"curl -i -X PUT -d moon -H 'If-Match: \"1\"' {first}/v1/keys/hello",
        ),
        ("count", f"curl -X POST '{first}/v1/keys/visits/incr?by=5'"),
        ("expire", f"curl -X PUT -d token '{first}/v1/keys/session?ttl=30s'"),
        (
            "several operations in one request",
            f"curl {last}/v1/batch --json '"
            '[{"op":"set","key":"a","value":"1"},{"op":"get","key":"hello"}]'
            "'",
        ),
        ("the cluster's state", f"{_program()} status --url {first}"),
    ]
