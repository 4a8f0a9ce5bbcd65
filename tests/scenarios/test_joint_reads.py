"""What is asked of several groups at once: guarantee 9."""

from __future__ import annotations

from raftcache.ops import Get
from tests.core.conftest import Stage

from .story import scenario

SLOW_S = 0.2


@scenario("joint-reads")
def test_each_group_is_as_fresh_as_the_read(guarded: bool) -> None:
    """A node leads one group and follows in another, whose leader it hears of late. What was
    acknowledged there must be in the answer, though its own group can answer at once."""
    stage = Stage()
    node, other = stage.leader(0), stage.leader(1)
    assert node != other
    own, followed = stage.key_of(0), stage.key_of(1)
    stage.set(own, b"own", node)
    stage.set(followed, b"old", other)
    stage.wait(1.0)
    stage.cluster.network.delay(other, node, SLOW_S)
    stage.set(followed, b"new", other)
    reads = stage.node(node).batch([Get(own), Get(followed)], stage.node(node).now() + 5.0)
    values = [result.value for result in stage.result(reads)]
    assert values == [b"own", b"new" if guarded else b"old"]
