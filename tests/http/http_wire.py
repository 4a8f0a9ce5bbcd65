"""HTTP/1.1 by hand: what a client library would tidy up is sent as it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Answer:
    """One response. Header names are in lower case."""

    def __init__(self, code: int, headers: dict[str, str], body: bytes) -> None:
        self.code, self.headers, self.body = code, headers, body

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def version(self) -> int:
        return int(self.headers["etag"].strip('"'))

    @property
    def problem(self) -> str:
        """The last part of the problem's type, once the document was checked to be one."""
        assert self.headers["content-type"] == "application/problem+json"
        document = self.json()
        assert document["status"] == self.code
        assert document["title"]
        assert document["detail"].endswith(".")
        return str(document["type"]).removeprefix("urn:raftcache:problem:")


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next response."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers: dict[str, str] = {}
            for line in lines[1:-2]:
                name, _, value = line.partition(": ")
                assert name.lower() not in headers, f"repeated {name}"
                headers[name.lower()] = value
            code = int(lines[0].split()[1])
            empty = to_head or code < 200 or code in (204, 304)
            length = 0 if empty else int(headers["content-length"])
            return Answer(code, headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Wait for the server to close; true when nothing more came before."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read() == b""
            except ConnectionResetError:
                return True

    def close(self) -> None:
        self.writer.close()


def request(method: str, target: str, body: bytes | None, headers: dict[str, str]) -> bytes:
    """The bytes of a request; ``Host`` and ``Content-Length`` are added unless given."""
    names = {name.lower() for name in headers}
    lines = [f"{method} {target} HTTP/1.1"]
    if "host" not in names:
        lines.append("Host: test")
    if body is not None and not names & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


async def exchange(
    wire: Wire, method: str, target: str, body: bytes | None, headers: dict[str, str]
) -> Answer:
    """One request and its response, on a connection that is closed behind it."""
    wire.send(request(method, target, body, headers))
    try:
        return await wire.answer(to_head=method == "HEAD")
    finally:
        wire.close()
