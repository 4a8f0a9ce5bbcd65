"""Fault schedules as files: JSON lines, one ``Fault`` each, in the order in which they begin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from jepsen_like.sim.faults import Fault

_decoder = msgspec.json.Decoder(Fault)


class ScheduleError(Exception):
    """A file that is no schedule; the message says where."""


def save(faults: Sequence[Fault], path: Path) -> None:
    """Write a schedule; every number survives exactly. ``OSError``."""
    lines = [msgspec.json.encode(fault).decode() for fault in faults]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def load(path: Path) -> list[Fault]:
    """Inverse of ``save``; empty lines are skipped. ``ScheduleError``, ``OSError``."""
    faults = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                faults.append(_decoder.decode(line))
            except msgspec.MsgspecError as error:
                raise ScheduleError(f"{path}, line {number}: {error}") from None
    return faults
