"""One watch for all open blocks, in whatever threads and tasks they are open."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..ownership import CURRENT
from ..survivors import Survivor
from ..watch import Watch

if TYPE_CHECKING:
    from ..garbage import Garbage
    from .block import Block

__all__ = ["STATION", "Station"]

#: More frozen objects than Python's own mean that the program froze its heap.
_FROZEN_BY_PYTHON = 2000


class Station:
    """Holds the watch while at least one block is open."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.blocks: list[Block] = []
        self.watch: Watch | None = None
        self.own = False
        """True if the watch is ours, False if it is borrowed from the pytest plugin."""
        self.faults: dict[str, str] = {}
        self._opened = False
        self._depths = threading.local()

    # -- open blocks -----------------------------------------------------------------------

    def join(self, block: Block) -> Watch:
        """Add a block; the first one installs or borrows a watch."""
        if self.pid != os.getpid():  # a forked child: its parent's blocks are not here
            self.pid = os.getpid()
            self.blocks.clear()
            self.watch = None
        self._track_origins()
        watch = self.watch = self.watch or self._take_watch()
        for other in self.blocks:
            if not block.within(other):
                other.company = block.company = True
        self.blocks.append(block)
        return watch

    def leave(self, block: Block) -> None:
        """Remove a block; the last one undoes everything."""
        if block in self.blocks:
            self.blocks.remove(block)
            self._untrack_origins()
        watch = self.watch
        if self.blocks or watch is None:
            return
        self.watch = None
        if watch.on_closing == self._closing:
            watch.on_closing = None
        if self.own:
            watch.uninstall()
        elif self._opened:
            # Unless a test of the plugin's began since: then the window is the test's.
            owner = CURRENT.get()
            if owner is None or owner is block.before or owner.ended:
                watch.window.close()
        self._opened = False

    def _take_watch(self) -> Watch:
        here = [w for w in Watch.active if w.here]
        if here:
            watch, self.own = here[-1], False
        else:
            watch, self.own = Watch(on_fault=self.fault), True
            # 3.12 begins with some hundred frozen objects: that is nobody's wish.
            watch.window.keep_frozen = gc.get_freeze_count() > _FROZEN_BY_PYTHON
            watch.install()
        watch.on_closing = self._closing
        return watch

    def _track_origins(self) -> None:
        # Per thread: set here rather than by the probe, which is undone in the last thread.
        depth = sys.get_coroutine_origin_tracking_depth()
        count = getattr(self._depths, "count", 0)
        if not count:
            self._depths.before = depth
        if depth == 0:
            sys.set_coroutine_origin_tracking_depth(1)
        self._depths.count = count + 1

    def _untrack_origins(self) -> None:
        count = self._depths.count = getattr(self._depths, "count", 1) - 1
        if count == 0:
            sys.set_coroutine_origin_tracking_depth(self._depths.before)

    # -- what all blocks share ---------------------------------------------------------------

    @contextmanager
    def still(self, watch: Watch) -> Iterator[None]:
        """One look at a time, and no collection in the middle of it."""
        with self.lock, watch.stillness():
            yield

    def open_window(self, watch: Watch) -> bool:
        """Open the window if nobody has; tell whether it is fresh."""
        if watch.window.is_open:
            return False
        watch.window.open()
        self._opened = watch.window.is_open
        return self._opened

    def sort(self, garbage: list[Garbage], block: Block, *, inside: bool) -> None:
        """Give what only the collector closed to the block that made it, or to the test.

        Args:
            garbage: what died.
            block: the one that looks.
            inside: all died within it: what nobody is known to have made is its own.
        """
        for g in garbage:
            owner = g.birth.owner if g.birth is not None else None
            whose = next((b for b in reversed(self.blocks) if b.owns(owner)), None)
            if g.birth is None and inside and not block.company:
                whose = block
            if whose is not None:
                whose.garbage.append(g)
                continue
            test = owner or block.before
            if not self.own and test is not None:
                block.watch.note(block.watch.collected.findings([g], test))

    def fault(self, part: str, exc: BaseException) -> None:
        """Remember a fault of ours."""
        self.faults.setdefault(part, f"{type(exc).__name__}: {exc}")

    def _closing(self, loop: Any, survivors: list[Survivor]) -> list[Survivor]:
        """Give each open block what is its own of a closing loop; return what is nobody's."""
        for block in reversed(list(self.blocks)):
            if not survivors:
                break
            mine = [s for s in survivors if block.has_on(loop, s)]
            if mine:
                survivors = [s for s in survivors if s not in mine]
                block.closing(loop, mine)
        return [] if self.own else survivors


STATION = Station()
