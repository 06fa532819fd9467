"""Known behaviour of libraries and runtimes, as data: what they leave behind on purpose.

Each entry has to be so narrow that a user's own leak of the same kind is still found: by a
name that only the library gives, by the code that runs, or by the file that made it. What
cannot be told from a user's own (a pool's threads named after the program, say) is not here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .model import Finding

__all__ = ["KNOWN", "Known", "match", "matches"]


@dataclass(frozen=True, slots=True)
class Known:
    """One behaviour. All conditions that are given must hold."""

    kind: str
    label: str
    """Pattern for the whole label (`fnmatch`, case matters)."""
    reason: str
    module: str = ""
    """Only if this module has been imported."""
    made: str = ""
    """Pattern for a file of the stack that made it (``anyio/*``)."""
    running: str = ""
    """Regular expression for a thread's ``running`` fact: what its stack begins with."""
    command: str = ""
    """Pattern for a process's command line."""
    unseen: bool = False
    """Only if no birth was noted: Python code did not make it."""
    count: int | None = None
    """At most that many in one process; None for any number."""


_IDLE = "an idle worker of {}, kept for the next call"
_DEBUGGER = "part of the debugger that is attached"

#: What is known, by kind.
KNOWN: tuple[Known, ...] = (
    Known(
        "task",
        "_shutdown_process_pool_on_exit",
        "anyio ends its pool of worker processes when the loop cancels this task at its close",
        module="anyio",
    ),
    Known(
        "timer",
        "_weakref_handle",
        "aiohttp's timer for idle connections holds its connector weakly and does nothing "
        "once that is gone",
        module="aiohttp",
    ),
    # -- threads -------------------------------------------------------------------------
    Known(
        "thread",
        "asyncio_*",
        _IDLE.format("the event loop's default executor"),
        running=r"^\S*concurrent/futures/thread\.py:\d+   work_item = work_queue\.get\(",
    ),
    Known(
        "thread",
        "asyncio-waitpid-*",
        "asyncio's thread that waits for a child process; it ends with the child",
        running=r"^\S*asyncio/unix_events\.py:",
    ),
    Known(
        "thread",
        "waitpid-*",
        "asyncio's thread that waits for a child process; it ends with the child",
        running=r"^\S*asyncio/unix_events\.py:",
    ),
    Known(
        "thread",
        "Trio thread *",
        # Trio gives a worker this name while it is idle, and the job's name while it works.
        _IDLE.format("trio's thread cache"),
        module="trio",
    ),
    Known(
        "thread",
        "AnyIO worker thread",
        _IDLE.format("anyio.to_thread"),
        module="anyio",
        running=r"^\S*threading\.py:\d+   [^<]*<- \S*queue\.py:\d+ <- \S*anyio/_backends/",
    ),
    Known(
        "thread",
        "pytest_timeout *",
        "pytest-timeout's timer for the test that is running",
        module="pytest_timeout",
    ),
    Known(
        "thread",
        "ServerStatusDB.run_server",
        "pytest-rerunfailures keeps count of reruns across pytest-xdist's workers",
        module="pytest_rerunfailures",
    ),
    Known(
        "thread",
        "ServerStatusDB.run_connection",
        "pytest-rerunfailures keeps count of reruns across pytest-xdist's workers",
        module="pytest_rerunfailures",
    ),
    Known(
        "thread",
        "TMonitor",
        "tqdm's monitor: one per process, for all progress bars",
        module="tqdm",
        count=1,
    ),
    Known(
        "thread",
        "IPythonHistorySavingThread",
        "IPython's writer of the history",
        module="IPython",
    ),
    Known(
        "thread",
        "sentry-sdk.*",
        "sentry-sdk's background worker, one per process",
        module="sentry_sdk",
    ),
    Known(
        "thread",
        "raven-sentry.*",
        "sentry-sdk's background worker, one per process",
        module="sentry_sdk",
    ),
    Known(
        "thread",
        "sentry.*",
        "sentry-sdk's background worker, one per process",
        module="sentry_sdk",
    ),
    Known(
        "thread",
        "OtelBatch*",
        "OpenTelemetry's batch processor, ended at exit",
        module="opentelemetry",
    ),
    Known(
        "thread",
        "OtelPeriodicExportingMetricReader",
        "OpenTelemetry's metric reader, ended at exit",
        module="opentelemetry",
    ),
    Known(
        "thread",
        "_ChannelShutdownManager._run_safe_shutdown_loop",
        "pycares destroys its channels in this thread: one per process, kept until it ends",
        module="pycares",
        count=1,
    ),
    Known("thread", "pydevd.*", _DEBUGGER),
    Known("thread", "debugpy.*", _DEBUGGER, module="debugpy"),
    Known("thread", "*", "pytest-xdist's connection to its workers", made="execnet/*"),
    Known("thread", "*", "coverage.py's own", made="coverage/*", module="coverage"),
    # -- threads of C code ---------------------------------------------------------------
    Known(
        "native-thread",
        "libuv-worker",
        "libuv's pool: made at the first use, kept until the process ends",
        module="uvloop",
    ),
    Known("native-thread", "iou-wrk-*", "the kernel's worker for io_uring"),
    Known("native-thread", "iou-sqp-*", "the kernel's poller for io_uring"),
    Known("native-thread", "jemalloc_bg_thd", "jemalloc's background thread"),
    Known("native-thread", "tokio-*", "a Rust extension's tokio runtime, one per process"),
    *(
        Known("native-thread", name, "gRPC's pool, shared by all channels", module="grpc")
        # The kernel keeps 15 characters of a name.
        for name in (
            "grpc_*",
            "event_engine",
            "timer_manager",
            "lifeguard",
            "resolver-execut*",
            "default-executo*",
        )
    ),
    # -- processes -----------------------------------------------------------------------
    *(
        Known(
            "process",
            label,
            f"multiprocessing's {what}: one per process, kept until it ends",
            command=f"*from multiprocessing.{module} import main*",
            count=1,
        )
        for module, what in (
            ("resource_tracker", "resource tracker"),
            ("forkserver", "fork server"),
        )
        for label in (f"multiprocessing.{module}", "python*")
    ),
    Known("process", "-m debugpy*", _DEBUGGER),
    Known("process", "python*", _DEBUGGER, command="*/debugpy/adapter*"),
    Known(
        "tempfile",
        "directory",
        "multiprocessing's own directory, removed when the process ends",
        made="multiprocessing/util.py",
    ),
    # -- descriptors ---------------------------------------------------------------------
    *(
        Known(
            kind,
            "*",
            f"multiprocessing's line to its {what}, kept until the process ends",
            made=f"multiprocessing/{module}.py",
            count=2,
        )
        for module, what in (
            ("resource_tracker", "resource tracker"),
            ("forkserver", "fork server"),
        )
        for kind in ("pipe", "socket")
    ),
    *(
        Known(
            "pipe",
            end,
            "libuv's line for signals: made with the first uvloop loop, kept for ever",
            module="uvloop",
            unseen=True,
            count=1,
        )
        for end in ("read-end", "write-end")
    ),
    Known(
        "file",
        "null",
        "libuv holds a descriptor in reserve: made with a uvloop loop's first stream",
        module="uvloop",
        unseen=True,
        count=1,
    ),
    *(
        Known(
            "fd",
            label,
            "gevent's hub: made at the first use of a thread, kept as long as that",
            module="gevent",
            unseen=True,
            count=1,
        )
        for label in ("epoll", "eventfd", "timerfd", "io_uring")
    ),
    Known(
        "pipe",
        "*",
        "Twisted's global reactor: made when it is imported, kept for ever",
        module="twisted.internet.reactor",
        made="twisted/internet/reactor.py",
        count=2,
    ),
    Known(
        "fd",
        "epoll",
        "Twisted's global reactor: made when it is imported, kept for ever",
        module="twisted.internet.reactor",
        made="twisted/internet/reactor.py",
        count=1,
    ),
    *(
        Known(kind, "*", "pytest-xdist's connection to its workers", made="execnet/*")
        for kind in ("socket", "pipe", "process")
    ),
    Known("process", "*", "pytest-xdist's own", made="xdist/*"),
    Known(
        "socket",
        "*",
        "pytest-rerunfailures keeps count of reruns across pytest-xdist's workers",
        module="pytest_rerunfailures",
        made="pytest_rerunfailures.py",
    ),
    Known("file", ".coverage*", "coverage.py's data file", module="coverage"),
    Known("sqlite3", ".coverage*", "coverage.py's data file", module="coverage"),
    Known("sqlite3", "*", "coverage.py's data file", module="coverage", made="coverage/*"),
    Known("sqlite3", "history.sqlite", "IPython's history", module="IPython"),
    Known("file", "history.sqlite*", "IPython's history", module="IPython"),
    *(
        Known(kind, "*", _DEBUGGER, made=made)
        for made in ("debugpy/*", "*/pydevd/*", "*/_pydevd_bundle/*", "pdb.py")
        for kind in ("socket", "file", "pipe")
    ),
    *(
        Known(
            kind,
            "*",
            "prometheus_client's value files, shared by processes and mapped until exit",
            module="prometheus_client",
            made="prometheus_client/mmap_dict.py",
        )
        for kind in ("file", "mmap")
    ),
)


def match(
    finding: Finding,
    known: Sequence[Known] = KNOWN,
    modules: Container[str] | None = None,
) -> Known | None:
    """Return the entry that covers this finding, or None.

    Args:
        finding: `Finding.extra` may have ``stack``, a list of the files (``file`` or
            ``file:line``) that made it, innermost first; else only `Finding.made` counts.
        known: the entries to look at.
        modules: the names of imported modules; `sys.modules` if not given.
    """
    return next(matches(finding, known, modules), None)


def matches(
    finding: Finding,
    known: Sequence[Known] = KNOWN,
    modules: Container[str] | None = None,
) -> Iterator[Known]:
    """Yield all entries that cover this finding; arguments as for `match`."""
    loaded = sys.modules if modules is None else modules
    for entry in known:
        if (
            entry.kind == finding.kind
            and fnmatchcase(finding.label, entry.label)
            and _holds(entry, finding, loaded)
        ):
            yield entry


def _holds(entry: Known, finding: Finding, modules: Container[str]) -> bool:
    if entry.module and entry.module not in modules:
        return False
    if entry.unseen and (finding.made is not None or finding.extra.get("stack")):
        return False
    if entry.made and not any(fnmatchcase(f, entry.made) for f in _files(finding)):
        return False
    if entry.running and not re.search(entry.running, _fact(finding, "running")):
        return False
    return not entry.command or fnmatchcase(_fact(finding, "command"), entry.command)


def _files(finding: Finding) -> Iterator[str]:
    if finding.made is not None:
        yield finding.made.file
    for place in finding.extra.get("stack") or ():
        yield re.sub(r":\d+$", "", str(place))


def _fact(finding: Finding, name: str) -> str:
    return next((text for key, text in finding.facts if key == name), "")
