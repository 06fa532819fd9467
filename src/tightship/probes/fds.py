"""Every other descriptor: epoll, eventfd, memfd, inotify, timerfd, and what C code makes."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any, ClassVar

from ..explain import fds
from ..ledger import LEDGER
from ..model import Evidence
from .fdtable import FdHandle, FdKindProbe
from .files import _is_file

__all__ = ["FdProbe"]


def _is_other(kind: int) -> bool:
    return not (stat.S_ISSOCK(kind) or stat.S_ISFIFO(kind) or _is_file(kind))


class FdProbe(FdKindProbe):
    """A descriptor that is neither socket, pipe nor file."""

    kind: ClassVar[str] = "fd"
    matches: ClassVar[Callable[[int], bool]] = staticmethod(_is_other)

    def install(self, patch: Any) -> None:
        """Note births of bare descriptors."""
        import os

        def born(fd: int) -> None:
            LEDGER.note_fd(fd, skip=2)

        def born_pair(pair: tuple[int, int]) -> None:
            for fd in pair:
                LEDGER.note_fd(fd, skip=2)

        # Not dup2: pytest's capturing calls it a dozen times per test.
        for name in ("dup", "eventfd", "memfd_create", "timerfd_create", "pidfd_open"):
            patch.after_builtin(os, name, born)
        patch.after_builtin(os, "openpty", born_pair)

    def explain(self, handle: FdHandle) -> Evidence:
        """Say its type and what is known of it."""
        info = fds.classify(handle.fd)
        if info is None:
            return Evidence(f"fd {handle.fd}")
        evidence = Evidence(f"{info.kind} (fd {handle.fd})", [("points to", info.target)])
        if self.birth(handle) is None:
            evidence.facts.append(("origin", "not known: made by C code or by an extension type"))
        return evidence
