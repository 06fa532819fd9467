"""Open files and directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, ClassVar

from .. import explain
from ..ledger import LEDGER, Birth
from ..model import Evidence
from ..origin import shorten
from .base import digits, target
from .fdtable import FdHandle, FdKindProbe

__all__ = ["FileProbe"]


def _is_file(kind: int) -> bool:
    return stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISCHR(kind) or stat.S_ISBLK(kind)


class FileProbe(FdKindProbe):
    """A descriptor that is a file, a directory or a device."""

    kind: ClassVar[str] = "file"
    types: ClassVar[tuple[str, ...]] = ("io:FileIO",)
    matches: ClassVar[Callable[[int], bool]] = staticmethod(_is_file)

    def install(self, patch: Any) -> None:
        """Note births through `open` in both places where it lives, and `os.open`."""
        import builtins
        import io

        def born(file: Any) -> None:
            LEDGER.note(_raw(file), skip=2)

        def born_fd(fd: int) -> None:
            LEDGER.note_fd(fd, skip=2)

        patch.after_builtin(builtins, "open", born)
        patch.after_builtin(io, "open", born)
        patch.after_builtin(os, "open", born_fd)

    def fileno(self, obj: Any) -> int:
        """Return a raw file's descriptor if it is its own."""
        return -1 if obj.closed or not obj.closefd else int(obj.fileno())

    def birth(self, handle: FdHandle) -> Birth | None:
        """Ask the raw file's entry, then the number's."""
        return super().birth(handle)

    def label(self, handle: FdHandle) -> str:
        """Return the file's base name, without numbers."""
        return digits(os.path.basename(_path(handle)) or "/")

    def explain(self, handle: FdHandle) -> Evidence:
        """Say path and mode."""
        info = explain.fds.classify(handle.fd)
        path = _path(handle)
        what = "directory" if info and info.kind == "dir" else "file"
        mode = {"r": "for reading", "w": "for writing", "rw": "for reading and writing"}.get(
            info.mode if info else "", ""
        )
        evidence = Evidence(f"{what} {os.path.basename(path) or path!r}")
        evidence.facts.append(("path", f"{shorten(path)}  (fd {handle.fd}, open {mode})"))
        if handle.holder is None:
            evidence.fix = (
                "close the descriptor with os.close, or wrap it in os.fdopen and a with block"
            )
        return evidence


def _raw(file: Any) -> Any:
    """Return the FileIO beneath whatever `open` returned."""
    buffer = getattr(file, "buffer", file)
    return getattr(buffer, "raw", buffer)


def _path(handle: FdHandle) -> str:
    info = explain.fds.classify(handle.fd)
    if info is not None and info.target:
        return info.target
    obj = target(handle.holder) if handle.holder is not None else None
    return str(getattr(obj, "name", "?"))
