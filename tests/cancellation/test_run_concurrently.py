"""Many operations at once: limits, deadlines, order, failures, and what is left at the end."""

from __future__ import annotations

import asyncio
import builtins
import functools
import gc
import pickle
import sys
import time
import warnings

import anyio
import pytest

from tightship import ResistedError, run_concurrently


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def anyway(request):
    """Return what runs an async function on asyncio, uvloop or trio."""
    if request.param == "uvloop":
        return functools.partial(anyio.run, backend_options={"use_uvloop": True})
    return functools.partial(anyio.run, backend=request.param)


async def double(number):
    await anyio.sleep(0)
    return number * 2


async def forever():
    await anyio.sleep_forever()


async def fails(error):
    await anyio.sleep(0)
    raise error


def names(operations):
    return [op.name for op in operations]


# -- results -------------------------------------------------------------------------------


def test_results_are_in_order(anyway):
    """Whoever ends first, results stand where their operations stood."""

    async def sleeps(seconds):
        await anyio.sleep(seconds)
        return seconds

    async def main():
        outcome = await run_concurrently(sleeps, [0.05, 0.0, 0.02])
        assert outcome.results == [0.05, 0.0, 0.02]
        assert outcome.complete
        outcome.raise_if_failed()
        assert names(outcome.operations) == ["sleeps(0.05)", "sleeps(0.0)", "sleeps(0.02)"]

    anyway(main)


def test_all_forms_are_taken(anyway):
    """Coroutines, functions, partials, and a mapping that names them."""

    async def main():
        outcome = await run_concurrently([double(1), functools.partial(double, 2)])
        assert outcome.results == [2, 4]
        assert names(outcome.operations) == ["double [0]", "double(2) [1]"]
        outcome = await run_concurrently({"db": double(3), "cache": lambda: double(4)})
        assert outcome.results == [6, 8]
        assert names(outcome.operations) == ["db", "cache"]
        assert (await run_concurrently(double(n) for n in range(3))).results == [0, 2, 4]

    anyway(main)


def test_no_operations_are_no_work(anyway):
    """An empty list is complete."""

    async def main():
        outcome = await run_concurrently([])
        assert outcome.complete
        assert outcome.results == []

    anyway(main)


def test_the_limit_holds(anyway):
    """At no time do more operations run than allowed, and the limit is used."""
    running = most = 0

    async def counted(_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.005)
        running -= 1

    async def main():
        assert (await run_concurrently(counted, range(20), limit=4)).complete
        assert most == 4
        assert (await run_concurrently(counted, range(20), limit=None)).complete
        assert most == 20

    anyway(main)


def test_the_case_to_beat(anyway):
    """50 checks of 0.1 s under a deadline of 0.6 s, of which one after the other would end 5."""

    async def check(host):
        await anyio.sleep(0.1)
        return host

    async def main():
        naive = []
        with anyio.move_on_after(0.6):
            for host in range(50):
                naive.append(await check(host))  # noqa: PERF401 - what there is when time is up
        assert len(naive) <= 5
        outcome = await run_concurrently(check, range(50), limit=25, total=5)
        assert outcome.results == list(range(50))
        assert outcome.seconds < 2

    anyway(main)


# -- failures ------------------------------------------------------------------------------


def test_failures_are_sorted_by_type(anyway):
    """The most frequent type first, with counts; the others go on."""

    async def main():
        errors = [ValueError("a"), OSError("b"), None, OSError("c")]
        outcome = await run_concurrently([double(1) if e is None else fails(e) for e in errors])
        assert outcome.counts == {"OSError": 2, "ValueError": 1}
        assert list(outcome.counts) == ["OSError", "ValueError"]
        assert [op.index for op in outcome.failures["OSError"]] == [1, 3]
        assert outcome.results == [None, None, 2, None]
        assert not outcome.complete
        text = str(outcome)
        assert text.splitlines()[0].startswith("1 of 4 done, 3 failed (")
        assert "  2 x OSError\n    fails [1]: b\n    fails [3]: c\n  1 x ValueError\n" in text
        with pytest.raises(ExceptionGroup, match="1 of 4 done") as caught:
            outcome.raise_if_failed()
        assert list(caught.value.exceptions) == [errors[0], errors[1], errors[3]]

    anyway(main)


def test_a_function_that_raises_at_once_has_failed(anyway):
    """Also what raises before there is anything to await."""

    def broken():
        raise LookupError("at once")

    async def main():
        assert (await run_concurrently([broken, double(1)])).counts == {"LookupError": 1}

    anyway(main)


def test_pytests_own_failures_count_as_failures(anyway):
    """pytest.fail() in a check fails the check, not all the others."""

    async def main():
        outcome = await run_concurrently([functools.partial(pytest.fail, "no"), double(1)])
        assert outcome.results == [None, 2]
        with pytest.raises(ExceptionGroup) as caught:
            outcome.raise_if_failed()
        assert "no" in str(caught.value.exceptions[0])

    anyway(main)


def test_an_operation_that_is_cancelled_by_others_has_failed(run):
    """Its cancellation ends neither the others nor the caller."""

    async def cancels_itself():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    async def main():
        outcome = await run_concurrently([cancels_itself, double(1)])
        assert outcome.counts == {"CancelledError": 1}
        with pytest.raises(ExceptionGroup):
            outcome.raise_if_failed()

    run(main())


# -- deadlines -----------------------------------------------------------------------------


def test_each_has_its_own_deadline(anyway):
    """The deadline counts from an operation's own start, not from the beginning of all."""

    async def takes(seconds):
        await anyio.sleep(seconds)
        return seconds

    async def main():
        # One after the other: together they take longer than the deadline of each.
        outcome = await run_concurrently(takes, [0.1, 30, 0.1, 0.1], limit=1, each=0.25)
        assert outcome.results == [0.1, None, 0.1, 0.1]
        assert names(outcome.timed_out) == ["takes(30)"]
        assert not outcome.unfinished
        assert "1 x timed out\n    takes(30) after 0." in str(outcome)
        with pytest.raises(ExceptionGroup) as caught:
            outcome.raise_if_failed()
        assert isinstance(caught.value.exceptions[0], TimeoutError)

    anyway(main)


def test_a_timeout_of_its_own_is_a_failure(anyway):
    """A TimeoutError that the operation itself raised is told apart from our deadline."""

    async def main():
        outcome = await run_concurrently([fails(TimeoutError("theirs"))], each=5)
        assert outcome.counts == {"TimeoutError": 1}
        assert outcome.timed_out == []

    anyway(main)


def test_time_that_runs_out_leaves_partial_results(anyway):
    """What is done stays done; what ran is unfinished; what waited has not started."""

    async def main():
        operations = [double(1), forever(), fails(ValueError("x")), forever(), double(2)]
        outcome = await run_concurrently(operations, limit=2, total=0.1)
        states = [op.state for op in outcome.operations]
        assert states == ["done", "unfinished", "failed", "unfinished", "not started"]
        assert outcome.results[0] == 2
        assert names(outcome.unfinished) == ["forever [1]", "forever [3]", "double [4]"]
        assert outcome.summary.startswith("1 of 5 done, 1 failed, 2 unfinished, 1 not started (0.")

    anyway(main)


def test_what_was_stopped_is_told_with_where_it_stood():
    """On asyncio the outcome shows the line at which an operation was stopped."""

    async def main():
        outcome = await run_concurrently([forever, forever], each=0.05, limit=1, total=0.08)
        assert "await anyio.sleep_forever()" in outcome.timed_out[0].waiting
        assert "await anyio.sleep_forever()" in outcome.unfinished[0].waiting

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["each", "total"])
def test_one_that_swallows_hangs_nobody(run, deafness, kind):
    """An operation that ignores its cancellation is named, and left behind."""

    async def main():
        async with deafness() as deaf:
            started = time.monotonic()
            outcome = await run_concurrently([deaf, double(1)], **{kind: 0.05})
            assert time.monotonic() - started < 3
            assert outcome.results == [None, 2]
            [op] = outcome.resisted
            assert op.state == ("timed out" if kind == "each" else "unfinished")
            assert "except asyncio.CancelledError:" in op.resisted
            assert "still running: deaf [0]\n" in str(outcome)
            with pytest.raises(ExceptionGroup) as caught:
                outcome.raise_if_failed()
            assert isinstance(caught.value.exceptions[0], ResistedError)

    run(main())


# -- the way out ---------------------------------------------------------------------------


def test_everything_has_ended_on_the_way_out(anyway):
    """When it returns nothing runs any more, whatever ended it."""
    running = set()

    async def tracked(number):
        running.add(number)
        try:
            await anyio.sleep(60 if number else 0)
        finally:
            running.discard(number)

    async def main():
        await run_concurrently(tracked, range(5), total=0.05)
        assert running == set()

    anyway(main)


def test_coroutines_that_never_started_are_closed(anyway):
    """Python has no reason to complain that a coroutine was never awaited."""

    async def main():
        await run_concurrently([forever(), double(1), double(2)], limit=1, total=0.02)
        with pytest.raises(TypeError):
            await run_concurrently([double(1), 7])
        with pytest.raises(ValueError, match="limit"):
            await run_concurrently([double(1)], limit=0)
        with pytest.raises(TypeError):
            await run_concurrently(double(1))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        anyway(main)
        gc.collect()
    assert [w for w in caught if "never awaited" in str(w.message)] == []


def test_a_cancelled_caller_ends_everything(run):
    """The caller's cancellation goes on, once all operations have ended."""
    ended = []

    async def tidy(number):
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            ended.append(number)

    async def main():
        task = asyncio.create_task(run_concurrently(tidy, range(3)))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    assert sorted(ended) == [0, 1, 2]


def test_a_timeout_around_it_is_a_timeout(run):
    """asyncio.timeout() sees its own cancellation."""

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await run_concurrently([forever, forever])
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_a_scope_around_it_is_left_in_order(anyway):
    """anyio's scope around it catches its own cancellation."""

    async def main():
        with anyio.move_on_after(0.03) as scope:
            await run_concurrently([forever, forever])
        assert scope.cancelled_caught

    anyway(main)


# -- progress ------------------------------------------------------------------------------


def test_progress_is_told(anyway):
    """Once for each operation that ends, with the counts so far."""
    told = []

    async def main():
        await run_concurrently(
            [double(1), fails(OSError("x")), double(2)], limit=1, on_progress=told.append
        )

    anyway(main)
    assert [(p.done, p.failed, p.total) for p in told] == [(1, 0, 3), (2, 1, 3), (3, 1, 3)]
    assert told[1].latest.name == "fails [1]"
    assert str(told[1]).startswith("2 of 3, 1 failed (0.")


def test_progress_may_be_async(anyway):
    """A callback that awaits is awaited."""
    told = []

    async def later(progress):
        await anyio.sleep(0)
        told.append(progress.done)

    async def main():
        await run_concurrently([double(1), double(2)], on_progress=later)

    anyway(main)
    assert sorted(told) == [1, 2]


def test_a_broken_callback_is_raised(anyway):
    """Its error ends everything and is raised as it is, not in a group."""

    def broken(progress):
        raise ZeroDivisionError("in the callback")

    async def main():
        with pytest.raises(ZeroDivisionError, match="in the callback"):
            await run_concurrently([double(1), forever], on_progress=broken)

    anyway(main)


# -- mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        ((7,), {}, "not iterable"),
        (([7],), {}, "takes coroutines and functions"),
        ((double,), {}, "takes many operations"),
        (([], [1]), {}, "arguments for one function only, got list"),
        (([],), {"each": [1]}, r"run_concurrently\(\) each"),
        (([],), {"total": True}, r"run_concurrently\(\) total"),
    ],
)
def test_wrong_arguments_are_told(anyway, given, arguments, message):
    """Nothing is started if an argument is wrong."""

    async def main():
        with pytest.raises(TypeError, match=message):
            await run_concurrently(*given, **arguments)

    anyway(main)


def test_without_anyio_it_says_what_to_install(monkeypatch):
    """The message is a command that can be pasted."""
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "anyio":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    async def main():
        await run_concurrently([])

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install tightship\[anyio\]"):
        asyncio.run(main())


def test_importing_it_imports_no_anyio():
    """Whoever does not call it does not need anyio."""
    code = "import sys, tightship; tightship.run_concurrently; print('anyio' in sys.modules)"
    import subprocess

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_the_outcome_is_plain_data(anyway):
    """It can be pickled, errors and all."""

    async def main():
        outcome = await run_concurrently([double(1), fails(OSError("x")), forever], each=0.02)
        assert str(pickle.loads(pickle.dumps(outcome))) == str(outcome)

    anyway(main)
