"""The protocols that the load speaks: how a request looks, and when its answer is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, cast

import hiredis

from raftcache.bench.report import Report
from raftcache.bench.workload import Make, key


class Run:
    """One load under way: pieces of ``depth`` requests each, to which ``replies`` come.
    ``report`` counts while ``counting``."""

    def __init__(
        self, requests: Iterator[bytes], depth: int, replies: int, only_reads: bool = False
    ) -> None:
        self.next_request = requests.__next__
        self.depth = depth
        self.replies = replies
        self.only_reads = only_reads
        self.report = Report()
        self.counting = False
        self.stopped = False


class Client(asyncio.Protocol):
    """One connection: a pipeline out, its answers back, the next one."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._left = 0
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            if not self._run.stopped:
                self.failed("connection closed")
            self.ended.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None
        if self._run.stopped:
            self._transport.close()
            return
        self._left = self._run.replies
        self._sent_at = time.perf_counter()
        self._transport.write(self._run.next_request())

    def abort(self) -> None:
        """Close without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    def answered(self) -> None:
        """One more of the pipeline's answers is here."""
        self._left -= 1
        if self._left == 0:
            run = self._run
            if run.counting:
                run.report.latencies.add(time.perf_counter() - self._sent_at, run.depth)
            self._send()

    def failed(self, text: str) -> None:
        """An answer was an error."""
        report = self._run.report
        report.errors += 1
        report.first_error = report.first_error or text

    def missed(self) -> None:
        """A read found nothing."""
        self._run.report.misses += 1


class RespClient(Client):
    """Redis's protocol."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._reader = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        gets = self._reader.gets
        self._reader.feed(data)
        while (reply := gets()) is not False:
            if reply is None:
                self.missed()
            elif isinstance(reply, hiredis.ReplyError):
                self.failed(str(reply))
            self.answered()


class HttpClient(Client):
    """HTTP/1.1 with ``Content-Length``."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        while True:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                break
            status = int(data[9:12])
            end = head + 4
            if status not in (204, 304):
                at = data.lower().find(b"content-length: ", 0, head)
                if at < 0:
                    self.failed("an answer without Content-Length: " + data[:head].decode())
                    self.abort()
                    return
                end += int(data[at + 16 : data.index(b"\r\n", at)])
            if len(data) < end:
                break
            if status >= 400 and status != 404:
                self.failed(data[:end].decode("latin-1"))
            elif status == 404 or not self.found(data, head, end):
                self.missed()
            data = data[end:]
            self.answered()
        self._buffer = data

    def found(self, data: bytes, head: int, end: int) -> bool:
        """Whether an answer that is no error has what was asked for; its body is from ``head`` + 4
        to ``end``."""
        return True


def resp_command(*parts: bytes) -> bytes:
    """One command of Redis's protocol."""
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


def resp_request(op: str, number: str, value: bytes) -> bytes:
    """SET, GET or INCR."""
    name = key(op, number).encode()
    return resp_command(b"SET", name, value) if op == "set" else resp_command(_VERBS[op], name)


_VERBS: Final = {"get": b"GET", "incr": b"INCR"}


def http_message(method: str, path: str, body: bytes | None = None) -> bytes:
    """One request of HTTP/1.1."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\n".encode()
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return head + length + b"\r\n" + (body or b"")


def http_request(op: str, number: str, value: bytes) -> bytes:
    """PUT, GET or POST .../incr of this HTTP API."""
    path = f"/v1/keys/{key(op, number)}"
    if op == "get":
        return http_message("GET", path)
    if op == "incr":
        return http_message("POST", f"{path}/incr", b"")
    return http_message("PUT", path, value)


def _no_closing(name: str) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask, and how to read the answers."""

    client: Callable[[Run], Client]
    request: Make
    closing: Callable[[str], bytes] = _no_closing
    """Given the workload's name, what ends each pipeline, with one answer of its own that counts
    as no operation; nothing by default."""
    fill_pipeline: int = 1
    """Requests sent at a time before the measurement, when the key space is filled."""


DIALECTS: Final = {
    "resp": Dialect(RespClient, resp_request, fill_pipeline=64),
    "http": Dialect(HttpClient, http_request),
}
