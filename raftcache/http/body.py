"""Request bodies: bounded in size and in time, and refused before they are read when they can be.

A body that announces itself too large (``Content-Length``) is answered at once; a chunked one as
soon as it passes the limit. The connection closes behind such an answer, since the rest of the
body would otherwise stand between it and the next request (RFC 9110 section 15.5.14).
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import hdrs

from raftcache.http.exchange import Exchange
from raftcache.http.problems import Kind, ProblemError, bad_request

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


async def read_body(exchange: Exchange, limit: int, too_large: Kind, timeout_s: float) -> bytes:
    """The whole body; a ``too_large`` problem when it has more than ``limit`` bytes, 408 when it
    is not there within ``timeout_s``."""
    headers = exchange.parsed.headers
    announced = headers.get(hdrs.CONTENT_LENGTH)
    if announced is not None and int(announced) > limit:
        raise _over(limit, too_large)
    if hdrs.EXPECT in headers:
        _answer_expectation(exchange, headers[hdrs.EXPECT])
    payload = exchange.payload
    if payload.is_eof() and payload.exception() is None:
        body = payload.read_nowait()
        if len(body) > limit:
            raise _over(limit, too_large)
        return body
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_all(exchange, limit, too_large)
    except TimeoutError:
        raise ProblemError(
            Kind.REQUEST_TIMEOUT,
            f"The body did not arrive within {timeout_s:g} seconds; nothing was done.",
            close=True,
        ) from None


async def _read_all(exchange: Exchange, limit: int, too_large: Kind) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await exchange.payload.readany():
        size += len(chunk)
        if size > limit:
            raise _over(limit, too_large)
        chunks.append(chunk)
    return b"".join(chunks)


def _over(limit: int, too_large: Kind) -> ProblemError:
    return ProblemError(
        too_large, f"The body may have at most {limit} bytes; nothing was done.", close=True
    )


def _answer_expectation(exchange: Exchange, expectation: str) -> None:
    """``Expect: 100-continue`` (RFC 9110 section 10.1.1): ask for the body, once it is sure that
    it will be read. An HTTP/1.0 client cannot mean it."""
    if exchange.parsed.version < (1, 1):
        return
    if expectation.lower() != "100-continue":
        raise ProblemError(
            Kind.EXPECTATION_FAILED, "Only Expect: 100-continue is supported.", close=True
        )
    transport = exchange.transport
    if transport is not None and not exchange.payload.is_eof():
        transport.write(_CONTINUE)


def refuse_codings(exchange: Exchange) -> None:
    """Values are stored as the bytes that came. A content coding would be lost with its header,
    so it is refused (RFC 9110 section 15.5.16) rather than undone or forgotten; so is a part of a
    value (section 14.5)."""
    headers = exchange.parsed.headers
    coding = headers.get(hdrs.CONTENT_ENCODING)
    if coding is not None and coding.lower() != "identity":
        raise ProblemError(
            Kind.UNSUPPORTED_MEDIA_TYPE,
            "Content-Encoding is not supported. Send the bytes to store without it: they are"
            " kept and returned untouched, compressed or not.",
            headers=b"Accept-Encoding: identity\r\n",
            close=True,
        )
    if hdrs.CONTENT_RANGE in headers:
        raise bad_request("Content-Range is not supported; a PUT replaces the whole value.")
