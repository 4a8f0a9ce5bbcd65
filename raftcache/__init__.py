"""raftcache: a replicated, bounded cache that never lies.

Keys are partitioned over several Raft groups; each group replicates a deterministic cache (LRU and
the like, TTL, versions, exactly-once sessions) through PySyncObj. Every write and every default
read is linearizable; eviction and expiry are part of the replicated state.

Arrows point one way: front ends (``http``) -> ``router`` -> ``replica`` -> ``raft`` and
``machine``. ``machine`` and ``partition`` import nothing of ours but ``ops``; ``raft`` replicates
bytes and knows nothing of caches; time, randomness, network and disk come only through ``runtime``.
"""

__version__ = "0.1.0"
