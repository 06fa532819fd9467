"""A hang is foretold when it is certain, and only then."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap

import pytest

#: Writes down each forecast, and cancels what waits so that the suite goes on.
CONFTEST = """
import asyncio
import os
import pathlib
import time

import pytest

FILE = pathlib.Path(__file__).with_name("forecasts.txt")
STARTED = {}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    STARTED["at"] = time.perf_counter()


def stuck(loop):
    name, _, phase = os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2].partition(" ")
    with FILE.open("a") as file:
        file.write(f"{name} {phase.strip('()')} {time.perf_counter() - STARTED['at']:.3f}\\n")
    for task in asyncio.all_tasks(loop):
        task.cancel()


def pytest_sessionstart(session):
    plugin = session.config.pluginmanager.get_plugin("tightship-session")
    if plugin is not None and plugin.forecast is not None:
        plugin.forecast.on_stuck = stuck
"""


@pytest.fixture
def forecasts(pytester, run):
    """Return a function that runs a suite and returns what was foretold: (test, phase, seconds)."""

    def told(source: str, *args: str, conftest: str = "", **how):
        ran = run(source, *args, conftest=CONFTEST + conftest, **how)
        path = pytester.path / "forecasts.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return ran, [(a, b, float(c)) for a, b, c in (line.split() for line in lines)]

    return told


# -- hangs that are certain ------------------------------------------------------------------

HANGS = """
import asyncio
import unittest

import pytest


async def test_future():
    await asyncio.get_running_loop().create_future()


async def test_each_others_events():
    a, b = asyncio.Event(), asyncio.Event()

    async def one(mine, other):
        await other.wait()
        mine.set()

    await asyncio.gather(one(a, b), one(b, a))


async def test_queue_without_a_producer():
    await asyncio.Queue().get()


async def test_join_of_a_queue():
    queue = asyncio.Queue()
    queue.put_nowait(1)
    await queue.join()


async def test_lock_twice():
    lock = asyncio.Lock()
    async with lock:
        async with lock:
            pass


async def test_condition():
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def test_semaphore():
    semaphore = asyncio.Semaphore(1)
    async with semaphore, semaphore:
        pass


async def test_task_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.Event().wait())


async def test_after_some_work():
    await asyncio.sleep(0.2)
    await asyncio.to_thread(sum, [1, 2])
    await asyncio.Event().wait()


async def test_cancelled_timer():
    asyncio.get_running_loop().call_later(10, print).cancel()
    await asyncio.Event().wait()


async def test_beside_a_thread_that_waits():
    import threading

    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        await asyncio.Event().wait()
    finally:
        stop.set()
        thread.join()


def test_in_a_sync_test():
    async def main():
        await asyncio.Event().wait()

    asyncio.run(main())


def test_on_a_loop_made_by_hand():
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(asyncio.Event().wait())
    finally:
        loop.close()


class Case(unittest.IsolatedAsyncioTestCase):
    async def test_in_a_test_case(self):
        await asyncio.Event().wait()


@pytest.fixture
async def never_ready():
    await asyncio.Event().wait()
    yield


async def test_setup(never_ready):
    pass


@pytest.fixture
async def never_done():
    yield
    await asyncio.Event().wait()


async def test_teardown(never_done):
    pass


@pytest.mark.asyncio(loop_scope="module")
async def test_on_the_modules_loop():
    await asyncio.Event().wait()


@pytest.mark.asyncio(loop_scope="module")
async def test_on_the_modules_loop_again():
    await asyncio.Event().wait()
"""


def test_each_hang_is_foretold(forecasts):
    """In tests and fixtures, on every runner's loop, within a moment of its beginning."""
    ran, told = forecasts(HANGS, status=1)
    hanging = re.findall(r"def (test_\w+)", HANGS)
    assert sorted(name for name, *_ in told) == sorted(hanging), ran.text
    phases = {name: phase for name, phase, _ in told}
    assert phases.pop("test_setup") == "setup"
    assert phases.pop("test_teardown") == "teardown"
    assert set(phases.values()) == {"call"}


def test_it_is_foretold_soon(forecasts):
    """The loop has to stand still for a tenth of a second, not longer."""
    source = HANGS[: HANGS.index("async def test_each")]
    _, ((_, _, seconds),) = forecasts(source, status=1)
    assert 0.1 <= seconds < 1.0


def test_anyio_is_served(forecasts):
    """On asyncio; its own primitives and its pool of threads."""
    source = """
import anyio
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_event():
    await anyio.Event().wait()


async def test_after_a_thread():
    await anyio.to_thread.run_sync(sum, [1, 2])
    send, receive = anyio.create_memory_object_stream(0)
    with send, receive:
        await receive.receive()
"""
    _, told = forecasts(source, "-p", "no:asyncio", toml="", status=1, ini="")
    assert [name for name, *_ in told] == ["test_event", "test_after_a_thread"]


def test_workers_are_served(forecasts):
    """The threads by which pytest-xdist steers its workers wake nobody."""
    ran, told = forecasts(HANGS, "-n2", "-k", "future or setup or thread_that", status=1)
    names = ["test_beside_a_thread_that_waits", "test_future", "test_setup"]
    assert sorted(name for name, *_ in told) == names, ran.text


@pytest.mark.parametrize("method", ["signal", "thread"])
def test_beside_pytest_timeout(forecasts, method):
    """Its timer ends a test; it wakes nobody."""
    args = ("--timeout=30", f"--timeout-method={method}", "-k", "future")
    _, told = forecasts(HANGS, *args, status=1)
    assert [name for name, *_ in told] == ["test_future"]


def test_off_is_off(forecasts):
    """The twin: without the forecast, pytest-timeout ends the test."""
    args = ("--tightship-forecast=off", "--timeout=1", "-k", "future")
    ran, told = forecasts(HANGS, *args, status=1)
    assert told == []
    assert "Timeout" in ran.text


# -- what is no hang -------------------------------------------------------------------------

LIVE = '''
import asyncio
import concurrent.futures
import contextlib
import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref

import pytest

PAUSE = 0.5


async def test_timer():
    await asyncio.sleep(PAUSE)


async def test_timer_far_away():
    loop = asyncio.get_running_loop()
    handle = loop.call_later(10, print)
    threading.Timer(PAUSE, loop.call_soon_threadsafe, (handle.cancel,)).start()
    await asyncio.sleep(PAUSE + 0.1)


async def test_job_of_a_thread():
    await asyncio.to_thread(time.sleep, PAUSE)


async def test_job_of_another_executor():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, time.sleep, PAUSE)


async def test_jobs_in_a_row():
    for _ in range(30):
        await asyncio.to_thread(time.sleep, 0.02)


async def test_job_of_another_process():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, time.sleep, PAUSE)


async def test_thread_that_wakes_us():
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def wake():
        time.sleep(PAUSE)
        loop.call_soon_threadsafe(future.set_result, None)

    thread = threading.Thread(target=wake)
    thread.start()
    await future
    thread.join()


async def test_chain_of_threads():
    """One waits for the other without a limit; the other one sleeps."""
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    event = threading.Event()

    def first():
        event.wait()
        loop.call_soon_threadsafe(future.set_result, None)

    def second():
        time.sleep(PAUSE)
        event.set()

    threads = [threading.Thread(target=f) for f in (first, second)]
    for thread in threads:
        thread.start()
    await future
    for thread in threads:
        thread.join()


async def test_thread_with_a_time_limit():
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def wake():
        threading.Event().wait(PAUSE)
        loop.call_soon_threadsafe(future.set_result, None)

    thread = threading.Thread(target=wake)
    thread.start()
    await future
    thread.join()


async def test_threading_timer():
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    timer = threading.Timer(PAUSE, loop.call_soon_threadsafe, (future.set_result, None))
    timer.start()
    await future
    timer.join()


async def test_raw_thread():
    import _thread

    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def wake():
        time.sleep(PAUSE)
        loop.call_soon_threadsafe(future.set_result, None)

    _thread.start_new_thread(wake, ())
    await future


async def test_child_process():
    process = await asyncio.create_subprocess_exec("sleep", str(PAUSE))
    await process.wait()


async def test_reader():
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    a, b = socket.socketpair()
    script = f"import os, time; time.sleep({PAUSE}); os.write({b.fileno()}, b'x')"
    child = subprocess.Popen([sys.executable, "-c", script], pass_fds=[b.fileno()])
    loop.add_reader(a, event.set)
    await event.wait()
    loop.remove_reader(a)
    child.wait()
    a.close()
    b.close()


async def test_signal_of_the_loop():
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, event.set)
    child = subprocess.Popen(["sh", "-c", f"sleep {PAUSE}; kill -USR1 {os.getpid()}"])
    await event.wait()
    loop.remove_signal_handler(signal.SIGUSR1)
    child.wait()


async def test_timer_of_the_system():
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def rings(*_):
        loop.call_soon_threadsafe(future.set_result, None)

    before = signal.signal(signal.SIGALRM, rings)
    signal.setitimer(signal.ITIMER_REAL, PAUSE)
    try:
        await future
    finally:
        signal.signal(signal.SIGALRM, before)


async def test_second_loop_in_a_thread():
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    async def other():
        await asyncio.sleep(PAUSE)
        loop.call_soon_threadsafe(event.set)

    thread = threading.Thread(target=lambda: asyncio.run(other()))
    thread.start()
    await event.wait()
    thread.join()


def test_loop_in_a_thread_that_waits_for_the_main_thread():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def wait(event):
        await event.wait()

    event = asyncio.Event()
    future = asyncio.run_coroutine_threadsafe(wait(event), loop)
    time.sleep(PAUSE)
    loop.call_soon_threadsafe(event.set)
    future.result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_queue_of_processes():
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=put, args=(queue,))
    process.start()
    assert await asyncio.to_thread(queue.get) == 1
    process.join()
    queue.close()
    queue.join_thread()


def put(queue):
    time.sleep(PAUSE)
    queue.put(1)


class Node:
    pass


async def test_finalizer_of_garbage():
    future = asyncio.get_running_loop().create_future()
    node = Node()
    node.me = node
    weakref.finalize(node, future.set_result, None)
    del node
    # Nothing of the program would collect it: that the forecast does first is only fair.
    await future


async def test_finalizer_in_a_thread():
    loop, future = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    node = Node()
    weakref.finalize(node, loop.call_soon_threadsafe, future.set_result, None)

    def keep(node):
        time.sleep(PAUSE)

    thread = threading.Thread(target=keep, args=(node,))
    del node
    thread.start()
    await future
    thread.join()


async def test_server_and_client():
    async def serve(reader, writer):
        await reader.readline()
        await asyncio.to_thread(time.sleep, PAUSE)
        writer.write(b"done\\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"go\\n")
    assert await reader.readline() == b"done\\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_server_that_nobody_visits():
    server = await asyncio.start_server(print, "127.0.0.1", 0)
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import socket, time; time.sleep({PAUSE}); "
            f"socket.create_connection(('127.0.0.1', {server.sockets[0].getsockname()[1]}))",
        ]
    )
    came = asyncio.Event()
    server.close()
    await server.wait_closed()
    server = await asyncio.start_server(lambda r, w: (came.set(), w.close()), sock=listener())
    port = server.sockets[0].getsockname()[1]
    threading.Timer(PAUSE, lambda: socket.create_connection(("127.0.0.1", port)).close()).start()
    await came.wait()
    child.wait()
    server.close()
    await server.wait_closed()


def listener():
    return socket.create_server(("127.0.0.1", 0))


async def test_within_a_time_limit():
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), PAUSE)


def test_loop_pumped_from_outside():
    loop = asyncio.new_event_loop()
    event = asyncio.Event()
    task = loop.create_task(event.wait())
    end = time.perf_counter() + PAUSE
    while time.perf_counter() < end:
        loop.call_soon(loop.stop)
        loop.run_forever()
        time.sleep(0.01)
    event.set()
    loop.run_until_complete(task)
    loop.close()


class Patient(asyncio.SelectorEventLoop):
    """It wakes somebody between two turns, out of sight."""

    def _run_once(self):
        if not self._ready:
            time.sleep(0.3)
            EVENT.set()
        super()._run_once()


def test_loop_of_a_class_of_its_own():
    global EVENT
    loop = Patient()
    EVENT = asyncio.Event()
    loop.run_until_complete(EVENT.wait())
    loop.close()


def test_loop_with_a_selector_of_its_own():
    import selectors

    class Selector(selectors.DefaultSelector):
        def select(self, timeout=None):
            found = super().select(0.3 if timeout is None else timeout)
            if timeout is None and not found:
                event.set()
            return found

    loop = asyncio.SelectorEventLoop(Selector())
    event = asyncio.Event()
    loop.run_until_complete(event.wait())
    loop.close()


def test_uvloop():
    import uvloop

    async def main():
        await asyncio.sleep(PAUSE)
        await asyncio.to_thread(time.sleep, PAUSE)

    uvloop.run(main())


def test_trio():
    import trio

    async def main():
        await trio.sleep(PAUSE)
        await trio.to_thread.run_sync(time.sleep, PAUSE)

    trio.run(main)


def test_anyio():
    import anyio

    async def main():
        await anyio.to_thread.run_sync(time.sleep, PAUSE)

        def come_back():
            time.sleep(PAUSE)
            anyio.from_thread.run(anyio.sleep, 0.1)

        await anyio.to_thread.run_sync(come_back)

    anyio.run(main)


def test_anyio_portal():
    import anyio.from_thread

    with anyio.from_thread.start_blocking_portal() as portal:
        event = portal.call(asyncio.Event)
        future = portal.start_task_soon(event.wait)
        time.sleep(PAUSE)
        portal.call(event.set)
        future.result()


async def test_aiohttp():
    from aiohttp import ClientSession, web

    async def slow(request):
        await asyncio.to_thread(time.sleep, PAUSE)
        return web.Response(text="done")

    app = web.Application()
    app.router.add_get("/", slow)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/") as response:
            assert await response.text() == "done"
        # Its connection is kept: the server may close it at any time.
        await asyncio.to_thread(time.sleep, PAUSE)
    await runner.cleanup()


async def agen():
    try:
        yield 1
    finally:
        await asyncio.sleep(PAUSE)


async def test_async_generator():
    async for _ in agen():
        break
    gc.collect()
    await asyncio.sleep(PAUSE + 0.2)


HEART = []


@pytest.mark.asyncio(loop_scope="session")
async def test_heartbeat_begins():
    event = asyncio.Event()

    async def beat():
        while True:
            await asyncio.sleep(0.7)
            for waiting in list(HEART):
                waiting.set()

    HEART.append(event)
    globals()["BEAT"] = asyncio.create_task(beat())
    await event.wait()


@pytest.mark.asyncio(loop_scope="session")
async def test_heartbeat_goes_on():
    event = asyncio.Event()
    HEART.append(event)
    await event.wait()
    BEAT.cancel()
    await asyncio.gather(BEAT, return_exceptions=True)
'''


def live(*args):
    return (*args, "--tightship-threshold=off", "-W", "ignore")


def test_what_will_be_woken_is_not_foretold(forecasts):
    """Threads, timers, descriptors, signals, processes, finalizers, loops of other kinds."""
    ran, told = forecasts(LIVE, *live(), status=None)
    assert told == []
    failed = [name for name, outcome in ran.outcomes.items() if outcome != "passed"]
    assert not failed, ran.text
    assert len(ran.outcomes) == len(re.findall(r"^(?:async )?def test_", LIVE, re.M))


def test_nor_by_workers(forecasts):
    """The twin of hangs in pytest-xdist's workers."""
    ran, told = forecasts(LIVE, *live("-n2", "-k", "thread or process or signal"), status=None)
    assert told == []
    assert set(ran.outcomes.values()) == {"passed"}, ran.text


# -- reasons ---------------------------------------------------------------------------------

REASONS = {
    "": "",
    "a callback is ready": "loop.call_soon(print)",
    "a timer is set": "loop.call_later(10, print)",
    "file descriptor": "loop.add_reader(os.pipe()[0], print)",
    "SIGUSR1 is handled": "signal.signal(signal.SIGUSR1, lambda *_: None)",
    "SIGCHLD is handled": "signal.signal(signal.SIGCHLD, lambda *_: None)",
    "the loop is being stopped": "loop._stopping = True",
    "the loop's _run_once was replaced": "loop._run_once = loop._run_once",
    "the loop's call_soon was replaced": "type(loop).call_soon = lambda self, *a, **k: None",
    "the loop's selector was replaced": "loop._selector.select = loop._selector.select",
    "the loop's queues were replaced": "loop._ready = type('D', (collections.deque,), {})()",
    "the thread 'busy' is running": "thread(time.sleep, 30, name='busy')",
    "the thread 'limited' is running": "thread(threading.Event().wait, 30, name='limited')",
    "a thread is running": "_thread.start_new_thread(lambda: time.sleep(30), ()); time.sleep(0.1)",
    "a thread of C code is there": "c_thread()",
    "a signal is handled by C code": "c_handler()",
}

SCRIPT = """
import _thread, asyncio, collections, ctypes, os, signal, threading, time
from tightship.forecast import stuck

KEPT = []


def thread(target, *args, name):
    t = threading.Thread(target=target, args=args, name=name, daemon=True)
    t.start()
    KEPT.append(t)
    time.sleep(0.1)


def c_thread():
    libc = ctypes.CDLL(None)
    ident = ctypes.c_ulong()
    start = ctypes.cast(libc.pause, ctypes.c_void_p)
    assert libc.pthread_create(ctypes.byref(ident), None, start, None) == 0


def c_handler():
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(signal.SIGUSR2, ctypes.cast(libc.pause, ctypes.c_void_p))


def examine():
    try:
        do(loop)
        print(stuck(loop))
    finally:
        os._exit(0)


def do(loop):
    {what}


async def main():
    global loop
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, examine)
    await asyncio.Event().wait()


asyncio.run(main())
"""


@pytest.mark.parametrize("why", REASONS, ids=lambda why: why or "stuck")
def test_each_reason_is_said(why):
    """Asked from inside the loop: nothing, or the first thing that may still wake it."""
    script = SCRIPT.replace("{what}", REASONS[why] or "pass")
    done = subprocess.run(
        [sys.executable, "-u", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.strip().startswith(why) if why else done.stdout == "\n"


def test_a_loop_of_another_kind_says_so():
    """By its class."""
    import uvloop

    from tightship.forecast import stuck

    async def main():
        return stuck(asyncio.get_running_loop())

    assert uvloop.run(main()) == "uvloop.Loop does not show what it waits for"
