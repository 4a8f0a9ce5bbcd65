"""Bytes to commands: ``hiredis`` for what programs send, lines for what people type.

Costs bounded memory whatever comes: a length beyond the limits is refused before ``hiredis`` sees
it, and a command longer than any that could be accepted as soon as it is that long.
"""

from __future__ import annotations

import re
from typing import Final

import hiredis

from raftcache.resp.replies import RedisError

MAX_ARGUMENTS: Final = 1024 * 1024
MAX_INLINE_BYTES: Final = 64 * 1024

_HUGE_FIRST: Final = re.compile(rb"\*(\d{7,20})")
_HUGE_ARRAY: Final = re.compile(rb"\n\*(\d{7,20})")
_LENGTH: Final = re.compile(rb"[*$](\d{0,20})\r?(\n?)\Z")
"""A line that announces a length, whole or cut."""
_PROTOCOL_ERRORS: Final = {
    "Bulk string length out of range": "invalid bulk length",
    "Bad bulk string length": "invalid bulk length",
    "Bad multi-bulk length": "invalid multibulk length",
    "Multi-bulk length out of range": "invalid multibulk length",
    "Out of memory": "invalid multibulk length",
}


class Parser:
    """One connection's. ``unparsed``: bytes of a command that has not come whole."""

    def __init__(self, max_command_bytes: int) -> None:
        self._max_command_bytes = max_command_bytes
        self._reader = hiredis.Reader()
        self._typing = True
        self._line = b""
        self._held = b""
        self.unparsed = 0

    def feed(self, data: bytes, commands: list[list[bytes]]) -> None:
        """Append the commands that ``data`` completes. ``RedisError`` when it breaks the protocol:
        what came before is appended, and nothing can be made of what follows."""
        try:
            self._parse(data, commands)
        except hiredis.ProtocolError as refusal:
            raise RedisError(_told(str(refusal))) from None

    def _parse(self, data: bytes, commands: list[list[bytes]]) -> None:
        if self._typing:
            # People type commands, programs send arrays: whoever has begun with those stays there.
            data = self._parse_inline(data, commands)
            if not data:
                return
            self._typing = False
        if self._held:
            data, self._held = self._held + data, b""
        start = 0
        for at, kind in self._suspects(data):
            self._read(data[start:at], commands)
            start = at
            if not self._reader.has_data():
                raise RedisError(f"ERR Protocol error: invalid {kind} length")
            # The reader holds something back, so this is inside a value, and no length.
        end = len(data) - len(self._held)
        self._read(data[start:end] if start or self._held else data, commands)
        if self.unparsed > self._max_command_bytes:
            raise RedisError("ERR Protocol error: invalid bulk length")

    def _suspects(self, data: bytes) -> list[tuple[int, str]]:
        """Where lengths beyond the limits seem to be announced. ``hiredis`` would believe them: for
        a huge array it makes room at once. A length that is cut is held back until it is whole.
        Measured: 0.1 us a command in a pipeline, 0.4 us alone."""
        last = data.rfind(b"\n", 0, -1) + 1
        line = _LENGTH.match(data, last) if data[last] in b"*$" else None
        first = _HUGE_FIRST.match(data)
        found: list[tuple[int, str]] = []
        if line is None and first is None and data.find(b"\n*") < 0:
            return found
        if first is not None and int(first[1]) > MAX_ARGUMENTS:
            found.append((0, "multibulk"))
        for match in _HUGE_ARRAY.finditer(data):
            if int(match[1]) > MAX_ARGUMENTS:
                found.append((match.start() + 1, "multibulk"))
        if line is not None:
            if not line[2]:
                self._held = line[0]
            elif line[1] and int(line[1]) > self._max_command_bytes:
                found.append((last, "bulk"))
        return found

    def _read(self, data: bytes, commands: list[list[bytes]]) -> None:
        reader = self._reader
        reader.feed(data)
        self.unparsed += len(data)
        gets = reader.gets
        while (command := gets()) is not False:
            self.unparsed = 0
            if type(command) is not list:
                if command is None:
                    continue  # *-1: nothing
                raise RedisError("ERR Protocol error: expected '*'")
            for argument in command:
                if type(argument) is not bytes:
                    raise RedisError("ERR Protocol error: expected '$'")
            if command:
                commands.append(command)

    def _parse_inline(self, data: bytes, commands: list[list[bytes]]) -> bytes:
        """Commands as people type them, one a line; returns what is left for the real parser."""
        data, self._line = self._line + data, b""
        while data and data[:1] != b"*":
            line, newline, rest = data.partition(b"\n")
            if not newline:
                if len(data) > MAX_INLINE_BYTES:
                    raise RedisError("ERR Protocol error: too big inline request")
                self._line = data
                return b""
            data = rest
            words = split_inline(line.rstrip(b"\r"))
            if words:
                commands.append(words)
        return data


def _told(reason: str) -> str:
    """What Redis says where ``hiredis`` says ``reason``."""
    text = _PROTOCOL_ERRORS.get(reason)
    if text is None and (got := re.search(r'got "(.)"', reason)):
        text = f"expected '$', got '{got[1]}'"
    return f"ERR Protocol error: {text or 'unbalanced request'}"


_ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_inline(line: bytes) -> list[bytes]:
    """Words of a line, quoted as in a shell (Redis's ``sdssplitargs``). ``RedisError`` when quotes
    do not match."""
    words: list[bytes] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at : at + 1].isspace():
            at += 1
        if at >= end:
            return words
        word, quote = b"", b""
        while at < end:
            char = line[at : at + 1]
            if quote:
                if quote == b'"' and line[at : at + 2] == b"\\x" and _hex(line[at + 2 : at + 4]):
                    word += bytes.fromhex(line[at + 2 : at + 4].decode())
                    at += 3
                elif char == b"\\" and at + 1 < end and (quote == b'"' or line[at + 1] == 39):
                    following = line[at + 1 : at + 2]
                    word += _ESCAPES.get(following, following) if quote == b'"' else following
                    at += 1
                elif char == quote:
                    if at + 1 < end and not line[at + 1 : at + 2].isspace():
                        raise RedisError("ERR Protocol error: unbalanced quotes in request")
                    quote = b""
                else:
                    word += char
            elif char.isspace():
                break
            elif char in (b'"', b"'"):
                quote = char
            else:
                word += char
            at += 1
        if quote:
            raise RedisError("ERR Protocol error: unbalanced quotes in request")
        words.append(word)


def _hex(digits: bytes) -> bool:
    return re.fullmatch(rb"[0-9a-fA-F]{2}", digits) is not None
