"""Closing many things: each in its way, within its deadline, whatever the others do."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import http.server
import multiprocessing
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time

import anyio
import pytest
import trio

from tightship import Cleanup, ResistedError, close_all

#: Runs until it is told to end.
CHILD = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
#: Does not listen to SIGTERM; says when that is so.
DEAF_CHILD = [
    *(sys.executable, "-S", "-c"),
    "import signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
]


@pytest.fixture(params=["asyncio", "trio"])
def anyway(request):
    """Return what runs an async function on asyncio, or on trio."""
    return functools.partial(anyio.run, backend=request.param)


class Thing:
    """Something that can be closed in one way, sync or async."""

    def __init__(self, way, log, *, is_async=True):
        async def later():
            await anyio.sleep(0)
            log.append(way)

        setattr(self, way, later if is_async else functools.partial(log.append, way))


WAYS = ["aclose", "close", "stop", "shutdown", "terminate", "disconnect", "cleanup", "cancel"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_each_way_is_known(anyway, way, is_async):
    """Whatever the method is called, and whether it is a coroutine or not, it is found."""
    log = []

    async def main():
        report = await close_all(Thing(way, log, is_async=is_async))
        assert report.ok
        assert (report.closed[0].name, report.closed[0].by) == ("Thing", f"{way}()")

    anyway(main)
    assert log == [way]


def test_close_is_followed_by_wait_closed(anyway):
    """A thing that closes in two steps is closed when the second has ended."""
    log = []

    class Writer:
        def close(self):
            log.append("close")

        async def wait_closed(self):
            await anyio.sleep(0)
            log.append("wait_closed")

    async def main():
        report = await close_all(Writer())
        assert report.closed[0].by == "close(), wait_closed()"

    anyway(main)
    assert log == ["close", "wait_closed"]


def test_functions_coroutines_and_blocks_are_closed(anyway):
    """What has no method may be a function, a coroutine, or a context that was entered."""
    log = []

    async def goodbye(word):
        await anyio.sleep(0)
        log.append(word)

    class Entered:
        async def __aexit__(self, *exc):
            log.append(("exit", exc))

    async def main():
        report = await close_all(
            functools.partial(goodbye, "partial"),
            goodbye("coroutine"),
            lambda: log.append("lambda"),
            Entered(),
            reverse=True,
        )
        assert report.ok, report
        assert report.closed[1].name == "goodbye"

    anyway(main)
    assert log == [("exit", (None, None, None)), "lambda", "coroutine", "partial"]


def test_none_is_what_set_up_did_not_get_to(anyway):
    """Names that were never filled need no special care; duplicates are closed once."""
    log = []

    async def main():
        thing = Thing("close", log)
        report = await close_all(None, thing, thing, None)
        assert len(report.closed) == 1

    anyway(main)
    assert log == ["close"]


def test_nothing_to_close_is_fine(anyway):
    """No things, no work."""

    async def main():
        assert (await close_all()).ok

    anyway(main)


# -- what goes wrong -----------------------------------------------------------------------


def test_one_that_raises_keeps_no_other_from_being_closed(anyway):
    """All are closed; the errors are in the report, with what raised them."""
    log = []

    def fails():
        raise OSError("disk full")

    async def main():
        report = await close_all(Thing("close", log), fails, Thing("stop", log))
        assert sorted(log) == ["close", "stop"]
        [failed] = report.failed
        assert (failed.by, str(failed.exception)) == ("call", "disk full")
        assert not report.ok
        assert str(report).splitlines()[0].startswith("3 things to close: 2 closed, 1 failed (")
        assert "fails: call raised OSError: disk full" in str(report)
        with pytest.raises(ExceptionGroup) as caught:
            report.raise_if_failed()
        assert caught.value.exceptions == (failed.exception,)
        assert failed.exception.__notes__ == ["from call of fails"]

    anyway(main)


def test_one_that_hangs_costs_its_deadline_only(anyway):
    """The others are closed meanwhile; it is told as resisting."""
    log = []

    class Hangs:
        async def aclose(self):
            await anyio.sleep(60)

    async def main():
        started = time.monotonic()
        report = await close_all(Hangs(), Thing("close", log), Hangs(), timeout=0.1)
        assert 0.09 < time.monotonic() - started < 3
        assert log == ["close"]
        assert len(report.resisted) == 2
        assert not report.resisted[0].running
        with pytest.raises(ExceptionGroup) as caught:
            report.raise_if_failed()
        assert all(isinstance(e, ResistedError) for e in caught.value.exceptions)
        assert "Hangs: aclose() did not end within 0.1" in str(caught.value.exceptions[0])

    anyway(main)


def test_one_that_hangs_is_told_with_where_it_stands():
    """On asyncio the report shows the line."""

    class Hangs:
        async def aclose(self):
            await asyncio.sleep(60)

    async def main():
        report = await close_all(Hangs(), timeout=0.05)
        assert "await asyncio.sleep(60)" in report.resisted[0].waiting

    asyncio.run(main())


def test_one_that_swallows_is_left_behind_and_told(deafness):
    """A closing that ignores its cancellation does not hang the caller."""

    async def main():
        async with deafness() as deaf:
            report = await close_all(deaf, timeout=0.05)
            [resisted] = report.resisted
            assert resisted.running
            assert resisted.swallowed is not None
            assert resisted.swallowed.source == "except asyncio.CancelledError:"

    asyncio.run(main())


def test_what_cannot_be_closed_is_told(anyway):
    """A thing without any known method is a failure with a hint, not an exception."""

    async def main():
        report = await close_all(object())
        assert "nothing is known that closes object: it has none of aclose, close" in str(report)
        assert "Give the function that does" in str(report)

    anyway(main)


def test_a_peer_that_was_gone_first_is_no_failure(anyway):
    """A connection reset while waiting for the close leaves it closed."""

    class Reset:
        def close(self):
            pass

        async def wait_closed(self):
            raise ConnectionResetError("by peer")

    async def main():
        assert (await close_all(Reset())).ok

    anyway(main)


# -- order and cancellation ----------------------------------------------------------------


def test_all_are_closed_at_once(anyway):
    """Ten slow closings take as long as one."""

    async def slow():
        await anyio.sleep(0.1)

    async def main():
        started = time.monotonic()
        report = await close_all(*(functools.partial(slow) for _ in range(10)))
        assert len(report.closed) == 10
        assert time.monotonic() - started < 0.8

    anyway(main)


def test_reverse_is_one_after_the_other(anyway):
    """The last one is closed first, and nothing else is closed meanwhile; reports stay in order."""
    log = []

    async def step(word):
        log.append(f"begin {word}")
        await anyio.sleep(0.01)
        log.append(f"end {word}")

    async def main():
        report = await close_all(
            functools.partial(step, "a"), functools.partial(step, "b"), reverse=True
        )
        assert [c.name.rpartition(".")[2] for c in report.closed] == ["step", "step"]

    anyway(main)
    assert log == ["begin b", "end b", "begin a", "end a"]


@pytest.mark.parametrize("reverse", [True, False])
def test_a_cancelled_caller_has_all_closed_first(run, reverse):
    """The cancellation goes on when everything is closed, and is counted once."""
    log = []

    async def slow(word):
        await asyncio.sleep(0.03)
        log.append(word)

    async def caller():
        try:
            things = [functools.partial(slow, w) for w in "ab"]
            await close_all(*things, reverse=reverse)
        finally:
            log.append(asyncio.current_task().cancelling())

    async def main():
        task = asyncio.create_task(caller())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    assert sorted(log[:2]) == ["a", "b"]
    assert log[2] == 1


def test_a_deadline_around_it_waits_for_the_closing(anyway):
    """anyio's deadline strikes, everything is closed, and then the scope ends."""
    log = []

    async def slow():
        await anyio.sleep(0.1)
        log.append("closed")

    async def main():
        with anyio.move_on_after(0.02) as scope:
            await close_all(slow)
            await anyio.sleep(0)
            pytest.fail("the cancellation was lost")
        assert scope.cancelled_caught

    anyway(main)
    assert log == ["closed"]


# -- real things ---------------------------------------------------------------------------


def test_asyncios_own_things_are_closed(run):
    """Servers, streams, tasks, timers, subprocesses, async generators: all in one call."""

    async def echo(reader, writer):
        await reader.read()
        writer.close()

    async def numbers():
        try:
            yield 1
        finally:
            await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        task = asyncio.create_task(asyncio.Event().wait())
        timer = loop.call_later(60, print)
        process = await asyncio.create_subprocess_exec(*CHILD)
        agen = numbers()
        await anext(agen)
        report = await close_all(server, writer, task, timer, process, agen)
        assert report.ok, report
        assert task.cancelled()
        assert timer.cancelled()
        assert process.returncode == -signal.SIGTERM
        assert not server.is_serving()

    run(main())


def test_a_task_that_resists_is_told(run, deafness):
    """A deaf task is one thing among others."""

    async def main():
        async with deafness() as deaf:
            task = asyncio.create_task(deaf())
            await asyncio.sleep(0)
            report = await close_all(task, timeout=0.2)
            [resisted] = report.resisted
            assert resisted.name.startswith("task ")
            assert resisted.running

    run(main())


def test_a_task_that_had_failed_is_told(run):
    """The error of a registered task is not lost."""

    async def fails():
        raise ValueError("earlier")

    async def main():
        task = asyncio.create_task(fails())
        await asyncio.sleep(0)
        assert str((await close_all(task)).failed[0].exception) == "earlier"

    run(main())


def test_a_child_that_ignores_sigterm_is_killed(anyway):
    """Before its deadline it is killed, and reaped."""

    async def main():
        process = subprocess.Popen(DEAF_CHILD, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        report = await close_all(process, timeout=1)
        assert report.ok, report
        assert process.returncode == -signal.SIGKILL
        assert process.stdout.closed

    anyway(main)


def test_asyncios_child_that_ignores_sigterm_is_killed(run):
    """The same for asyncio's own processes."""

    async def main():
        process = await asyncio.create_subprocess_exec(*DEAF_CHILD, stdout=subprocess.PIPE)
        assert await process.stdout.readline() == b"ready\n"
        report = await close_all(process, timeout=1)
        assert report.ok, report
        assert process.returncode == -signal.SIGKILL

    run(main())


def test_a_child_that_has_ended_is_fine(anyway):
    """There is nothing to terminate."""

    async def main():
        process = subprocess.Popen([sys.executable, "-S", "-c", ""])
        process.wait()
        assert (await close_all(process)).ok

    anyway(main)


def test_multiprocessings_child_is_ended(anyway):
    """Its process is terminated, joined and closed."""

    async def main():
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
        process.start()
        assert (await close_all(process)).ok
        with pytest.raises(ValueError, match="closed"):
            process.is_alive()

    anyway(main)


def test_what_blocks_is_shut_down_in_a_thread(anyway):
    """An executor with a job that never ends does not block the loop, nor the others."""
    free = threading.Event()
    turns = []

    async def main():
        executor = concurrent.futures.ThreadPoolExecutor(1)
        executor.submit(free.wait)
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()

        async def tick():
            for _ in range(5):
                await anyio.sleep(0.01)
                turns.append(1)

        report = await close_all(executor, server, tick, timeout=0.8)
        assert [r.name for r in report.resisted] == ["ThreadPoolExecutor"]
        assert len(report.closed) == 2
        assert len(turns) == 5
        free.set()
        serving.join()

    anyway(main)


# -- Cleanup -------------------------------------------------------------------------------


def test_cleanup_closes_what_was_registered(anyway):
    """It returns what it is given, and closes the last one first at the end of the block."""
    log = []

    async def main():
        async with Cleanup() as cleanup:
            thing = cleanup(Thing("close", log))
            assert isinstance(thing, Thing)
            cleanup(log.append, "function")
            cleanup(Thing("stop", log))
            assert len(cleanup) == 3
        assert len(cleanup) == 0

    anyway(main)
    assert log == ["stop", "function", "close"]


def test_cleanup_raises_everything_at_the_end(anyway):
    """Two errors are two errors, and the third thing is closed."""
    log = []

    def fails(word):
        raise OSError(word)

    async def main():
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - raised at the block's end
            async with Cleanup() as cleanup:
                cleanup(Thing("close", log))
                cleanup(fails, "a")
                cleanup(fails, "b")
        assert sorted(str(e) for e in caught.value.exceptions) == ["a", "b"]

    anyway(main)
    assert log == ["close"]


def test_cleanup_does_not_hide_the_bodys_error(anyway):
    """What set-up raised half-way goes on, with what could not be closed as a note."""
    log = []

    def fails():
        raise OSError("closing")

    async def main():
        with pytest.raises(ValueError, match="half-way") as caught:  # noqa: PT012
            async with Cleanup() as cleanup:
                cleanup(Thing("close", log))
                cleanup(fails)
                raise ValueError("half-way")
        assert "fails: call raised OSError: closing" in caught.value.__notes__[0]

    anyway(main)
    assert log == ["close"]


def test_cleanup_refuses_what_it_could_not_close():
    """The mistake is told where it is made, not at the end."""
    with pytest.raises(TypeError, match="nothing is known that closes object"):
        Cleanup()(object())
    with pytest.raises(TypeError, match="arguments for functions only"):
        Cleanup()(socket, "argument")


def test_a_deadline_that_never_comes_is_refused(anyway):
    """A hang is what this is against."""

    async def main():
        with pytest.raises(TypeError, match=r"close_all\(\) timeout"):
            await close_all(timeout=None)

    anyway(main)


def test_outside_of_a_loop_it_says_so():
    """Driven by hand, there is nothing that could wait."""
    with pytest.raises(RuntimeError, match="outside of a running event loop"):
        close_all().send(None)


def test_the_report_is_plain_data():
    """It can be pickled, errors and all."""

    def fails():
        raise OSError("x")

    async def main():
        report = await close_all(fails, lambda: None)
        assert str(pickle.loads(pickle.dumps(report))) == str(report)

    trio.run(main)
