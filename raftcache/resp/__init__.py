"""The Redis protocol: an unmodified Redis client against any node, consistently.

``replies`` writes RESP2 and RESP3, ``commands`` is the table of what is understood, ``strings``,
``keyspace``, ``transactions``, ``server_info`` and ``cluster`` give each command its meaning in
``ops``, ``session`` is what one client has set up, ``connection`` reads and answers in order, and
``server`` listens. A command becomes operations and a function that turns their results into the
reply; all commands that one read of the socket brought are submitted together, so that a pipeline
costs one batch per group, not one per command.
"""

from raftcache.resp.server import RespServer

__all__ = ["RespServer"]
