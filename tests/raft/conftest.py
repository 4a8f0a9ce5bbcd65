"""Quiet logs: what a node says of itself is not what these tests are about."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


def _drop(_logger: object, _method: str, _event: object) -> str:
    raise structlog.DropEvent


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    yield
    structlog.configure(**before)
