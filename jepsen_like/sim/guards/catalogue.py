"""What a guard is, and what the guards are for: the defects of PySyncObj and our guarantees.

The defects are those of PySyncObj 0.3.17, each found by a script that shows the harm; the
guarantees are the numbered ones of the design's section on Raft.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

Patch = tuple[Any, str, Any]
"""(class or module, name in it, what to put there)."""

DEFECTS: Final = {
    "S1": "an acknowledgement carries no term: a late one commits what a minority holds",
    "S2": "an append removes all that follows it, matching or not; entries are sent repeatedly",
    "S3": "the memory journal forgets term, vote and log at a restart",
    "S4a": "term and vote are not synced, errors reading them swallowed",
    "S4b": "the stored commit index may exceed the log",
    "S4c": "a snapshot beside a longer journal discards the journal",
    "S4d": "compaction rewrites the journal in place",
    "S4e": "a journal without a dump file is compacted to memory",
    "S4f": "offsets in the journal have four bytes",
    "S4g": "nothing is synced before it is acknowledged",
    "S4h": "no checksums; a corrupt dump is ignored",
    "S5": "votes are counted, not voters",
    "S6": "no pre-vote, no stickiness; a cut-off leader answers reads for half a minute",
    "S7": "a part of a snapshot moves the commit index with no look at the log",
    "S8": "a snapshot that could not be installed is acknowledged",
    "S9": "an older snapshot replaces newer state",
    "S10": "two membership changes at once",
    "S11": "membership entries from anybody, though switched off",
    "S12": "an exception in a callback applies an entry twice, or for ever",
    "S13": "failures are reported for what may still happen, or nothing is",
    "S14": "entries beyond 64 KiB end in exceptions",
    "S15": "a snapshot in the making is announced 50,000 times a tick",
    "S16": "pickles from any connection; peers only say who they are; frames without bound",
    "S16b": "a recorded frame is accepted again",
    "S17": "membership is wrong after a restart",
    "S18": "a lost transfer leaves a flag that makes heartbeats useless",
    "S19": "success for a command in no log, by a request number used again",
    "S20": "a divergent follower backs up one entry per heartbeat",
    "S21": "with more than one message under way it never catches up",
    "S22": "a late message of a stranger raises in the tick",
}

GUARANTEES: Final = {
    1: "acknowledgements of another term, connection or incarnation do not count",
    2: "what matches is not removed, what is committed never",
    3: "one vote per voter and term, of members, durable before it is sent",
    4: "nothing is acknowledged before it is durable",
    5: "a torn tail is cut off, corruption stops the node, term and vote are not forgotten",
    6: "a node without its disk is deaf until it has recovered",
    7: "a node that comes back deposes nobody; a cut-off leader steps down",
    8: "a crashed leader is replaced at once",
    9: "linearizable reads, leases with a stated drift, bounded staleness",
    10: "every proposal ends, and never falsely",
    11: "nothing received is unpickled, peers authenticate, frames are bounded",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard that can be switched off. ``harm``: what happens then."""

    name: str
    defects: tuple[str, ...]
    guarantees: tuple[int, ...]
    harm: str
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class Construction:
    """A defect that cannot occur because what has it is not used. ``why`` says so."""

    name: str
    defects: tuple[str, ...]
    guarantees: tuple[int, ...]
    why: str


CONSTRUCTIONS: Final = (
    Construction(
        "fixed-members",
        ("S10", "S11", "S17"),
        (3,),
        "the members are those of the configuration; no entry of a log changes them, no peer can",
    ),
    Construction(
        "own-log-and-snapshots",
        ("S4b", "S4e", "S4f", "S8"),
        (4, 5),
        "PySyncObj's journal, dump file, compaction and transmissions are never used",
    ),
    Construction(
        "own-forwarding",
        ("S13", "S19"),
        (10,),
        "operations are forwarded by the router; PySyncObj's requests and answers never leave",
    ),
    Construction(
        "applied-once",
        ("S12",),
        (10,),
        "PySyncObj applies nothing; an entry counts as applied before the state machine sees it",
    ),
    Construction(
        "whole-entries",
        ("S14",),
        (2,),
        "an entry of any size is one message; PySyncObj's pieces are never made",
    ),
    Construction(
        "nothing-unpickled",
        ("S16",),
        (11,),
        "messages are decoded into a closed set of types; PySyncObj unpickles only what was"
        " pickled here",
    ),
)
