"""Keys to slots to groups to nodes: the laws that routing and clients rely on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcache.partition import SLOTS, SlotMap, hash_tag, place_groups, slot_of

maps = settings(max_examples=25, deadline=None)  # a map takes tens of milliseconds to build
placing = settings(deadline=None)

placements = st.tuples(
    st.integers(1, 200), st.integers(1, 5), st.integers(0, 6), st.integers(0, 1000)
).map(
    lambda drawn: (
        drawn[0],
        drawn[1],
        tuple(f"node-{drawn[3]}-{i}" for i in range(drawn[1] + drawn[2])),
    )
)


def test_the_check_value_of_the_redis_cluster_specification_is_met() -> None:
    assert slot_of(b"123456789") == 0x31C3


@pytest.mark.parametrize(
    ("key", "tag"),
    [
        (b"{user1000}.following", b"user1000"),
        (b"foo{}{bar}", b"foo{}{bar}"),
        (b"foo{{bar}}zap", b"{bar"),
        (b"foo{bar}{zap}", b"bar"),
        (b"foo}bar{zap", b"foo}bar{zap"),
        (b"}{a}", b"a"),
        (b"{", b"{"),
        (b"", b""),
        (b"{\x00}", b"\x00"),
    ],
)
def test_hash_tags_are_those_of_the_redis_cluster_specification(key: bytes, tag: bytes) -> None:
    assert hash_tag(key) == tag
    assert slot_of(key) == slot_of(tag) or b"{" in tag


@pytest.mark.parametrize(("key", "slot"), [(b"foo", 12182), (b"bar", 5061), (b"{foo}x", 12182)])
def test_slots_are_those_that_redis_gives(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


@given(tag=st.binary(min_size=1).filter(lambda tag: not set(tag) & set(b"{}")), tail=st.binary())
def test_keys_with_one_hash_tag_share_a_slot(tag: bytes, tail: bytes) -> None:
    assert slot_of(b"{" + tag + b"}" + tail) == slot_of(tag)


@maps
@given(key=st.binary(), groups=st.integers(1, 16))
def test_a_key_belongs_to_the_group_of_its_slot(key: bytes, groups: int) -> None:
    slots = SlotMap(groups)
    assert slots.group_of(key) == slots.table[slot_of(key)]
    assert 0 <= slots.group_of(key) < groups


@maps
@given(groups=st.integers(1, 100), virtual_nodes=st.integers(1, 64))
def test_a_new_group_takes_slots_and_none_moves_between_old_ones(
    groups: int, virtual_nodes: int
) -> None:
    before = SlotMap(groups, virtual_nodes).table
    after = SlotMap(groups + 1, virtual_nodes).table
    assert all(new in (old, groups) for old, new in zip(before, after, strict=True))


@maps
@given(groups=st.integers(1, 63))
def test_a_new_group_takes_about_its_share(groups: int) -> None:
    before, after = SlotMap(groups).table, SlotMap(groups + 1).table
    moved = sum(old != new for old, new in zip(before, after, strict=True))
    assert 0.8 < moved * (groups + 1) / SLOTS < 1.2


@pytest.mark.parametrize("groups", range(1, 65))
def test_the_largest_group_is_at_most_a_fifth_over_the_mean(groups: int) -> None:
    counts = SlotMap(groups).counts()
    assert sum(counts) == SLOTS
    assert max(counts) <= 1.2 * SLOTS / groups
    assert min(counts) >= 0.75 * SLOTS / groups


def test_every_group_has_slots_at_the_largest_number_of_groups() -> None:
    assert min(SlotMap(1024).counts()) > 0


def test_the_slot_map_is_the_one_that_earlier_releases_had() -> None:
    assert SlotMap(4).counts() == (3835, 4281, 4173, 4095)
    assert SlotMap(4).table[:12] == (3, 3, 0, 2, 0, 2, 2, 0, 3, 1, 0, 0)


@maps
@given(groups=st.integers(1, 64))
def test_ranges_cover_every_slot_once_with_its_group(groups: int) -> None:
    slots = SlotMap(groups)
    covered = [group for first, last, group in slots.ranges() for _ in range(first, last + 1)]
    assert covered == list(slots.table)


@pytest.mark.parametrize("groups", [0, 1025, -1])
def test_an_impossible_number_of_groups_is_refused(groups: int) -> None:
    with pytest.raises(ValueError, match="groups"):
        SlotMap(groups)


@placing
@given(placements)
def test_each_group_is_held_by_as_many_different_members_as_asked(
    drawn: tuple[int, int, tuple[str, ...]],
) -> None:
    groups, replication, members = drawn
    placed = place_groups(groups, members, replication)
    assert len(placed) == groups
    assert all(len(set(replicas)) == replication for replicas in placed)


@placing
@given(placements)
def test_preferred_leaders_are_spread_as_evenly_as_whole_numbers_allow(
    drawn: tuple[int, int, tuple[str, ...]],
) -> None:
    groups, replication, members = drawn
    leading = Counter(replicas[0] for replicas in place_groups(groups, members, replication))
    counts = [leading[member] for member in members]
    assert max(counts) - min(counts) <= 1


@placing
@given(placements)
def test_replicas_are_spread_within_a_few_of_each_other(
    drawn: tuple[int, int, tuple[str, ...]],
) -> None:
    groups, replication, members = drawn
    holding = Counter(
        m for replicas in place_groups(groups, members, replication) for m in replicas
    )
    counts = [holding[member] for member in members]
    assert max(counts) - min(counts) <= 3


@placing
@given(placements)
def test_a_member_added_at_the_end_only_takes_its_share(
    drawn: tuple[int, int, tuple[str, ...]],
) -> None:
    groups, replication, members = drawn
    before = place_groups(groups, members, replication)
    after = place_groups(groups, (*members, "new"), replication)
    for old, new in zip(before, after, strict=True):
        assert set(new) - set(old) <= {"new"}
        assert new[0] in (old[0], "new")
    taken = sum("new" in replicas for replicas in after)
    assert taken <= groups * replication // (len(members) + 1)


def test_more_replicas_than_members_are_refused() -> None:
    with pytest.raises(ValueError, match="3 replicas"):
        place_groups(4, ("a", "b"), 3)
