"""One file per kind of resource. A new kind is a new file and a new line below."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["KINDS", "LOOP", "MOMENTS", "PROCESS", "load"]

#: Kinds that belong to an event loop; loaded when asyncio is imported.
#: The order matters where kinds overlap: the first one that names a resource keeps it.
LOOP: dict[str, str] = {
    "task": "tightship.probes.tasks:TaskProbe",
    "child": "tightship.probes.children:ChildProbe",
    "server": "tightship.probes.servers:ServerProbe",
    "transport": "tightship.probes.transports:TransportProbe",
    "reader": "tightship.probes.readers:ReaderProbe",
    "timer": "tightship.probes.timers:TimerProbe",
    "asyncgen": "tightship.probes.asyncgens:AsyncGeneratorProbe",
}

#: Kinds that belong to the process.
PROCESS: dict[str, str] = {
    "lost-task": "tightship.probes.lost_tasks:LostTaskProbe",
    "coroutine": "tightship.probes.coroutines:CoroutineProbe",
    "unclosed": "tightship.probes.unclosed:UnclosedProbe",
    "exception": "tightship.probes.exceptions:ExceptionProbe",
    "loop": "tightship.probes.loops:LoopProbe",
    "executor": "tightship.probes.executors:ExecutorProbe",
    "process": "tightship.probes.processes:ProcessProbe",
    "thread": "tightship.probes.threads:ThreadProbe",
    "native-thread": "tightship.probes.native_threads:NativeThreadProbe",
    "sqlite3": "tightship.probes.sqlite:SqliteProbe",
    "shared-memory": "tightship.probes.shared_memory:SharedMemoryProbe",
    "mmap": "tightship.probes.mmaps:MmapProbe",
    "tempfile": "tightship.probes.tempfiles:TempfileProbe",
    "socket": "tightship.probes.sockets:SocketProbe",
    "pipe": "tightship.probes.pipes:PipeProbe",
    "file": "tightship.probes.files:FileProbe",
    "fd": "tightship.probes.fds:FdProbe",
}

#: Parts of another kind: a lost task is a task to its author, a loop's child a process.
_PARTS = ("lost-task", "child")

#: Every kind there is.
KINDS: tuple[str, ...] = tuple(k for k in (*LOOP, *PROCESS) if k not in _PARTS)

#: Kinds of findings that are no survivors, and that no probe lists: they are noticed while a test
#: runs. Thresholds and allow rules may name them.
MOMENTS: tuple[str, ...] = ("blocked-loop",)


def load(kind: str) -> Any:
    """Return a new probe of this kind."""
    module, _, name = {**LOOP, **PROCESS}[kind].partition(":")
    return getattr(import_module(module), name)()
