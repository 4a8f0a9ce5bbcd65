"""Operations in Redis's protocol, for raftcache and for whatever else speaks it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

import hiredis

from jepsen_like.run.system import Refused, StorageFull, Unknown
from jepsen_like.run.wire import Connection

FULL: Final = "MISCONF"
"""An error that says: not done, because nothing can be written to disk."""
REFUSALS: Final = ("CLUSTERDOWN", "OOM", "LOADING", "TRYAGAIN", "MOVED", "READONLY")
"""Errors that say: surely not done."""
DOUBTS: Final = ("UNCERTAIN",)

Command = tuple[str | int | float | bytes | memoryview, ...]


class Replies:
    """``wire.Parser`` of RESP2."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(encoding="utf-8")
        self._replies: list[Any] = []

    def feed(self, data: bytes, wanted: int) -> Any:
        """A list of ``wanted`` replies; errors among them are ``hiredis.ReplyError``."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._replies.append(reply)
        except (hiredis.ProtocolError, UnicodeDecodeError) as error:
            raise ValueError(f"no RESP: {error}") from None
        if len(self._replies) > wanted:
            raise ValueError(f"more replies than commands: {self._replies}")
        if len(self._replies) < wanted:
            return None
        replies, self._replies = self._replies, []
        return replies


class RespClient:
    """Implements ``system.Client``. ``ifeq``: whether the server has ``SET ... IFEQ``; half of the
    cas are done with it then, the others with ``WATCH``. Stale reads go over a connection of their
    own, that has said ``READONLY``; how old they may be is the server's setting."""

    def __init__(self, address: tuple[str, int], *, ifeq: bool) -> None:
        self._connection = Connection(address, Replies)
        self._replica = Connection(address, Replies)
        self._ifeq = ifeq
        self._turns = itertools.count()

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        """See ``system.Client``."""
        if once is not None:
            raise ValueError("RESP has no idempotency tokens")
        match op:
            case "stale":
                return await self._stale(key, timeout_s)
            case "cas":
                return await self._cas(key, args[0], args[1], timeout_s)
            case "txn":
                return await self._txn(args, timeout_s)
            case "batch":
                return await self._batch(args, timeout_s)
        (reply,) = await self.send([_command(op, key, *args)], timeout_s)
        return self._meaning(op, reply)

    async def close(self) -> None:
        """Drop the connections."""
        self._connection.abort()
        self._replica.abort()

    async def send(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """A pipeline; all replies, errors as ``hiredis.ReplyError`` among them."""
        return await _send(self._connection, commands, timeout_s)

    async def _one(self, command: Command, timeout_s: float) -> Any:
        (reply,) = await self.send([command], timeout_s)
        return self.checked(reply)

    def checked(self, reply: Any) -> Any:
        """The reply, unless it is an error."""
        if not isinstance(reply, hiredis.ReplyError):
            return reply
        text = str(reply)
        word = text.split(" ", 1)[0]
        if word == FULL:
            raise StorageFull(text)
        if word in REFUSALS:
            raise Refused(text)
        if word in DOUBTS:
            raise Unknown(text)
        raise ValueError(text)

    def _meaning(self, op: str, reply: Any) -> Any:
        """The result of an operation that is one command."""
        if op == "incr" and isinstance(reply, hiredis.ReplyError):
            text = str(reply)
            if "not an integer" in text or "overflow" in text:
                return None
        reply = self.checked(reply)
        if op in ("set", "ttl"):
            return self._acknowledged(reply)
        return reply == 1 if op == "del" else reply

    @staticmethod
    def _acknowledged(reply: Any) -> None:
        if reply != "OK":
            raise ValueError(f"{reply!r} to a SET")

    async def _stale(self, key: str, timeout_s: float) -> Any:
        commands: list[Command] = [("GET", key)]
        if not self._replica.connected:
            commands.insert(0, ("READONLY",))
        replies = await _send(self._replica, commands, timeout_s)
        return [self.checked(reply) for reply in replies][-1]

    async def _batch(self, parts: tuple[Any, ...], timeout_s: float) -> list[Any]:
        """A pipeline."""
        commands = [_command(op, key, *args) for op, key, args in parts]
        replies = await self.send(commands, timeout_s)
        results: list[Any] = []
        for (op, _, _), reply in zip(parts, replies, strict=True):
            try:
                results.append(self._meaning(op, reply))
            except (Refused, Unknown) as error:
                results.append(error)
        return results

    async def _cas(self, key: str, expected: str | None, new: str, timeout_s: float) -> bool:
        if expected is None and next(self._turns) % 2:
            return bool(await self._one(("SET", key, new, "NX"), timeout_s) == "OK")
        if self._ifeq and expected is not None and next(self._turns) % 2:
            command = ("SET", key, new, "IFEQ", expected)
            return bool(await self._one(command, timeout_s) == "OK")
        try:
            return await self._watched_cas(key, expected, new, timeout_s)
        except BaseException:
            self._connection.abort()  # it may still watch the key
            raise

    async def _watched_cas(
        self, key: str, expected: str | None, new: str, timeout_s: float
    ) -> bool:
        # A transaction that fails has seen the key change since, and so to something that is not
        # ``expected``, for values are unique; a key that was absent was there in between.
        watched, value = await self.send([("WATCH", key), ("GET", key)], timeout_s)
        self.checked(watched)
        if self.checked(value) != expected:
            self._acknowledged(await self._one(("UNWATCH",), timeout_s))
            return False
        *_, done = await self.send([("MULTI",), ("SET", key, new), ("EXEC",)], timeout_s)
        return self.checked(done) is not None

    async def _txn(self, micros: tuple[Any, ...], timeout_s: float) -> list[Any]:
        commands = [_command(*micro) for micro in micros]
        *queued, done = await self.send([("MULTI",), *commands, ("EXEC",)], timeout_s)
        for reply in queued:
            if isinstance(reply, hiredis.ReplyError):
                raise Refused(str(reply))  # nothing of the transaction is done
        results = [self.checked(reply) for reply in self.checked(done)]
        return [
            result if micro[0] in ("get", "incr") else None
            for micro, result in zip(micros, results, strict=True)
        ]


def _command(op: str, key: str, *args: Any) -> Command:
    """The command that an operation, or a part of one, is."""
    match op:
        case "get":
            return ("GET", key)
        case "set":
            return ("SET", key, args[0])
        case "ttl":
            return ("SET", key, args[0], "PX", str(args[1]))
        case "append":
            return ("APPEND", key, args[0])
        case "incr":
            return ("INCRBY", key, str(args[0]))
        case "del":
            return ("DEL", key)
    raise ValueError(f"RESP clients cannot {op}")


async def _send(connection: Connection, commands: Sequence[Command], timeout_s: float) -> list[Any]:
    pack: Any = hiredis.pack_command  # its stub says that commands have one word
    packed = b"".join(map(pack, commands))
    replies: list[Any] = await connection.exchange(packed, timeout_s, len(commands))
    return replies
