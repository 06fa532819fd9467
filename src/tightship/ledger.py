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


class _Entry(weakref.ref[Any]):
    """A weak reference to an object that was born, with its birth."""

    __slots__ = ("birth", "key", "kind")

    birth: Birth
    key: int
    kind: str


class Ledger:
    """All births noted in this process."""

    def __init__(self) -> None:
        self.count = 0
        """Births so far, the number of the latest one."""
        self.pids = 0
        """Child processes so far."""
        self.events = 0
        """Things that happened and have to be judged: whoever records one adds one here."""
        self.muted = 0
        """The ident of a thread in which a runtime makes something for itself, or 0."""
        self._objects: dict[int, _Entry | tuple[type, Birth]] = {}
        self._fds: dict[int, tuple[tuple[int, int], Birth, int]] = {}
        self._fresh: set[int] = set()
        self._pids: dict[int, Birth] = {}
        self._graveyard: OrderedDict[int, tuple[str, Birth]] = OrderedDict()
        self._bury = self._buried
        self._recent: tuple[Birth, ...] = ()

    def happened(self) -> int:
        """Return `events`: the tick of kinds that record what happens."""
        return self.events

    def note(self, obj: object, skip: int = 1) -> weakref.ref[Any] | None:
        """Note that ``obj`` was just made by the caller's caller (``skip`` frames up).

        Returns the weak reference that the entry holds, None for types that allow none.
        """
        if self.muted and self.muted == get_ident():
            return None
        owner, made = current(), capture(skip + 1)
        # A thousand births on one line, in a pool or a pair each, are one entry in memory.
        for birth in self._recent:
            if birth.owner is owner and birth.made == made:
                return self.add(obj, birth)
        birth = Birth(owner, made)
        self._recent = (birth, *self._recent[:1])
        return self.add(obj, birth)

    def add(self, obj: object, birth: Birth) -> weakref.ref[Any] | None:
        """Enter a birth that was captured elsewhere."""
        self.count += 1
        key = id(obj)
        try:
            entry = _Entry(obj, self._bury)
        except TypeError:
            self._objects[key] = (type(obj), birth)
            return None
        entry.birth = birth
        entry.key = key
        entry.kind = type(obj).__name__
        self._objects[key] = entry
        return entry

    def _buried(self, entry: _Entry) -> None:
        key = entry.key
        if self._objects.get(key) is entry:
            del self._objects[key]
            graveyard = self._graveyard
            graveyard[key] = (entry.kind, entry.birth)
            if len(graveyard) > _GRAVEYARD:
                graveyard.popitem(last=False)

    def of(self, obj: object) -> Birth | None:
        """Return the birth of a living object, or None."""
        entry = self._objects.get(id(obj))
        if entry is None:
            return None
        if isinstance(entry, tuple):
            return entry[1] if entry[0] is type(obj) else None
        return entry.birth if entry() is obj else None

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
        self._fresh.add(fd)

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
        self._fresh.add(fd)

    def fresh_fds(self) -> tuple[int, ...]:
        """Return descriptors noted since `settled` that are still what they were then.

        Their number alone would not tell of one that took the place of another.
        """
        for fd in list(self._fresh):
            try:
                st = os.fstat(fd)
            except OSError:
                self._fresh.discard(fd)
                continue
            if self._fds[fd][0] != (st.st_dev, st.st_ino):
                self._fresh.discard(fd)
        return tuple(sorted(self._fresh))

    def settled(self) -> None:
        """Take all noted descriptors as known."""
        self._fresh.clear()

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
        self.pids += 1
        self._pids[pid] = Birth(current(), capture(skip + 1))

    def of_pid(self, pid: int) -> Birth | None:
        """Return the birth of a child process."""
        return self._pids.get(pid)

    def clear(self) -> None:
        """Forget everything."""
        self._objects.clear()
        self._fds.clear()
        self._fresh.clear()
        self._pids.clear()
        self._graveyard.clear()
        self._recent = ()


#: The process's ledger. Births are process-wide because what they wrap is.
LEDGER = Ledger()
