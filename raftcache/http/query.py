"""Targets and query strings, read strictly.

Keys are the bytes behind ``/v1/keys/`` after percent-decoding (RFC 3986 section 2.1), all of them:
``/``, ``+``, ``.`` and ``..`` mean themselves. A query parameter that is unknown, repeated or
malformed is an error: ``?tll=30s`` must not store a value that never expires.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from raftcache.http.problems import Kind, ProblemError, bad_request
from raftcache.limits import Limits
from raftcache.ops import INT64_MAX, INT64_MIN, MAX_TTL_MS
from raftcache.units import parse_duration_ms

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_INTEGER: Final = re.compile(r"-?[0-9]{1,30}")

Query = Mapping[str, str]

NO_QUERY: Final[Query] = {}


def split_target(target: str) -> tuple[str, str]:
    """Raw path and raw query of a request target in origin form or absolute form (RFC 9112
    section 3.2)."""
    if "#" in target:
        raise bad_request("The request target has a '#'; write %23 when it is part of the key.")
    if not target.startswith("/"):
        scheme, separator, rest = target.partition("://")
        if separator and scheme.lower() in ("http", "https"):
            slash, question = rest.find("/"), rest.find("?")
            if slash < 0 or 0 <= question < slash:
                slash = question if question >= 0 else len(rest)
            target = rest[slash:]
    path, _, query = target.partition("?")
    return path, query


def parse_key(raw: str, limits: Limits) -> bytes:
    """The key in a raw path. aiohttp decoded the target as UTF-8 with surrogate escapes, which
    this undoes exactly."""
    key = raw.encode("utf-8", "surrogateescape")
    if b"%" in key:
        if _BAD_ESCAPE.search(key):
            raise bad_request(
                "The key has a '%' that is not followed by two hexadecimal digits; write %25 for"
                " a percent sign."
            )
        key = unquote_to_bytes(key)
    check_key(key, limits)
    return key


def check_key(key: bytes, limits: Limits) -> None:
    """Refuse a key that is empty or too long."""
    if not key:
        raise bad_request("The key is empty; it needs at least one byte.")
    if len(key) > limits.max_key_bytes:
        raise ProblemError(
            Kind.KEY_TOO_LARGE,
            f"The key has {len(key)} bytes; at most {limits.max_key_bytes} are accepted.",
        )


def parse_query(raw: str, allowed: tuple[str, ...]) -> Query:
    """The parameters of a raw query; only those in ``allowed``, each at most once."""
    if not raw:
        return NO_QUERY
    query: dict[str, str] = {}
    for part in raw.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        try:
            name, value = unquote(name, errors="strict"), unquote(value, errors="strict")
        except UnicodeError:
            raise bad_request("The query string is not percent-encoded UTF-8.") from None
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise bad_request(
                f"Unknown query parameter {name[:40]!r}; this path and method take: {known}."
            )
        if name in query:
            raise bad_request(f"The query parameter {name!r} is given more than once.")
        query[name] = value
    return query


def integer(query: Query, name: str, default: int, low: int, high: int) -> int:
    """An integer parameter within ``low`` and ``high``."""
    text = query.get(name)
    if text is None:
        return default
    if _INTEGER.fullmatch(text) is None or not low <= int(text) <= high:
        raise bad_request(
            f"The query parameter {name!r} is {text[:40]!r}; it should be an integer from {low} to"
            f" {high}."
        )
    return int(text)


def int64(query: Query, name: str, default: int) -> int:
    """A signed 64-bit parameter."""
    return integer(query, name, default, INT64_MIN, INT64_MAX)


def boolean(query: Query, name: str) -> bool:
    """A parameter that is ``true``, ``false`` or absent (false)."""
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise bad_request(f"The query parameter {name!r} should be true or false.")
    return text == "true"


def duration_ms(query: Query, name: str) -> int | None:
    """A duration parameter in milliseconds, or ``None`` when it is absent."""
    text = query.get(name)
    if text is None:
        return None
    try:
        return parse_duration_ms(text)
    except ValueError as error:
        raise bad_request(f"The query parameter {name!r}: {error}.") from None


def check_ttl(ttl_ms: int, *, zero_means: str) -> None:
    """Refuse a TTL of 0 (or less), or over ``MAX_TTL_MS``; ``zero_means`` says what to do
    instead of 0."""
    if ttl_ms <= 0:
        raise bad_request(f"A ttl must be at least 1ms; {zero_means}.")
    if ttl_ms > MAX_TTL_MS:
        raise bad_request(f"A ttl must be at most {MAX_TTL_MS}ms.")


def timeout_s(query: Query, limits: Limits) -> float:
    """The request's own deadline (``?timeout=``) or the default, in seconds from now."""
    milliseconds = duration_ms(query, "timeout")
    if milliseconds is None:
        return limits.default_timeout_s
    seconds = milliseconds / 1000
    if not 0 < seconds <= limits.max_timeout_s:
        raise bad_request(
            f"The timeout must be more than 0 and at most {limits.max_timeout_s:g} seconds."
        )
    return seconds
