"""The load generator behind ``raftcache bench`` and ``benchmarks/``.

One process on uvloop, so cheap a request that on one machine with the servers these are what is
measured: connections that each have one request (or one pipeline) under way, requests formatted
from templates, latencies in buckets. It measures what a client sees and knows nothing of raftcache
but its protocols, so that the same load runs against other systems: a ``Dialect`` is all that it
takes to speak another one.
"""
