"""`timeout` as a block and as a decorator, beside everybody else who cancels."""

# What is in a block here is what is tested.
# ruff: noqa: PT012, SIM117

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
import subprocess
import sys
import threading
import time

import anyio
import pytest

from tightship import TightshipTimeout, timeout
from tightship.config import ConfigError
from tightship.runtimes.sentry import SENTRY

FOREVER = 100


def run(main):
    """Run a coroutine function, and see that its task was left uncancelled."""

    async def whole():
        result = await main()
        assert asyncio.current_task().cancelling() == 0
        return result

    return asyncio.run(whole())


# -- a block --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "the answer"])
def test_a_block_in_a_coroutine(name):
    """It is ended, and everything is told that one wants to know."""

    async def main():
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1, name=name):
                await asyncio.sleep(FOREVER)
        return caught.value

    error = run(main)
    assert isinstance(error, TimeoutError)
    assert error.operation == (name or "a block")
    assert error.verdict == "never-finished"
    assert error.budget == (0.1, "", "timeout()")
    assert 0.1 <= error.elapsed < 10
    assert "test_timeout_api.py" in str(error)
    assert "await asyncio.sleep(FOREVER)" in str(error)


def test_a_block_with_plain_with():
    """In a coroutine, `with` does the same."""

    async def main():
        with pytest.raises(TightshipTimeout), timeout(0.1):
            await asyncio.sleep(FOREVER)

    run(main)


def test_a_block_that_ends_in_time():
    """Nothing is raised, cancelled or left behind."""

    async def main():
        async with timeout(5) as limit:
            await asyncio.sleep(0)
        assert limit.budget.seconds == 5
        return 7

    assert run(main) == 7
    with timeout(5):
        pass


def test_a_block_in_a_function():
    """A blocking call is ended."""
    with pytest.raises(TightshipTimeout) as caught, timeout(0.1):
        time.sleep(FOREVER)
    assert caught.value.verdict == "blocked"
    assert caught.value.elapsed < 10


def test_the_bodys_own_error_is_its_own():
    """In time, it is none of our business."""
    with pytest.raises(ValueError, match="mine"), timeout(5):
        raise ValueError("mine")

    async def main():
        with pytest.raises(ValueError, match="mine"):
            async with timeout(5):
                raise ValueError("mine")

    run(main)


def test_an_error_while_it_is_cancelled_is_in_the_chain():
    """What the body raised in its `finally` is kept as the cause."""

    async def main():
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1):
                try:
                    await asyncio.sleep(FOREVER)
                finally:
                    raise ValueError("while cleaning up")
        assert isinstance(caught.value.__cause__, ValueError)

    run(main)


def test_a_block_that_ends_late_by_itself():
    """It is told, although it ended."""

    async def main():
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1):
                time.sleep(0.3)
        assert caught.value.verdict == "finished-late"

    run(main)


def test_a_block_that_swallows():
    """The line is told, though it goes on as if nothing had happened."""

    async def main():
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1):
                try:
                    await asyncio.sleep(FOREVER)
                except asyncio.CancelledError:
                    pass
        assert caught.value.verdict == "swallowed-cancellation"
        assert "except asyncio.CancelledError:" in str(caught.value)

    run(main)


def test_a_block_that_swallows_twice_is_cancelled_again():
    """Until it gives in."""

    async def main():
        swallowed = 0
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1):
                while swallowed < 2:
                    try:
                        await asyncio.sleep(FOREVER)
                    except asyncio.CancelledError:
                        swallowed += 1
        assert caught.value.verdict == "swallowed-cancellation"

    run(main)


def test_a_block_that_holds_its_loop():
    """The synchronous call is interrupted, and the loop goes on."""

    async def main():
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1):
                time.sleep(FOREVER)
        assert caught.value.verdict == "blocked-loop"
        assert "time.sleep(FOREVER)" in str(caught.value)
        await asyncio.sleep(0)

    run(main)


def test_a_block_of_a_task_group():
    """The body was done, its children were not."""

    async def main():
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(FOREVER))
        assert caught.value.verdict == "children-still-run"

    run(main)


def test_a_block_in_another_thread():
    """An exception is raised at its next line of Python."""
    caught = []

    def work():
        try:
            with timeout(0.1):
                while True:
                    pass
        except TightshipTimeout as exc:
            caught.append(exc.verdict)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert caught == ["busy"]


def test_a_late_block_in_another_thread_is_told_of_once():
    """No exception comes after the block."""
    caught = []

    def work():
        for _ in range(3):
            try:
                with timeout(0.05):
                    time.sleep(0.4)
            except TightshipTimeout:
                caught.append(1)
            sum(range(10000))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert caught == [1, 1, 1]


def test_it_can_be_used_again_and_inside_itself():
    """One object, any number of uses, each from its own beginning."""
    limit = timeout(0.3)

    async def main():
        for _ in range(3):
            async with limit:
                await asyncio.sleep(0.15)
        with pytest.raises(TightshipTimeout):
            async with limit, limit:
                await asyncio.sleep(FOREVER)

    run(main)


def test_nothing_is_left_after_a_block():
    """No alarm, and our signal is what it was."""
    import signal

    from tightship.runtimes import hard_timer

    before = signal.getsignal(hard_timer.SIGNAL), len(SENTRY._alarms)
    with contextlib.suppress(TightshipTimeout), timeout(0.05):
        time.sleep(FOREVER)
    assert (signal.getsignal(hard_timer.SIGNAL), len(SENTRY._alarms)) == before


def test_the_error_can_be_sent_elsewhere():
    """pytest-xdist and process pools pickle it."""
    with pytest.raises(TightshipTimeout) as caught, timeout(0.05, name="it"):
        time.sleep(FOREVER)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is TightshipTimeout
    assert str(copy) == str(caught.value)
    assert (copy.operation, copy.budget) == ("it", caught.value.budget)


# -- nested, and beside others -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("outer", "inner", "named"), [(0.1, 50, "outer"), (50, 0.1, "inner"), (None, 0.1, "inner")]
)
def test_the_tightest_of_nested_blocks_wins(outer, inner, named):
    """And is named; the other one says nothing."""

    async def main():
        around = timeout(outer, name="outer") if outer else contextlib.nullcontext()
        with pytest.raises(TightshipTimeout) as caught:
            async with contextlib.AsyncExitStack() as stack:
                if outer:
                    await stack.enter_async_context(around)
                await stack.enter_async_context(timeout(inner, name="inner"))
                await asyncio.sleep(FOREVER)
        assert caught.value.operation == named

    run(main)


def test_an_inner_timeout_can_be_survived():
    """The outer block goes on, with what is left of its own time."""

    async def main():
        async with timeout(50, name="outer"):
            with pytest.raises(TightshipTimeout):
                async with timeout(0.05, name="inner"):
                    await asyncio.sleep(FOREVER)
            await asyncio.sleep(0.01)

    run(main)


def test_nested_blocks_in_a_function():
    """The same without a loop, whichever is tighter."""
    with pytest.raises(TightshipTimeout) as caught, timeout(50, name="outer"):
        with timeout(0.1, name="inner"):
            time.sleep(FOREVER)
    assert caught.value.operation == "inner"
    with pytest.raises(TightshipTimeout) as caught, timeout(0.1, name="outer"):
        with timeout(50, name="inner"):
            time.sleep(FOREVER)
    assert caught.value.operation == "outer"


@pytest.mark.parametrize("theirs", [asyncio.timeout, anyio.fail_after])
def test_somebody_elses_timeout_inside_is_theirs(theirs):
    """Theirs is tighter: a plain TimeoutError."""

    async def main():
        with pytest.raises(TimeoutError) as caught:
            async with timeout(50):
                if theirs is asyncio.timeout:
                    async with theirs(0.05):
                        await asyncio.sleep(FOREVER)
                else:
                    with theirs(0.05):
                        await asyncio.sleep(FOREVER)
        assert type(caught.value) is TimeoutError

    run(main)


def test_somebody_elses_timeout_around_is_theirs():
    """asyncio's and anyio's are passed first, and see their own cancellation."""

    async def main():
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                async with timeout(50):
                    await asyncio.sleep(FOREVER)
        assert type(caught.value) is TimeoutError
        with pytest.raises(TimeoutError) as caught, anyio.fail_after(0.05):
            async with timeout(50):
                await asyncio.sleep(FOREVER)
        assert type(caught.value) is TimeoutError
        with anyio.move_on_after(0.05) as scope:
            async with timeout(50):
                await asyncio.sleep(FOREVER)
        assert scope.cancelled_caught

    run(main)


def test_ours_is_ours_inside_and_around_somebody_elses():
    """Theirs is wider and lets our error through."""

    async def main():
        with pytest.raises(TightshipTimeout):
            async with asyncio.timeout(50), timeout(0.05):
                await asyncio.sleep(FOREVER)
        with pytest.raises(TightshipTimeout):
            async with timeout(0.05), asyncio.timeout(50):
                await asyncio.sleep(FOREVER)
        with pytest.raises(TightshipTimeout):
            async with timeout(0.05):
                with anyio.CancelScope():
                    await anyio.sleep(FOREVER)
        with pytest.raises(TightshipTimeout):
            with anyio.CancelScope():
                async with timeout(0.05):
                    await anyio.sleep(FOREVER)

    run(main)


def test_wait_for_around_and_inside():
    """Whoever's time is up first raises."""

    async def limited(seconds):
        async with timeout(seconds):
            await asyncio.sleep(FOREVER)

    async def main():
        with pytest.raises(TightshipTimeout):
            await asyncio.wait_for(limited(0.05), 50)
        with pytest.raises(TimeoutError) as caught:
            await asyncio.wait_for(limited(50), 0.05)
        assert type(caught.value) is TimeoutError
        with pytest.raises(TightshipTimeout):
            async with timeout(0.05):
                await asyncio.wait_for(asyncio.sleep(FOREVER), 50)

    run(main)


def test_a_cancellation_by_somebody_else_stays_one():
    """Before our time is up."""

    async def main():
        async def work():
            async with timeout(50):
                await asyncio.sleep(FOREVER)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel("theirs")
        with pytest.raises(asyncio.CancelledError, match="theirs"):
            await task
        assert task.cancelled()
        assert task.cancelling() == 1

    run(main)


def test_two_cancellations_at_once():
    """Theirs counts: the task was to end, whatever our limit says."""

    async def main():
        async def work():
            async with timeout(0.1):
                try:
                    await asyncio.sleep(FOREVER)
                finally:
                    asyncio.current_task().cancel("theirs")

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelling() == 1

    run(main)


def test_in_a_child_of_a_task_group():
    """The group sees an error like any other, cancels the rest, and its parent is left alone."""

    async def main():
        async def child():
            async with timeout(0.05, name="child"):
                await asyncio.sleep(FOREVER)

        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                other = group.create_task(asyncio.sleep(FOREVER))
        assert [e.operation for e in caught.value.exceptions] == ["child"]
        assert other.cancelled()

    # Not run(): before 3.13 a group leaves its parent's count of cancellations at one.
    asyncio.run(main())


def test_a_group_that_is_cancelled_by_a_failing_child():
    """The cancellation that the group sends its own body is the group's."""

    async def main():
        async def fails():
            await asyncio.sleep(0.02)
            raise ValueError("child")

        with pytest.raises(ExceptionGroup) as caught:
            async with timeout(50), asyncio.TaskGroup() as group:
                group.create_task(fails())
                await asyncio.sleep(FOREVER)
        assert [type(e) for e in caught.value.exceptions] == [ValueError]

    run(main)


def test_many_at_once():
    """A hundred tasks, each with its own limit; those in time are not touched."""

    async def main():
        async def work(n):
            async with timeout(0.2, name=str(n)):
                await asyncio.sleep(FOREVER if n % 2 else 0)
                return n

        return await asyncio.gather(*map(work, range(100)), return_exceptions=True)

    for n, result in enumerate(run(main)):
        assert (result.operation if n % 2 else result) == (str(n) if n % 2 else n)


def test_at_the_very_edge_nothing_is_lost():
    """A block that ends as its time is up either ends or raises, and its task is left clean."""

    async def main():
        outcomes = set()
        for n in range(60):
            try:
                async with timeout(0.02):
                    await asyncio.sleep(0.0185 + n * 0.00005)
                outcomes.add("ended")
            except TightshipTimeout:
                outcomes.add("raised")
            assert asyncio.current_task().cancelling() == 0
            await asyncio.sleep(0)  # a cancellation that came too late would show here
        return outcomes

    assert run(main) <= {"ended", "raised"}


@pytest.mark.parametrize("sleep", [0.019, 0.02, 0.021])
def test_at_the_very_edge_of_a_function(sleep):
    """The signal of a limit that is over raises nothing in later lines."""
    for _ in range(15):
        try:
            with timeout(0.02):
                time.sleep(sleep)
        except TightshipTimeout:
            pass
        sum(range(2000))


# -- a decorator ------------------------------------------------------------------------------


@timeout(0.1)
async def coroutine(seconds, *, value=1):
    """Sleep."""
    await asyncio.sleep(seconds)
    return value


@timeout(0.1)
def function(seconds, *, value=1):
    time.sleep(seconds)
    return value


@timeout(0.2)
def generator(first=0.0, last=0.0):
    time.sleep(first)
    got = yield 1
    time.sleep(last)
    yield got


@timeout(0.2)
async def async_generator(first=0.0, last=0.0):
    await asyncio.sleep(first)
    got = yield 1
    await asyncio.sleep(last)
    yield got


class Ship:
    @timeout(0.1)
    async def sail(self, seconds):
        await asyncio.sleep(seconds)
        return self

    @timeout(0.1)
    def moor(self, seconds):
        time.sleep(seconds)
        return self

    @classmethod
    @timeout(0.1)
    def build(cls, seconds):
        time.sleep(seconds)
        return cls

    @timeout(0.1)
    @staticmethod
    def horn(seconds):
        time.sleep(seconds)
        return "toot"


def test_a_coroutine_function():
    """Each call has the whole limit, and the function stays what it was."""
    assert coroutine.__name__ == "coroutine"
    assert coroutine.__doc__ == "Sleep."
    assert inspect.iscoroutinefunction(coroutine)

    async def main():
        assert await coroutine(0, value=2) == 2
        with pytest.raises(TightshipTimeout) as caught:
            await coroutine(FOREVER)
        assert caught.value.operation == "coroutine"
        assert await coroutine(0) == 1

    run(main)


def test_a_function():
    """Sync ones as well."""
    assert function(0, value=2) == 2
    with pytest.raises(TightshipTimeout) as caught:
        function(FOREVER)
    assert caught.value.operation == "function"


def test_methods():
    """Of all kinds, in either order with the built-in decorators, by their qualified name."""
    ship = Ship()
    assert ship.moor(0) is ship
    assert Ship.build(0) is Ship
    assert Ship.horn(0) == ship.horn(0) == "toot"
    with pytest.raises(TightshipTimeout) as caught:
        ship.moor(FOREVER)
    assert caught.value.operation == "Ship.moor"
    with pytest.raises(TightshipTimeout):
        Ship.build(FOREVER)
    with pytest.raises(TightshipTimeout):
        ship.horn(FOREVER)

    async def main():
        assert await ship.sail(0) is ship
        with pytest.raises(TightshipTimeout):
            await ship.sail(FOREVER)

    run(main)


def test_a_generator():
    """Each step has the whole limit; between them no time counts."""
    steps = generator()
    assert next(steps) == 1
    time.sleep(0.3)
    assert steps.send("word") == "word"
    assert list(generator()) == [1, None]
    with pytest.raises(TightshipTimeout):
        next(generator(first=FOREVER))
    steps = generator(last=FOREVER)
    next(steps)
    with pytest.raises(TightshipTimeout):
        next(steps)
    generator().close()


def test_a_generator_passes_everything_on():
    """What is sent and thrown in, what is returned, and the close."""
    seen = []

    @timeout(5)
    def inner():
        try:
            seen.append((yield 1))
            try:
                yield 2
            except ValueError as exc:
                seen.append(str(exc))
            yield 3
        finally:
            seen.append("closed")
        return "end"

    steps = inner()
    assert [next(steps), steps.send("sent"), steps.throw(ValueError("thrown"))] == [1, 2, 3]
    with pytest.raises(StopIteration) as caught:
        next(steps)
    assert caught.value.value == "end"
    assert seen == ["sent", "thrown", "closed"]
    steps = inner()
    next(steps)
    steps.close()
    assert seen[-1] == "closed"


def test_an_async_generator():
    """Each step has the whole limit."""

    async def main():
        steps = async_generator()
        assert await anext(steps) == 1
        await asyncio.sleep(0.3)
        assert await steps.asend("word") == "word"
        assert [x async for x in async_generator()] == [1, None]
        with pytest.raises(TightshipTimeout) as caught:
            await anext(async_generator(first=FOREVER))
        assert caught.value.operation == "async_generator"
        steps = async_generator(last=FOREVER)
        await anext(steps)
        with pytest.raises(TightshipTimeout):
            await anext(steps)

    run(main)


def test_an_async_generator_passes_everything_on():
    """What is sent and thrown in, and the close."""
    seen = []

    @timeout(5)
    async def inner():
        try:
            seen.append((yield 1))
            try:
                yield 2
            except ValueError as exc:
                seen.append(str(exc))
            yield 3
        finally:
            await asyncio.sleep(0)
            seen.append("closed")

    async def main():
        steps = inner()
        got = [await anext(steps), await steps.asend("sent"), await steps.athrow(ValueError("x"))]
        assert got == [1, 2, 3]
        await steps.aclose()
        assert seen == ["sent", "x", "closed"]

    run(main)


def test_a_generator_whose_close_hangs():
    """The close is a step like any other."""

    @timeout(0.1)
    def stays():
        try:
            yield 1
        finally:
            time.sleep(FOREVER)

    steps = stays()
    next(steps)
    with pytest.raises(TightshipTimeout):
        steps.close()

    @timeout(0.1)
    async def stays_too():
        try:
            yield 1
        finally:
            await asyncio.sleep(FOREVER)

    async def main():
        steps = stays_too()
        await anext(steps)
        with pytest.raises(TightshipTimeout):
            await steps.aclose()

    run(main)


def test_a_contextmanager_below_it():
    """`@contextmanager` above, `@timeout` below: a step for each side."""

    @contextlib.contextmanager
    @timeout(0.1)
    def place():
        yield "place"
        time.sleep(FOREVER)

    with pytest.raises(TightshipTimeout), place() as got:
        assert got == "place"
        time.sleep(0.2)


# -- trio ------------------------------------------------------------------------------------


def test_under_trio():
    """A cancel scope ends the block; theirs inside and around stay theirs."""
    import trio

    async def main():
        async with timeout(5):
            await trio.sleep(0)
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(0.1, name="it"):
                await trio.sleep_forever()
        assert caught.value.operation == "it"
        with trio.move_on_after(0.05) as scope:
            async with timeout(50):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with pytest.raises(TightshipTimeout):
            async with timeout(0.05):
                with trio.move_on_after(50):
                    await trio.sleep_forever()
        with pytest.raises(trio.TooSlowError):
            async with timeout(50):
                with trio.fail_after(0.05):
                    await trio.sleep_forever()
        with pytest.raises(TightshipTimeout) as caught:
            async with timeout(50, name="outer"), timeout(0.05, name="inner"):
                await trio.sleep_forever()
        assert caught.value.operation == "inner"

    trio.run(main)


def test_under_trio_in_a_nursery():
    """The child's error is an error like any other."""
    import trio

    async def child():
        async with timeout(0.05, name="child"):
            await trio.sleep_forever()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(main)
    assert [e.operation for e in caught.value.exceptions] == ["child"]


# -- what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, -1, float("nan"), None, True, [3]])
def test_what_is_no_limit_is_refused(limit):
    """At once, where it is written."""
    with pytest.raises(ConfigError, match=r"^timeout\(\): expected"):
        timeout(limit)


def test_an_unknown_budget_is_refused_with_the_nearest():
    """As everywhere."""
    with pytest.raises(ConfigError, match=r"timeout\(\): unknown budget 'databse'; did you mean"):
        timeout("databse")


def test_off_is_refused():
    """It would limit nothing."""
    with pytest.raises(ValueError, match="limits nothing"):
        timeout("off")


def test_a_budget_of_the_box():
    """By its name."""
    assert timeout("admin").budget == (5.0, "admin", "built in")


@pytest.mark.parametrize("what", [3, int, "f", Ship])
def test_what_is_no_function_is_not_decorated(what):
    """A class, a value: there is nothing to limit."""
    with pytest.raises(TypeError, match="decorates functions"):
        timeout(1)(what)


def test_above_a_fixture_it_says_where_it_belongs():
    """pytest's fixture objects aren't functions."""

    @pytest.fixture
    def fixture():
        return 1

    with pytest.raises(TypeError, match=r"below @pytest\.fixture"):
        timeout(1)(fixture)


MARKED = """
import sys
import threading

from tightship import TightshipTimeout, timeout


def works_too_long():
    try:
        with timeout(0.1):
            while True:
                pass
    except TightshipTimeout:
        print("ended")


thread = threading.Thread(target=works_too_long)
thread.start()
thread.join()


def traced():
    return 42


sys.settrace(lambda frame, event, arg: None)
print("answer", traced())
"""


def test_a_limit_in_a_thread_leaves_no_mark_in_the_interpreter(tmp_path):
    """Taken back, the exception would make Python 3.11 spin at the next function that is traced."""
    script = tmp_path / "marked.py"
    script.write_text(MARKED)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["ended", "answer", "42"], done.stderr
