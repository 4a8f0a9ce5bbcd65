"""What a run says while it goes on: one line that is rewritten on a terminal, a line now and then
elsewhere, and each change that the nemeses make."""

from __future__ import annotations

import asyncio
import math
import shutil
from types import TracebackType
from typing import Final, TextIO

from jepsen_like.run.runner import Run

TERMINAL_S: Final = 0.5
FILE_S: Final = 10.0


class Progress:
    """``async with Progress(run, stream)``: from the start of the run to its end."""

    def __init__(self, run: Run, stream: TextIO) -> None:
        self._run = run
        self._stream = stream
        self._terminal = stream.isatty()
        self._told = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Progress:
        self._task = asyncio.create_task(self._tell())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._news()
        if self._terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    async def _tell(self) -> None:
        line_due = 0.0
        while True:
            self._news()
            now = asyncio.get_running_loop().time()
            if self._terminal:
                width = shutil.get_terminal_size().columns - 1
                self._stream.write(f"\r\x1b[K{line(self._run)[:width]}")
                self._stream.flush()
            elif now >= line_due:
                print(line(self._run), file=self._stream, flush=True)
                line_due = now + FILE_S
            await asyncio.sleep(TERMINAL_S)

    def _news(self) -> None:
        """What has happened since it was last told."""
        story = self._run.story
        for at_s, text in story[self._told :]:
            clear = "\r\x1b[K" if self._terminal else ""
            print(f"{clear}{at_s:8.2f} s  {text}", file=self._stream, flush=True)
        self._told = len(story)


def line(run: Run) -> str:
    """How it goes."""
    seconds, total = run.meter.seconds, run.plan.seconds
    last = seconds[-2] if len(seconds) > 1 else None
    parts = [f"{run.clock():7.1f}/{total:.0f} s  {run.phase}"]
    if last is not None:
        done = last.ok + last.refused + last.unknown
        parts.append(f"{done} ops/s")
        if last.refused + last.unknown:
            parts.append(f"{last.refused} refused {last.unknown} unknown")
        if not math.isnan(last.p99_s):
            parts.append(f"p50 {last.p50_s * 1000:.1f} p99 {last.p99_s * 1000:.1f} ms")
    judge = run.judge
    parts.append(f"{judge.rulings} keys judged, {judge.pending} wait, {len(judge.bad)} bad")
    if run.violations:
        parts.append(f"{len(run.violations)} VIOLATIONS")
    return "  ".join(parts)
