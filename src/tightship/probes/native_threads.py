"""Threads that Python does not know: made by C code, or by `_thread` directly."""

from __future__ import annotations

import os
import posix
import sys
import threading
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar, NamedTuple

from ..model import Evidence, Key, Scene
from ..runtimes import sentry
from . import watchdog
from .base import BaseProbe, digits
from .fdtable import OWN, keep, release

__all__ = ["NativeThreadProbe"]

_TASKS = "/proc/self/task"


class _Native(NamedTuple):
    tid: int
    started: str
    name: str


class NativeThreadProbe(BaseProbe):
    """An operating system thread without a `threading.Thread`."""

    kind: ClassVar[str] = "native-thread"

    def __init__(self) -> None:
        self._dir = -1
        self._identity = 0

    def install(self, patch: Any) -> None:
        """Learn which thread is faulthandler's watchdog: pytest may start one for each test."""
        watchdog.install(patch)

    def tick(self) -> Hashable:
        """Return the number of operating system threads: 1 us through a kept descriptor."""
        try:
            st = posix.fstat(self._dir)
        except OSError:
            return self._open()
        if st.st_ino != self._identity:
            OWN.pop(self, None)
            return self._open()
        return st.st_nlink - len(watchdog.TIDS) - len(sentry.TIDS)

    def _open(self) -> int:
        try:
            low = posix.open(_TASKS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._dir = keep(low, self)
            st = posix.fstat(self._dir)
        except OSError:
            return 0
        self._identity = st.st_ino
        return st.st_nlink - len(watchdog.TIDS) - len(sentry.TIDS)

    def close(self) -> None:
        """Close the kept descriptor."""
        release(self, self._dir, self._identity)
        self._dir = -1

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return threads that Python has no object for."""
        known = {t.native_id for t in threading._active.copy().values()}  # type: ignore[attr-defined]
        found: dict[Key, Any] = {}
        try:
            tids = [int(t) for t in os.listdir(_TASKS)]
        except OSError:
            return {}
        main = os.getpid()
        for tid in tids:
            if tid in known or tid == main or tid in watchdog.TIDS or tid in sentry.TIDS:
                continue
            native = _read(tid)
            if native is not None:
                found[("tid", tid)] = native
        return found

    def alive(self, handle: _Native) -> bool:
        """Tell whether the same thread is still there."""
        return _read(handle.tid) == handle

    def owner(self, handle: _Native) -> None:
        """Nobody notes the birth of a native thread."""
        return

    def made(self, handle: _Native) -> None:
        """Nobody notes the birth of a native thread."""
        return

    def doubt(self, handle: _Native) -> str:
        """Doubt all: C libraries make pools once per process, and mostly cannot end them."""
        return "made by code that Tightship cannot see"

    def label(self, handle: _Native) -> str:
        """Return the name it gave itself, without numbers."""
        return digits(handle.name)

    def explain(self, handle: _Native) -> Evidence:
        """Say its name."""
        evidence = Evidence(f"native thread {handle.name!r}")
        python = len(sys._current_frames()) - len(threading._active)  # type: ignore[attr-defined]
        if python > 0:
            evidence.facts.append(
                ("runs", "perhaps Python code: some thread was started through _thread directly")
            )
        evidence.facts.append(("tid", str(handle.tid)))
        return evidence


def _read(tid: int) -> _Native | None:
    try:
        fd = posix.open(f"{_TASKS}/{tid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = posix.read(fd, 4096).decode(errors="replace")
    except OSError:
        return None
    finally:
        posix.close(fd)
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if fields and fields[0] in ("Z", "X"):
        return None
    name = head.partition("(")[2]
    return _Native(tid, fields[19] if len(fields) > 19 else "", name)
