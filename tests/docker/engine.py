"""A docker engine with compose: the one that runs here, or one of our own for a while.

Our own has its files in one directory, its socket there, and neither a default bridge nor rules in
the machine's packet filter: containers reach each other on their bridges, clients reach published
ports through docker's proxy, and images are built on the machine's own network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docker.debian import compose_plugin
from tests.programs import program

START_TIMEOUT_S = 60.0
MEMORY = "4g"
"""The most that our own engine's files may take; they take less than one."""
_PLUGINS = "cli-plugins"


@dataclass(frozen=True)
class Engine:
    """What to run ``docker`` with. ``own``: started here, and therefore without a network for
    builds."""

    environment: dict[str, str]
    own: bool

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float = 120.0,
        more: dict[str, str] | None = None,
        directory: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program, or a line of shell, that may use ``docker``."""
        return subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=directory,
            env=self.environment | (more or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def docker(
        self, *arguments: str, timeout_s: float = 120.0, more: dict[str, str] | None = None
    ) -> str:
        """What ``docker`` prints; it has to succeed."""
        done = self.run(["docker", *arguments], timeout_s=timeout_s, more=more)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


@contextlib.contextmanager
def engine(cache: Path) -> Iterator[Engine]:
    """The engine that runs here if it has compose, else one of our own. Skips where neither is to
    be had. ``cache`` is where docker compose is kept when it had to be fetched."""
    running = Engine(dict(os.environ), own=False)
    if shutil.which("docker") and _answers(running) and _has_compose(running):
        yield running
        return
    dockerd, _ = program("dockerd", "docker.io"), program("docker", "docker-cli")
    if os.geteuid() != 0:
        pytest.skip("no docker engine with compose runs, and only root can start one")
    directory = Path(tempfile.mkdtemp(prefix="raftcache-docker-"))
    # In memory: images are thousands of small files, to be forgotten soon.
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEMORY},mode=711", directory.name, directory]
    subprocess.run(mount, capture_output=True, check=False)
    try:
        with _daemon(dockerd, directory) as own:
            if not _has_compose(own):
                plugins = directory / "config" / _PLUGINS
                plugins.mkdir(parents=True)
                compose_plugin(plugins, cache)
                if not _has_compose(own):
                    pytest.skip("Debian's docker compose does not run here")
            yield own
    finally:
        _unmount(directory)
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _daemon(dockerd: str, directory: Path) -> Iterator[Engine]:
    socket, log = f"unix://{directory}/socket", directory / "dockerd.log"
    found = {k: v for k, v in os.environ.items() if not k.startswith("DOCKER_")}
    own = {"DOCKER_HOST": socket, "DOCKER_CONFIG": str(directory / "config")}
    started = Engine(found | own, own=True)
    with log.open("wb") as output:
        # It stops, and its containers with it, when the tests die however they die.
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", dockerd, *_flags(directory, socket)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(started):
            if process.poll() is not None or time.monotonic() > deadline:
                last = log.read_text(errors="replace").splitlines()[-3:]
                pytest.skip(f"no docker engine can run here: {last}")
            time.sleep(0.2)
        yield started
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _flags(directory: Path, socket: str) -> list[str]:
    return [
        f"--host={socket}",
        f"--data-root={directory}/data",
        f"--exec-root={directory}/exec",
        f"--pidfile={directory}/pid",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ]


def _answers(found: Engine) -> bool:
    return found.run(["docker", "version", "--format", "{{.Server.Version}}"]).returncode == 0


def _has_compose(found: Engine) -> bool:
    done = found.run(["docker", "compose", "version", "--short"])
    return done.returncode == 0 and not done.stdout.startswith("1.")


def _unmount(directory: Path) -> None:
    """The directory itself, and what an engine that was killed leaves mounted in it."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    own = [mount for mount in mounts if f"{mount}/".startswith(f"{directory}/")]
    for mount in reversed(own):
        subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)
