"""How settings are written: addresses, durations, sizes, members; and what to say when they are
not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from raftcache.units import format_duration, format_size, parse_duration, parse_size

_IDENTIFIER: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting's value is written: a word for ``--help``, a phrase for messages."""

    metavar: str
    should_be: str


def _address(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("not text")
    host, port = split_address(value)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> tuple[str, int]:
    """``("host", port)`` of ``host:port`` or ``[ipv6]:port``; ``ValueError`` for anything else."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/,=\[\]]+)):([0-9]{1,5})", address)
    if match is None or not 1 <= int(match[3]) <= 65535:
        raise ValueError("not an address")
    return match[1] or match[2], int(match[3])


def _text(value: object) -> str:
    """Numbers in TOML may stand without quotes: ``session_ttl = 600`` is ``"600"``."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("neither text nor a number")
    return str(value)


def _duration(value: object) -> object:
    return value if isinstance(value, float) else parse_duration(_text(value))


def _size(value: object) -> object:
    return value if type(value) is int else parse_size(_text(value))


def _members(value: object) -> object:
    """``n1=host:peer/host:http,n2=...`` as a list; lists (TOML) pass through."""
    if not isinstance(value, str):
        return value
    members = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        identifier, _, addresses = part.partition("=")
        peer, _, clients = addresses.partition("/")
        http, _, resp = clients.partition("/")
        member = {"id": identifier.strip(), "peer": peer.strip(), "http": http.strip()}
        members.append(member | ({"resp": resp.strip()} if resp else {}))
    if not members:
        raise ValueError("no members")
    return members


ADDRESS: Final = Kind("HOST:PORT", "an address such as 10.0.0.1:7001 or [::1]:7001")
DURATION: Final = Kind("DURATION", "a duration such as 200ms, 5s, 10m or 1h")
SIZE: Final = Kind("SIZE", "a size such as 64mb, 1gb or a number of bytes")
MEMBERS: Final = Kind(
    "MEMBERS",
    "id=peer-host:port/http-host:port or id=peer-host:port/http-host:port/redis-host:port for each"
    " node, separated by commas",
)
NODE: Final = Kind("ID", "1 to 63 letters, digits, dots, dashes and underscores")

Identifier = Annotated[str, Field(pattern=f"^{_IDENTIFIER}$"), NODE]
Address = Annotated[str, BeforeValidator(_address), ADDRESS]
Duration = Annotated[float, BeforeValidator(_duration), Field(allow_inf_nan=False), DURATION]
"""Seconds."""
Size = Annotated[int, BeforeValidator(_size), SIZE]
"""Bytes."""
Whole = Annotated[int, Kind("N", "a whole number")]


class Member(BaseModel, frozen=True, extra="forbid"):
    """One node of the cluster: where its peers and where its clients reach it. ``resp``: Redis
    clients; ``None``: it does not listen for them."""

    id: Identifier
    peer: Address
    http: Address
    resp: Annotated[Address | None, ADDRESS] = None


Members = Annotated[tuple[Member, ...], NoDecode, BeforeValidator(_members), MEMBERS]

Policy = Literal["lru", "lfu", "fifo", "sieve", "s3fifo"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["console", "json", "auto"]


def kind_of(field: FieldInfo) -> Kind | None:
    """The kind that a field's annotation names."""
    return next((each for each in field.metadata if isinstance(each, Kind)), None)


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The words that a field admits, when it admits only some."""
    choices = getattr(field.annotation, "__args__", ())
    return choices if all(isinstance(choice, str) for choice in choices) else ()


def show(kind: Kind | None, value: Any) -> str:
    """``value`` as one would write it."""
    if kind is SIZE:
        return format_size(value)
    if kind is DURATION:
        return format_duration(round(value * 1000))
    return str(value)
