"""`no_leaks` around real resources: each leak with its clean twin, with and without a plugin."""

# ruff: noqa: PT012 - what is raised here is raised at the end of the block

import asyncio
import contextlib
import functools
import gc
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time

import anyio
import pytest
import trio
import uvloop

from tightship import LeakError, no_leaks
from tightship.model import Certainty
from tightship.ownership import CURRENT
from tightship.watch import Watch


@pytest.fixture(autouse=True, params=["alone", "with plugin"])
def mode(request, monkeypatch):
    """Run each test with a watch of the block's own, and with the plugin's."""
    if request.param == "alone":
        monkeypatch.setattr(Watch, "active", [])
    return request.param


async def forever():
    await asyncio.get_running_loop().create_future()


def told(caught):
    return [(f.kind, f.subject) for f in caught.value.findings]


# -- with ------------------------------------------------------------------------------------


def make_socket(after):
    sock = socket.socket()
    after.callback(sock.close)
    return sock


def make_file(after):
    return after.enter_context(open(os.devnull))


def make_pipe(after):
    ends = os.pipe()
    for end in ends:
        after.callback(os.close, end)
    return ends


def make_thread(after):
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="planted")
    thread.start()
    after.callback(thread.join)
    after.callback(over.set)
    return thread


def make_process(after):
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    after.callback(process.communicate)
    return process


def make_sqlite(after):
    connection = sqlite3.connect(":memory:")
    after.callback(connection.close)
    return connection


def make_directory(after):
    path = tempfile.mkdtemp()
    after.callback(os.rmdir, path)
    return path


def make_loop(after):
    loop = asyncio.new_event_loop()
    after.callback(loop.close)
    return loop


MAKERS = {
    "socket": make_socket,
    "file": make_file,
    "pipe": make_pipe,
    "thread": make_thread,
    "process": make_process,
    "sqlite3": make_sqlite,
    "tempfile": make_directory,
    "loop": make_loop,
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_left_open_in_a_block_is_found(kind):
    """A real resource of each kind, still there when the block ends."""
    with contextlib.ExitStack() as after:
        with pytest.raises(LeakError) as caught, no_leaks():
            kept = MAKERS[kind](after)
        assert {f.kind for f in caught.value.findings} == {kind}
        assert all(f.certainty >= Certainty.STRONG for f in caught.value.findings)
        assert caught.value.findings[0].owner_kind == "block"
        del kept


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_closed_in_a_block_is_not_found(kind):
    """The clean twin: the same resource, ended in time."""
    with no_leaks(threshold="possible"), contextlib.ExitStack() as after:
        MAKERS[kind](after)


@pytest.mark.parametrize("kind", MAKERS)
def test_what_was_open_before_a_block_is_not_found(kind):
    """Only what is made within the block counts."""
    with contextlib.ExitStack() as after:
        kept = MAKERS[kind](after)
        with no_leaks(threshold="possible"):
            open(os.devnull).close()
        del kept


@pytest.mark.filterwarnings("default:coroutine:RuntimeWarning")
def test_a_coroutine_never_awaited_is_found():
    """It is dead when the block ends; the block still knows."""
    with pytest.raises(LeakError) as caught, no_leaks():
        forever()
    assert told(caught) == [("coroutine", "coroutine 'forever'")]


def test_a_task_that_a_runner_cancels_in_silence_is_found():
    """`asyncio.run` inside a plain block: its loop has its last look before it closes."""

    async def main():
        asyncio.create_task(forever())
        await asyncio.sleep(0)

    with pytest.raises(LeakError) as caught, no_leaks():
        asyncio.run(main())
    assert told(caught) == [("task", "task 'forever'")]


def test_a_task_that_ends_before_its_runner_is_not_found():
    """The clean twin of a task that a runner cancels."""

    async def main():
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()

    with no_leaks(threshold="possible"):
        asyncio.run(main())


def test_a_task_on_an_idle_loop_is_found():
    """A loop made by hand that stays open: its tasks and itself."""
    loop = None
    with pytest.raises(LeakError) as caught, no_leaks("task"):
        loop = asyncio.new_event_loop()
        task = loop.create_task(forever())
        loop.run_until_complete(asyncio.sleep(0))
    assert told(caught) == [("task", "task 'forever'")]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def test_a_thread_that_is_ending_is_waited_for():
    """Something on its way out is no leak: the block waits as long as it moves."""
    with no_leaks():
        threading.Thread(target=time.sleep, args=(0.03,)).start()


def test_what_only_the_collector_closed_is_proven():
    """A socket in a cycle: unreachable and open."""

    class Holder:
        pass

    with pytest.raises(LeakError) as caught, no_leaks():
        holder = Holder()
        holder.me, holder.sock = holder, socket.socket()
        del holder
    (finding,) = caught.value.findings
    assert (finding.kind, finding.certainty) == ("socket", Certainty.PROVEN)


def test_a_plain_block_in_a_running_loop_forgives_what_was_told_to_end():
    """The loop cannot turn while a plain block ends."""

    async def main():
        with no_leaks():
            asyncio.create_task(forever()).cancel()
        with pytest.raises(LeakError), no_leaks():
            task = asyncio.create_task(forever())
        task.cancel()

    asyncio.run(main())


# -- async with ------------------------------------------------------------------------------


async def leak_task(after):
    task = asyncio.create_task(forever())
    after.callback(task.cancel)


async def leak_timer(after):
    timer = asyncio.get_running_loop().call_later(3600, print)
    after.callback(timer.cancel)


async def leak_transport(after):
    one, other = socket.socketpair()
    after.callback(other.close)
    _, writer = await asyncio.open_connection(sock=one)
    after.callback(writer.close)


async def leak_server(after):
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    after.callback(server.close)


async def leak_generator(after):
    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            after.pop_all()

    generator = numbers()
    await anext(generator)
    after.callback(lambda: generator)


LEAKS = {
    "task": leak_task,
    "timer": leak_timer,
    "transport": leak_transport,
    "server": leak_server,
    "asyncgen": leak_generator,
}


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("kind", LEAKS)
def test_what_is_left_on_the_running_loop_is_found(kind, factory):
    """Judged while the loop runs, in the task that opened the block."""
    if kind == "asyncgen" and factory is uvloop.new_event_loop:
        pytest.skip("uvloop shows its async generators to nobody")

    async def main():
        with contextlib.ExitStack() as after:
            with pytest.raises(LeakError) as caught:
                async with no_leaks(kind):
                    await LEAKS[kind](after)
            assert [f.kind for f in caught.value.findings] == [kind]

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_is_ended_on_the_running_loop_is_not_found(factory):
    """The clean twins of all of them, at once; none is awaited that need not be."""

    async def main():
        async with no_leaks():
            with contextlib.ExitStack() as after:
                await leak_task(after)
                await leak_timer(after)
                await leak_transport(after)
                await leak_server(after)
            async with contextlib.aclosing(_numbers()) as numbers:
                await anext(numbers)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


async def _numbers():
    for number in range(3):
        yield number


def test_what_other_tasks_make_meanwhile_is_not_counted():
    """A server next door goes on working while the block is open."""

    async def neighbour(begun, over):
        await over.wait()
        mine = [asyncio.create_task(forever()), socket.socket(), _numbers()]
        await anext(mine[2])
        mine.append(asyncio.get_running_loop().call_later(3600, print))
        begun.set()
        await over.wait()
        await asyncio.sleep(0.2)
        for thing in (mine[0], mine[3]):
            thing.cancel()
        mine[1].close()
        await mine[2].aclose()

    async def main():
        begun, over = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(neighbour(begun, over))
        await asyncio.sleep(0)
        async with no_leaks(threshold="possible"):
            over.set()
            await begun.wait()
        await task

    asyncio.run(main())


def test_a_cancelled_task_gets_the_turns_it_needs():
    """Several levels of clean-up, each of which waits for a turn."""

    async def careful():
        try:
            await forever()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)

    async def main():
        async with no_leaks():
            task = asyncio.create_task(careful())
            await asyncio.sleep(0)
            task.cancel()

    asyncio.run(main())


def test_the_default_executor_belongs_to_its_loop():
    """`asyncio.to_thread` starts threads that the loop ends."""

    async def main():
        async with no_leaks():
            assert await asyncio.to_thread(int) == 0

    asyncio.run(main())


def test_a_socket_of_an_executor_job_belongs_to_the_block():
    """The owner goes along into threads."""
    made = []

    async def main():
        with pytest.raises(LeakError) as caught:
            async with no_leaks():
                await asyncio.to_thread(lambda: made.append(socket.socket()))
        assert [f.kind for f in caught.value.findings] == ["socket"]
        made.pop().close()

    asyncio.run(main())


def test_a_cancellation_during_settling_goes_on():
    """Whoever cancels the waiting task is obeyed, and the block undone."""

    async def stubborn():
        while True:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                if over:
                    raise

    async def main():
        async with no_leaks():
            tasks.append(asyncio.create_task(stubborn()))

    async def outer():
        task = asyncio.create_task(main())
        while not tasks:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        over.append(True)
        tasks[0].cancel()

    tasks, over = [], []
    asyncio.run(outer())
    assert CURRENT.get() is None or CURRENT.get().kind != "block"


def test_trio_programs_are_watched_for_what_belongs_to_the_process():
    """No event loop of asyncio's, and settling sleeps in trio."""

    async def leaky():
        with pytest.raises(LeakError) as caught:
            async with no_leaks():
                sock = socket.socket()
        sock.close()
        assert [f.kind for f in caught.value.findings] == ["socket"]

    async def clean():
        async with no_leaks():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 0)
            sock = trio.socket.socket()
            sock.close()

    trio.run(leaky)
    trio.run(clean)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_block_in_a_cancelled_scope_of_anyio_ends(backend):
    """anyio cancels again and again: the body's own cancellation goes on all the same."""

    async def main():
        with anyio.move_on_after(0.01) as scope:
            async with no_leaks():
                kept.append(socket.socket())
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        kept.pop().close()

    kept = []
    anyio.run(main, backend=backend)


# -- decorator --------------------------------------------------------------------------------


def test_a_decorated_function_is_watched_at_each_call():
    """Each call is a block of its own, named after the function."""
    kept = []

    @no_leaks()
    def fetch(leak: bool) -> str:
        """Fetch."""
        sock = socket.socket()
        if leak:
            kept.append(sock)
        else:
            sock.close()
        return "done"

    assert fetch(False) == "done"
    with pytest.raises(LeakError) as caught:
        fetch(leak=True)
    kept.pop().close()
    assert fetch(False) == "done"
    assert caught.value.findings[0].owner == "fetch"
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch.")


def test_a_decorated_coroutine_function_stays_one():
    """It is awaited as before, and judged before it returns."""

    class Shop:
        @no_leaks()
        async def restock(self, leak):
            task = asyncio.create_task(forever())
            if not leak:
                task.cancel()
            return task

    async def main():
        await Shop().restock(False)
        with pytest.raises(LeakError) as caught:
            await Shop().restock(leak=True)
        assert told(caught) == [("task", "task 'forever'")]
        assert caught.value.findings[0].owner == "Shop.restock"

    assert asyncio.iscoroutinefunction(Shop.restock) if sys.version_info < (3, 14) else True
    asyncio.run(main())


def test_calls_of_a_decorated_function_may_overlap():
    """Recursion, and several tasks in it at once."""

    @no_leaks()
    async def work(depth):
        await asyncio.sleep(0)
        if depth:
            await work(depth - 1)
        return depth

    async def main():
        assert await asyncio.gather(*(work(2) for _ in range(5))) == [2] * 5

    asyncio.run(main())


def test_generators_are_refused_with_advice():
    """Their body runs in pieces, so that a block around a call would be empty."""

    def numbers():
        yield 1

    with pytest.raises(TypeError, match=r"cannot decorate the generator .*numbers.*'with no_leaks"):
        no_leaks()(numbers)
    with pytest.raises(TypeError, match=r"async generator _numbers.*'async with no_leaks"):
        no_leaks()(_numbers)


def test_what_is_no_function_is_refused_with_advice():
    """Classes, static methods, bare use, anything else."""
    with pytest.raises(TypeError, match="decorate its methods"):
        no_leaks()(dict)
    with pytest.raises(TypeError, match="below @staticmethod"):
        no_leaks()(staticmethod(print))
    with pytest.raises(TypeError, match=r"@no_leaks\(\) with parentheses"):
        no_leaks(print)
    with pytest.raises(TypeError, match="decorates functions, got 3"):
        no_leaks()(3)


def test_a_partial_coroutine_function_is_awaited_within_its_block():
    """`functools.partial` has no name of its own."""

    async def add(a, b):
        await asyncio.sleep(0)
        return a + b

    assert asyncio.run(no_leaks()(functools.partial(add, 1))(2)) == 3


# -- arguments --------------------------------------------------------------------------------


def test_kinds_narrow_what_is_watched():
    """Both ways: the kind that was named is found, the other is not."""
    with pytest.raises(LeakError) as caught, no_leaks("socket"):
        sock, file = socket.socket(), open(os.devnull)
    assert [f.kind for f in caught.value.findings] == ["socket"]
    sock.close()
    file.close()
    with no_leaks("socket", "task"):
        file = open(os.devnull)
    file.close()
    with pytest.raises(LeakError) as caught, no_leaks("file"):
        sock, file = socket.socket(), open(os.devnull)
    assert [f.kind for f in caught.value.findings] == ["file"]
    sock.close()
    file.close()


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    """A misspelt kind must not switch the block off in silence."""
    with pytest.raises(ValueError, match="did you mean 'socket'"):
        no_leaks("sockets")


def test_what_is_allowed_does_not_raise():
    """A string or a list, and the label may be a pattern."""

    async def main(allow):
        async with no_leaks(allow=allow, reason="ends with the program"):
            task = asyncio.create_task(forever())
        task.cancel()

    asyncio.run(main("task:for*"))
    asyncio.run(main(["socket:*", "task:forever"]))
    with pytest.raises(LeakError):
        asyncio.run(main("task:poll*"))


def test_a_rule_needs_a_reason_and_a_reason_a_rule():
    """Both mistakes are told at once, not at the end of the block."""
    with pytest.raises(ValueError, match="without a reason"):
        no_leaks(allow="task:poll")
    with pytest.raises(ValueError, match="reason without allow"):
        no_leaks(reason="because")
    with pytest.raises(ValueError, match="did you mean 'task'"):
        no_leaks(allow="tasks:poll", reason="because")
    with pytest.raises(ValueError, match="grace"):
        no_leaks(grace=-1)
    with pytest.raises(ValueError, match="threshold"):
        no_leaks(threshold="sure")


def test_the_threshold_is_the_least_certainty_that_raises():
    """A module's global holds it: possible, not strong."""
    global KEPT
    with no_leaks():
        KEPT = socket.socket()
    KEPT.close()
    with pytest.raises(LeakError) as caught, no_leaks(threshold="possible"):
        KEPT = socket.socket()
    KEPT.close()
    assert caught.value.findings[0].certainty is Certainty.POSSIBLE


KEPT = None


# -- the error --------------------------------------------------------------------------------


def test_the_error_begins_with_the_headline_and_tells_the_rest():
    """What, where it was made, what to do, what to paste."""
    with pytest.raises(AssertionError) as caught, no_leaks():
        sock = socket.socket()
    sock.close()
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("socket tcp")
    assert "outlived block at " in first
    assert "test_no_leaks.py:" in first
    assert any("made" in line and "sock = socket.socket()" in line for line in rest)
    assert any('no_leaks(allow="socket:' in line for line in rest)


def test_two_findings_are_both_in_the_first_line():
    """The first line stands alone in a summary."""
    with pytest.raises(LeakError) as caught, no_leaks():
        sock, file = socket.socket(), open(os.devnull)
    sock.close()
    file.close()
    assert str(caught.value).splitlines()[0].endswith("(and 1 more)")


def test_the_error_travels_between_processes():
    """As pytest-xdist and process pools need it."""
    with pytest.raises(LeakError) as caught, no_leaks():
        sock = socket.socket()
    sock.close()
    twin = pickle.loads(pickle.dumps(caught.value))
    assert (twin.findings, str(twin)) == (caught.value.findings, str(caught.value))


def test_the_own_exception_of_a_body_goes_on_with_the_leaks_as_a_note():
    """The same object, unchanged but for the note."""
    error = KeyError("mine")
    kept = []
    with pytest.raises(KeyError) as caught, no_leaks():
        kept.append(socket.socket())
        raise error
    kept.pop().close()
    assert caught.value is error
    (note,) = error.__notes__
    assert "socket tcp" in note

    async def main():
        async with no_leaks():
            kept.append(asyncio.create_task(forever()))
            raise error

    with pytest.raises(KeyError) as caught:
        asyncio.run(main())
    assert "task 'forever'" in caught.value.__notes__[1]


def test_the_own_exception_of_a_clean_body_has_no_note():
    """The clean twin of a body that raises and leaks."""
    with pytest.raises(KeyError) as caught, no_leaks():
        raise KeyError("mine")
    assert not hasattr(caught.value, "__notes__")


def test_an_exit_of_the_program_is_not_held_up():
    """`SystemExit` and a closed coroutine end at once."""
    with pytest.raises(SystemExit), no_leaks():
        sock = socket.socket()
        raise SystemExit
    sock.close()

    async def held():
        async with no_leaks():
            await forever()

    async def main():
        coro = held()
        coro.send(None)
        coro.close()

    asyncio.run(main())


# -- several blocks ------------------------------------------------------------------------------


def test_blocks_nest():
    """The inner one tells first; what it told is still the outer one's when it is still there."""
    with pytest.raises(LeakError) as outer, no_leaks():
        with pytest.raises(LeakError) as inner, no_leaks():
            sock = socket.socket()
        file = open(os.devnull)
    assert [f.kind for f in inner.value.findings] == ["socket"]
    assert sorted(f.kind for f in outer.value.findings) == ["file", "socket"]
    sock.close()
    file.close()


def test_what_an_outer_block_made_is_not_the_inner_ones():
    """Made before the inner block began, closed before the outer one ends."""
    with no_leaks():
        sock = socket.socket()
        with no_leaks(threshold="possible"):
            socket.socket().close()
        sock.close()


def test_the_same_socket_number_with_a_new_socket_is_new():
    """File descriptors are handed out again at once."""
    old = socket.socket()
    with pytest.raises(LeakError), no_leaks():
        old.close()
        new = socket.socket()
    new.close()


def test_one_object_cannot_be_open_twice():
    """A second entry would lose the first one."""
    block = no_leaks()
    with block, pytest.raises(RuntimeError, match="open already"), block:
        pass
    with block:
        pass


def test_blocks_in_several_threads_do_not_disturb_each_other():
    """Only the thread that leaks is told."""
    meet = threading.Barrier(4)
    results = {}

    def work(number):
        kept = None
        try:
            with no_leaks():
                meet.wait(10)
                sock = socket.socket()
                if number == 2:
                    kept = sock
                else:
                    sock.close()
                del sock
                meet.wait(10)
                asyncio.run(asyncio.sleep(0))
                meet.wait(10)
        except LeakError as exc:
            results[number] = [f.kind for f in exc.findings]
        else:
            results[number] = []
        if kept is not None:
            kept.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0: [], 1: [], 2: ["socket"], 3: []}


def test_blocks_in_several_tasks_do_not_disturb_each_other():
    """Only the task that leaks is told, whichever order they end in."""

    async def work(number, kept):
        async with no_leaks():
            await asyncio.sleep(0)
            task = asyncio.create_task(forever())
            if number == 1:
                kept.append(task)
            else:
                task.cancel()
            await asyncio.sleep(0.001 * number)

    async def main():
        kept = []
        results = await asyncio.gather(*(work(n, kept) for n in range(4)), return_exceptions=True)
        kept[0].cancel()
        assert [type(r) for r in results] == [type(None), LeakError, type(None), type(None)]

    asyncio.run(main())


# -- nothing stays behind --------------------------------------------------------------------------

STATE = """
    import asyncio, builtins, gc, socket, sys, threading, warnings
    from asyncio import runners
    from tightship import LeakError, no_leaks

    def state():
        return (
            socket.socket.__init__, builtins.open, threading.Thread.start,
            threading.Thread._bootstrap_inner, runners._cancel_all_tasks,
            warnings._warn_unawaited_coroutine, list(sys.meta_path),
            sys.get_coroutine_origin_tracking_depth(), gc.get_freeze_count(), gc.collect,
            gc.isenabled(), sys.unraisablehook, warnings.showwarning, warnings.filters[:],
            asyncio.base_events.BaseEventLoop.call_at,
        )
"""


def run(text):
    code = textwrap.dedent(STATE) + textwrap.dedent(text)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", ["alone"], indirect=True)
def test_every_patch_is_undone():
    """After a clean block, a leak, a nested one, one of each kind in threads and loops."""
    run(
        """
        with no_leaks():  # what it imports is not a patch
            pass
        before = state()
        with no_leaks():
            assert state() != before
            with no_leaks():
                pass
            assert state() != before
        assert state() == before
        def leak():
            with no_leaks():
                sock = socket.socket()
        try:
            leak()
        except LeakError:
            pass
        else:
            raise SystemExit("not found")
        assert state() == before
        first, second = threading.Event(), threading.Event()
        def one():
            with no_leaks():
                second.set(); first.wait()
        thread = threading.Thread(target=one)
        thread.start()
        second.wait()
        with no_leaks():
            first.set(); thread.join()
        assert state() == before, (state(), before)
        async def main():
            depth = sys.get_coroutine_origin_tracking_depth()
            async with no_leaks():
                pass
            assert sys.get_coroutine_origin_tracking_depth() == depth
        asyncio.run(main())
        assert state() == before
        """
    )


@pytest.mark.parametrize("mode", ["alone"], indirect=True)
def test_a_clean_block_costs_less_than_a_millisecond():
    """The best of many, so that a busy machine does not count."""
    out = run(
        """
        import time
        best = 1.0
        for _ in range(50):
            began = time.perf_counter()
            with no_leaks():
                pass
            best = min(best, time.perf_counter() - began)
        print(best)
        """
    )
    assert float(out) < 0.001


def test_nothing_is_kept_alive():
    """Neither what was made nor the block itself."""

    class Thing:
        pass

    gc.collect()
    with pytest.raises(LeakError), no_leaks():
        thing = Thing()
        thing.sock = socket.socket()
    thing.sock.close()
    import weakref

    ref = weakref.ref(thing)
    del thing
    gc.collect()
    assert ref() is None


# -- inside a test that the plugin watches ---------------------------------------------------


@pytest.fixture
def watched(pytester):
    """Run a file's tests with the plugin, in a process of its own."""

    def run(text, *args):
        pytester.makepyfile(
            "import asyncio, gc, mmap, os, socket, pytest\n"
            "from tightship import LeakError, no_leaks\n"
            "async def forever(): await asyncio.get_running_loop().create_future()\n"
            + textwrap.dedent(text)
        )
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)

    return run


@pytest.mark.parametrize("mode", ["with plugin"], indirect=True)
def test_a_block_in_a_watched_test_sees_what_it_made_only(watched):
    """The test's own resources, older than the block, are not the block's."""
    watched(
        """
        def test_block():
            sock, area = socket.socket(), mmap.mmap(-1, 4096)
            with no_leaks(threshold="possible"):
                mmap.mmap(-1, 4096).close()
            with pytest.raises(LeakError) as caught, no_leaks():
                other = mmap.mmap(-1, 4096)
            assert [f.kind for f in caught.value.findings] == ["mmap"]
            for thing in (sock, area, other):
                thing.close()

        def test_async_block():
            async def main():
                mine = asyncio.create_task(forever())
                async with no_leaks(threshold="possible"):
                    asyncio.create_task(forever()).cancel()
                with pytest.raises(LeakError) as caught:
                    async with no_leaks():
                        task = asyncio.create_task(forever())
                assert len(caught.value.findings) == 1
                task.cancel(); mine.cancel()
            asyncio.run(main())

        def test_run_in_block():
            async def main():
                asyncio.create_task(forever())
            with pytest.raises(LeakError) as caught, no_leaks():
                asyncio.run(main())
            assert caught.value.findings[0].nodeid.endswith("::test_run_in_block")
        """
    ).assert_outcomes(passed=3)


@pytest.mark.parametrize("mode", ["with plugin"], indirect=True)
def test_a_leak_that_a_block_told_is_still_the_tests_if_it_stays(watched):
    """Caught by `pytest.raises`, yet open when the test ends; older objects are not forgotten."""
    result = watched(
        """
        def test_stays(request):
            area = mmap.mmap(-1, 4096)
            with pytest.raises(LeakError), no_leaks():
                sock = socket.socket()
            request.node.kept = sock, area

        def test_clean():
            with no_leaks():
                pass
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["socket tcp* outlived test_stays*"])
    result.stdout.fnmatch_lines(["memory map outlived test_stays*"])


@pytest.mark.parametrize("mode", ["with plugin"], indirect=True)
def test_a_leak_error_fails_a_test_with_its_headline(watched, monkeypatch):
    """As any assertion does, without our own frames in the traceback."""
    monkeypatch.setenv("COLUMNS", "200")
    result = watched(
        """
        @no_leaks()
        def test_leaky():
            async def main():
                asyncio.create_task(forever())
            asyncio.run(main())
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAILED *LeakError: task 'forever' outlived test_leaky*"])
    result.stdout.no_fnmatch_line("*def tell*")
