"""Judges of histories. They import nothing of raftcache and know no more than what clients saw.

A history is a file of JSON lines, one operation each (``history.py``)::

    {"process": int, "op": "get|set|cas|incr|del|stale", "key": str, "args": [...],
     "result": ..., "start": ns, "end": ns|null, "ok": true|false|null}

``start`` and ``end`` are readings of one clock in nanoseconds. ``ok`` true: it happened and
``result`` was its answer. ``ok`` false: it certainly did not happen. ``ok`` null: nobody knows; it
may have taken effect at any time after ``start``, or may still do so, or never. Values are strings
(anything else means its JSON text) or null for "no such key". ``args``, ``result`` and ``end`` may
be left out where they would be empty or null; flags may be 1 and 0. Operations may have a number
``pipeline``: those with the same one, which have the same ``start`` and ``end``, were sent together
on a connection that promises their order, so that those of a key that happened did so in the order
of the file.

====== =================== ======================================================================
op     args                result, when ``ok`` is true
====== =================== ======================================================================
get    []                  the value; null when the key is absent
set    [value]             true: the key was absent; false: it existed; null: not observed
set    [value, ttl_ms]     the same; the value may vanish once ``ttl_ms`` have passed, not before
cas    [expected, new]     true: the value was ``expected`` (null: absent) and is ``new`` now;
                           false: the value was another one and nothing changed; null: as true
incr   [by] or []          the new number; an absent key counts as 0; the expiry stays.
                           null: the value was no 64-bit integer, or would have left that range
del    []                  true: the key existed; false: it did not; null: not observed
stale  [max_staleness_ms]  a value that may be so old, or of any age (null)
txn    [part, ...]         one result for each part, done together or not at all. The ``key`` is a
                           tag, the parts name keys of it: ``["get", k]`` the value,
                           ``["set", k, v]``, ``["append", k, v]`` and ``["del", k]`` null,
                           ``["incr", k, by]`` the new number
====== =================== ======================================================================

``linearizability`` (with ``models``) judges each key on its own: linearizability is local (Herlihy
and Wing 1990, theorem 1), so a history is linearizable if and only if each key's part is.
``staleness`` judges the ``stale`` reads, which no linearization has to explain.
"""
