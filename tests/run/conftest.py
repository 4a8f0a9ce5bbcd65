"""Runs play on uvloop, and so do their tests."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], AbstractEventLoop]]:
    """The loop that runs use."""
    return {"uvloop": uvloop.new_event_loop}
