"""Proof that raftcache keeps its promises: simulation, fault injection and independent checkers.

``checkers`` judge histories and know nothing of raftcache, so that one mistake cannot hide in both.
``sim`` runs whole clusters of the real code under virtual time, from one seed.
"""
