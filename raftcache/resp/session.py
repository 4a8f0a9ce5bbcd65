"""What one client has set up on its connection, and what a command asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raftcache.ops import Read, Result, Write

if TYPE_CHECKING:
    from raftcache.resp.commands import Command
    from raftcache.resp.server import RespServer

Render = Callable[[Sequence[Result]], bytes]


class Ask:
    """Operations that a command wants done, and how their results become its reply. ``slot``: all
    keys are in it (``None``: in several, or none)."""

    __slots__ = ("ops", "render")

    def __init__(self, ops: tuple[Read | Write, ...], render: Render) -> None:
        self.ops = ops
        self.render = render


class Everywhere:
    """One operation for every group; ``render`` gets one result of each."""

    __slots__ = ("op", "render")

    def __init__(self, op: Read | Write, render: Render) -> None:
        self.op = op
        self.render = render


class Steps:
    """Operations one after the other, each of one group: ``then`` gets the result of the last one
    and says what comes next, or the reply."""

    __slots__ = ("group", "op", "then")

    def __init__(self, op: Read, group: int, then: Callable[[Result], Steps | bytes]) -> None:
        self.op = op
        self.group = group
        self.then = then


Plan = bytes | Ask | Everywhere | Steps
"""A reply known at once, or what has to be done for it."""


class Session:
    """The state of one connection, as commands see it. ``number``: of the client, as in ``CLIENT
    ID``."""

    __slots__ = (
        "address",
        "closing",
        "cluster_aware",
        "dirty",
        "library",
        "library_version",
        "name",
        "number",
        "queue",
        "read_only",
        "reply_off",
        "resp3",
        "server",
        "since",
        "skip_next",
        "watched",
    )

    def __init__(self, server: RespServer, number: int, address: str) -> None:
        self.server = server
        self.number = number
        self.address = address
        self.since = server.service.now()
        self.name = b""
        self.library = b""
        self.library_version = b""
        self.closing = False
        """Close after the replies so far."""
        self.reset()

    def reset(self) -> None:
        """As a new connection, but for its name (``RESET`` forgets that too)."""
        self.resp3 = False
        self.queue: list[tuple[Command, list[bytes]]] | None = None
        """Commands after ``MULTI``; ``None`` outside."""
        self.dirty = False
        """A queued command was refused: ``EXEC`` will be."""
        self.watched: dict[bytes, int] = {}
        self.cluster_aware = False
        self.read_only = False
        self.reply_off = False
        self.skip_next = False

    @property
    def plain(self) -> bool:
        """Nothing is set up that a simple command must heed."""
        heeded = self.cluster_aware or self.reply_off or self.skip_next
        return self.queue is None and not heeded

    def end_transaction(self) -> None:
        """After ``EXEC`` or ``DISCARD``."""
        self.queue, self.dirty = None, False
        self.watched = {}
