"""Systems that others have built, behind the interface of ours: what is known to be right has to be
acquitted, and what is known to be wrong convicted.

``etcd``              Debian's etcd-server; linearizable by default, through its JSON gateway
``redis_replicated``  Debian's redis-server, a primary and its replicas, failed over by Sentinel
``stock_pysyncobj``   ReplDict of PySyncObj as shipped (``stock_node`` is a node's process)
``networks``          links between nodes that know each other by one address only

Each runs on loopback behind the proxy, and in network namespaces with ``--setting network=netns``.
"""
