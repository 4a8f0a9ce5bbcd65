"""The files of one log: fixed-size segments, allocated before they are needed.

A segment is a file of zeros, durably allocated off the loop while the one before it is written, so
that an fdatasync on the hot path changes no size and finds no block to allocate. Medians in
microseconds of a write and fdatasync on ext4, 480 each in turns (1, 4 and 16 KiB):

    appending to a file                      112   126   139
    fallocate (unwritten extents)             76   125   133
    zeros written ahead                       85    84    86
    an old segment written over               83    83    85

So zeros are written ahead (6 ms for 8 MiB, in a thread); to keep old segments for that would only
bring the remains of other logs.

Knowing a whole segment ahead that there is no space for another one is also what makes a full disk
harmless: ``full`` says so while there is still room for all that was accepted, and the last of it
is kept for what a group needs in order to have a leader at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from raftcache.runtime import DataFile, Runtime

SEGMENT_BYTES: Final = 4 * 1024 * 1024
"""Of one file; a group on disk takes two of them at least. A larger block gets a larger segment."""
RESERVE_SHARE: Final = 16
"""This part of the last segment is for terms, votes and the first entry of a leader only."""
START_BYTES: Final = 512
"""At most so much of a segment's first block is its ``SegmentStart``."""
RETRY_S: Final = 0.25
"""After a failed allocation (disk full, say) the next one is tried so much later."""

_log = structlog.get_logger()


def segment_path(directory: str, number: int) -> str:
    """The file of a segment."""
    return f"{directory}/journal-{number:010d}"


class Segment:
    """One file. ``blocks`` good ones end at byte ``end``; ``top``: highest index of its entries."""

    __slots__ = ("blocks", "end", "file", "number", "size", "top")

    def __init__(self, number: int, size: int, file: DataFile | None = None) -> None:
        self.number = number
        self.size = size
        self.file = file
        self.blocks = 0
        self.end = 0
        self.top = 0

    def close(self) -> None:
        """Nothing more is written here."""
        if self.file is not None:
            self.file.close()
            self.file = None


class Segments:
    """Where the next block goes. ``on_change`` is called when an allocation has ended."""

    def __init__(self, runtime: Runtime, directory: str, on_change: Callable[[], None]) -> None:
        self._runtime = runtime
        self._directory = directory
        self._on_change = on_change
        self.kept: list[Segment] = []
        """All that have a durable block, oldest first."""
        self.current: Segment | None = None
        """The last of them, while it may be written to."""
        self.spare: Segment | None = None
        """The next one."""
        self.next_number = 1
        self.full = False
        """Whether the last allocation failed."""
        self.segment_bytes = SEGMENT_BYTES
        self._allocating = False
        self._closed = False

    # -- allocation

    def prepare(self, need: int = 0) -> None:
        """Have a spare segment that takes a block of ``need`` bytes, soon."""
        if self._allocating or self._closed:
            return
        most = (need + START_BYTES) * RESERVE_SHARE // (RESERVE_SHARE - 1) + 1
        size = max(self.segment_bytes, _whole_pages(most))
        if self.spare is not None and self.spare.size >= size:
            return
        self._allocating = True
        number, disk = self.next_number, self._runtime.disk
        path = segment_path(self._directory, number)

        def allocated(future: asyncio.Future[DataFile]) -> None:
            error = future.exception()
            if error is None:
                self._allocating = False
                self._take_over(Segment(number, size, future.result()))
            elif not self._closed:
                if not self.full:
                    _log.error("no room for the journal", error=str(error), file=path)
                self.full = True
                self._runtime.call_later(RETRY_S, self._prepare_again, need)
            if not self._closed:
                self._on_change()

        self._runtime.in_thread(lambda: disk.allocate(path, size)).add_done_callback(allocated)

    def _prepare_again(self, need: int) -> None:
        self._allocating = False
        self.prepare(need)

    def _take_over(self, segment: Segment) -> None:
        if self._closed:
            segment.close()
            return
        if self.full:
            _log.info("there is room for the journal again", directory=self._directory)
        self.full = False
        if self.spare is not None:
            self.spare.close()  # it is too small, and was kept for the case that this one failed
        self.spare = segment
        self.next_number = segment.number + 1

    # -- writing

    def place(self, need: int, *, urgent: bool) -> Segment | None:
        """Where a block of ``need`` bytes goes; ``None``: nowhere yet. What is ``urgent`` may use
        up the reserve."""
        current, spare = self.current, self.spare
        if current is not None:
            free = current.size - current.end
            if spare is None and not urgent:
                free -= current.size // RESERVE_SHARE
            if need <= free:
                return current
        if spare is not None:
            free = spare.size - START_BYTES
            if not urgent:
                free -= spare.size // RESERVE_SHARE
            if need <= free:
                return spare
        return None

    def written(self, segment: Segment, size: int, top: int) -> None:
        """A block of ``size`` bytes of ``segment`` is durable; ``top``: its highest index."""
        if segment is self.spare:
            if self.current is not None:
                self.current.close()
            self.current, self.spare = segment, None
            self.kept.append(segment)
            self.prepare()
        segment.blocks += 1
        segment.end += size
        segment.top = max(segment.top, top)

    def condemn(self, segment: Segment) -> None:
        """A write to ``segment`` failed: what is in it after its good blocks is anybody's guess,
        also for the page cache."""
        segment.close()
        if segment is self.spare:
            self.spare = None
        else:
            self.current = None
        self.prepare()

    # -- compaction

    def void_earlier(self) -> None:
        """No entry before the last segment counts."""
        for segment in self.kept[:-1]:
            segment.top = 0

    def drop(self, snapshot: int) -> None:
        """Forget those whose every entry the snapshot covers."""
        count = 0
        while count < len(self.kept) - 1 and self.kept[count].top <= snapshot:
            count += 1
        del self.kept[:count]

    def close(self) -> None:
        """Nothing is written afterwards."""
        self._closed = True
        for segment in (self.current, self.spare):
            if segment is not None:
                segment.close()


def _whole_pages(size: int) -> int:
    return (size + 4095) // 4096 * 4096
