"""PySyncObj as it comes: a replicated dict in three processes, called through its own API."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import measuring
import msgspec
from measuring.servers import HOST, Servers

from peers import Load, Peer, PeerError, Running, Setup, Through
from raftcache.ports import free_ports

PROGRAM = Path(measuring.__file__).with_name("pysyncobj_program.py")
API = "its own API"
_START_S = 120.0


class RunningPySyncObj(Running):
    """``clients`` is the process of the clients."""

    def __init__(self, pids: Sequence[int], clients: subprocess.Popen[str]) -> None:
        self.pids = pids
        self.client_pids = [clients.pid]
        self._clients = clients
        self._answer(_START_S)

    def generators(self, load: Load) -> Sequence[str]:
        return (API,) if load.through is Through.LEADER else ()

    def fill(self, load: Load) -> None:
        if problem := self._ask(load, fill=True)["first_error"]:
            raise PeerError(f"PySyncObj: filling: {problem}")

    def run(self, generator: str, load: Load) -> dict[str, Any]:
        return self._ask(load, fill=False)

    def _ask(self, load: Load, *, fill: bool) -> dict[str, Any]:
        asked = {
            "workload": msgspec.to_builtins(load.workload),
            "clients": load.clients,
            "seconds": load.seconds,
            "fill": fill,
        }
        assert self._clients.stdin is not None
        self._clients.stdin.write(json.dumps(asked) + "\n")
        self._clients.stdin.flush()
        return self._answer(load.seconds + _START_S)

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._clients.stdout is not None
        if not select.select([self._clients.stdout], [], [], timeout_s)[0]:
            raise PeerError("PySyncObj's clients do not answer")
        line = self._clients.stdout.readline()
        if not line:
            raise PeerError("PySyncObj's clients ended")
        found: dict[str, Any] = json.loads(line)
        return found


class PlainPySyncObj(Peer):
    """Unmodified, with the settings that are quickest for clients that wait."""

    name = "pysyncobj"
    about = "plain PySyncObj, ReplDict in three processes, clients in a fourth"
    # Re-sent appends and a forgotten vote lose acknowledged writes of the release we build on.
    linearizable = False

    def version(self) -> str:
        return version("pysyncobj")

    def notes(self, setup: Setup) -> Sequence[str]:
        return (
            "Clients are threads of one observer process, one call (or pipeline of calls with"
            " callbacks) at a time each.",
            "Its log is not compacted meanwhile: that would stop its nodes.",
            "Reads go through the log: its own are local and may be stale.",
            "Its journal is never synced: a power failure loses acknowledged writes."
            if setup.durable
            else "In memory; a node that restarts has forgotten its vote.",
        )

    @contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        addresses = [f"{HOST}:{port}" for port in free_ports(3)]
        with Servers(setup.directory) as servers:
            for number, address in enumerate(addresses):
                others = ",".join(each for each in addresses if each != address)
                kept = []
                if setup.durable:
                    directory = setup.directory / f"node-{number + 1}"
                    directory.mkdir()
                    kept = [str(directory)]
                servers.start(sys.executable, str(PROGRAM), "node", address, others, *kept)
            servers.wait(
                lambda: all("ready" in log.read_text() for log in servers.logs),
                "PySyncObj should elect a leader",
            )
            with (setup.directory / "clients.log").open("wb") as log:
                clients = subprocess.Popen(
                    [sys.executable, PROGRAM, "clients", ",".join(addresses)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            try:
                yield RunningPySyncObj(servers.pids, clients)
            finally:
                clients.kill()
                clients.communicate()


PEERS: list[Peer] = [PlainPySyncObj()]
