"""Open pipe ends and FIFOs."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any, ClassVar

from ..explain import fds
from ..ledger import LEDGER
from ..model import Evidence
from .fdtable import FdHandle, FdKindProbe

__all__ = ["PipeProbe"]


class PipeProbe(FdKindProbe):
    """A descriptor that is one end of a pipe."""

    kind: ClassVar[str] = "pipe"
    types: ClassVar[tuple[str, ...]] = ("io:FileIO",)
    matches: ClassVar[Callable[[int], bool]] = staticmethod(stat.S_ISFIFO)

    def install(self, patch: Any) -> None:
        """Note births of bare pipes."""
        import os

        def born(ends: tuple[int, int]) -> None:
            for fd in ends:
                LEDGER.note_fd(fd, skip=2)

        patch.after_builtin(os, "pipe", born)
        patch.after_builtin(os, "pipe2", born)

    def fileno(self, obj: Any) -> int:
        """Return a raw file's descriptor if it is its own."""
        return -1 if obj.closed or not obj.closefd else int(obj.fileno())

    def opened(self, obj: Any) -> bool:
        """Leave the window's files to the file probe."""
        return False

    def label(self, handle: FdHandle) -> str:
        """Return which end it is."""
        info = fds.classify(handle.fd)
        return {"r": "read-end", "w": "write-end"}.get(info.mode if info else "", "pipe")

    def explain(self, handle: FdHandle) -> Evidence:
        """Say which end of which pipe."""
        info = fds.classify(handle.fd)
        end = {"r": "read end", "w": "write end"}.get(info.mode if info else "", "end")
        facts = [("points to", info.target)] if info else []
        return Evidence(f"pipe, {end} (fd {handle.fd})", facts)
