"""Connections and what they may carry: what PySyncObj's transport does instead."""

from __future__ import annotations

from typing import Any, Final

from jepsen_like.sim.guards.catalogue import Guard
from raftcache.raft import snapshots, transport
from raftcache.raft.authentication import Seal
from raftcache.raft.peers import Link, Peers


def _nothing(*_arguments: Any) -> None:
    pass


GUARDS: Final = (
    Guard(
        "command-types",
        ("S11", "S16"),
        (11,),
        "an entry of a peer is unpickled, or changes who the members are",
        ((transport, "check_commands", _nothing), (snapshots, "check_commands", _nothing)),
    ),
    Guard(
        "peer-authentication",
        ("S16",),
        (11,),
        "whoever says that it is a member is heard as one",
        ((Link, "_check_proof", _nothing),),
    ),
    Guard(
        "frame-seal",
        ("S16b",),
        (11,),
        "a frame that somebody recorded is heard again",
        ((Seal, "check", _nothing),),
    ),
    Guard(
        "frame-limit",
        ("S16",),
        (11,),
        "a frame that announces gigabytes is waited for",
        ((Link, "_check_length", _nothing),),
    ),
    Guard(
        "one-connection",
        ("S16",),
        (1,),
        "a message of an old connection is heard after those of the new one",
        ((Peers, "_end_older", _nothing),),
    ),
    Guard(
        "incarnation-order",
        ("S3", "S16"),
        (1, 6),
        "the connection of a dead process replaces that of its successor",
        ((Link, "_check_incarnation", _nothing),),
    ),
)
