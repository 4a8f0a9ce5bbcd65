"""Schedules of faults for runs that need particular ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def write_schedule(path: Path, faults: Sequence[tuple[str, float, float]]) -> list[str]:
    """(family, start, seconds) of each to a file; the arguments that have it played."""
    lines = [
        {"start": start, "seconds": seconds, "family": family, "seed": place}
        for place, (family, start, seconds) in enumerate(faults)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return ["--schedule", str(path)]
