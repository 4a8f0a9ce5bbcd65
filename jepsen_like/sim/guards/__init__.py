"""Every guard against a defect of PySyncObj can be switched off here, and only here.

The code under test has no switches: ``without`` replaces a method for as long as it lasts by what
PySyncObj, or plain Raft, does instead. ``tests/scenarios`` tells for each guard the story in which
it is needed, twice: with it the promise holds, without it the harm is seen. ``sim --without NAME``
lets random runs look for it.

Replace before what is to be crippled is made: a group binds its handlers once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from jepsen_like.sim.guards import disk, elections, peers, replication, service
from jepsen_like.sim.guards.catalogue import (
    CONSTRUCTIONS,
    DEFECTS,
    GUARANTEES,
    Construction,
    Guard,
)

__all__ = [
    "CONSTRUCTIONS",
    "DEFECTS",
    "GUARANTEES",
    "GUARDS",
    "Construction",
    "Guard",
    "UnknownGuardError",
    "chosen",
    "table",
    "without",
]

GUARDS: Final = {
    guard.name: guard
    for module in (replication, elections, service, disk, peers)
    for guard in module.GUARDS
}


class UnknownGuardError(ValueError):
    """No guard has that name; the message lists those there are."""


def chosen(*names: str) -> list[Guard]:
    """The guards of these names; ``UnknownGuardError``."""
    unknown = [name for name in names if name not in GUARDS]
    if unknown:
        raise UnknownGuardError(f"unknown guards {unknown}; known: {', '.join(GUARDS)}")
    return [GUARDS[name] for name in names]


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Run without these guards; ``UnknownGuardError``."""
    patches = [patch for guard in chosen(*names) for patch in guard.patches]
    before: list[Any] = [vars(owner)[name] for owner, name, _ in patches]
    try:
        for owner, name, replacement in patches:
            setattr(owner, name, replacement)
        yield
    finally:
        for (owner, name, _), original in reversed(list(zip(patches, before, strict=True))):
            setattr(owner, name, original)


def table() -> str:
    """All guards, one a line: name, defects and guarantees it serves, what happens without it."""
    lines = []
    for guard in GUARDS.values():
        serves = " ".join([*guard.defects, *(f"G{number}" for number in guard.guarantees)])
        lines.append(f"{guard.name:<20} {serves:<14} {guard.harm}")
    lines.append("")
    lines.append("Not guarded, since it cannot occur:")
    for construction in CONSTRUCTIONS:
        serves = " ".join(construction.defects)
        lines.append(f"{construction.name:<22} {serves:<18} {construction.why}")
    return "\n".join(lines)
