"""The table of commands: what is understood, with Redis's arities, flags and key positions.

Also ``COMMAND`` itself, which shows the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from raftcache.resp import (
    cluster,
    connection_commands,
    iteration,
    keyspace,
    server_info,
    slowlog,
    strings,
    transactions,
)
from raftcache.resp.arguments import no_subcommand
from raftcache.resp.replies import RedisError, Reply, array, bulk, encode, integer, simple
from raftcache.resp.session import Plan, Session

Handler = Callable[[Session, list[bytes]], Plan]


class Command(NamedTuple):
    """``arity`` counts the name; negative: at least so many. Keys are at ``first``,
    ``first + step`` ... ``last`` (negative: from the end); 0: none. ``barrier``: what comes after
    it in a pipeline waits for its results."""

    name: str
    arity: int
    flags: str
    first: int
    last: int
    step: int
    handler: Handler
    barrier: bool = False

    def accepts(self, count: int) -> bool:
        """Whether it takes so many arguments, its name included."""
        return count == self.arity if self.arity > 0 else count >= -self.arity

    def keys(self, args: list[bytes]) -> list[bytes]:
        """The keys that a call names."""
        if not self.first:
            return []
        last = self.last if self.last > 0 else len(args) + self.last
        return args[self.first : last + 1 : self.step]

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return "readonly" in self.flags


def command(session: Session, args: list[bytes]) -> Plan:
    """``COMMAND [COUNT | LIST | INFO | DOCS | GETKEYS]``."""
    if len(args) == 1:
        return array(_described(each, session.resp3) for each in TABLE.values())
    name, names = args[1].upper(), [arg.upper() for arg in args[2:]]
    if name == b"COUNT" and not names:
        return integer(len(TABLE))
    if name == b"LIST" and not names:
        return array(bulk(each.name.encode()) for each in TABLE.values())
    if name == b"INFO":
        wanted = names or list(TABLE)
        null = encode(None, session.resp3) if session.resp3 else b"*-1\r\n"
        return array(
            _described(TABLE[each], session.resp3) if each in TABLE else null for each in wanted
        )
    if name == b"DOCS":
        known = [TABLE[each] for each in (names or TABLE) if each in TABLE]
        docs: dict[str, Reply] = {each.name: {"group": _group(each)} for each in known}
        return encode(docs, session.resp3)
    if name == b"GETKEYS" and len(names) > 1:
        return _get_keys(args[2:])
    raise no_subcommand(args, "count", "list", "info", "docs", "getkeys")


def _get_keys(args: list[bytes]) -> bytes:
    known = TABLE.get(args[0].upper())
    if known is None:
        raise RedisError("ERR Invalid command specified")
    if not known.accepts(len(args)):
        raise RedisError("ERR Invalid number of arguments specified for command")
    keys = known.keys(args)
    if not keys:
        raise RedisError("ERR The command has no key arguments")
    return array(bulk(key) for key in keys)


def _group(known: Command) -> str:
    return {
        strings.__name__: "string",
        keyspace.__name__: "generic",
        iteration.__name__: "generic",
        transactions.__name__: "transactions",
        connection_commands.__name__: "connection",
        cluster.__name__: "cluster",
    }.get(known.handler.__module__, "server")


def _described(known: Command, resp3: bool) -> bytes:
    flags = known.flags.split()
    kind = "~" if resp3 else "*"
    rendered = b"%b%d\r\n" % (kind.encode(), len(flags)) + b"".join(map(simple, flags))
    categories = b"%b0\r\n" % kind.encode()
    parts = [
        bulk(known.name.encode()),
        integer(known.arity),
        rendered,
        integer(known.first),
        integer(known.last),
        integer(known.step),
        categories,
        b"*0\r\n",
        b"*0\r\n",
        b"*0\r\n",
    ]
    return array(parts)


_WRITE: Final = "write denyoom"
_FAST: Final = "write denyoom fast"
_READ: Final = "readonly fast"
_CONNECTION: Final = "noscript loading stale fast"
_SERVER: Final = "noscript loading stale"

_COMMANDS: Final = (
    # Strings
    Command("get", 2, _READ, 1, 1, 1, strings.get),
    Command("set", -3, _WRITE, 1, 1, 1, strings.set_),
    Command("setnx", 3, _FAST, 1, 1, 1, strings.setnx),
    Command("setex", 4, _WRITE, 1, 1, 1, strings.setex),
    Command("psetex", 4, _WRITE, 1, 1, 1, strings.psetex),
    Command("getset", 3, _FAST, 1, 1, 1, strings.getset),
    Command("getdel", 2, "write fast", 1, 1, 1, strings.getdel),
    Command("getex", -2, "write fast", 1, 1, 1, strings.getex),
    Command("mget", -2, _READ, 1, -1, 1, strings.mget),
    Command("mset", -3, _WRITE, 1, -1, 2, strings.mset),
    Command("msetnx", -3, _WRITE, 1, -1, 2, strings.msetnx),
    Command("append", 3, _FAST, 1, 1, 1, strings.append),
    Command("strlen", 2, _READ, 1, 1, 1, strings.strlen),
    Command("getrange", 4, "readonly", 1, 1, 1, strings.getrange),
    Command("substr", 4, "readonly", 1, 1, 1, strings.getrange),
    Command("setrange", 4, _WRITE, 1, 1, 1, strings.setrange),
    Command("incr", 2, _FAST, 1, 1, 1, strings.incr),
    Command("decr", 2, _FAST, 1, 1, 1, strings.decr),
    Command("incrby", 3, _FAST, 1, 1, 1, strings.incrby),
    Command("decrby", 3, _FAST, 1, 1, 1, strings.decrby),
    Command("incrbyfloat", 3, _FAST, 1, 1, 1, strings.incrbyfloat),
    # Keys
    Command("del", -2, "write", 1, -1, 1, keyspace.delete),
    Command("unlink", -2, "write fast", 1, -1, 1, keyspace.delete),
    Command("exists", -2, _READ, 1, -1, 1, keyspace.exists),
    Command("touch", -2, _READ, 1, -1, 1, keyspace.exists),
    Command("type", 2, _READ, 1, 1, 1, keyspace.type_),
    Command("ttl", 2, _READ, 1, 1, 1, keyspace.ttl),
    Command("pttl", 2, _READ, 1, 1, 1, keyspace.pttl),
    Command("expiretime", 2, _READ, 1, 1, 1, keyspace.expiretime),
    Command("pexpiretime", 2, _READ, 1, 1, 1, keyspace.pexpiretime),
    Command("expire", -3, "write fast", 1, 1, 1, keyspace.expire),
    Command("pexpire", -3, "write fast", 1, 1, 1, keyspace.pexpire),
    Command("expireat", -3, "write fast", 1, 1, 1, keyspace.expireat),
    Command("pexpireat", -3, "write fast", 1, 1, 1, keyspace.pexpireat),
    Command("persist", 2, "write fast", 1, 1, 1, keyspace.persist),
    Command("rename", 3, "write", 1, 2, 1, keyspace.rename),
    Command("renamenx", 3, "write fast", 1, 2, 1, keyspace.renamenx),
    Command("copy", -3, _WRITE, 1, 2, 1, keyspace.copy),
    Command("dbsize", 1, _READ, 0, 0, 0, keyspace.dbsize, barrier=True),
    Command("flushdb", -1, "write", 0, 0, 0, keyspace.flushall, barrier=True),
    Command("flushall", -1, "write", 0, 0, 0, keyspace.flushall, barrier=True),
    Command("scan", -2, "readonly", 0, 0, 0, iteration.scan, barrier=True),
    Command("keys", 2, "readonly", 0, 0, 0, iteration.keys, barrier=True),
    Command("randomkey", 1, "readonly", 0, 0, 0, iteration.random_key, barrier=True),
    Command("object", -2, "readonly", 2, 2, 1, keyspace.object_),
    Command("memory", -2, "readonly", 2, 2, 1, keyspace.memory),
    # Transactions
    Command("multi", 1, _CONNECTION, 0, 0, 0, transactions.multi),
    Command("exec", 1, "noscript loading stale skip_slowlog", 0, 0, 0, transactions.exec_),
    Command("discard", 1, _CONNECTION, 0, 0, 0, transactions.discard),
    Command("watch", -2, _CONNECTION, 1, -1, 1, transactions.watch, barrier=True),
    Command("unwatch", 1, _CONNECTION, 0, 0, 0, transactions.unwatch),
    # Connection
    Command("ping", -1, "fast", 0, 0, 0, connection_commands.ping),
    Command("echo", 2, "fast", 0, 0, 0, connection_commands.echo),
    Command("select", 2, _CONNECTION, 0, 0, 0, connection_commands.select),
    Command("auth", -2, f"{_CONNECTION} no_auth", 0, 0, 0, connection_commands.auth),
    Command("hello", -1, f"{_CONNECTION} no_auth", 0, 0, 0, connection_commands.hello),
    Command("client", -2, _SERVER, 0, 0, 0, connection_commands.client),
    Command("quit", -1, f"{_CONNECTION} no_auth", 0, 0, 0, connection_commands.quit_),
    Command("reset", 1, f"{_CONNECTION} no_auth", 0, 0, 0, connection_commands.reset),
    Command("readonly", 1, _CONNECTION, 0, 0, 0, connection_commands.readonly),
    Command("readwrite", 1, _CONNECTION, 0, 0, 0, connection_commands.readwrite),
    Command("asking", 1, "fast", 0, 0, 0, connection_commands.asking),
    # Server
    Command("info", -1, "loading stale", 0, 0, 0, server_info.info),
    Command("command", -1, "loading stale", 0, 0, 0, command),
    Command("config", -2, f"admin {_SERVER}", 0, 0, 0, server_info.config),
    Command("time", 1, "loading stale fast", 0, 0, 0, server_info.time_),
    Command("role", 1, _CONNECTION, 0, 0, 0, server_info.role),
    Command("lastsave", 1, "loading stale fast", 0, 0, 0, server_info.lastsave),
    Command("wait", 3, "blocking", 0, 0, 0, connection_commands.wait),
    Command("shutdown", -1, f"admin {_SERVER}", 0, 0, 0, server_info.shutdown),
    Command("slowlog", -2, "admin loading stale", 0, 0, 0, slowlog.slowlog),
    Command("latency", -2, f"admin {_SERVER}", 0, 0, 0, slowlog.latency),
    Command("cluster", -2, "loading stale", 0, 0, 0, cluster.cluster, barrier=True),
)

TABLE: Final = {each.name.upper().encode(): each for each in _COMMANDS}
"""By name in capitals."""

NOT_QUEUED: Final = (b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"QUIT", b"RESET")
"""What ``MULTI`` does not put off."""


def unknown(args: list[bytes]) -> str:
    """Redis's error for a command that there is none of."""
    name = args[0][:128].decode(errors="replace")
    text = f"ERR unknown command '{name}', with args beginning with: "
    for arg in args[1:]:
        if len(text) >= 128:
            break
        text += f"'{arg[: 128 - len(text)].decode(errors='replace')}' "
    return text
