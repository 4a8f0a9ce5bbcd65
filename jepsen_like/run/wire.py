"""One connection to a node, one request at a time: what the clients of all protocols share.

A request that gets no whole answer in time ends the connection, so that an answer that comes late
is never taken for the next one's.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

from jepsen_like.run.system import Refused, Unknown

CONNECT_TIMEOUT_S: Final = 1.0


class Parser(Protocol):
    """Makes answers of bytes; made anew for each connection."""

    def feed(self, data: bytes, wanted: int) -> Any:
        """One more piece. The answer (a list of ``wanted``, when that is more than one) when it is
        complete, else ``None``; ``ValueError`` when it is none."""
        ...


class Connection:
    """Connects when it has to. ``make`` gives the parser of a new connection."""

    def __init__(self, address: tuple[str, int], make: type[Parser]) -> None:
        self.address = address
        self._make = make
        self._stream: _Stream | None = None

    @property
    def connected(self) -> bool:
        """Whether a request would go out on a connection that is there already."""
        return self._stream is not None and not self._stream.lost

    async def exchange(self, request: bytes, timeout_s: float, wanted: int = 1) -> Any:
        """Send a request; its answer. ``Refused`` when there is no connection, ``Unknown`` when
        there is no answer, ``ValueError`` when the answer is none of the protocol."""
        loop = asyncio.get_running_loop()
        stream = self._stream
        if stream is None or stream.lost:
            try:
                async with asyncio.timeout(min(timeout_s, CONNECT_TIMEOUT_S)):
                    _, stream = await loop.create_connection(
                        lambda: _Stream(self._make()), *self.address
                    )
            except (OSError, TimeoutError) as error:
                raise Refused(f"no connection: {error!r}") from None
            self._stream = stream
        answer = stream.ask(request, wanted)
        timer = loop.call_later(timeout_s, stream.give_up)
        try:
            return await answer
        except BaseException:
            stream.abort()
            raise
        finally:
            timer.cancel()
            del answer  # What it raises knows this frame: a circle, with all that the caller holds.

    def abort(self) -> None:
        """Drop the connection; the next request makes a new one."""
        if self._stream is not None:
            self._stream.abort()
            self._stream = None


class _Stream(asyncio.Protocol):
    """The connection under way."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Any] | None = None
        self._wanted = 1
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, wanted: int) -> asyncio.Future[Any]:
        assert self._transport is not None and self._answer is None
        self._answer = asyncio.get_running_loop().create_future()
        self._wanted = wanted
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        waiting = self._answer
        if waiting is None or waiting.done():
            self.abort()  # nobody asked
            return
        try:
            answer = self._parser.feed(data, self._wanted)
        except ValueError as error:
            waiting.set_exception(error)
            return
        if answer is not None:
            self._answer = None
            waiting.set_result(answer)

    def give_up(self) -> None:
        """The time is over."""
        self._fail("no answer in time")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._fail(f"connection lost: {exc!r}")

    def _fail(self, why: str) -> None:
        waiting, self._answer = self._answer, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(Unknown(why))

    def abort(self) -> None:
        self.lost = True
        if self._transport is not None:
            self._transport.abort()
