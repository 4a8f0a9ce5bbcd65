"""Commands about the connection itself."""

from __future__ import annotations

from typing import Final

from raftcache.machine.evaluate import parse_integer
from raftcache.resp.arguments import SYNTAX, no_subcommand
from raftcache.resp.replies import (
    NULL,
    OK,
    RedisError,
    bulk,
    encode,
    integer,
    mapping,
    simple,
)
from raftcache.resp.server_info import REDIS_VERSION
from raftcache.resp.session import Plan, Session

_NO_PASSWORD: Final = (
    "ERR AUTH <password> called without any password configured for the default user. Are you sure"
    " your configuration is correct?"
)
_BAD_PROTOCOL: Final = "NOPROTO unsupported protocol version"


def ping(session: Session, args: list[bytes]) -> Plan:
    if len(args) > 2:
        raise RedisError("ERR wrong number of arguments for 'ping' command")
    return bulk(args[1]) if len(args) == 2 else b"+PONG\r\n"


def echo(session: Session, args: list[bytes]) -> Plan:
    return bulk(args[1])


def select(session: Session, args: list[bytes]) -> Plan:
    number = parse_integer(args[1])
    if number is None:
        raise RedisError("ERR value is not an integer or out of range")
    if number != 0:
        raise RedisError("ERR DB index is out of range")
    return OK


def quit_(session: Session, args: list[bytes]) -> Plan:
    session.closing = True
    return OK


def reset(session: Session, args: list[bytes]) -> Plan:
    session.reset()
    session.name = b""
    return simple("RESET")


def auth(session: Session, args: list[bytes]) -> Plan:
    if len(args) > 3:
        raise RedisError(SYNTAX)
    raise RedisError(_NO_PASSWORD)


def hello(session: Session, args: list[bytes]) -> Plan:
    """``HELLO [protover [AUTH user password] [SETNAME name]]``."""
    version, name = 3 if session.resp3 else 2, None
    rest = iter(args[2:])
    if len(args) > 1:
        asked = parse_integer(args[1])
        if asked is None:
            raise RedisError("ERR Protocol version is not an integer or out of range")
        if asked not in (2, 3):
            raise RedisError(_BAD_PROTOCOL)
        version = asked
    for arg in rest:
        option = arg.upper()
        if option == b"AUTH" and next(rest, None) and next(rest, None) is not None:
            raise RedisError(_NO_PASSWORD)
        if option == b"SETNAME" and (given := next(rest, None)) is not None:
            name = _checked_name(given)
        else:
            raise RedisError(
                f"ERR Syntax error in HELLO option '{arg.decode(errors='replace').lower()}'"
            )
    session.resp3 = version == 3
    session.name = session.name if name is None else name
    return mapping(
        {
            "server": bulk(b"redis"),
            "version": bulk(REDIS_VERSION.encode()),
            "proto": integer(version),
            "id": integer(session.number),
            "mode": bulk(b"standalone"),
            "role": bulk(b"master"),
            "modules": b"*0\r\n",
        },
        session.resp3,
    )


def _checked_name(name: bytes) -> bytes:
    if any(not 33 <= byte <= 126 for byte in name):
        raise RedisError("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


def client(session: Session, args: list[bytes]) -> Plan:
    """Of ``CLIENT``'s many subcommands those that clients use on connecting, and a few more."""
    name, count = args[1].upper(), len(args)
    if name == b"ID" and count == 2:
        return integer(session.number)
    if name == b"GETNAME" and count == 2:
        return bulk(session.name) if session.name else NULL[session.resp3]
    if name == b"SETNAME" and count == 3:
        session.name = _checked_name(args[2])
        return OK
    if name == b"SETINFO" and count == 4:
        return _set_info(session, args[2], args[3])
    if name == b"INFO" and count == 2:
        return bulk(describe(session) + b"\n")
    if name == b"LIST":
        lines = [describe(each) for each in session.server.sessions()]
        return bulk(b"".join(line + b"\n" for line in lines))
    if name == b"REPLY" and count == 3:
        return _reply(session, args[2].upper())
    if name in (b"NO-EVICT", b"NO-TOUCH") and count == 3:
        if args[2].upper() not in (b"ON", b"OFF"):
            raise RedisError(SYNTAX)
        return OK
    if name == b"TRACKINGINFO" and count == 2:
        return encode({"flags": ["off"], "redirect": -1, "prefixes": []}, session.resp3)
    if name == b"GETREDIR" and count == 2:
        return integer(-1)
    if name == b"UNPAUSE" and count == 2:
        return OK
    if name == b"TRACKING" and count >= 3:
        if args[2].upper() == b"OFF":
            return OK
        raise RedisError("ERR client tracking is not supported")
    raise no_subcommand(
        args,
        "id",
        "getname",
        "setname",
        "setinfo",
        "info",
        "reply",
        "no-evict",
        "no-touch",
        "trackinginfo",
        "getredir",
        "unpause",
        "tracking",
    )


def _set_info(session: Session, attribute: bytes, value: bytes) -> bytes:
    name = attribute.lower()
    if any(not 33 <= byte <= 126 for byte in value):
        raise RedisError(
            f"ERR {name.decode(errors='replace')} cannot contain spaces, newlines or special"
            " characters."
        )
    if name == b"lib-name":
        session.library = value
    elif name == b"lib-ver":
        session.library_version = value
    else:
        raise RedisError(f"ERR Unrecognized option '{attribute.decode(errors='replace')}'")
    return OK


def _reply(session: Session, mode: bytes) -> bytes:
    if mode == b"ON":
        session.reply_off = False
        return OK
    if mode == b"OFF":
        session.reply_off = True
        return b""
    if mode == b"SKIP":
        session.skip_next = not session.reply_off
        return b""
    raise RedisError(SYNTAX)


def describe(session: Session) -> bytes:
    """One line of ``CLIENT LIST``."""
    age = int(session.server.service.now() - session.since)
    multi = -1 if session.queue is None else len(session.queue)
    text = (
        f"id={session.number} addr={session.address} name={session.name.decode()} age={age} idle=0"
        f" flags={'x' if session.queue is not None else 'N'} db=0 sub=0 psub=0 ssub=0 multi={multi}"
        f" watch={len(session.watched)} resp={3 if session.resp3 else 2} user=default"
        f" lib-name={session.library.decode()} lib-ver={session.library_version.decode()}"
    )
    return text.encode()


def wait(session: Session, args: list[bytes]) -> Plan:
    """Every acknowledged write is on a majority already: so many replicas have it, at least."""
    replicas, timeout = parse_integer(args[1]), parse_integer(args[2])
    if replicas is None or timeout is None:
        raise RedisError("ERR value is not an integer or out of range")
    if timeout < 0:
        raise RedisError("ERR timeout is negative")
    return integer(session.server.replicas_of_a_write())


def readonly(session: Session, args: list[bytes]) -> Plan:
    """Reads at this node's replicas, no staler than the bound that the node's settings state."""
    session.read_only = session.cluster_aware = True
    return OK


def readwrite(session: Session, args: list[bytes]) -> Plan:
    session.read_only = False
    return OK


def asking(session: Session, args: list[bytes]) -> Plan:
    session.cluster_aware = True
    return OK
