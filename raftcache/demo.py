"""A cluster of real processes on this machine: for ``raftcache demo``, tests and benchmarks.

Each node is a ``raftcache serve`` of its own with its own settings file, data directory and log.
The nodes live no longer than whoever started them, however that ends: each holds the read end of a
pipe as its standard input and stops when the pipe closes. They are in process groups of their own,
so that a Ctrl-C in the terminal reaches the starter only, which stops them in order.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from raftcache.ports import HOST, free_ports

REDIS_PORT: Final = 6379
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 15.0
_POLL_S: Final = 0.02
_OWN: Final = frozenset(
    {
        "node",
        "members",
        "data_dir",
        "memory",
        "config",
        "groups",
        "secret",
        "peer_bind",
        "http_bind",
    }
)
"""Settings that a demo's nodes take from their file, whatever the environment says."""


class DemoError(Exception):
    """The cluster cannot run; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. ``None``: as the data directory was before, or the default."""

    nodes: int | None = None
    groups: int | None = None
    port: int = 8001
    """HTTP port of the first node; the others follow. 0: free ones."""
    resp_port: int | None = None
    """The same for Redis clients. ``None``: 6379 and up when those are free, else free ones."""
    directory: Path | None = None
    memory: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    """Further settings of every node, by name."""
    environment: dict[str, str] = field(default_factory=dict)
    """Of the nodes' processes, beside what this one has."""


@dataclass(slots=True)
class Process:
    """One node."""

    id: str
    url: str
    resp: str
    """Host and port for Redis clients."""
    config: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def ended(self) -> str | None:
        """How it ended; ``None`` while it runs."""
        code = self.process.poll()
        if code is None:
            return None
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


class Cluster:
    """The running nodes. ``with Cluster(plan) as cluster`` starts them and stops them."""

    def __init__(self, plan: Plan) -> None:
        self.nodes: list[Process] = []
        self.memory = plan.memory
        self.temporary = plan.directory is None
        self.keep = True
        """Whether a directory that nobody named stays at the end, for its logs: until the cluster
        was ready, and when an error ends it."""
        self.directory = (
            Path(tempfile.mkdtemp(prefix="raftcache-demo-"))
            if plan.directory is None
            else plan.directory.absolute()
        )
        self._plan = plan

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Exception):
            self.keep = True
        self.stop()

    def start(self) -> None:
        """Start all nodes; they need some time until they are ``ready``."""
        self.directory.mkdir(parents=True, exist_ok=True)
        before = _before(self.directory) if not self.memory else {}
        count = _same("nodes", self._plan.nodes, before, 3)
        groups = _same("groups", self._plan.groups, before, 4)
        http_ports = _ports(self._plan.port, count, "--port")
        resp_ports = self._resp_ports(count)
        # The data belong to nodes at these addresses.
        peer_ports = before.get("peer_ports") or free_ports(count)
        (self.directory / "demo.toml").write_text(
            f"nodes = {count}\ngroups = {groups}\npeer_ports = {peer_ports}\n"
        )
        members = [
            (f"n{i + 1}", *(f"{HOST}:{port}" for port in ports))
            for i, ports in enumerate(zip(peer_ports, http_ports, resp_ports, strict=True))
        ]
        settings = {"groups": groups, "secret": secrets.token_urlsafe(32), **self._plan.settings}
        for name, _, address, resp in members:
            where = {"memory": True} if self.memory else {"data_dir": str(self.directory / name)}
            config = self.directory / f"{name}.toml"
            write_private(config, settings_toml({"node": name, **where, **settings}, members))
            self.nodes.append(self._launch(name, f"http://{address}", resp, config))

    def _resp_ports(self, count: int) -> list[int]:
        asked = self._plan.resp_port
        if asked is not None:
            return _ports(asked, count, "--resp-port")
        try:
            return _ports(0 if self._plan.port == 0 else REDIS_PORT, count, "--resp-port")
        except DemoError:
            # Somebody else's Redis, most likely.
            return free_ports(count)

    def _launch(self, name: str, url: str, resp: str, config: Path) -> Process:
        ours = {f"RAFTCACHE_{setting.upper()}" for setting in _OWN | self._plan.settings.keys()}
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        environment |= self._plan.environment
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                serve_command(config, "--until-stdin-closes"),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                process_group=0,
            )
        return Process(name, url, resp, config, log, process)

    def restart(self, position: int) -> None:
        """Start a node that has ended again, with the settings and data it had."""
        old = self.nodes[position]
        assert old.ended is not None
        if old.process.stdin is not None:
            old.process.stdin.close()
        self.nodes[position] = self._launch(old.id, old.url, old.resp, old.config)

    @property
    def urls(self) -> list[str]:
        """Base URLs, in the order of the nodes."""
        return [node.url for node in self.nodes]

    @property
    def resp(self) -> list[str]:
        """Addresses for Redis clients, in the same order."""
        return [node.resp for node in self.nodes]

    @property
    def pids(self) -> list[int]:
        """Process ids, in the same order."""
        return [node.process.pid for node in self.nodes]

    def wait_until_ready(self, timeout_s: float = START_TIMEOUT_S) -> dict[str, Any]:
        """Wait until every node is ready and every group has a leader; the cluster's status."""
        deadline = time.monotonic() + timeout_s
        waiting = list(self.nodes)
        while waiting:
            waiting = [node for node in waiting if not is_ready(node.url)]
            self._check(deadline)
        while True:
            status = cluster_status(self.urls[0])
            if status is not None and all(group["leader"] for group in status["groups"]):
                self.keep = False
                return status
            self._check(deadline)

    def _check(self, deadline: float) -> None:
        for node in self.nodes:
            if node.ended is not None:
                raise DemoError(f"{node.id} did not start ({node.ended}):\n{_tail(node.log)}")
        if time.monotonic() > deadline:
            raise DemoError(f"the cluster is not ready; its logs are in {self.directory}")
        time.sleep(_POLL_S)

    def stop(self) -> None:
        """End all nodes: in order first, by force after a while."""
        for node in self.nodes:
            if node.ended is None:
                node.process.send_signal(signal.SIGTERM)
                # One that was stopped (SIGSTOP) has to run to end.
                node.process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for node in self.nodes:
            try:
                node.process.wait(max(0.0, deadline - time.monotonic()))
            except BaseException as error:
                self.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
        for node in self.nodes:
            if node.process.stdin is not None:
                node.process.stdin.close()
        if self.temporary and not self.keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """End all nodes at once."""
        for node in self.nodes:
            node.process.kill()
        for node in self.nodes:
            node.process.wait()


def serve_command(config: Path, *more: str) -> list[str]:
    """The command that runs the node of a settings file."""
    return [sys.executable, "-m", "raftcache", "serve", "--config", str(config), *more]


def cluster_status(url: str) -> dict[str, Any] | None:
    """``GET /v1/cluster``; ``None`` when the node does not answer."""
    answer = _get(url, "/v1/cluster")
    return json.loads(answer[1]) if answer is not None and answer[0] == 200 else None


def is_ready(url: str) -> bool:
    answer = _get(url, "/readyz")
    return answer is not None and answer[0] == 200


def _get(url: str, path: str) -> tuple[int, bytes] | None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _before(directory: Path) -> dict[str, Any]:
    """What an earlier demo in this directory was like."""
    try:
        return tomllib.loads((directory / "demo.toml").read_text())
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise DemoError(f"{directory / 'demo.toml'} is not what a demo wrote: {error}") from None


def _same(name: str, asked: int | None, before: dict[str, Any], default: int) -> int:
    """As before when there is a before, which what is asked may not contradict."""
    held: int | None = before.get(name)
    if asked is not None and held is not None and asked != held:
        raise DemoError(
            f"the data are those of a cluster of {held} {name}; leave out --{name} {asked}, or use"
            " another --data-dir"
        )
    return asked or held or default


def _ports(first: int, count: int, flag: str) -> list[int]:
    if first == 0:
        return free_ports(count)
    ports = list(range(first, first + count))
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                raise DemoError(
                    f"port {port} cannot be used (taken?); choose others with {flag}, or let"
                    f" {flag} 0 find free ones"
                ) from None
    return ports


def settings_toml(settings: dict[str, object], members: Sequence[tuple[str, ...]]) -> str:
    """A node's settings as TOML. ``members``: id, peer, http and resp address of each."""
    # Plain values only, whose text and boolean literals in JSON are TOML's, too.
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for name, peer, http_address, resp in members:
        lines += [
            "",
            "[[members]]",
            f'id = "{name}"',
            f'peer = "{peer}"',
            f'http = "{http_address}"',
            f'resp = "{resp}"',
        ]
    return "\n".join(lines) + "\n"


def write_private(path: Path, text: str) -> None:
    """Write a settings file. It has the cluster's secret: readable by its owner only."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
