"""Whole clusters in one process under virtual time: network, disk, clocks and crashes from a seed.

The code under test is the real one; only ``raftcache.runtime.Runtime`` is replaced. One seed gives
one run, to the byte: every random choice comes from a generator seeded with a string, nothing
iterates an unordered collection, nothing looks at the real clock, and there is one thread.

``scheduler``  virtual time, processes, crashes and pauses, asyncio futures and tasks
``network``    stream connections with partitions, stalls, resets and half-open ends
``disk``       files of one node: what a crash keeps, what it tears, what it loses
``runtime``    the three together, as one ``Runtime`` per process
``guards``     what happens with one guard less, for each of them
"""
