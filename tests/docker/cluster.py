"""The cluster of docker/compose.yaml, for the time of a test."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.docker.debian import base_image
from tests.docker.engine import Engine

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
NODES = ("n1", "n2", "n3", "n4", "n5")
PATIENCE_S = 60.0
_OWN_NETWORK = "services: {n1: {build: {network: host}}}\n"
_OFTEN = "".join(f"  {node}: {{healthcheck: {{interval: 2s}}}}\n" for node in NODES)
"""Tests wait for a health check again and again: it comes more often than the image says."""
_SETTINGS = ("index-url", "extra-index-url", "trusted-host")


class Cluster:
    """The project, under names and ports of its own."""

    def __init__(self, engine: Engine, directory: Path, base: str) -> None:
        self.engine = engine
        self.project = f"raftcache-test-{secrets.token_hex(3)}"
        self.http_ports, self.resp_ports = _port_ranges(2)
        files = [COMPOSE, directory / "checks.yaml"]
        files[-1].write_text(f"services:\n{_OFTEN}")
        if engine.own:
            files.append(directory / "network.yaml")
            files[-1].write_text(_OWN_NETWORK)
        self.environment = _pip() | {
            "COMPOSE_FILE": os.pathsep.join(map(str, files)),
            "COMPOSE_PROJECT_NAME": self.project,
            "RAFTCACHE_BASE": base,
            "RAFTCACHE_IMAGE": self.project,
            "RAFTCACHE_HTTP_PORTS": self.http_ports,
            "RAFTCACHE_RESP_PORTS": self.resp_ports,
        }

    def compose(self, *arguments: str, timeout_s: float = 180.0) -> str:
        """What ``docker compose`` prints; it has to succeed."""
        return self.engine.docker("compose", *arguments, timeout_s=timeout_s, more=self.environment)

    def container(self, node: str) -> str:
        """The name of a node's container."""
        return f"{self.project}-{node}-1"

    def inspect(self, node: str) -> Any:
        """All that docker knows of a node's container."""
        return json.loads(self.engine.docker("inspect", self.container(node)))[0]

    def exec(self, node: str, *command: str) -> str:
        """What a command prints that runs beside a node, in its container."""
        return self.engine.docker("exec", self.container(node), *command)

    def url(self, node: str) -> str:
        """Base URL of a node, as published."""
        return f"http://127.0.0.1:{self.http_port(node)}"

    def http_port(self, node: str) -> int:
        """The published port."""
        return int(f"{self.http_ports}{NODES.index(node) + 1}")

    def resp_port(self, node: str) -> int:
        """The published port."""
        return int(f"{self.resp_ports}{NODES.index(node) + 1}")

    def get(self, node: str, path: str, timeout_s: float = 10.0) -> tuple[int, bytes]:
        """Status and body; 0 when nobody answers."""
        return self.request("GET", node, path, timeout_s=timeout_s)

    def put(self, node: str, key: str, value: str, timeout_s: float = 10.0) -> int:
        """The status of a write; 0 when nobody answers."""
        return self.request("PUT", node, f"/v1/keys/{key}", value, timeout_s=timeout_s)[0]

    def request(
        self, method: str, node: str, path: str, body: str | None = None, timeout_s: float = 10.0
    ) -> tuple[int, bytes]:
        """Status and body of one request; 0 when nobody answers."""
        data = body.encode() if body is not None else None
        request = urllib.request.Request(self.url(node) + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def status(self, node: str) -> Any:
        """``GET /v1/cluster``."""
        code, body = self.get(node, "/v1/cluster")
        assert code == 200, body
        return json.loads(body)

    def leader_of(self, key_group: int, asked: str) -> str | None:
        """Who leads a group, according to a node that holds it."""
        groups = {group["id"]: group["leader"] for group in self.status(asked)["groups"]}
        leader: str | None = groups.get(key_group)
        return leader

    def wait_until_ready(self, *nodes: str) -> None:
        """Until these nodes (all) call themselves ready."""
        for node in nodes or NODES:
            until(lambda node=node: self.get(node, "/readyz", 2.0)[0] == 200, f"{node} is ready")


def until(holds: Any, what: str) -> None:
    """Wait, but not for ever."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.1)


@contextlib.contextmanager
def cluster(engine: Engine, directory: Path, cache: Path) -> Iterator[Cluster]:
    """Built and started as docker/README.md says; nothing is left of it afterwards but the cache of
    the build. ``cache`` is where a base image that had to be made is kept."""
    base = default_base()
    try:
        engine.docker("pull", base, timeout_s=120)
    except AssertionError:
        base = "raftcache-test-base"
        base_image(engine, base, cache)
    running = Cluster(engine, directory, base)
    try:
        running.compose("up", "--build", "--detach", "--wait", timeout_s=600)
        yield running
    finally:
        running.compose("down", "--volumes", "--remove-orphans", "--timeout", "0", "--rmi", "all")


def default_base() -> str:
    """The base image that the Dockerfile names."""
    text = (ROOT / "docker" / "Dockerfile").read_text()
    found = re.search(r"^ARG BASE=(\S+)$", text, re.MULTILINE)
    assert found
    return found.group(1)


def _port_ranges(number: int) -> list[str]:
    """Beginnings of port numbers of which those that end in 1 to 5 are free: ``1234``, for 12341 to
    12345."""
    free = (str(start) for start in itertools.count(1200) if _all_free(start * 10))
    return list(itertools.islice(free, number))


def _all_free(start: int) -> bool:
    with contextlib.ExitStack() as stack:
        for port in range(start + 1, start + 6):
            listener = stack.enter_context(socket.socket())
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _pip() -> dict[str, str]:
    """Where this machine's pip finds packages, for the build."""
    found: dict[str, str] = {}
    for setting in _SETTINGS:
        variable = "PIP_" + setting.upper().replace("-", "_")
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", f"global.{setting}"],
            capture_output=True,
            text=True,
            check=False,
        )
        value = os.environ.get(variable, done.stdout.strip())
        # A directory of this machine is not there in a build.
        if value and "file:" not in value:
            found[variable] = value
    return found
