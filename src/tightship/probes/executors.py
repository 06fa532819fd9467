"""Thread and process pools that were not shut down."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from ..model import Evidence, Key
from .base import ObjectProbe, target, weak
from .processes import plumbing

__all__ = ["ExecutorProbe"]


class ExecutorProbe(ObjectProbe):
    """A `concurrent.futures` executor that would still take work."""

    kind: ClassVar[str] = "executor"
    types: ClassVar[tuple[str, ...]] = (
        "concurrent.futures.thread:ThreadPoolExecutor",
        "concurrent.futures.process:ProcessPoolExecutor",
    )

    def install(self, patch: Any) -> None:
        """Note births of executors."""
        patch.when_imported(
            "concurrent.futures.thread",
            lambda m: patch.births(m.ThreadPoolExecutor),
        )
        patch.when_imported(
            "concurrent.futures.process",
            lambda m: patch.births(m.ProcessPoolExecutor),
        )

    def opened(self, obj: Any) -> bool:
        """Tell whether it has workers and was not shut down."""
        if getattr(obj, "_shutdown", False) or getattr(obj, "_shutdown_thread", False):
            return False
        # An executor that never ran anything holds nothing.
        return bool(getattr(obj, "_threads", None) or getattr(obj, "_processes", None))

    def covers(self, handle: Any) -> Iterable[Key]:
        """An executor takes its threads, or its processes and their plumbing, along."""
        executor = target(handle)
        if executor is None:
            return
        for thread in list(getattr(executor, "_threads", None) or ()):
            yield weak(thread)
            yield ("object", id(thread))
            yield ("tid", thread.native_id)
        manager = getattr(executor, "_executor_manager_thread", None)
        if manager is not None:
            yield weak(manager)
        for process in list((getattr(executor, "_processes", None) or {}).values()):
            yield ("pid", process.pid)
            yield ("object", id(process))
        feeder = getattr(getattr(executor, "_call_queue", None), "_thread", None)
        if feeder is not None:
            yield weak(feeder)
            yield ("object", id(feeder))
        if hasattr(executor, "_processes"):
            yield from _plumbing(executor)

    def explain(self, handle: Any) -> Evidence:
        """Say how many workers it has and whether they are at work."""
        executor = target(handle)
        if executor is None:
            return Evidence("an executor that is gone")
        evidence = Evidence(f"executor {type(executor).__name__}")
        threads = getattr(executor, "_threads", None)
        if threads is not None:
            names = ", ".join(sorted(t.name for t in list(threads))[:3])
            more = f" and {len(threads) - 3} more" if len(threads) > 3 else ""
            evidence.facts.append(("workers", f"{len(threads)}: {names}{more}"))
            waiting = executor._work_queue.qsize()
            if waiting:
                evidence.facts.append(("queued", f"{waiting} job(s) not begun"))
        else:
            pids = list(executor._processes or ())
            evidence.facts.append(("workers", f"{len(pids)}: " + ", ".join(map(str, pids[:5]))))
        return evidence


def _plumbing(executor: Any) -> Iterable[Key]:
    """Name the pipes that a process pool talks through."""
    from .base import fd_key

    for name in ("_call_queue", "_result_queue", "_executor_manager_thread_wakeup"):
        part = getattr(executor, name, None)
        for end in ("_reader", "_writer"):
            connection = getattr(part, end, None)
            try:
                key = fd_key(connection.fileno()) if connection is not None else None
            except (OSError, ValueError):
                continue
            if key is not None:
                yield key
    for process in list((getattr(executor, "_processes", None) or {}).values()):
        yield from plumbing(process)
