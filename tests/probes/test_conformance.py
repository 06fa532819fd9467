"""Every kind in the register keeps the promises of a probe. A new kind is one more line."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import mmap
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker, shared_memory
from typing import Any, NamedTuple

import pytest

from tightship import probes
from tightship.ownership import current
from tightship.testing import check_probe


class Case(NamedTuple):
    """How to open one of a kind and how to close it; both get the event loop."""

    open: Callable[[Any], Any]
    close: Callable[[Any, Any], object] | None
    reused: bool = False


async def forever() -> None:
    """Wait for something that never happens."""
    await asyncio.Event().wait()


async def numbers() -> Any:
    """Yield for ever."""
    while True:
        yield 1


def open_task(loop: Any) -> Any:
    """Begin a task."""
    task = loop.create_task(forever())
    loop.run_until_complete(asyncio.sleep(0))
    return task


def close_task(loop: Any, task: Any) -> None:
    """Cancel it and let it end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)


def open_server(loop: Any) -> Any:
    """Listen on a free port."""
    return loop.run_until_complete(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))


def close_server(loop: Any, server: Any) -> None:
    """Stop listening."""
    server.close()
    loop.run_until_complete(server.wait_closed())


def open_transport(loop: Any) -> Any:
    """Bind a UDP endpoint."""
    transport, _ = loop.run_until_complete(
        loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    )
    return transport


def close_transport(loop: Any, transport: Any) -> None:
    """Close it; the loop needs turns for that."""
    transport.close()
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))


def open_child(loop: Any) -> Any:
    """Start a child on a loop that is about to close."""
    loop._tightship_looked = current()
    return loop.run_until_complete(asyncio.create_subprocess_exec("cat", stdin=-1))


def close_child(loop: Any, process: Any) -> None:
    """Let it read the end of its input."""
    loop.run_until_complete(process.communicate(b""))


def open_reader(loop: Any) -> Any:
    """Watch a socket."""
    pair = socket.socketpair()
    loop.add_reader(pair[0], print)
    return pair


def close_reader(loop: Any, pair: Any) -> None:
    """Watch it no more."""
    loop.remove_reader(pair[0])
    for sock in pair:
        sock.close()


def open_asyncgen(loop: Any) -> Any:
    """Begin an async generator."""
    generator = numbers()

    async def begin() -> None:
        await anext(generator)

    loop.run_until_complete(begin())
    return generator


def close_timer(loop: Any, timer: Any) -> None:
    """Cancel it; asyncio throws it away in its next turn."""
    timer.cancel()
    loop.run_until_complete(asyncio.sleep(0))


def tell_unclosed(loop: Any) -> None:
    """Say what aiohttp's objects say when they die open."""
    loop.call_exception_handler({"client_session": object(), "message": "Unclosed client session"})


def drop_task(loop: Any) -> None:
    """Let a task go for which nobody else cares."""
    loop.create_task(forever())
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()


def fail(loop: Any) -> None:
    """Raise in a callback."""

    def callback() -> None:
        raise ValueError("unseen")

    loop.call_soon(callback)
    loop.run_until_complete(asyncio.sleep(0))


def open_executor(loop: Any) -> Any:
    """Let a pool start one worker."""
    executor = ThreadPoolExecutor(1)
    executor.submit(int).result()
    return executor


def close_process(loop: Any, process: Any) -> None:
    """End and collect it."""
    process.kill()
    process.wait()


class Waiter(threading.Thread):
    """A thread that can be told to end."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    def run(self) -> None:
        """Wait."""
        self.over.wait()


def open_thread(loop: Any) -> Any:
    """Start a thread."""
    thread = Waiter()
    thread.start()
    return thread


def close_thread(loop: Any, thread: Any) -> None:
    """Tell it to end and see it do so."""
    thread.over.set()
    thread.join()


LIBC = ctypes.CDLL(None)


def open_native_thread(loop: Any) -> Any:
    """Start a thread of C code."""
    thread = ctypes.c_ulong()
    LIBC.pthread_create(ctypes.byref(thread), None, LIBC.pause, None)
    return thread


def close_native_thread(loop: Any, thread: Any) -> None:
    """Cancel it where it waits."""
    LIBC.pthread_cancel(thread)
    LIBC.pthread_join(thread, None)


def close_shared_memory(loop: Any, block: Any) -> None:
    """Unmap and remove it."""
    block.close()
    block.unlink()


def open_pipe(loop: Any) -> int:
    """Keep one end of a pipe."""
    read, write = os.pipe()
    os.close(write)
    return read


FOLDER = tempfile.TemporaryDirectory()
COUNT = iter(range(1000))


def open_file(loop: Any) -> Any:
    """Open another file of the same series."""
    return open(os.path.join(FOLDER.name, f"page-{next(COUNT)}.txt"), "w")


def closing(loop: Any, obj: Any) -> None:
    """Close what has a ``close``."""
    obj.close()


CASES: dict[str, Case] = {
    "task": Case(open_task, close_task),
    "child": Case(open_child, close_child),
    "server": Case(open_server, close_server),
    "transport": Case(open_transport, close_transport),
    "reader": Case(open_reader, close_reader),
    "timer": Case(lambda loop: loop.call_later(1000, print), close_timer),
    "asyncgen": Case(open_asyncgen, lambda loop, g: loop.run_until_complete(g.aclose())),
    "lost-task": Case(drop_task, None),
    "coroutine": Case(lambda loop: forever(), closing),
    "unclosed": Case(tell_unclosed, None),
    "exception": Case(fail, None),
    "loop": Case(lambda loop: asyncio.new_event_loop(), closing),
    "executor": Case(open_executor, lambda loop, e: e.shutdown()),
    "process": Case(
        lambda loop: subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1),
        lambda loop, p: p.communicate(),
    ),
    "thread": Case(open_thread, close_thread),
    "native-thread": Case(open_native_thread, close_native_thread),
    "sqlite3": Case(lambda loop: sqlite3.connect(":memory:"), closing),
    "shared-memory": Case(
        lambda loop: shared_memory.SharedMemory(create=True, size=64), close_shared_memory
    ),
    "mmap": Case(lambda loop: mmap.mmap(-1, 4096), closing),
    "tempfile": Case(lambda loop: tempfile.mkdtemp(), lambda loop, path: os.rmdir(path)),
    "socket": Case(lambda loop: socket.socket(), closing),
    "pipe": Case(open_pipe, lambda loop, fd: os.close(fd)),
    "file": Case(open_file, closing),
    "fd": Case(lambda loop: os.eventfd(0), lambda loop, fd: os.close(fd)),
}


@pytest.fixture
def loop() -> Iterator[Any]:
    """An open event loop that isn't running."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(autouse=True, scope="module")
def tracker() -> None:
    """Let multiprocessing start its one helper process before anybody counts processes."""
    resource_tracker.ensure_running()


@pytest.mark.parametrize("kind", CASES)
def test_a_probe_keeps_its_promises(kind: str, loop: Any) -> None:
    """Every kind passes the suite that probes of other packages have to pass."""
    case = CASES[kind]
    end = case.close
    check_probe(
        lambda: probes.load(kind),
        lambda: case.open(loop),
        None if end is None else lambda obj: end(loop, obj),
        loop=loop,
        reused=case.reused,
    )


def test_every_kind_in_the_register_has_a_line_here() -> None:
    """A kind that nobody checks would be a promise that nobody keeps."""
    assert set(CASES) == {**probes.LOOP, **probes.PROCESS}.keys()
