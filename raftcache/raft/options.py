"""The settings of a group's consensus, in seconds and bytes."""

from __future__ import annotations

import msgspec


class RaftOptions(msgspec.Struct, frozen=True):
    """``election_timeout_s`` is the lower bound of the timeout, drawn up to twice as long."""

    heartbeat_s: float = 0.05
    election_timeout_s: float = 0.4
    lease_s: float = 0.2
    max_clock_drift: float = 0.05
    """How much faster one node's clock may run than another's, for leases and expiry."""
    log_retention_bytes: int = 16 * 1024 * 1024
    """Commands kept in memory for followers that lag; one that lags more gets a snapshot."""
    max_append_bytes: int = 4 * 1024 * 1024
    """Largest run of entries in one message; a single larger entry goes alone."""
    snapshot_window_bytes: int = 1024 * 1024
    """Bytes of a snapshot sent and not yet acknowledged."""
