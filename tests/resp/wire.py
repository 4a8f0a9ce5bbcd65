"""The Redis protocol byte for byte: a client that shows what really came."""

from __future__ import annotations

import asyncio
import contextlib


def command(*args: bytes | str | int) -> bytes:
    """A command as clients send it."""
    parts = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


def end_of_reply(data: bytes, at: int = 0) -> int | None:
    """Where the reply that starts at ``at`` ends; ``None`` when it has not all come."""
    line_end = data.find(b"\r\n", at)
    if line_end < 0:
        return None
    kind, rest, after = data[at : at + 1], data[at + 1 : line_end], line_end + 2
    if kind in b"$=" and rest != b"-1":
        end = after + int(rest) + 2
        return end if end <= len(data) else None
    if kind in b"*~>%" and rest != b"-1":
        where: int | None = after
        for _ in range(int(rest) * (2 if kind == b"%" else 1)):
            where = end_of_reply(data, where) if where is not None else None
        return where
    return after


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._data = b""

    @classmethod
    async def open(cls, port: int) -> Wire:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**26))

    async def reply(self) -> bytes:
        """The next reply; ``b""`` when the connection ended instead."""
        async with asyncio.timeout(20):
            while (end := end_of_reply(self._data)) is None:
                more = await self._reader.read(65536)
                if not more:
                    return b""
                self._data += more
        reply, self._data = self._data[:end], self._data[end:]
        return reply

    async def ask(self, *args: bytes | str | int) -> bytes:
        """One command's reply."""
        self.writer.write(command(*args))
        return await self.reply()

    async def line(self, text: str) -> bytes:
        """The reply to an inline command."""
        self.writer.write(text.encode() + b"\r\n")
        return await self.reply()

    async def ended(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionResetError):
                while more := await self._reader.read(65536):
                    self._data += more
        rest, self._data = self._data, b""
        return rest

    def close(self) -> None:
        self.writer.close()
