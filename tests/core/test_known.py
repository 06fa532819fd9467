"""The built-in list: each entry covers what it is about, and not a user's own leak."""

import pytest

from tightship.known import KNOWN, match
from tightship.model import Certainty, Finding, Site

EVERYTHING = {entry.module for entry in KNOWN}

POOL = (
    "concurrent/futures/thread.py:89   work_item = work_queue.get(block=True)   <- threading.py:9"
)
ANYIO = "threading.py:359   waiter.acquire()   <- queue.py:202 <- anyio/_backends/_asyncio.py:1113"
TRIO = "trio/_core/_thread_cache.py:211   if self._worker_lock.acquire(timeout=IDLE_TIMEOUT):"
WAITPID = "asyncio/unix_events.py:1404   pid, status = os.waitpid(expected_pid, 0)"
BUSY = "shop/poller.py:58   time.sleep(60)   <- "
TRACKER = "/usr/bin/python3 -c from multiprocessing.resource_tracker import main;main(5)"
FORKSERVER = "/usr/bin/python3 -c from multiprocessing.forkserver import main; main(3, 5, [])"


def make(kind, label, *, made=None, stack=(), **facts):
    return Finding(
        kind=kind,
        label=label,
        subject="it",
        owner="test_x",
        owner_kind="test",
        owner_scope="function",
        nodeid="test_x.py::test_x",
        certainty=Certainty.STRONG,
        made=Site(made, 1) if made else None,
        facts=list(facts.items()),
        extra={"stack": list(stack)} if stack else {},
    )


# What it is about, and its twin: the nearest thing that a user could leak.
PAIRS = {
    "idle default executor": (
        make("thread", "asyncio_*", running=POOL),
        make("thread", "asyncio_*", running=BUSY + POOL),
    ),
    "own pool": (
        make("thread", "asyncio_*", running=POOL),
        make("thread", "ThreadPoolExecutor-*_*", running=POOL),
    ),
    "asyncio's waitpid": (
        make("thread", "asyncio-waitpid-*", running=WAITPID),
        make("thread", "asyncio-waitpid-*", running=BUSY),
    ),
    "waitpid of older releases": (
        make("thread", "waitpid-*", running=WAITPID),
        make("thread", "waitpid-*", running=BUSY),
    ),
    "idle trio worker": (
        make("thread", "Trio thread *", running=TRIO),
        make("thread", "fetch", running=BUSY + TRIO),
    ),
    "idle anyio worker": (
        make("thread", "AnyIO worker thread", running=ANYIO),
        make("thread", "AnyIO worker thread", running=BUSY + ANYIO),
    ),
    "anyio worker in a user's queue": (
        make("thread", "AnyIO worker thread", running=ANYIO),
        make(
            "thread",
            "AnyIO worker thread",
            running="threading.py:359   waiter.acquire()   <- queue.py:202 <- shop/q.py:3 "
            "<- anyio/_backends/_asyncio.py:1113",
        ),
    ),
    "pycares": (
        make("thread", "_ChannelShutdownManager._run_safe_shutdown_loop"),
        make("thread", "ShutdownManager._run_safe_shutdown_loop"),
    ),
    "gevent's hub": (
        make("fd", "epoll"),
        make("fd", "epoll", made="shop/poller.py"),
    ),
    "Twisted's reactor": (
        make("pipe", "read-end", stack=["twisted/internet/reactor.py:101", "a.py:1"]),
        make("pipe", "read-end", stack=["twisted/internet/selectreactor.py:109", "a.py:1"]),
    ),
    "Twisted's epoll": (
        make(
            "fd",
            "epoll",
            stack=["twisted/internet/epollreactor.py:83", "twisted/internet/reactor.py:101"],
        ),
        make("fd", "epoll", stack=["shop/poller.py:9"]),
    ),
    "pytest-timeout": (
        make("thread", "pytest_timeout tests/test_x.py::test_a"),
        make("thread", "Timer"),
    ),
    "pytest-rerunfailures": (
        make("thread", "ServerStatusDB.run_server"),
        make("thread", "MyServer.run_server"),
    ),
    "pytest-rerunfailures' socket": (
        make("socket", "TCP-listening", made="pytest_rerunfailures.py"),
        make("socket", "TCP-listening", made="tests/test_x.py"),
    ),
    "tqdm": (make("thread", "TMonitor"), make("thread", "Monitor")),
    "IPython": (make("thread", "IPythonHistorySavingThread"), make("thread", "History")),
    "sentry": (make("thread", "sentry-sdk.BackgroundWorker"), make("thread", "BackgroundWorker")),
    "opentelemetry": (
        make("thread", "OtelBatchSpanRecordProcessor"),
        make("thread", "BatchSpanProcessor"),
    ),
    "debugger": (make("thread", "pydevd.Writer"), make("thread", "Writer")),
    "execnet by a stack": (
        make("socket", "TCP-connected", made="conftest.py", stack=["execnet/gateway_socket.py:9"]),
        make("socket", "TCP-connected", made="conftest.py", stack=["shop/net.py:9"]),
    ),
    "libuv's pool": (make("native-thread", "libuv-worker"), make("native-thread", "worker")),
    "gRPC": (make("native-thread", "grpc_global_tim"), make("native-thread", "python*")),
    "tokio": (make("native-thread", "tokio-runtime-w"), make("native-thread", "rust-runtime")),
    "io_uring": (make("native-thread", "iou-wrk-*"), make("native-thread", "wrk-*")),
    "resource tracker": (
        make("process", "multiprocessing.resource_tracker", command=TRACKER),
        make("process", "multiprocessing.resource_tracker", command="sleep 60"),
    ),
    "fork server": (
        make("process", "python*", command=FORKSERVER),
        make("process", "python*", command="python server.py"),
    ),
    "resource tracker's pipe": (
        make("pipe", "write-end", made="t.py", stack=["multiprocessing/resource_tracker.py:7"]),
        make("pipe", "write-end", made="t.py", stack=["multiprocessing/connection.py:7"]),
    ),
    "libuv's pipe": (make("pipe", "read-end"), make("pipe", "read-end", made="tests/test_x.py")),
    "coverage": (make("sqlite3", ".coverage"), make("sqlite3", "shop.db")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_what_a_library_leaves_on_purpose_is_known(name):
    """The entry speaks, and says why."""
    entry = match(PAIRS[name][0], modules=EVERYTHING)
    assert entry is not None
    assert entry.reason


@pytest.mark.parametrize("name", PAIRS)
def test_a_users_own_leak_of_the_same_kind_is_not_known(name):
    """The twin: it looks alike, and is still found."""
    assert match(PAIRS[name][1], modules=EVERYTHING) is None


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_is_known_without_the_list(name):
    """The twin of the list: without it, nothing is allowed."""
    assert match(PAIRS[name][0], (), modules=EVERYTHING) is None


def test_a_librarys_entry_is_silent_while_the_library_is_not_loaded():
    """uvloop's pipe looks like any C code's: it counts only if uvloop is there."""
    pipe = make("pipe", "read-end")
    assert match(pipe, modules={"uvloop"}) is not None
    assert match(pipe, modules=set()) is None


def test_loaded_modules_are_read_from_the_interpreter_by_default():
    """pytest is loaded now; nonsense is not."""
    from dataclasses import replace

    entry = replace(KNOWN[0], module="pytest")
    finding = make(entry.kind, entry.label)
    assert match(finding, [entry]) is entry
    assert match(finding, [replace(entry, module="no_such_module")]) is None


@pytest.mark.parametrize("entry", KNOWN, ids=lambda e: f"{e.kind}:{e.label}:{e.made}")
def test_no_entry_covers_a_whole_kind(entry):
    """A pattern for every label needs another condition beside it."""
    assert entry.reason
    assert entry.label != "*" or entry.made or entry.running or entry.command
