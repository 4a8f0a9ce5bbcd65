"""raftcache in containers under test: the cluster of ``docker/compose.yaml``, and docker's faults.

The nodes are those of the compose file, as it builds, confines and names them. One thing differs:
instead of the one network of all peers there is one for each pair of nodes, on which both have the
names that they have there. So a link is cut by ``docker network disconnect``, and any partition can
be made by whoever may use docker. A link is cut both ways or not at all.

``RAFTCACHE_IMAGE`` names an image that is taken as it is; else one is built. What was started does
not outlive the run: a process that waits for its end takes the containers down.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Final

import raftcache
from jepsen_like.run.local import LOG_RETENTION, SMALL, TIMEOUT, Raftcache
from jepsen_like.run.processes import STOP_TIMEOUT_S
from jepsen_like.run.proxy import free_addresses
from jepsen_like.run.system import FaultKind, Link, Options, StartError
from raftcache.config.settings import ENV_PREFIX

COMPOSE: Final = Path(raftcache.__file__).parents[1] / "docker" / "compose.yaml"
MOST_NODES: Final = 5
"""Those of the compose file."""
PORTS: Final = {"peer": 7000, "http": 8000, "resp": 6379}
"""Where each service is, inside a container."""
MACHINE_FAULTS: Final = frozenset({FaultKind.SLOW_DISK, FaultKind.FULL_DISK, FaultKind.CLOCK})
"""What processes of one's own can be given, and containers cannot."""
COMMAND_TIMEOUT_S: Final = 60.0
BUILD_TIMEOUT_S: Final = 900.0
ATTEMPTS: Final = 3
_DOWN: Final = "cat >/dev/null; exec docker compose down --volumes --timeout 0 >/dev/null 2>&1"


class DockerError(Exception):
    """A docker command failed; the message is what it said."""


async def docker(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> str:
    """What a docker command prints. ``DockerError``."""
    process = await asyncio.create_subprocess_exec(
        "docker",
        *arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(timeout_s):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        raise DockerError(f"docker {arguments[0]} hangs") from None
    if process.returncode != 0:
        raise DockerError(errors.decode(errors="replace").strip()[-2000:])
    return output.decode(errors="replace").strip()


class DockerNetwork:
    """Implements ``system.Network``: one docker network for each pair of nodes, and one for
    clients. ``project`` is compose's."""

    faults: frozenset[FaultKind] = frozenset({FaultKind.CUT})

    def __init__(self, project: str) -> None:
        self._project = project
        self._clients: dict[tuple[str, str], tuple[str, int]] = {}
        self._cut: set[tuple[str, str]] = set()
        """Directions that are wanted cut."""
        self._apart: set[tuple[str, str]] = set()
        """Pairs that are cut."""
        self._lock = asyncio.Lock()

    async def open(self, nodes: Sequence[str], services: Sequence[str]) -> None:
        """Find free ports, at which the nodes are published."""
        places = [(node, service) for node in nodes for service in services if service != "peer"]
        self._clients = free_addresses(places)

    def listen(self, node: str, service: str) -> tuple[str, int]:
        """Within the container."""
        del node
        return ("0.0.0.0", PORTS[service])

    def reach(self, source: str, target: str, service: str) -> tuple[str, int]:
        """By name."""
        del source
        return (alias(target) if service == "peer" else target, PORTS[service])

    def client(self, node: str, service: str) -> tuple[str, int]:
        """As published."""
        return self._clients[node, service]

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """Within the container."""
        return ["docker", "exec", container(self._project, node), *command]

    async def shape(self, source: str, target: str, link: Link) -> None:
        """A pair is cut while either direction is wanted cut."""
        async with self._lock:
            (self._cut.discard if link.cut is None else self._cut.add)((source, target))
            pair = (min(source, target), max(source, target))
            apart = pair in self._cut or pair[::-1] in self._cut
            if apart == (pair in self._apart):
                return
            node, network = container(self._project, pair[0]), f"{self._project}_{between(pair)}"
            if apart:
                await _again("network", "disconnect", network, node)
                self._apart.add(pair)
            else:
                await _again("network", "connect", "--alias", alias(pair[0]), network, node)
                self._apart.discard(pair)

    async def reset(self, a: str, b: str) -> None:
        raise NotImplementedError

    async def orphan(self, source: str, target: str, late_s: float) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing: the networks end with the project."""


async def _again(*arguments: str) -> None:
    """A change of a container that may be starting or ending just now. It counts as made when
    docker says that it was before."""
    for attempt in range(ATTEMPTS):
        try:
            await docker(*arguments)
        except DockerError as error:
            made = ("is not connected to", "already exists", "already attached")
            if any(words in str(error) for words in made):
                return
            if attempt == ATTEMPTS - 1:
                raise
            await asyncio.sleep(0.5)
        else:
            return


def container(project: str, node: str) -> str:
    """What compose calls a node's container."""
    return f"{project}-{node}-1"


def alias(node: str) -> str:
    """The name by which its peers know a node."""
    return f"{node}.peers"


def between(pair: tuple[str, str]) -> str:
    """The network of a pair, as the compose file calls it."""
    return f"{pair[0]}-{pair[1]}"


class DockerRaftcache(Raftcache):
    """Implements ``system.System``. What ``ProcessSystem`` has for a node's process is a ``docker
    wait`` here, which ends when the container does."""

    name = "raftcache in docker"

    def __init__(self, options: Options) -> None:
        if options.nodes > MOST_NODES:
            raise StartError(f"--system docker has {MOST_NODES} nodes at most")
        self._project = f"raftcache-run-{secrets.token_hex(4)}"
        super().__init__(options, DockerNetwork(self._project))
        self.faults -= MACHINE_FAULTS
        self._compose_environment: dict[str, str] = {}
        self._watcher: asyncio.subprocess.Process | None = None
        self._changes = {node: asyncio.Lock() for node in self.nodes}

    async def start(self, directory: Path) -> None:
        """Create the containers, start them, and wait until they serve. ``StartError``."""
        self.directory = directory
        if not COMPOSE.is_file():
            raise StartError(f"--system docker needs the project's source: no {COMPOSE}")
        try:
            await docker("compose", "version")
            await self._network.open(self.nodes, self.services)
            await self._create()
            await asyncio.gather(*(self.launch(node) for node in self.nodes))
        except (DockerError, OSError) as error:
            raise StartError(f"--system docker: {error}") from error
        await self.started()

    async def _create(self) -> None:
        override = self.directory / "compose.yaml"
        override.write_text(self.override())
        files = os.pathsep.join((str(COMPOSE), str(override)))
        self._compose_environment = {
            "COMPOSE_FILE": files,
            "COMPOSE_PROJECT_NAME": self._project,
            "RAFTCACHE_SECRET": secrets.token_urlsafe(32),
        }
        # From here on nothing is left, however the run ends.
        self._watcher = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            _DOWN,
            stdin=subprocess.PIPE,
            env=os.environ | self._compose_environment,
            start_new_session=True,
        )
        if "RAFTCACHE_IMAGE" not in os.environ:
            await self._compose("build", self.nodes[0], timeout_s=BUILD_TIMEOUT_S)
        await self._compose("create", "--no-build", *self.nodes)

    def override(self) -> str:
        """What differs from the compose file, in its language."""
        pairs = list(combinations(self.nodes, 2))
        lines = ["services:"]
        for node in self.nodes:
            networks: dict[str, object] = {"clients": {}}
            own = [pair for pair in pairs if node in pair]
            networks |= {between(pair): {"aliases": [alias(node)]} for pair in own}
            ports = [
                "{}:{}:{}".format(*self.network.client(node, service), PORTS[service])
                for service in ("http", "resp")
            ]
            lines += [
                f"  {node}:",
                # A node that ends by itself is to be seen.
                '    restart: "no"',
                f"    environment: {json.dumps(self.settings())}",
                f"    ports: !override {json.dumps(ports)}",
                f"    networks: !override {json.dumps(networks)}",
            ]
        internal = {between(pair): {"internal": True} for pair in pairs}
        return "\n".join([*lines, f"networks: {json.dumps(internal)}", ""])

    def settings(self) -> dict[str, str]:
        """Of every node, as environment variables, beside those of the compose file."""
        members = [
            f"{node}={_text(self.network.reach('', node, 'peer'))}"
            f"/{_text(self.network.reach('', node, 'http'))}"
            f"/{_text(self.network.reach('', node, 'resp'))}"
            for node in self.nodes
        ]
        settings = {
            "members": ",".join(members),
            "groups": self._groups,
            "replication": self._replication,
            "default_timeout_s": TIMEOUT,
            "log_retention": LOG_RETENTION,
            **({} if self._durable else {"memory": "true", "data_dir": ""}),
            **(SMALL if self._small_memory else {}),
            **self._own_settings,
        }
        return {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in settings.items()}

    async def stop(self) -> None:
        """Keep the logs, and take everything down."""
        self._stopping = True
        for asker in self._askers.values():
            await asker.close()
        if self._watcher is None:
            return
        for node in self.nodes:
            await self._keep_log(node)
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        await self._watcher.wait()
        for processes in self._processes.values():
            for process in processes:
                process.wait()

    async def _keep_log(self, node: str) -> None:
        with (self.directory / f"{node}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                "docker",
                "logs",
                self._container(node),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            await process.wait()

    async def _compose(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        return await docker(
            "compose", *arguments, environment=self._compose_environment, timeout_s=timeout_s
        )

    # -- faults

    async def launch(self, node: str) -> None:
        """``docker start``."""
        async with self._changes[node]:
            if self.running(node):
                return
            await docker("start", self._container(node))
            with open(os.devnull, "wb") as nowhere:  # noqa: ASYNC230
                waiting = subprocess.Popen(  # noqa: ASYNC220
                    ["docker", "wait", self._container(node)],
                    stdin=subprocess.DEVNULL,
                    stdout=nowhere,
                    stderr=nowhere,
                    process_group=0,
                )
            self._processes[node] = [waiting]

    async def kill(self, node: str) -> None:
        """``docker kill``: SIGKILL to all of the container's processes."""
        await self.resume(node)
        async with self._changes[node]:
            if self.running(node):
                await self._gently("kill", "--signal", "KILL", self._container(node))
                await self._gone(node)

    async def terminate(self, node: str) -> None:
        """``docker stop``: SIGTERM; SIGKILL when that takes too long."""
        await self.resume(node)
        async with self._changes[node]:
            if self.running(node):
                await self._gently(
                    "stop", "--time", str(int(STOP_TIMEOUT_S)), self._container(node)
                )
                await self._gone(node)

    async def pause(self, node: str) -> None:
        """``docker pause``: all processes of the container are frozen."""
        async with self._changes[node]:
            if self.running(node) and node not in self._paused:
                self._paused.add(node)
                await self._gently("pause", self._container(node))

    async def resume(self, node: str) -> None:
        """``docker unpause``."""
        async with self._changes[node]:
            if node in self._paused:
                await self._gently("unpause", self._container(node))
                self._paused.discard(node)

    async def wipe(self, node: str) -> None:
        """Empty the volume, from a container of its own."""
        await docker(
            "run",
            "--rm",
            "--network=none",
            f"--volumes-from={self._container(node)}",
            "--entrypoint=python3",
            os.environ.get("RAFTCACHE_IMAGE", "raftcache"),
            "-c",
            "import shutil, pathlib\n"
            "for path in pathlib.Path('/data').iterdir():\n"
            "    shutil.rmtree(path) if path.is_dir() else path.unlink()\n",
        )

    async def _gently(self, *arguments: str) -> None:
        """A command that a container may have escaped by ending on its own."""
        try:
            await docker(*arguments)
        except DockerError as error:
            if "is not running" not in str(error):
                raise

    def _container(self, node: str) -> str:
        return container(self._project, node)

    def _signal(self, node: str, number: signal.Signals) -> None:
        raise NotImplementedError("a container is signalled by docker")


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def docker_system(options: Options) -> DockerRaftcache:
    """``--system docker``."""
    return DockerRaftcache(options)
