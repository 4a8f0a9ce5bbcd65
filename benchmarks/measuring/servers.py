"""Other stores' programs, started and ended like the nodes of a demo."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0


class ServerError(Exception):
    """A server did not start; the message shows the end of its log."""


class Servers:
    """Processes that live no longer than this one, each with a log in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process, _ in self._running:
            if process.poll() is None:
                process.terminate()
                process.send_signal(signal.SIGCONT)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for process, _ in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()

    @property
    def pids(self) -> list[int]:
        """In the order of their start."""
        return [process.pid for process, _ in self._running]

    @property
    def logs(self) -> list[Path]:
        """What they printed."""
        return [log for _, log in self._running]

    def start(self, *command: str) -> None:
        """Start a program."""
        # util-linux's setpriv makes the kernel end the program with us, however that is.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        log = self.directory / f"server-{len(self._running) + 1}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                process_group=0,
            )
        self._running.append((process, log))

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until ``ready``. ``ServerError`` when a server ends, or after half a minute."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            for process, log in self._running:
                if process.poll() is not None:
                    raise ServerError(f"{process.args!r} ended:\n{_tail(log)}")
            if time.monotonic() > deadline:
                raise ServerError(f"{what}, but not within {START_TIMEOUT_S:.0f} s")
            time.sleep(0.05)


def ask(port: int, request: bytes, timeout_s: float = 2.0) -> bytes:
    """The first bytes that a server answers; empty when it does not."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s) as connection:
            connection.sendall(request)
            return connection.recv(65536)
    except OSError:
        return b""


def listening(ports: Sequence[int]) -> bool:
    """Whether somebody listens on each of the ports."""
    for port in ports:
        try:
            socket.create_connection((HOST, port), timeout=1.0).close()
        except OSError:
            return False
    return True


def _tail(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
