"""Child processes: running, or ended and not waited for (zombies)."""

from __future__ import annotations

import io
import os
import posix
import stat
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple

from .. import explain, forks
from ..ledger import LEDGER, Birth
from ..model import Evidence, Key, Scene
from .base import BaseProbe, digits, fd_key, target, weak
from .fdtable import OWN, TABLE, keep, release

__all__ = ["ProcessProbe"]

_ANY = getattr(os, "P_ALL", 0)
# The original: what Tightship does itself passes by whoever replaced it.
_pread = posix.pread
_PEEK = getattr(os, "WEXITED", 0) | getattr(os, "WNOHANG", 0) | getattr(os, "WNOWAIT", 0)


class _Child(NamedTuple):
    pid: int
    holder: Any
    """A weak reference to the Popen or Process object, or None."""


class ProcessProbe(BaseProbe):
    """A child of this process that was not waited for."""

    kind: ClassVar[str] = "process"
    types: ClassVar[tuple[str, ...]] = (
        "subprocess:Popen",
        "multiprocessing.process:BaseProcess",
        "uvloop.loop:UVProcessTransport",
        "asyncio.base_subprocess:BaseSubprocessTransport",
    )

    def __init__(self) -> None:
        self._noted = -1
        self._some = True
        self._children = -1
        self._identity = (0, 0)
        self._losses = 0

    def install(self, patch: Any) -> None:
        """Note births through every door that leads to a new process."""

        def born(obj: Any) -> None:
            LEDGER.note(obj, skip=2)
            pid = _pid(obj)
            if pid:
                # Its object may be gone long before the child is.
                LEDGER.note_pid(pid, skip=2)

        def born_pid(pid: int) -> None:
            if pid:
                LEDGER.note_pid(pid, skip=2)

        patch.when_imported("subprocess", lambda m: patch.after_method(m.Popen, "__init__", born))
        patch.when_imported(
            "multiprocessing.process", lambda m: patch.after_method(m.BaseProcess, "start", born)
        )
        for name in ("posix_spawn", "posix_spawnp"):
            patch.after_builtin(os, name, born_pid)
        where = self.kind

        def forked() -> None:
            try:
                pid = _youngest()
                if pid:
                    LEDGER.note_pid(pid, skip=2)
            except Exception as exc:
                patch.fault(exc, where)

        forks.IN_PARENT.append(forked)
        patch.on_undo(lambda: forks.IN_PARENT.remove(forked))

    def tick(self) -> Hashable:
        """Return what may have changed about our children, 0 while there are none.

        The kernel is asked once a birth was noted, and as long as there are children: its list
        for the main thread is one read, and those of other threads count by their births. A
        child that C code made by itself is seen when anything else moves, and in the end.
        """
        if self._noted == LEDGER.pids and not self._some:
            return 0
        self._noted = LEDGER.pids
        try:
            if self._losses != TABLE.losses:
                self._check()
            listed = _pread(self._children, 65536, 0)
        except OSError:
            listed = self._open()
        self._some = bool(listed)
        return (listed, LEDGER.pids) if listed else 0

    def _check(self) -> None:
        """Raise OSError if the kept descriptor was closed together with others of ours."""
        self._losses = TABLE.losses
        st = posix.fstat(self._children)
        if (st.st_dev, st.st_ino) != self._identity:
            raise OSError

    def _open(self) -> bytes:
        # Closed behind our back, or never opened.
        OWN.pop(self, None)
        try:
            pid = os.getpid()
            low = posix.open(f"/proc/self/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
            self._children = keep(low, self)
            st = posix.fstat(self._children)
            self._identity = (st.st_dev, st.st_ino)
            return _pread(self._children, 65536, 0)
        except OSError:  # a kernel without such lists, or no /proc at all
            self._children = -1
            return repr(_pids()).encode() if _any() else b""

    def close(self) -> None:
        """Close the kept descriptor."""
        release(self, self._children, self._identity[1])
        self._children = -1

    def opened(self, obj: Any) -> bool:
        """Leave the decision to the list of children."""
        return False

    def snapshot(self, scene: Scene) -> Mapping[Key, Any]:
        """Return all children, with their objects where the window has them."""
        holders: dict[int, Any] = {}
        for objects in scene.objects.values():
            for obj in objects:
                pid = _pid(obj)
                if pid:
                    holders[pid] = weak(obj)
        return {("pid", pid): _Child(pid, holders.get(pid)) for pid in _pids()}

    def alive(self, handle: _Child) -> bool:
        """Tell whether it is still our child."""
        obj = target(handle.holder) if handle.holder is not None else None
        poll = getattr(obj, "poll", None)
        if poll is not None:
            # What `Popen.__del__` would do: collect the status if there is one.
            poll()
        return handle.pid in _pids()

    def birth(self, handle: _Child) -> Birth | None:
        """Ask the object's entry, then the number's."""
        obj = target(handle.holder) if handle.holder is not None else None
        birth = LEDGER.of(obj) if obj is not None else None
        return birth or LEDGER.of_pid(handle.pid)

    def label(self, handle: _Child) -> str:
        """Return the program's name, or a `multiprocessing.Process`'s own."""
        obj = target(handle.holder) if handle.holder is not None else None
        if obj is not None and hasattr(obj, "_parent_pid"):
            return digits(str(obj.name))
        info = explain.processes.describe(handle.pid)
        return "?" if info is None else _program(info.command)

    def covers(self, handle: _Child) -> Iterable[Key]:
        """A process takes its object and its pipes along."""
        yield from _pidfds(handle.pid)
        obj = target(handle.holder) if handle.holder is not None else None
        if obj is None:
            return
        yield ("object", id(obj))
        yield from plumbing(obj)
        for name in ("stdin", "stdout", "stderr"):
            stream = getattr(obj, name, None)
            try:
                key = fd_key(stream.fileno()) if stream is not None else None
            except (OSError, ValueError, AttributeError):
                continue
            if key is not None:
                yield key
        for transport in (getattr(obj, "_pipes", None) or {}).values():
            yield ("object", id(getattr(transport, "pipe", None)))
        popen = getattr(obj, "_proc", None) or getattr(obj, "_popen", None)
        if popen is not None:
            yield ("object", id(popen))

    def explain(self, handle: _Child) -> Evidence:
        """Say command line and state."""
        info = explain.processes.describe(handle.pid)
        if info is None:
            return Evidence(f"process {handle.pid}")
        what = "zombie process" if info.state == "zombie" else "process"
        evidence = Evidence(f"{what} {self.label(handle).rpartition('.<locals>.')[2]!r}")
        evidence.facts.append(("state", f"{info.state}, pid {handle.pid}"))
        if info.command:
            evidence.facts.append(("command", info.command))
        obj = target(handle.holder) if handle.holder is not None else None
        module = type(obj).__module__ if obj is not None else ""
        if info.state == "zombie":
            evidence.fix = "collect its exit status: wait() or communicate() on the process object"
        elif "multiprocessing" in module:
            evidence.fix = "process.terminate() if need be, then process.join() and process.close()"
        elif obj is None and self.birth(handle) is None:
            evidence.fix = "end it and wait for it where it was started"
        return evidence


def plumbing(process: Any) -> Iterable[Key]:
    """Name the descriptors that a `multiprocessing.Process` keeps until it is closed."""
    popen = getattr(process, "_popen", None)
    numbers = [getattr(popen, "sentinel", None)]
    args = getattr(getattr(popen, "finalizer", None), "_args", None) or ((),)
    numbers += args[0] if isinstance(args[0], (list, tuple)) else args
    for fd in numbers:
        key = fd_key(fd) if isinstance(fd, int) else None
        if key is not None:
            yield key


def _pidfds(pid: int) -> Iterable[Key]:
    """Name the descriptors through which somebody (asyncio, say) waits for a child."""
    for key, fd, mode in TABLE.entries():
        if stat.S_IFMT(mode) in (stat.S_IFREG, 0):  # of pidfs, or an anonymous inode
            try:
                with io.open_code(f"/proc/self/fdinfo/{fd}") as file:
                    text = file.read()
            except OSError:
                continue
            if b"\nPid:\t%d\n" % pid in text:
                yield key


def _program(command: str) -> str:
    """Return a command line's program: ``python -m http.server`` is http.server."""
    words = command.split()
    if not words:
        return "?"
    if "-m" in words[1:4]:
        after = words[words.index("-m") + 1 :]
        if after:
            return after[0]
    if "multiprocessing.resource_tracker import" in command:
        return "multiprocessing.resource_tracker"
    if "multiprocessing.forkserver import" in command:
        return "multiprocessing.forkserver"
    return os.path.basename(words[0].strip("[]"))


def _pid(obj: Any) -> int:
    try:
        pid = obj.pid if hasattr(obj, "pid") else obj.get_pid()
    except Exception:
        return 0
    return pid if isinstance(pid, int) else 0


def _youngest() -> int:
    """Return this thread's latest child, 0 if nobody can tell."""
    try:
        fd = posix.open("/proc/thread-self/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        pids = posix.read(fd, 65536).split()
    finally:
        posix.close(fd)
    return int(pids[-1]) if pids else 0


def _any() -> bool:
    """Tell whether there is a child at all."""
    try:
        os.waitid(_ANY, 0, _PEEK)
    except ChildProcessError:
        return False
    except (AttributeError, OSError):
        return True
    return True


def _pids() -> list[int]:
    """Return our children by number, zombies included."""
    found: list[int] = []
    try:
        tids = os.listdir("/proc/self/task")
    except OSError:
        return _portable()
    for tid in tids:
        try:
            fd = posix.open(f"/proc/self/task/{tid}/children", os.O_RDONLY)
        except OSError:
            continue
        try:
            found += [int(p) for p in os.read(fd, 65536).split()]
        except OSError:
            pass
        finally:
            posix.close(fd)
    return sorted(found)


def _portable() -> list[int]:
    """Ask psutil, where there is no /proc."""
    try:
        import psutil
    except ImportError:
        return []
    try:
        return sorted(p.pid for p in psutil.Process().children())
    except psutil.Error:
        return []
