"""The replicated state machine: a bounded cache with versions, expiry and exactly-once writes.

It promises that replicas which apply the same log hold the same state, byte for byte, whatever the
log contains: eviction and expiry are decided here, from what is in the log alone, and never by a
clock, a random number or the interpreter's mood. It never raises on an operation: an error is a
result. It does no I/O and imports nothing of ours but ``ops``, so that tests and simulation run the
very code that production does.

``apply`` holds the machine, ``evaluate`` what each operation would do, ``cache`` entries and the
byte budget, ``costs`` what an entry costs, ``expiry`` the deadlines, ``policies`` who is evicted,
``sessions`` the results that make retries harmless, ``snapshot`` the whole state as bytes.
"""

from raftcache.machine.apply import Machine, Stats
from raftcache.machine.snapshot import SnapshotError

__all__ = ["Machine", "SnapshotError", "Stats"]
