"""A node that answers as told, and the command line as a user runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest

TIMEOUT_S = 60


class Asked(NamedTuple):
    """A request that reached the stub."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Stub:
    """A node that gives one answer to everything and remembers what it was asked. Status 0: it
    hangs up without an answer."""

    def __init__(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        self.asked: list[Asked] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                stub.asked.append(Asked(self.command, self.path, dict(self.headers), content))
                if status == 0:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture(scope="session", autouse=True)
def _temporary_directories_are_pytests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Demos keep the directories of runs that failed, which here are many."""
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("demos"))
    tempfile.tempdir = None


StubFactory = Callable[..., Stub]


@pytest.fixture
def stub() -> Iterator[StubFactory]:
    """Makes stubs, and ends them after the test."""
    made: list[Stub] = []

    def make(status: int = 200, body: bytes = b"", **headers: str) -> Stub:
        made.append(Stub(status, body, **headers))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def dead_url() -> Iterator[str]:
    """A URL where nobody listens: the port is bound but not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def raftcache(
    *arguments: str | bytes, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "raftcache", *arguments],
        input=stdin,
        capture_output=True,
        env=clean_environment() | environment,
        timeout=TIMEOUT_S,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """Ours without settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RAFTCACHE_")}
