"""Systems that others have built, behind the interface of ours: what is known to be right has to be
acquitted, and what is known to be wrong convicted.

``etcd``              Debian's etcd-server; linearizable by default, through its JSON gateway
``redis_replicated``  Debian's redis-server, a primary and its replicas, failed over by Sentinel
``stock_pysyncobj``   ReplDict of PySyncObj as shipped (``stock_node`` is a node's process)
``networks``          links between nodes that know each other by one address only

``schedules/`` has faults that show in seconds what random ones show now and then:

``isolated-leader``   the leader is cut off for 5 s; its clients are not
``amnesia``           n3 is behind; n2 dies and comes back; then n3 returns and n1 is cut off:
                      who is left has seen nothing of what was acknowledged meanwhile, unless n2
                      has it on its disk
``refused-leader``    connections of the leader are reset and refused for 2 s, twice

Each runs on loopback behind the proxy, and in network namespaces with ``--setting network=netns``.
"""
