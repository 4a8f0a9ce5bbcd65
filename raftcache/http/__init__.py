"""The HTTP front end: ``/v1/keys``, ``/v1/batch``, ``/v1/cluster`` and the operator's pages.

It turns requests into ``ops`` and results into responses, and holds no state beyond its
connections. What it promises: the bytes of a key or value are never altered; 503 means surely not
applied and 504 means unknown; a condition is evaluated by the state machine at the moment of the
write; whatever a client sends, the answer is a documented one (``openapi``) and never a 500.

It is built on aiohttp's low-level server rather than on its application framework, because the
single-key path is the benchmark of this project and routing, URL objects and header dictionaries
cost as much there as everything else together (``exchange``).
"""

from raftcache.http.server import FrontEndMetrics, HttpServer

__all__ = ["FrontEndMetrics", "HttpServer"]
