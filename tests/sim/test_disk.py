"""What a disk keeps, tears and loses."""

from __future__ import annotations

import errno
import random

import pytest

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.runtime import SimRuntime

from .conftest import World


def power_cycle(world: World, name: str = "a") -> None:
    world.nodes[name].process.crash(power=True)
    world.start(name)


def test_a_power_failure_keeps_synced_data_and_a_prefix_of_the_rest() -> None:
    kept_lengths = []
    for seed in range(60):
        world = World(seed)
        disk = world.start("a").disk
        disk.make_directory("/d")
        file = disk.append("/d/log")
        file.write(b"safe" * 100)
        file.sync()
        file.write(b"lost?" * 100)
        assert len(disk.read("/d/log")) == 900
        power_cycle(world)
        data = world.nodes["a"].disk.read("/d/log")
        assert data[:400] == b"safe" * 100
        kept_lengths.append(len(data) - 400)
    assert min(kept_lengths) == 0 and max(kept_lengths) == 500
    assert len(set(kept_lengths)) > 5


def test_a_torn_tail_may_read_as_zeros() -> None:
    torn = 0
    for seed in range(60):
        world = World(seed)
        file = world.start("a").disk.append("/log")
        file.write(b"x" * 300)
        power_cycle(world)
        torn += world.nodes["a"].disk.read("/log").endswith(b"\0")
    assert torn > 0


def test_a_killed_process_loses_nothing_it_has_written(world: World) -> None:
    world.nodes["a"].disk.append("/log").write(b"page cache")
    world.nodes["a"].process.crash()
    assert world.start("a").disk.read("/log") == b"page cache"


def test_a_sync_off_the_loop_covers_what_was_written_before_it_began() -> None:
    survivors = set()
    for seed in range(40):
        world = World(seed)
        node = world.start("a")
        file = node.disk.append("/log")
        file.write(b"A" * 10)
        done = node.in_thread(file.sync)
        file.write(b"B" * 10)
        assert not done.done()
        world.run(1.0)
        assert done.done() and done.exception() is None
        power_cycle(world)
        data = world.nodes["a"].disk.read("/log")
        assert data[:10] == b"A" * 10
        survivors.add(len(data))
    assert 10 in survivors and 20 in survivors


def test_a_crash_before_a_blocking_call_ends_leaves_it_done_undone_or_half_done() -> None:
    seen = set()
    for seed in range(60):
        world = World(seed)
        node = world.start("a")

        def job(node: SimRuntime = node) -> None:
            node.disk.replace("/one", b"1")
            node.disk.replace("/two", b"2")

        node.in_thread(job)
        power_cycle(world)
        seen.add(tuple(name for name in world.nodes["a"].disk.list("/") if "tmp" not in name))
    assert seen == {(), ("one",), ("one", "two")}


def test_replace_is_atomic_and_durable(world: World) -> None:
    disk = world.nodes["a"].disk
    disk.replace("/snapshot", b"old")
    disk.replace("/snapshot", b"new")
    power_cycle(world)
    assert world.nodes["a"].disk.read("/snapshot") == b"new"
    assert world.nodes["a"].disk.list("/") == ["snapshot"]


def test_a_deletion_may_be_undone_by_a_power_failure_until_the_directory_is_synced() -> None:
    back = {True: 0, False: 0}
    for seed in range(40):
        for synced in (False, True):
            world = World(seed)
            disk = world.start("a").disk
            disk.replace("/old", b"x")
            disk.delete("/old")
            disk.delete("/never existed")
            if synced:
                disk.replace("/other", b"y")
            assert "old" not in disk.list("/")
            power_cycle(world)
            back[synced] += "old" in world.nodes["a"].disk.list("/")
    assert 0 < back[False] < 40
    assert back[True] == 0


def test_truncate_cuts_durably(world: World) -> None:
    disk = world.nodes["a"].disk
    disk.append("/log").write(b"0123456789")
    disk.truncate("/log", 4)
    power_cycle(world)
    assert world.nodes["a"].disk.read("/log") == b"0123"


def test_a_full_disk_writes_what_fits_and_says_so_and_deleting_makes_room(world: World) -> None:
    disk = world.nodes["a"].disk
    disk.replace("/big", bytes(100))
    world.disks["a"].free_bytes = 5
    file = disk.append("/log")
    with pytest.raises(OSError) as caught:
        file.write(b"0123456789")
    assert caught.value.errno == errno.ENOSPC
    assert disk.read("/log") == b"01234"
    disk.delete("/big")
    file.write(b"56789")
    assert disk.read("/log") == b"0123456789"


def test_after_a_failed_sync_a_later_one_covers_nothing() -> None:
    lost = 0
    for seed in range(30):
        world = World(seed)
        file = world.start("a").disk.append("/log")
        file.write(b"data")
        world.disks["a"].fail_syncs = 1
        with pytest.raises(OSError):
            file.sync()
        file.sync()
        power_cycle(world)
        lost += world.nodes["a"].disk.read("/log") != b"data"
    assert lost > 0


def test_errors_of_blocking_calls_reach_whoever_waits(world: World) -> None:
    node = world.nodes["a"]
    world.disks["a"].fail_syncs = 1
    done = node.in_thread(node.disk.append("/log").sync)
    world.run(1.0)
    assert isinstance(done.exception(), OSError)


def test_a_lock_is_exclusive_until_released_or_its_process_dies(world: World) -> None:
    disk = world.nodes["a"].disk
    release = disk.lock("/lock")
    second = world.start("a")
    with pytest.raises(BlockingIOError):
        second.disk.lock("/lock")
    release()
    second.disk.lock("/lock")
    second.process.crash()
    world.start("a").disk.lock("/lock")


def test_a_flip_changes_one_bit() -> None:
    disk = SimDisk(random.Random(1))
    disk.replace("/snapshot", bytes(100))
    disk.flip("/snapshot", 17, 3)
    assert disk.contents() == {"/snapshot": bytes(17) + b"\x08" + bytes(82)}


def test_a_write_that_the_power_failure_tears_is_there_in_part() -> None:
    kept = set()
    for seed in range(40):
        world = World(seed)
        node = world.start("a")
        file = node.disk.append("/log")
        node.in_thread(lambda file=file: (file.write(b"x" * 1000), file.sync()))
        world.disks["a"].tear_next = True
        node.process.crash(power=True)
        kept.add(len(world.disks["a"].contents()["/log"]))
    assert len(kept) > 20
    assert max(kept) <= 1000


def test_paths_behave_as_on_a_real_disk(world: World) -> None:
    disk = world.nodes["a"].disk
    disk.make_directory("/data/groups/0")
    disk.append("/data/groups/0/log").close()
    disk.append("/data/x").close()
    assert disk.list("/data") == ["groups", "x"]
    assert disk.list("/data/groups/0") == ["log"]
    with pytest.raises(FileNotFoundError):
        disk.list("/nowhere")
    with pytest.raises(FileNotFoundError):
        disk.read("/data/y")
    with pytest.raises(FileNotFoundError):
        disk.append("/nowhere/file")
