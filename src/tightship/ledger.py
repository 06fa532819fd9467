"""Births: who made a resource, and on which line, for kinds that cannot tell by themselves.

An entry costs about a microsecond and keeps nothing alive: objects are held by weak
reference, file descriptors by number with the identity of what they pointed to. The few
types that allow no weak reference (`sqlite3.Connection`) are remembered by address; a new
birth at the same address replaces the old entry.
"""

from __future__ import annotations

import os
import weakref
from _thread import get_ident
from collections import OrderedDict
from typing import Any, NamedTuple

from .model import Owner
from .origin import Raw, capture
from .ownership import current

__all__ = ["LEDGER", "Birth", "Ledger"]

#: Births of objects that just died, kept so that a warning about the death can be attributed.
_GRAVEYARD = 256


class Birth(NamedTuple):
    """One entry: the owner at birth and the raw stack."""

    owner: Owner | None
    made: Raw


class Ledger:
    """All births noted in this process."""

    def __init__(self) -> None:
        self.count = 0
        """Births so far: a tick for kinds whose number alone could hide an exchange."""
        self.muted = 0
        """The ident of a thread in which a runtime makes something for itself, or 0."""
        self._objects: dict[int, tuple[weakref.ref[Any] | type, Birth]] = {}
        self._fds: dict[int, tuple[tuple[int, int], Birth, int]] = {}
        self._pids: dict[int, Birth] = {}
        self._graveyard: OrderedDict[int, tuple[str, Birth]] = OrderedDict()

    def note(self, obj: object, skip: int = 1) -> None:
        """Note that ``obj`` was just made by the caller's caller (``skip`` frames up)."""
        if not self.muted or self.muted != get_ident():
            self.add(obj, Birth(current(), capture(skip + 1)))

    def add(self, obj: object, birth: Birth) -> None:
        """Enter a birth that was captured elsewhere."""
        self.count += 1
        key = id(obj)
        try:
            ref: weakref.ref[Any] | type = weakref.ref(obj, self._buried(key, type(obj).__name__))
        except TypeError:
            ref = type(obj)
        self._objects[key] = (ref, birth)

    def _buried(self, key: int, kind: str) -> Any:
        objects, graveyard = self._objects, self._graveyard

        def bury(ref: weakref.ref[Any]) -> None:
            entry = objects.get(key)
            if entry is not None and entry[0] is ref:
                del objects[key]
                graveyard[key] = (kind, entry[1])
                if len(graveyard) > _GRAVEYARD:
                    graveyard.popitem(last=False)

        return bury

    def of(self, obj: object) -> Birth | None:
        """Return the birth of a living object, or None."""
        entry = self._objects.get(id(obj))
        if entry is None:
            return None
        ref, birth = entry
        same = ref is type(obj) if isinstance(ref, type) else ref() is obj
        return birth if same else None

    def of_dying(self, obj: object) -> Birth | None:
        """Return the birth of an object whose finalizer is running (its weakrefs are gone)."""
        birth = self.of(obj)
        if birth is None:
            # An address is used again at once, but hardly for the same type while it is dying.
            kind, buried = self._graveyard.get(id(obj), ("", None))
            birth = buried if kind == type(obj).__name__ else None
        if birth is None:
            # A transport was born with its socket.
            part = getattr(obj, "_sock", None)
            birth = self.of(part) if part is not None else None
        return birth

    def note_fd(self, fd: int, skip: int = 1) -> None:
        """Note that file descriptor ``fd`` was just made without an object around it."""
        self.count += 1
        try:
            st = os.fstat(fd)
        except OSError:
            return
        birth = Birth(current(), capture(skip + 1))
        self._fds[fd] = ((st.st_dev, st.st_ino), birth, self.count)

    def hand_on(self, obj: object, fd: int) -> None:
        """Let a descriptor that leaves its object take the object's birth along."""
        birth = self.of(obj)
        if birth is None:
            return
        try:
            st = os.fstat(fd)
        except OSError:
            return
        self.count += 1
        self._fds[fd] = ((st.st_dev, st.st_ino), birth, self.count)

    def of_fd(self, fd: int, identity: tuple[int, int]) -> Birth | None:
        """Return the birth of ``fd`` if it still points to what it pointed to then."""
        entry = self._fds.get(fd)
        return entry[1] if entry is not None and entry[0] == identity else None

    def serial_of_fd(self, fd: int, identity: tuple[int, int]) -> int:
        """Return a number that no other birth of the same descriptor has, 0 if none was noted.

        All anonymous inodes (epoll, eventfd ...) are one inode: only this tells them apart.
        """
        entry = self._fds.get(fd)
        return entry[2] if entry is not None and entry[0] == identity else 0

    def note_pid(self, pid: int, skip: int = 1) -> None:
        """Note a child process that was made without an object around it."""
        self.count += 1
        self._pids[pid] = Birth(current(), capture(skip + 1))

    def of_pid(self, pid: int) -> Birth | None:
        """Return the birth of a child process."""
        return self._pids.get(pid)

    def clear(self) -> None:
        """Forget everything."""
        self._objects.clear()
        self._fds.clear()
        self._pids.clear()
        self._graveyard.clear()


#: The process's ledger. Births are process-wide because what they wrap is.
LEDGER = Ledger()
