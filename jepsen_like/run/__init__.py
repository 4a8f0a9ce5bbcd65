"""Real processes under real faults: the workloads and judges of the project, as its users run it.

``system``      what a system under test is: nodes, clients, and which faults it can be given
``proxy``       a network of userspace TCP links between nodes on loopback; no root needed
``processes``   nodes as child processes: killed, stopped, wiped, started again
``local``       raftcache itself, over any network
``docker``      raftcache in containers: the compose cluster, and docker's faults
``workloads``   who asks what, on which keys, and when a key's history is closed
``nemeses``     the faults, drawn from a seed before the run starts
``runner``      clients, faults, progress; ``judge`` decides key by key, in a process of its own
``table``       a run of each nemesis on each system; ``tabulation`` draws what came of them

Nothing here knows virtual time: that is ``jepsen_like.sim``. Both write the same histories and ask
the same checkers.
"""
