"""Every other descriptor: epoll, eventfd, memfd, inotify, timerfd, and what C code makes."""

from __future__ import annotations

import io
import stat
from _thread import get_ident
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from ..explain import fds
from ..ledger import LEDGER
from ..model import Evidence, Key, Scene
from .base import weak
from .children import by_pid
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
        _install_pollers(patch)

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return all descriptors of this kind; a pidfd of asyncio's with the child's transport.

        Whoever holds that, holds both: they are told together.
        """
        found = dict(super().snapshot(scene))
        transports = by_pid()
        if transports:
            for key, handle in found.items():
                # Only what was born through a door of ours: the others cost no look.
                transport = transports.get(_pid(handle.fd)) if handle.key[4] else None
                if transport is not None:
                    found[key] = FdHandle(handle.key, weak(transport))
        return found

    def covers(self, handle: FdHandle) -> Iterable[Key]:
        """Nothing but itself: a pidfd is part of its process, not the other way round."""
        return ()

    def explain(self, handle: FdHandle) -> Evidence:
        """Say its type and what is known of it."""
        info = fds.classify(handle.fd)
        if info is None:
            return Evidence(f"fd {handle.fd}")
        evidence = Evidence(f"{info.kind} (fd {handle.fd})", [("points to", info.target)])
        if self.birth(handle) is None:
            evidence.facts.append(("origin", "not known: made by C code or by an extension type"))
        return evidence


def _pid(fd: int) -> int:
    """Return the process that a pidfd is of, 0 if it is none."""
    try:
        with io.open_code(f"/proc/self/fdinfo/{fd}") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    return next((int(line[4:]) for line in lines if line.startswith(b"Pid:")), 0)


def _install_pollers(patch: Any) -> None:
    """Note who makes epoll and kqueue objects, by themselves or through `selectors`.

    The types stay what they are: nobody can derive from them, they have no initializer of
    their own, and they can be given one. (Where Python makes them immutable, and for
    `mmap.mmap`, which is, their births stay unknown: a stand-in under their name would not
    be the type that the program compares with.)
    """
    import select

    where = patch.where

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if not patch.active:
            return
        try:
            if not (LEDGER.muted and LEDGER.muted == get_ident()):  # an event loop's own
                LEDGER.note_fd(self.fileno())
        except Exception as exc:
            patch.fault(exc, where)

    for name in ("epoll", "kqueue"):
        cls = getattr(select, name, None)
        if cls is not None and cls.__init__ is object.__init__:
            try:
                patch.set(cls, "__init__", init)
            except TypeError:
                pass
