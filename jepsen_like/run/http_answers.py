"""Answers of HTTP/1.1, one at a time, as the clients of a run read them."""

from __future__ import annotations

from typing import NamedTuple


class Answer(NamedTuple):
    """Status, header fields (names in lower case) and body."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Answers:
    """``wire.Parser`` of answers with ``Content-Length``, or in chunks, as Go sends them from 2 kB
    on."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes, wanted: int) -> Answer | None:
        """One answer; ``wanted`` is 1."""
        del wanted
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return None
        first, *lines = head.split(b"\r\n")
        if not first.startswith(b"HTTP/1.1 "):
            raise ValueError(f"no HTTP: {first[:80]!r}")
        status = int(first[9:12])
        fields = (line.partition(b":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in fields}
        body = _unchunked(rest) if _in_chunks(headers) else _counted(rest, _size(status, headers))
        if body is None:
            return None
        self._buffer = b""
        return Answer(status, headers, body)


def _in_chunks(headers: dict[bytes, bytes]) -> bool:
    return headers.get(b"transfer-encoding") == b"chunked"


def _size(status: int, headers: dict[bytes, bytes]) -> int:
    if status in (204, 304):
        return 0
    if b"content-length" not in headers:
        raise ValueError("an answer that says no length")
    return int(headers[b"content-length"])


def _counted(data: bytes, size: int) -> bytes | None:
    """The body of so many bytes; ``None`` when it is not complete."""
    if len(data) > size:
        raise ValueError("more bytes than the answer has")
    return data if len(data) == size else None


def _unchunked(data: bytes) -> bytes | None:
    """The body that comes in chunks; ``None`` when it is not complete."""
    body = b""
    while True:
        size_line, separator, rest = data.partition(b"\r\n")
        size = int(size_line, 16) if separator else 0
        if not separator or len(rest) < size + 2:
            return None
        if size == 0:
            return body
        body += rest[:size]
        data = rest[size + 2 :]
