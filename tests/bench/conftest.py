"""A server that answers as told, and where the scripts are."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import hiredis
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

Answer = Callable[[list[bytes]], bytes]


class RespServer:
    """Speaks Redis's protocol; ``answer`` makes a reply of a command. It keeps all commands."""

    def __init__(self, answer: Answer) -> None:
        self.commands: list[list[bytes]] = []
        outer = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                reader = hiredis.Reader()
                while data := self.request.recv(65536):
                    reader.feed(data)
                    replies = []
                    while (command := reader.gets()) is not False:
                        outer.commands.append(command)
                        replies.append(answer(command))
                    self.request.sendall(b"".join(replies))

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """A load closes its connections in the middle of an answer."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Store:
    """Answers like a small Redis."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def __call__(self, command: list[bytes]) -> bytes:
        name, *rest = command
        if name == b"SET":
            self.values[rest[0]] = rest[1]
            return b"+OK\r\n"
        if name == b"GET":
            found = self.values.get(rest[0])
            return b"$-1\r\n" if found is None else b"$%d\r\n%b\r\n" % (len(found), found)
        if name == b"WAIT":
            return b":2\r\n"
        return b"-ERR unknown command\r\n"


ServerFactory = Callable[[Answer], RespServer]


@pytest.fixture
def resp_server() -> Iterator[ServerFactory]:
    """Makes servers, and ends them after the test."""
    made: list[RespServer] = []

    def make(answer: Answer) -> RespServer:
        made.append(RespServer(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()
