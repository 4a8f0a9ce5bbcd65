"""The limits that requests meet, each with a name and a default; ``config`` makes each a
setting."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Sizes in bytes, times in seconds."""

    max_key_bytes: int = 1024
    max_value_bytes: int = 8 * 1024 * 1024
    max_batch_operations: int = 10_000
    max_batch_bytes: int = 32 * 1024 * 1024
    """Of a ``/v1/batch`` request's body."""
    max_idempotency_key_bytes: int = 255
    default_timeout_s: float = 5.0
    """Deadline of a request that names none."""
    max_timeout_s: float = 60.0
    max_queued_operations: int = 100_000
    """Operations in flight on one node; more are refused (503, surely not applied)."""
    max_queued_bytes: int = 256 * 1024 * 1024
    """Bytes of keys and values of operations in flight on one node; more are refused likewise."""
