"""What most probes share: sensible answers for everything optional."""

from __future__ import annotations

import weakref
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar, Literal

from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Owner, Scene
from ..origin import Raw

__all__ = ["BaseProbe", "FdKey", "ObjectProbe", "digits", "fd_key", "target"]

#: What names a descriptor: ``("fd", number, device, inode, serial of its birth)``.
FdKey = tuple[str, int, int, int, int]


class BaseProbe:
    """Answers for a probe that only lists things."""

    kind: ClassVar[str]
    scope: ClassVar[Literal["loop", "process"]] = "process"
    types: ClassVar[tuple[str, ...]] = ()

    def install(self, patch: Any) -> None:
        """Patch nothing."""

    def tick(self) -> Hashable:
        """Never asks for a closer look by itself."""
        return 0

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """List nothing."""
        return {}

    def alive(self, handle: Any) -> bool:
        """Assume it is."""
        return True

    def birth(self, handle: Any) -> Birth | None:
        """Look the handle's object up in the ledger."""
        obj = target(handle)
        return None if obj is None else LEDGER.of(obj)

    def owner(self, handle: Any) -> Owner | None:
        """Return the owner in the birth entry."""
        birth = self.birth(handle)
        return None if birth is None else birth.owner

    def made(self, handle: Any) -> Raw | None:
        """Return the stack in the birth entry."""
        birth = self.birth(handle)
        return None if birth is None else birth.made

    def doubt(self, handle: Any) -> str:
        """Return why this one may not be its owner's fault; empty if there is no doubt.

        A survivor in doubt is only ``possible``.
        """
        return ""

    def label(self, handle: Any) -> str:
        """Return the type's name."""
        return type(target(handle)).__name__

    def covers(self, handle: Any) -> Iterable[Key]:
        """Cover nothing but itself."""
        return ()

    def explain(self, handle: Any) -> Evidence:
        """Say no more than what it is."""
        return Evidence(f"{self.kind} {self.label(handle)}")

    def forget(self, key: Key) -> None:
        """Drop a reported event. Only probes that record events need this."""


class ObjectProbe(BaseProbe):
    """A kind whose instances the window lists: alive, tracked objects of known types."""

    def opened(self, obj: Any) -> bool:
        """Tell whether this object still holds what it was made for."""
        raise NotImplementedError

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return the open ones of the window's objects."""
        found: dict[Key, Any] = {}
        for objects in scene.objects.values():
            for obj in objects:
                if self.opened(obj):
                    found[("object", id(obj))] = weak(obj)
        return found

    def alive(self, handle: Any) -> bool:
        """Tell whether the object is there and open."""
        obj = target(handle)
        return obj is not None and self.opened(obj)


def weak(obj: Any) -> Any:
    """Return a weak reference, or the object itself if its type allows none."""
    try:
        return weakref.ref(obj)
    except TypeError:
        return obj


def target(handle: Any) -> Any:
    """Return the object behind a handle (None if it died)."""
    return handle() if isinstance(handle, weakref.ref) else handle


def fd_key(fd: int) -> FdKey | None:
    """Return the canonical key of an open file descriptor, or None if it is closed."""
    import os

    try:
        st = os.fstat(fd)
    except (OSError, ValueError, OverflowError):
        return None
    return ("fd", fd, st.st_dev, st.st_ino, LEDGER.serial_of_fd(fd, (st.st_dev, st.st_ino)))


def digits(text: str) -> str:
    """Erase numbers that change from run to run: ``Thread-12`` becomes ``Thread-*``."""
    import re

    return re.sub(r"\d+", "*", text)
