"""What a disk keeps, tears and loses."""

from __future__ import annotations

import errno
import itertools
import random

import pytest

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.runtime import SimRuntime

from .conftest import World


def power_cycle(world: World, name: str = "a") -> None:
    world.nodes[name].process.crash(power=True)
    world.start(name)


def test_a_power_failure_keeps_synced_data_and_any_prefix_of_what_was_appended() -> None:
    kept_lengths = []
    for seed in range(60):
        world = World(seed)
        disk = world.start("a").disk
        disk.make_directory("/d")
        file = disk.create("/d/log")
        file.write(b"safe" * 100, 0)
        file.sync()
        file.write(b"lost?" * 100, 400)
        assert len(disk.read("/d/log")) == 900
        power_cycle(world)
        data = world.nodes["a"].disk.read("/d/log")
        assert data[:400] == b"safe" * 100
        kept_lengths.append(len(data) - 400)
    assert min(kept_lengths) == 0 and max(kept_lengths) == 500
    assert len(set(kept_lengths)) > 5


def test_a_power_failure_keeps_any_subset_of_the_sectors_that_were_not_synced() -> None:
    """Old content or new, in no order, and now and then a sector torn in the middle."""
    seen, torn = set(), 0
    for seed in range(400):
        world = World(seed)
        file = world.start("a").disk.allocate("/log", 4 * 512)
        file.write(b"o" * 2048, 0)
        file.sync()
        file.write(b"n" * 2048, 0)
        power_cycle(world)
        data = world.nodes["a"].disk.read("/log")
        sectors = [data[at : at + 512] for at in range(0, 2048, 512)]
        whole = all(sector in (b"o" * 512, b"n" * 512) for sector in sectors)
        torn += not whole
        if whole:
            seen.add("".join(chr(sector[0]) for sector in sectors))
    assert seen == {"".join(draw) for draw in itertools.product("on", repeat=4)}
    assert 0 < torn < 200


def test_what_was_synced_survives_a_torn_write_into_the_same_sector() -> None:
    for seed in range(100):
        world = World(seed)
        file = world.start("a").disk.allocate("/log", 512)
        file.write(b"safe", 0)
        file.sync()
        file.write(b"safe and more", 0)
        power_cycle(world)
        assert world.nodes["a"].disk.read("/log")[:4] == b"safe"


def test_a_killed_process_loses_nothing_it_has_written(world: World) -> None:
    world.nodes["a"].disk.create("/log").write(b"page cache", 0)
    world.nodes["a"].process.crash()
    assert world.start("a").disk.read("/log") == b"page cache"


def test_a_sync_off_the_loop_covers_what_was_written_before_it_began() -> None:
    survivors = set()
    for seed in range(40):
        world = World(seed)
        node = world.start("a")
        file = node.disk.create("/log")
        file.write(b"A" * 512, 0)
        done = node.in_thread(file.sync)
        file.write(b"B" * 512, 512)
        assert not done.done()
        world.run(1.0)
        assert done.done() and done.exception() is None
        power_cycle(world)
        data = world.nodes["a"].disk.read("/log")
        assert data[:512] == b"A" * 512
        survivors.add(len(data))
    assert 512 in survivors and 1024 in survivors


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


def test_created_and_allocated_files_are_there_after_a_power_failure(world: World) -> None:
    disk = world.nodes["a"].disk
    disk.create("/log").write(b"old", 0)
    disk.create("/log")
    disk.allocate("/segment", 1000).write(b"un-synced", 0)
    power_cycle(world)
    assert world.nodes["a"].disk.read("/log") == b""
    assert len(world.nodes["a"].disk.read("/segment")) == 1000


def test_allocating_over_a_file_leaves_zeros_of_the_size_asked_for(world: World) -> None:
    disk = world.nodes["a"].disk
    for before in (10, 100, 1000):
        file = disk.create("/segment")
        file.write(b"x" * before, 0)
        file.sync()
        disk.allocate("/segment", 100)
        power_cycle(world)
        disk = world.nodes["a"].disk
        assert disk.read("/segment") == bytes(100)


def test_an_allocation_cut_off_leaves_some_of_what_was_there() -> None:
    contents = set()
    for seed in range(100):
        world = World(seed)
        node = world.start("a")
        file = node.disk.create("/segment")
        file.write(b"x" * 512, 0)
        file.sync()
        node.in_thread(lambda node=node: node.disk.allocate("/segment", 1024))
        power_cycle(world)
        data = world.nodes["a"].disk.read("/segment")
        contents.add((data[:1], len(data) > 512))
    assert {(b"x", False), (b"x", True), (b"\0", False), (b"\0", True)} <= contents


def test_a_full_disk_writes_what_fits_and_says_so_and_deleting_makes_room(world: World) -> None:
    disk = world.nodes["a"].disk
    disk.replace("/big", bytes(100))
    world.disks["a"].free_bytes = 5
    file = disk.create("/log")
    with pytest.raises(OSError) as caught:
        file.write(b"0123456789", 0)
    assert caught.value.errno == errno.ENOSPC
    assert disk.read("/log") == b"01234"
    disk.delete("/big")
    file.write(b"56789", 5)
    assert disk.read("/log") == b"0123456789"


def test_what_was_allocated_can_be_written_on_a_full_disk_and_nothing_more_allocated(
    world: World,
) -> None:
    disk = world.nodes["a"].disk
    world.disks["a"].free_bytes = 150
    file = disk.allocate("/segment", 100)
    with pytest.raises(OSError) as caught:
        disk.allocate("/next", 100)
    assert caught.value.errno == errno.ENOSPC
    assert disk.list("/") == ["segment"] and world.disks["a"].free_bytes == 50
    world.disks["a"].free_bytes = 0
    file.write(b"x" * 100, 0)
    file.sync()
    disk.delete("/segment")
    assert world.disks["a"].free_bytes == 100


def test_after_a_failed_sync_a_later_one_covers_only_what_is_written_again() -> None:
    lost = dropped = 0
    for seed in range(30):
        for again in (False, True):
            world = World(seed)
            file = world.start("a").disk.allocate("/log", 2048)
            file.write(b"data", 0)
            world.disks["a"].fail_syncs = 1
            with pytest.raises(OSError):
                file.sync()
            dropped += world.nodes["a"].disk.read("/log")[:4] != b"data"
            file.write(b"data", 0 if again else 1024)
            file.sync()
            power_cycle(world)
            missing = world.nodes["a"].disk.read("/log")[:4] != b"data"
            assert not (missing and again)
            lost += missing
    assert lost > 0 and 0 < dropped < 60


def test_errors_of_blocking_calls_reach_whoever_waits(world: World) -> None:
    node = world.nodes["a"]
    world.disks["a"].fail_syncs = 1
    done = node.in_thread(node.disk.create("/log").sync)
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
    disk.power_failure()
    assert disk.contents()["/snapshot"][17] == 8


def test_a_write_that_the_power_failure_tears_is_there_in_part() -> None:
    kept = set()
    for seed in range(40):
        world = World(seed)
        node = world.start("a")
        file = node.disk.allocate("/log", 8192)
        node.in_thread(lambda file=file: (file.write(b"x" * 8192, 0), file.sync()))
        world.disks["a"].tear_next = True
        node.process.crash(power=True)
        kept.add(world.disks["a"].contents()["/log"].count(b"x"))
    assert len(kept) > 10
    assert max(kept) <= 8192


def test_paths_behave_as_on_a_real_disk(world: World) -> None:
    disk = world.nodes["a"].disk
    disk.make_directory("/data/groups/0")
    disk.create("/data/groups/0/log").close()
    disk.create("/data/x").close()
    assert disk.list("/data") == ["groups", "x"]
    assert disk.list("/data/groups/0") == ["log"]
    with pytest.raises(FileNotFoundError):
        disk.list("/nowhere")
    with pytest.raises(FileNotFoundError):
        disk.read("/data/y")
    with pytest.raises(FileNotFoundError):
        disk.open("/data/y")
    with pytest.raises(FileNotFoundError):
        disk.create("/nowhere/file")
