"""A corpus of hangs: each ends in time, with the right verdict at the right line.

One suite with all of them, and each one's clean twin in between, runs once.
"""

from __future__ import annotations

import pytest
from suites import Ran, Suite

from tightship.deadlines.ladder import Grace

LIMIT = 0.3
#: All rungs, and time for a machine that stalls.
MOST = LIMIT + Grace.answer + Grace.cancel * (Grace.rounds + 1) + Grace.interrupt + 10

HEAD = """
import asyncio
import queue
import socket
import subprocess
import sys
import threading
import time

import pytest

pytestmark = pytest.mark.tightship(timeout=LIMIT)
"""
COROUTINES = """
async def test_waits_for_ever():
    await asyncio.Event().wait()  # here: waits_for_ever


async def test_waits_twin():
    event = asyncio.Event()
    event.set()
    await event.wait()


async def test_swallows_once():
    try:
        await asyncio.sleep(100)
    except asyncio.CancelledError:  # here: swallows_once
        pass


async def test_lets_through_twin():
    task = asyncio.create_task(asyncio.sleep(100))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


async def test_sleep_in_the_loop():
    time.sleep(100)  # here: sleep_in_the_loop


async def test_sleep_twin():
    time.sleep(0.01)


async def test_busy_in_the_loop():
    while True: pass  # here: busy_in_the_loop


async def test_busy_twin():
    for _ in range(1000):
        await asyncio.sleep(0)


async def test_children():
    async with asyncio.TaskGroup() as group:  # here: children
        group.create_task(asyncio.sleep(100), name="straggler")


async def test_children_twin():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0.01))


async def test_late_in_the_loop():
    time.sleep(LIMIT + 0.1)


async def test_gather():
    await asyncio.gather(asyncio.sleep(100), asyncio.sleep(100))  # here: gather


async def test_wait_for_too_long():
    await asyncio.wait_for(asyncio.sleep(100), 50)  # here: wait_for_too_long


async def test_wait_for_twin():
    with pytest.raises(TimeoutError) as caught:
        await asyncio.wait_for(asyncio.sleep(100), 0.01)
    assert type(caught.value) is TimeoutError


async def test_shield():
    inner = asyncio.ensure_future(asyncio.sleep(100))
    try:
        await asyncio.shield(inner)  # here: shield
    finally:
        inner.cancel()


async def test_thread_job():
    event = threading.Event()
    try:
        await asyncio.to_thread(event.wait)  # here: thread_job
    finally:
        event.set()


async def test_queue_of_asyncio():
    jobs = asyncio.Queue()
    jobs.put_nowait(1)
    await jobs.join()  # here: queue_of_asyncio


async def test_lock_of_asyncio():
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()  # here: lock_of_asyncio


async def test_error_after_the_cancel():
    try:
        await asyncio.sleep(100)  # here: error_after_the_cancel
    finally:
        raise ValueError("while cleaning up")


async def test_cancelled_by_itself_twin():
    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(100)
    asyncio.current_task().uncancel()
"""
RESISTING = """
async def test_swallows_for_ever():
    while True:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:  # here: swallows_for_ever
            pass


async def test_finally_waits_for_ever():
    try:
        await asyncio.sleep(100)
    finally:  # here: finally_waits_for_ever
        await asyncio.sleep(100)


async def test_blocks_while_cancelled():
    try:
        await asyncio.sleep(100)
    finally:  # here: blocks_while_cancelled
        time.sleep(100)
"""
FUNCTIONS = '''
def test_sleep():
    time.sleep(100)  # here: sleep


def test_catches_the_interrupt():
    try:
        time.sleep(100)  # here: catches_the_interrupt
    except KeyboardInterrupt:
        pass


def test_busy():
    while True: pass  # here: busy


def test_lock_twice():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()  # here: lock_twice


def test_deadlock_of_threads():
    first, second, ready = threading.Lock(), threading.Lock(), threading.Event()

    def other():
        with second:
            ready.set()
            first.acquire(timeout=30)

    with first:
        threading.Thread(target=other, daemon=True).start()
        ready.wait()
        second.acquire()  # here: deadlock_of_threads


def test_locks_twin():
    first, second = threading.Lock(), threading.Lock()
    with first, second:
        pass


def test_queue_join():
    jobs = queue.Queue()
    jobs.put(1)
    jobs.join()  # here: queue_join


def test_queue_join_twin():
    jobs = queue.Queue()
    jobs.put(1)
    jobs.get()
    jobs.task_done()
    jobs.join()


def test_thread_join():
    event = threading.Event()
    thread = threading.Thread(target=event.wait, daemon=True)
    thread.start()
    try:
        thread.join()  # here: thread_join
    finally:
        event.set()


def test_socket():
    left, right = socket.socketpair()
    with left, right:
        left.recv(1)  # here: socket


def test_socket_twin():
    left, right = socket.socketpair()
    with left, right:
        right.send(b"x")
        left.recv(1)


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def test_child_that_ignores_sigterm():
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    try:
        child.stdout.readline()
        child.terminate()
        child.wait()  # here: child_that_ignores_sigterm
    finally:
        child.kill()
        child.communicate()


def test_swallows_the_interrupt():
    while True:
        try:
            time.sleep(100)  # here: swallows_the_interrupt
        except Exception:
            pass


def test_asyncio_run():
    asyncio.run(asyncio.sleep(100))  # here: asyncio_run


def test_blocks_after_a_run():
    try:
        asyncio.run(asyncio.sleep(100))  # here: blocks_after_a_run
    except BaseException:
        pass
    time.sleep(100)


def test_asyncio_run_twin():
    asyncio.run(asyncio.sleep(0.01))
'''
FIXTURES = """
@pytest.fixture
def sound():
    yield 1
    DOWN.append("sound")


DOWN = []


@pytest.fixture
def slow_set_up():
    time.sleep(100)  # here: sync_set_up
    yield


def test_sync_set_up(slow_set_up):
    pass


@pytest.fixture
def slow_teardown(sound):
    yield
    threading.Event().wait()  # here: sync_teardown


def test_sync_teardown(slow_teardown):
    DOWN.clear()


def test_sync_teardown_twin():
    # The fixtures that were still to be torn down were, each once.
    assert DOWN == ["sound"]


@pytest.fixture
async def slow_async_set_up():
    await asyncio.sleep(100)  # here: async_set_up
    yield


async def test_async_set_up(slow_async_set_up):
    pass


@pytest.fixture
async def slow_async_teardown(sound):
    yield
    await asyncio.sleep(100)  # here: async_teardown


async def test_async_teardown(slow_async_teardown):
    DOWN.clear()


async def test_async_teardown_twin(sound):
    assert DOWN == ["sound"]


@pytest.fixture
def slow_finalizer(request):
    request.addfinalizer(lambda: time.sleep(100))  # here: finalizer


def test_finalizer(slow_finalizer):
    pass


@pytest.fixture
async def blocking_teardown(sound):
    yield
    time.sleep(100)  # here: blocking_teardown


async def test_blocking_teardown(blocking_teardown):
    DOWN.clear()


def test_blocking_teardown_twin():
    assert DOWN == ["sound"]


class TestXunit:
    def setup_method(self):
        time.sleep(100)  # here: xunit

    def test_xunit(self):
        pass


class TestXunitTwin:
    def test_after_xunit_twin(self):
        pass


class TestXunitTeardown:
    def teardown_method(self):
        time.sleep(100)  # here: xunit_teardown

    def test_xunit_teardown(self):
        pass


def test_last_twin():
    pass
"""

FILES = {
    "test_coroutines": COROUTINES,
    "test_resisting": RESISTING,
    "test_functions": FUNCTIONS,
    "test_fixtures": FIXTURES,
}

#: Hang -> its verdict, and words that must be told of it.
CORPUS = {
    "waits_for_ever": ("never-finished", "it was waiting for asyncio.Event (not set)"),
    "swallows_once": ("swallowed-cancellation", "and returned as if nothing had happened"),
    "swallows_for_ever": ("swallowed-cancellation", "cancelled twice"),
    "finally_waits_for_ever": ("swallowed-cancellation", "cancelled twice"),
    "blocks_while_cancelled": ("swallowed-cancellation", "cancelled once"),
    "sleep_in_the_loop": ("blocked-loop", "its thread was waiting in time.sleep(100)"),
    "busy_in_the_loop": ("blocked-loop", "its thread was working in while True: pass"),
    "children": ("children-still-run", "task 'straggler'"),
    "late_in_the_loop": ("finished-late", "it ended by itself"),
    "gather": ("never-finished", "gather of 2"),
    "wait_for_too_long": ("never-finished", "it was waiting for"),
    "shield": ("never-finished", "it was waiting for shield of task"),
    "thread_job": ("never-finished", "a thread job: Event.wait"),
    "queue_of_asyncio": ("never-finished", "it was waiting for"),
    "lock_of_asyncio": ("never-finished", "it was waiting for asyncio.Lock"),
    "error_after_the_cancel": ("never-finished", "it was waiting for sleep"),
    "sleep": ("blocked", "the thread was waiting in time.sleep(100)"),
    "catches_the_interrupt": ("blocked", "the thread was waiting in time.sleep(100)"),
    "busy": ("busy", "the thread was working all the time"),
    "lock_twice": ("blocked", "the thread was waiting in lock.acquire()"),
    "deadlock_of_threads": ("blocked", "the thread was waiting in second.acquire()"),
    "queue_join": ("blocked", "the thread was waiting in jobs.join()"),
    "thread_join": ("blocked", "the thread was waiting in thread.join()"),
    "socket": ("blocked", "the thread was waiting in left.recv(1)"),
    "child_that_ignores_sigterm": ("blocked", "the thread was waiting in child.wait()"),
    "swallows_the_interrupt": ("blocked", "the thread was waiting in time.sleep(100)"),
    "asyncio_run": ("never-finished", "it was waiting for sleep"),
    "blocks_after_a_run": ("swallowed-cancellation", "cancelled once"),
    "sync_set_up": ("blocked", "the thread was waiting in time.sleep(100)"),
    "sync_teardown": ("blocked", "the thread was waiting in threading.Event().wait()"),
    "async_set_up": ("never-finished", "it was waiting for sleep"),
    "async_teardown": ("never-finished", "it was waiting for sleep"),
    "finalizer": ("blocked", "the thread was waiting in request.addfinalizer("),
    "blocking_teardown": ("blocked-loop", "its thread was waiting in time.sleep(100)"),
    "xunit": ("blocked", "the thread was waiting in time.sleep(100)"),
    "xunit_teardown": ("blocked", "the thread was waiting in time.sleep(100)"),
}

#: Hang -> the part of its test that is to be named.
PARTS = {
    "sync_set_up": "set-up of fixture 'slow_set_up' (function)",
    "sync_teardown": "teardown of fixture 'slow_teardown' (function)",
    "async_set_up": "set-up of fixture 'slow_async_set_up' (function)",
    "async_teardown": "teardown of fixture 'slow_async_teardown' (function)",
    "finalizer": "teardown of fixture 'slow_finalizer' (function)",
    "blocking_teardown": "teardown of fixture 'blocking_teardown' (function)",
    "xunit": "set-up of fixture '_xunit_setup_method_fixture_TestXunit' (function)",
    "xunit_teardown": "teardown of fixture '_xunit_setup_method_fixture_TestXunitTeardown' "
    "(function)",
}


@pytest.fixture(scope="module")
def ran(suite_once: Suite) -> Ran:
    """The corpus, run once; a worker for each file, since all that they do is wait."""
    files = {name: (HEAD + part).replace("LIMIT", str(LIMIT)) for name, part in FILES.items()}
    return suite_once("", "-rA", "-n4", "--dist=loadfile", status=1, **files)


def place(ran: Ran, name: str) -> str:
    """Where a hang is marked in the corpus."""
    for file in (f"{name}.py" for name in FILES):
        if f"# here: {name}\n" in (ran.path / file).read_text("utf-8"):
            return ran.line(f"# here: {name}$", file)
    raise AssertionError(name)


@pytest.mark.parametrize("name", CORPUS)
def test_it_ends_with_its_verdict(ran, name):
    """What it did, in one label and one sentence."""
    label, words = CORPUS[name]
    told = ran.timeout(f"test_{name}")
    assert told["label"] == told["extra"]["verdict"] == label, told
    assert words in told["facts"]["because"]


@pytest.mark.parametrize("name", [n for n in CORPUS if n != "late_in_the_loop"])
def test_it_is_told_at_its_line(ran, name):
    """The first place of the report is where it hung, or where it was swallowed."""
    told = ran.timeout(f"test_{name}")
    wanted = place(ran, name)
    assert told["facts"]["at"].startswith(wanted + " ")
    assert f"{told['made']['file']}:{told['made']['line']}" == wanted


@pytest.mark.parametrize("name", CORPUS)
def test_it_ends_in_time(ran, name):
    """Within its limit and the grace of the rungs that it takes."""
    told = ran.timeout(f"test_{name}")
    assert LIMIT <= told["seconds"] < MOST
    file = ran.tests[f"test_{name}"]["nodeid"].partition("::")[0]
    assert told["facts"]["limit"].startswith(f"{LIMIT:g} s ({file}: @pytest.mark.tightship")


@pytest.mark.parametrize("name", CORPUS)
def test_its_part_is_named(ran, name):
    """The call, or the fixture that was set up or torn down."""
    told = ran.timeout(f"test_{name}")
    assert told["subject"] == f"test_{name} ({PARTS.get(name, 'call')})"


def test_nobody_else_is_blamed(ran):
    """The clean twins in between pass without a finding, and no test hangs but these."""
    hung = {n for n, r in ran.tests.items() if r["findings"]}
    assert hung == {f"test_{name}" for name in CORPUS}
    twins = {n: r["outcome"] for n, r in ran.tests.items() if n.endswith("_twin")}
    assert len(twins) == 16
    assert set(twins.values()) == {"passed"}, ran.text


def test_none_is_also_accused_of_leaking(ran):
    """What was stopped in the middle of its work leaves things behind."""
    kinds = {f["kind"] for r in ran.tests.values() for f in r["findings"]}
    assert kinds == {"timeout"}


def test_each_is_in_the_text(ran):
    """In the report and in the summary, where people read it."""
    for name in CORPUS:
        subject = f"test_{name} ({PARTS.get(name, 'call')}) took longer than {LIMIT:g} s"
        assert f"TIMEOUT {subject}" in ran.section
        assert ran.text.count(subject) == 2
    assert f"{len(CORPUS)} timeouts; 0 leaks" in ran.section


def test_what_an_error_hides_is_in_its_chain(ran):
    """What the test raised while it was cancelled does not take the diagnosis' place."""
    assert ran.outcomes["test_error_after_the_cancel"] == "failed"


def test_outcomes_are_pytests(ran):
    """A hang in the call fails the test; one in a fixture is an error."""
    parts = len(PARTS)
    assert ran.counts["failed"] == len(CORPUS) - parts
    assert ran.counts["error"] == parts
