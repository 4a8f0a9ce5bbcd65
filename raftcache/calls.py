"""Telling many of something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def for_each(items: Iterable[T], call: Callable[[T], object]) -> None:
    """Call for all of them. That one call fails is a bug, and no reason to leave others waiting:
    the exception is raised in the end."""
    failure: Exception | None = None
    for item in items:
        try:
            call(item)
        except Exception as error:
            failure = error
    if failure is not None:
        raise failure
