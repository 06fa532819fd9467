"""Tasks that end, fail and resist, here and elsewhere, while the caller is cancelled or not."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pickle
import sys
import threading
import time
import weakref

import anyio
import pytest
import trio

from tightship import ResistedError, cancel_and_wait

#: Long enough that nothing below waits for it, short enough that a broken test ends.
LONG = 30.0


async def forever():
    await asyncio.Event().wait()


async def deaf_once():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass
    await asyncio.Event().wait()


async def deaf(stop):
    while not stop.is_set():
        try:
            await stop.wait()
        except asyncio.CancelledError:
            pass


async def slow_end(seconds):
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(seconds)


async def fails_when_cancelled():
    try:
        await asyncio.Event().wait()
    finally:
        raise ConnectionError("lost on the way out")


async def fails():
    raise ValueError("earlier")


async def returns():
    return 7


async def begin(*coros):
    """Start tasks and let each get to where it waits."""
    tasks = [asyncio.create_task(coro) for coro in coros]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


@contextlib.asynccontextmanager
async def stubborn():
    """Give a task that ignores every cancellation, and end it afterwards."""
    stop = asyncio.Event()
    [task] = await begin(deaf(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait([task])


# -- what becomes of one task --------------------------------------------------------------


def test_a_task_is_ended(run):
    """A waiting task is cancelled, and over when the call returns."""

    async def main():
        [task] = await begin(forever())
        report = await cancel_and_wait(task)
        assert task.cancelled()
        [ended] = report.ended
        assert (ended.name, ended.how, ended.before) == ("task 'forever'", "cancelled", False)
        assert report.ok
        report.raise_if_failed()

    run(main())


def test_a_task_that_has_not_started_is_ended(run):
    """A task cancelled before its first step never runs."""

    async def main():
        task = asyncio.create_task(forever())
        assert (await cancel_and_wait(task)).ok
        assert task.cancelled()

    run(main())


def test_a_task_with_an_own_name_is_shown_with_it(run):
    """Ten tasks of one coroutine are told apart by the names they were given."""

    async def main():
        task = asyncio.create_task(forever(), name="poller-7")
        report = await cancel_and_wait(task)
        assert report.ended[0].name == "task 'forever' (poller-7)"

    run(main())


def test_a_task_may_return_although_it_is_cancelled(run):
    """Catching the cancellation and returning is an end, not a failure."""

    async def polite():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "bye"

    async def main():
        report = await cancel_and_wait(*await begin(polite()))
        assert report.ok
        assert report.ended[0].how == "returned"

    run(main())


def test_an_error_on_the_way_out_is_in_the_report(run):
    """What a task raises when it is cancelled is told and not raised."""

    async def main():
        report = await cancel_and_wait(*await begin(fails_when_cancelled()))
        [failed] = report.failed
        assert isinstance(failed.exception, ConnectionError)
        assert not failed.before
        assert not report.ok
        with pytest.raises(ExceptionGroup, match="1 task cancelled: 1 failed") as caught:
            report.raise_if_failed()
        assert caught.value.exceptions == (failed.exception,)

    run(main())


def test_an_error_before_is_told_as_such(run):
    """A task that had failed by itself is not cancelled, and its error is not raised."""

    async def main():
        report = await cancel_and_wait(*await begin(fails()))
        [failed] = report.failed
        assert isinstance(failed.exception, ValueError)
        assert failed.before

    run(main())


def test_a_told_error_is_not_told_again(run):
    """asyncio does not complain of an exception that the report has handed over."""
    complaints = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        await cancel_and_wait(*await begin(fails(), fails_when_cancelled()))
        gc.collect()

    run(main())
    assert complaints == []


def test_tasks_that_are_done_are_told_as_ended(run):
    """A result and a cancellation from before are ends, too."""

    async def main():
        tasks = await begin(returns(), forever())
        tasks[1].cancel()
        await asyncio.wait(tasks)
        report = await cancel_and_wait(*tasks)
        assert [(e.how, e.before) for e in report.ended] == [
            ("returned", True),
            ("cancelled", True),
        ]

    run(main())


def test_no_tasks_are_no_work(run):
    """An empty list is fine: whoever keeps a set of tasks need not ask whether it is empty."""

    async def main():
        report = await cancel_and_wait()
        assert report.ok
        assert report.ended == ()

    run(main())


def test_a_task_given_twice_is_told_once(run):
    """Duplicates are one task."""

    async def main():
        [task] = await begin(forever())
        assert len((await cancel_and_wait(task, task)).ended) == 1

    run(main())


def test_futures_are_ended_too(run):
    """gather() gives a future that is no task: cancelling it ends its children."""

    async def main():
        tasks = await begin(forever(), forever())
        report = await cancel_and_wait(asyncio.gather(*tasks))
        assert report.ok
        assert all(t.cancelled() for t in tasks)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of 3.12")
def test_an_eager_task_that_ended_at_once_is_told():
    """An eager task may be done before anybody could wait for it."""

    async def main():
        loop = asyncio.get_running_loop()
        over = asyncio.Task(returns(), loop=loop, eager_start=True)
        broken = asyncio.Task(fails(), loop=loop, eager_start=True)
        going = asyncio.Task(forever(), loop=loop, eager_start=True)
        report = await cancel_and_wait(over, broken, going)
        assert [e.how for e in report.ended] == ["returned", "cancelled"]
        assert report.failed[0].before

    asyncio.run(main())


# -- tasks that resist ---------------------------------------------------------------------


def test_a_task_that_swallows_once_is_asked_again(run):
    """The second round ends what survived the first, long before the deadline."""

    async def main():
        report = await cancel_and_wait(*await begin(deaf_once()), timeout=0.1, rounds=2)
        assert report.ok
        assert report.ended[0].how == "cancelled"

    run(main())


def test_one_round_asks_once(run):
    """With rounds=1 a task that swallows once resists; the next call ends it."""

    async def main():
        [task] = await begin(deaf_once())
        report = await cancel_and_wait(task, timeout=0.05, rounds=1)
        [resisted] = report.resisted
        assert resisted.asked == 1
        assert task.cancelling() == 1
        assert (await cancel_and_wait(task)).ok

    run(main())


def test_a_task_that_swallows_for_ever_resists(run):
    """It is told with the line that caught the cancellation, its await chain and who asked."""

    async def main():
        async with stubborn() as task:
            started = time.monotonic()
            report = await cancel_and_wait(task, timeout=0.2, rounds=2)
            assert 0.15 < time.monotonic() - started < 2
            [resisted] = report.resisted
            assert resisted.name == "task 'deaf'"
            assert resisted.asked == 2
            assert "await stop.wait()" in resisted.waiting
            assert "await cancel_and_wait(task, timeout=0.2" in resisted.cancelled_by
            assert resisted.swallowed is not None
            assert resisted.swallowed.source == "except asyncio.CancelledError:"
            text = str(report)
            assert text.startswith("1 task cancelled: 1 resisted (0.")
            assert "\n    caught by    " in text
            with pytest.raises(ExceptionGroup) as caught:
                report.raise_if_failed()
            [error] = caught.value.exceptions
            assert isinstance(error, ResistedError)
            assert isinstance(error, TimeoutError)

    run(main())


def test_others_end_although_one_resists(run):
    """One deaf task does not keep the others from being ended and told."""

    async def main():
        async with stubborn() as task:
            others = await begin(forever(), fails())
            report = await cancel_and_wait(task, *others, timeout=0.1)
            assert report.summary.startswith("3 tasks cancelled: 1 ended, 1 failed, 1 resisted")

    run(main())


def test_an_orderly_end_is_waited_for(run):
    """A finally clause that awaits is given its time, and is not disturbed within a round."""

    async def main():
        report = await cancel_and_wait(*await begin(slow_end(0.05)), timeout=LONG)
        assert report.ok
        assert report.seconds < LONG / 4

    run(main())


def test_what_is_shielded_goes_on(run):
    """The task that awaits a shield ends; the shielded one is not touched."""

    async def main():
        [inner] = await begin(forever())

        async def outer():
            await asyncio.shield(inner)

        assert (await cancel_and_wait(*await begin(outer()))).ok
        assert not inner.done()
        await cancel_and_wait(inner)

    run(main())


def test_a_deadline_of_zero_gives_one_turn(run):
    """With timeout=0 a task that ends at once is ended, one that takes its time resists."""

    async def main():
        quick, slow = await begin(forever(), slow_end(0.05))
        report = await cancel_and_wait(quick, slow, timeout=0, rounds=1)
        assert len(report.ended) == len(report.resisted) == 1
        await asyncio.wait([slow])

    run(main())


# -- a caller that is cancelled itself -----------------------------------------------------


def test_the_callers_cancellation_is_not_lost(run):
    """The waiting is finished first; then the caller is cancelled, once."""
    told = []

    async def caller(task):
        try:
            await cancel_and_wait(task, timeout=LONG)
        except asyncio.CancelledError as exc:
            told.append((task.done(), exc.args, asyncio.current_task().cancelling()))
            raise

    async def main():
        [task] = await begin(slow_end(0.05))
        [outer] = await begin(caller(task))
        outer.cancel("the reason")
        await asyncio.wait([outer])
        assert outer.cancelled()

    run(main())
    assert told == [(True, ("the reason",), 1)]


def test_a_caller_cancelled_twice_is_cancelled_twice(run):
    """Two requests are two: whoever takes back one finds the other."""
    told = []

    async def caller(task):
        try:
            await cancel_and_wait(task, timeout=LONG)
        finally:
            told.append((task.done(), asyncio.current_task().cancelling()))

    async def main():
        [task] = await begin(slow_end(0.1))
        [outer] = await begin(caller(task))
        outer.cancel()
        await asyncio.sleep(0.01)
        outer.cancel()
        await asyncio.wait([outer])
        assert outer.cancelled()

    run(main())
    assert told == [(True, 2)]


def test_a_cancelled_caller_does_not_wait_for_ever(run):
    """With a task that resists, the caller's cancellation goes on at the deadline, with a note."""
    notes = []

    async def caller(task):
        try:
            await cancel_and_wait(task, timeout=0.1)
        except asyncio.CancelledError as exc:
            notes.extend(exc.__notes__)
            raise

    async def main():
        async with stubborn() as task:
            [outer] = await begin(caller(task))
            outer.cancel()
            await asyncio.wait([outer], timeout=5)
            assert outer.cancelled()

    run(main())
    assert "1 resisted" in notes[0]


def test_an_error_is_not_hidden_by_the_callers_cancellation(run):
    """Nobody gets the report then, so asyncio still complains of the task's exception."""
    complaints = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        tasks = await begin(fails())
        [outer] = await begin(cancel_and_wait(*tasks, *await begin(slow_end(0.05))))
        outer.cancel()
        await asyncio.wait([outer])
        assert outer.cancelled()
        tasks.clear()
        del outer
        gc.collect()

    run(main())
    assert [str(c["exception"]) for c in complaints] == ["earlier"]


def test_no_cancellation_is_invented(run):
    """Ending tasks leaves the caller's own count as it was, also within a cancelled caller."""

    async def cleans_up():
        [task] = await begin(forever())
        try:
            await asyncio.Event().wait()
        finally:
            before = asyncio.current_task().cancelling()
            report = await cancel_and_wait(task)
            assert report.ok
            assert asyncio.current_task().cancelling() == before == 1

    async def main():
        [outer] = await begin(cleans_up())
        outer.cancel()
        await asyncio.wait([outer])
        assert outer.cancelled()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_a_timeout_around_it_is_a_timeout(run):
    """asyncio.timeout() still sees its own cancellation, and no other."""

    async def main():
        async with stubborn() as task:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await cancel_and_wait(task, timeout=0.1)
            assert asyncio.current_task().cancelling() == 0

    run(main())


def test_a_task_group_around_it_ends_in_order(run):
    """A failing sibling ends the caller; the group raises the sibling's error alone."""

    async def failing():
        await asyncio.sleep(0.02)
        raise ValueError("sibling")

    async def main():
        [task] = await begin(slow_end(0.1))
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group raises
            async with asyncio.TaskGroup() as group:
                group.create_task(failing())
                await cancel_and_wait(task, timeout=LONG)
        assert [str(e) for e in caught.value.exceptions] == ["sibling"]
        assert task.done()
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_wait_for_around_it_is_a_timeout(run):
    """asyncio.wait_for() waits for the bounded rest, then raises TimeoutError."""

    async def main():
        async with stubborn() as task:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(cancel_and_wait(task, timeout=0.1), 0.02)

    run(main())


def test_anyios_scope_around_it_is_left_in_order(run):
    """anyio cancels anew in every turn: the waiting goes on quietly, then the scope catches it."""

    async def main():
        loop = asyncio.get_running_loop()
        async with stubborn() as task:
            turns = 0

            def count():
                nonlocal turns
                turns += 1
                handle[0] = loop.call_later(0.01, count)

            handle = [loop.call_later(0.01, count)]
            with anyio.move_on_after(0.02) as scope:
                await cancel_and_wait(task, timeout=0.15)
                pytest.fail("the scope's cancellation was lost")
            handle[0].cancel()
            assert scope.cancelled_caught
            assert asyncio.current_task().cancelling() == 0
            assert task.cancelling() == 2
            assert turns > 3
            await anyio.sleep(0)

    run(main())


def test_a_cancellation_from_before_is_kept(run):
    """A caller that was cancelled before its first wait here still ends the tasks."""

    async def caller(task):
        asyncio.current_task().cancel("earlier")
        await cancel_and_wait(task)

    async def main():
        [task] = await begin(slow_end(0.02))
        [outer] = await begin(caller(task))
        await asyncio.wait([outer])
        assert outer.cancelled()
        assert task.done()

    run(main())


def test_a_cancellation_that_comes_with_the_last_end_is_kept(run):
    """The caller is cancelled in the very turn in which the last task ends."""

    async def main():
        outer = None
        [task] = await begin(forever())
        outer = asyncio.create_task(cancel_and_wait(task))
        task.add_done_callback(lambda _: outer.cancel())
        await asyncio.wait([outer])
        assert outer.cancelled()
        assert task.cancelled()

    run(main())


# -- other loops ---------------------------------------------------------------------------


@contextlib.contextmanager
def other_loop():
    """Give a loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def start_there(loop, coro):
    """Start a task in another thread's loop and return it, at its first wait."""

    async def start():
        return (await begin(coro))[0]

    return asyncio.run_coroutine_threadsafe(start(), loop).result(10)


def test_a_task_of_another_thread_is_ended_there(run):
    """It is cancelled in its own thread, and waited for from here."""

    async def main(loop):
        task = start_there(loop, slow_end(0.05))
        mine = await begin(forever())
        report = await cancel_and_wait(task, *mine, timeout=LONG)
        assert report.ok
        assert task.cancelled()

    with other_loop() as loop:
        run(main(loop))


def test_a_task_of_another_thread_may_resist(run):
    """What resists over there is told as what resists here."""

    async def main(loop):
        stop = asyncio.Event()
        task = start_there(loop, deaf(stop))
        report = await cancel_and_wait(task, timeout=0.1)
        [resisted] = report.resisted
        assert resisted.asked == 2
        assert "await stop.wait()" in resisted.waiting
        assert resisted.swallowed is not None
        loop.call_soon_threadsafe(stop.set)
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.wait([task]), loop))

    with other_loop() as loop:
        run(main(loop))


def test_a_thread_that_does_not_answer_is_told(run):
    """If the other loop is blocked, the deadline holds and the report says where it stands."""
    free = threading.Event()

    async def main(loop):
        task = start_there(loop, forever())
        loop.call_soon_threadsafe(free.wait)
        started = time.monotonic()
        report = await cancel_and_wait(task, timeout=0.1)
        assert time.monotonic() - started < 3
        [resisted] = report.resisted
        assert "does not answer" in resisted.because
        free.set()

    with other_loop() as loop:
        run(main(loop))
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result(5)


def test_the_caller_is_cancelled_while_another_thread_works(run):
    """The caller's cancellation goes on when the other thread's tasks have ended."""

    async def main(loop):
        task = start_there(loop, slow_end(0.1))
        [outer] = await begin(cancel_and_wait(task, timeout=LONG))
        outer.cancel()
        await asyncio.wait([outer])
        assert outer.cancelled()
        assert task.done()

    with other_loop() as loop:
        run(main(loop))


def test_a_task_of_a_stopped_loop_says_so(run):
    """Nothing can end it now; it ends as soon as its loop runs again."""
    loop = asyncio.new_event_loop()

    async def start():
        return (await begin(forever()))[0]

    task = loop.run_until_complete(start())

    async def main():
        report = await cancel_and_wait(task, timeout=LONG)
        assert "its loop is not running" in report.resisted[0].because
        assert report.seconds < 1

    run(main())
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_task_of_a_closed_loop_says_so(run):
    """A closed loop's task can never end; it is not touched."""
    loop = asyncio.new_event_loop()

    async def start():
        return (await begin(forever()))[0]

    task = loop.run_until_complete(start())
    loop.close()

    async def main():
        report = await cancel_and_wait(task)
        assert "its loop is closed" in report.resisted[0].because
        assert task.cancelling() == 0

    run(main())
    task._log_destroy_pending = False


# -- mistakes ------------------------------------------------------------------------------


def test_the_current_task_is_refused(run):
    """A task cannot wait for its own end."""

    async def main():
        with pytest.raises(ValueError, match=r"the task that calls it.*return from it"):
            await cancel_and_wait(asyncio.current_task())
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_whoever_awaits_the_caller_is_told_and_not_waited_for(run):
    """Cancelling it cancels the caller: that is what was asked for, and it does not hang."""

    async def main():
        outer = None

        async def inner():
            await asyncio.sleep(0)
            await cancel_and_wait(outer, timeout=LONG)

        async def awaits():
            await asyncio.create_task(inner())

        outer = asyncio.create_task(awaits())
        await asyncio.wait([outer], timeout=5)
        assert outer.cancelled()

    run(main())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("task", "takes tasks, got 'task'"),
        ([], r"one by one, got a list: write cancel_and_wait\(\*tasks\)"),
        (None, "takes tasks, got None"),
    ],
)
def test_what_is_no_task_is_refused(value, message):
    """The message says what to write instead."""

    async def main():
        with pytest.raises(TypeError, match=message):
            await cancel_and_wait(value)

    asyncio.run(main())


def test_a_coroutine_is_refused():
    """A coroutine has no task that could be cancelled."""

    async def main():
        coro = forever()
        with pytest.raises(TypeError, match="a coroutine that no task runs"):
            await cancel_and_wait(coro)
        coro.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"timeout": -1}, ValueError),
        ({"timeout": None}, TypeError),
        ({"timeout": float("inf")}, ValueError),
        ({"timeout": [1]}, TypeError),
        ({"rounds": 0}, ValueError),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, error):
    """A deadline that never comes would be a hang."""

    async def main():
        with pytest.raises(error, match=r"cancel_and_wait\(\) (timeout|rounds)"):
            await cancel_and_wait(**arguments)

    asyncio.run(main())


def test_on_trio_the_scope_is_named():
    """Trio's tasks are ended by their scope."""

    async def main():
        with pytest.raises(RuntimeError, match=r"nursery\.cancel_scope\.cancel\(\)"):
            await cancel_and_wait()

    trio.run(main)


# -- what it keeps -------------------------------------------------------------------------


def test_the_report_keeps_no_task_alive(run):
    """A report may be kept for long; tasks that ended or resist may go."""

    async def main():
        async with stubborn() as task:
            others = await begin(forever())
            refs = [weakref.ref(task), weakref.ref(others[0])]
            report = await cancel_and_wait(task, *others, timeout=0.02)
            others.clear()
            assert pickle.loads(pickle.dumps(report)) == report
        del task
        gc.collect()
        await asyncio.sleep(0)
        assert [ref() for ref in refs] == [None, None]
        assert len(report.resisted) == 1

    run(main())
