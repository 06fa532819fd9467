"""Open file descriptors: counted in a microsecond, listed only when the count moved.

Shared by the kinds that are told apart by what a descriptor points to. A kept descriptor of
``/proc/self/fd`` answers `os.fstat` with the number of open descriptors whatever that number
is (Linux 6.2 and later); elsewhere the directory is listed.
"""

from __future__ import annotations

import os
import posix
import stat
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from .. import explain
from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Owner, Scene
from .base import BaseProbe, FdKey, fd_key, target, weak

__all__ = ["OWN", "TABLE", "FdHandle", "FdKindProbe", "FdTable"]

#: Descriptors that Tightship itself keeps open, by who keeps them: never shown, never a leak.
OWN: dict[object, int] = {}

# The originals: what Tightship does itself is no birth, whatever `os` holds by then.
_fstat, _open = posix.fstat, posix.open

#: Where our own descriptors are moved, so that the lowest free number stays a test's own.
_HIGH = 200


class FdTable:
    """Reads the process's descriptor table."""

    def __init__(self) -> None:
        self._dir = -1
        self._identity: tuple[int, int] = (0, 0)
        self._exact = False
        self._listed = False
        self._listing: list[tuple[FdKey, int, int]] | None = None
        self._keys: dict[int, FdKey] = {}
        self.losses = 0
        """How often somebody closed our descriptors behind our back."""

    def open(self) -> None:
        """Open the kept descriptor (again, after a fork or if a test closed it)."""
        for path in ("/proc/self/fd", "/dev/fd"):
            try:
                low = _open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            self._dir = keep(low, self)
            st = os.fstat(self._dir)
            self._identity = (st.st_dev, st.st_ino)
            # Older kernels say 0: then the directory has to be listed.
            self._exact = path == "/proc/self/fd" and st.st_size > 0
            return
        self._dir = -1

    def close(self) -> None:
        """Close what `open` opened."""
        release(self, self._dir, self._identity[1])
        self._dir = -1
        self._keys = {}

    def tick(self) -> Hashable:
        """Return the number of open descriptors: about 1.2 us, however many there are.

        With descriptors among them that Python code made without an object since the last
        look, if they are still open: the number alone could hide an exchange.
        """
        try:
            st = _fstat(self._dir)
        except OSError:
            return self._reopened()
        if st.st_ino != self._identity[1]:
            return self._reopened()
        count = st.st_size if self._exact else len(self.numbers())
        if LEDGER._fresh and (fresh := LEDGER.fresh_fds()):
            return (count, fresh)
        return count

    def _reopened(self) -> int:
        # Somebody closed all descriptors, ours among them (os.closerange).
        OWN.pop(self, None)
        self._dir = -1
        self.losses += 1
        self.open()
        return -1

    @contextmanager
    def listed(self) -> Iterator[None]:
        """Read the table once for all kinds that ask within the block."""
        self._listing = None
        self._listed = True
        try:
            yield
        finally:
            self._listed = False
            self._listing = None

    def numbers(self) -> list[int]:
        """Return the numbers of all open descriptors but our own."""
        try:
            names = os.listdir("/proc/self/fd")
        except OSError:
            try:
                names = os.listdir("/dev/fd")
            except OSError:
                return [fd for fd in range(256) if _is_open(fd)]
        own = set(OWN.values())
        return [fd for fd in map(int, names) if fd not in own]

    def entries(self) -> Sequence[tuple[FdKey, int, int]]:
        """Return (key, fd, mode) for every open descriptor but our own.

        Nor those of standard input, output and error: what they point to changes with the
        runner's capturing, and who opened it is not in this process.
        """
        if self._listing is not None:
            return self._listing
        entries: list[tuple[FdKey, int, int]] = []
        fstat, serial_of = _fstat, LEDGER.serial_of_fd
        # Many keep the keys of many descriptors: equal ones are one object.
        before, self._keys = self._keys, {}
        for fd in self.numbers():
            if fd <= 2:
                continue
            try:
                st = fstat(fd)
            except OSError:  # the listing's own descriptor
                continue
            key = "fd", fd, st.st_dev, st.st_ino, serial_of(fd, (st.st_dev, st.st_ino))
            if before.get(fd) == key:
                key = before[fd]
            self._keys[key[1]] = key
            entries.append((key, key[1], st.st_mode))
        if self._listed:
            self._listing = entries
        return entries


def keep(low: int, who: object) -> int:
    """Move one of our descriptors out of the low numbers and mark it as our own."""
    import fcntl

    try:
        high = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        os.close(low)
    except OSError:
        high = low
    OWN[who] = high
    return high


def release(who: object, fd: int, inode: int) -> None:
    """Close one of our descriptors, unless its number means something else by now."""
    OWN.pop(who, None)
    try:
        if _fstat(fd).st_ino == inode:
            os.close(fd)
    except OSError:
        pass


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


TABLE = FdTable()


class FdHandle(NamedTuple):
    """An open descriptor and, if the window knows one, the object that holds it."""

    key: FdKey
    holder: Any
    """A weak reference or None."""

    @property
    def fd(self) -> int:
        """The number."""
        return self.key[1]


class FdKindProbe(BaseProbe):
    """A kind told apart by what its descriptors point to."""

    matches: ClassVar[Callable[[int], bool]]

    def __init__(self) -> None:
        # One reading serves all kinds of descriptors: the watch asks equal ticks once.
        self.tick = TABLE.tick  # type: ignore[method-assign]
        self._bare: frozenset[FdKey] = frozenset()

    def tick(self) -> Hashable:
        """Count all descriptors."""
        return TABLE.tick()

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return all descriptors of this kind, with their objects where the window has them."""
        holders: dict[int, Any] = {}
        for objects in scene.objects.values():
            for obj in objects:
                fd = self.fileno(obj)
                if fd >= 0:
                    holders[fd] = weak(obj)
        matches = type(self).matches
        keys = [key for key, _, mode in TABLE.entries() if matches(stat.S_IFMT(mode))]
        bare = frozenset([key for key in keys if key[1] not in holders])
        if not bare <= self._bare:
            # A broken window lists nothing (a pytest run within a test leaves it so). Whoever
            # was born under our eyes can be found all the same.
            for fd, obj in self._born():
                holders.setdefault(fd, weak(obj))
        self._bare = bare
        return {key: FdHandle(key, holders.get(key[1])) for key in keys}

    def _born(self) -> Iterator[tuple[int, Any]]:
        wanted = []
        for name in self.types:
            module, _, attribute = name.partition(":")
            kind = getattr(sys.modules.get(module), attribute, None)
            if isinstance(kind, type):
                wanted.append(kind)
        kinds = tuple(wanted)
        for entry in list(LEDGER._objects.values()):
            obj = None if isinstance(entry, tuple) else entry()
            if obj is None or not isinstance(obj, kinds):
                continue
            try:
                fd = self.fileno(obj)
            except (OSError, ValueError):
                continue
            if fd >= 0:
                yield fd, obj

    def fileno(self, obj: Any) -> int:
        """Return an object's descriptor, -1 if it is closed or not its own."""
        return int(obj.fileno())

    def opened(self, obj: Any) -> bool:
        """Tell whether an object of the window holds an open descriptor."""
        return self.fileno(obj) >= 0

    def alive(self, handle: FdHandle) -> bool:
        """Tell whether the number still points to the same thing."""
        return fd_key(handle.fd) == handle.key

    def birth(self, handle: FdHandle) -> Birth | None:
        """Ask the object's entry first, then the number's."""
        obj = target(handle.holder) if handle.holder is not None else None
        birth = LEDGER.of(obj) if obj is not None else None
        return birth or LEDGER.of_fd(handle.fd, handle.key[2:4])

    def unseen(self, handle: FdHandle) -> bool:
        """Tell whether no Python code is known to have made it."""
        return handle.holder is None and self.birth(handle) is None

    def owner(self, handle: FdHandle) -> Owner | None:
        """Return the owner in the birth entry."""
        birth = self.birth(handle)
        return None if birth is None else birth.owner

    def covers(self, handle: FdHandle) -> Iterable[Key]:
        """An object and its descriptor end together."""
        obj = target(handle.holder) if handle.holder is not None else None
        return () if obj is None else (("object", id(obj)),)

    def label(self, handle: FdHandle) -> str:
        """Return what it points to."""
        info = explain.fds.classify(handle.fd)
        return "?" if info is None else info.kind

    def explain(self, handle: FdHandle) -> Evidence:
        """Describe the descriptor."""
        info = explain.fds.classify(handle.fd)
        if info is None:
            return Evidence(f"fd {handle.fd}")
        return Evidence(f"{info.kind} (fd {handle.fd})", [("points to", info.target)])
