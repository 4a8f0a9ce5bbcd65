"""Raft groups over an unmodified PySyncObj, made safe and fast at its two seams.

PySyncObj is the engine: log, terms, votes, replication, commit. This package replicates bytes and
knows nothing of caches. It promises what the engine alone does not: an acknowledged entry survives
any minority of failures, every proposal ends as applied, surely not applied or unknown, reads are
confirmed by a quorum, and nothing that comes from the network is ever unpickled.

Each promise has an owner: ``engine`` is the only module that reaches into PySyncObj, ``transport``
stops stale, duplicate and premature messages, ``journal`` is the log, ``durable`` the log on disk
(``blocks``, ``segments``, ``replay``, ``snapshot_files`` its parts), ``room`` knows whose disks are
full, ``election`` decides who campaigns and when, ``reads`` confirms leadership, ``snapshots``
carries state to a follower that the log no longer reaches, ``peers`` owns the connections, ``wire``
their bytes, ``group`` joins them.
"""
