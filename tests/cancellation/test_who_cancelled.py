"""Who cancelled a task: what is noted by itself, what on demand, and what is never claimed."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref

import anyio
import pytest

from tightship import (
    LeakError,
    cancel_and_wait,
    close_all,
    no_leaks,
    run_concurrently,
    trace_cancels,
)
from tightship.births import Patcher
from tightship.runtimes.cancels import describe, install, who

TRACING = pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is of 3.12")


@pytest.fixture(autouse=True)
def noting():
    """Note cancellations as a watch does."""
    faults = []
    patch = Patcher(lambda part, exc: faults.append(exc))
    install(patch)
    yield
    patch.undo()
    assert faults == []


async def deaf():
    """Swallow one cancellation."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()


def told_of(make, run, seconds=0.05):
    """Start ``make()``, wait, and return what is said of each pending task, by coroutine."""

    async def main():
        task = asyncio.create_task(make())
        await asyncio.sleep(seconds)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        told = {t.get_coro().__name__: (describe(t), who(t)) for t in others}
        for _ in range(3):
            for other in others:
                other.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(task, *others, return_exceptions=True)
        return told

    return run(main())


# -- by itself -----------------------------------------------------------------------------


def test_a_timeout_is_told_by_its_block(run):
    """The line is that of the ``async with``, among several open blocks."""

    async def late():
        async with asyncio.Lock():
            async with asyncio.timeout(0.01):
                async with asyncio.Lock():
                    await deaf()

    text, site = told_of(late, run)["late"]
    assert text.startswith("asyncio.timeout() at ")
    assert site.source == "async with asyncio.timeout(0.01):"


def test_wait_for_is_told_by_its_line(run):
    """The line is that of the caller, not one of the standard library's."""

    async def late():
        await asyncio.wait_for(deaf(), 0.01)

    told = told_of(late, run)
    text, site = told["late"] if sys.version_info >= (3, 12) else told["deaf"]
    assert text.startswith("asyncio.")
    assert site.source == "await asyncio.wait_for(deaf(), 0.01)"


def test_a_task_group_is_told_to_its_children(run):
    """A child learns which group ended it, and which error made it do so."""

    async def fails():
        raise ValueError("x")

    async def family():
        async with asyncio.TaskGroup() as group:
            group.create_task(deaf())
            await asyncio.sleep(0)
            group.create_task(fails())

    told = told_of(family, run)
    text, site = told["deaf"]
    assert text.startswith("asyncio.TaskGroup after ValueError at ")
    assert site.source == "async with asyncio.TaskGroup() as group:"


def test_a_task_group_is_told_to_its_parent(run):
    """The body that a failing child ended learns it, too."""

    async def fails():
        raise ValueError("x")

    async def family():
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await deaf()

    text, site = told_of(family, run)["family"]
    assert text.startswith("asyncio.TaskGroup after ValueError at ")
    assert site.source == "async with asyncio.TaskGroup() as group:"


def test_gather_is_told_by_whoever_cancelled_it(run):
    """Children of a gather learn the line that cancelled the task which awaits it."""

    async def main():
        async def both():
            await asyncio.gather(deaf(), deaf())

        task = asyncio.create_task(both())
        await asyncio.sleep(0.01)
        children = asyncio.all_tasks() - {asyncio.current_task(), task}
        task.cancel()  # this line
        await asyncio.sleep(0)
        assert len(children) == 2
        assert {who(c).source for c in children} == {"task.cancel()  # this line"}
        assert describe(children.pop()).startswith("asyncio.gather() at ")
        task.cancel()
        await asyncio.wait([task])

    run(main())


def test_the_end_of_the_run_is_told(run):
    """A task that is still there when its loop closes learns that."""
    told = []

    async def tells():
        try:
            await asyncio.Event().wait()
        finally:
            told.append(describe(asyncio.current_task()))

    async def main():
        task = asyncio.create_task(tells())
        await asyncio.sleep(0)
        return task

    run(main())
    assert told == ["the runner, which closes the loop"]


def test_anyios_deadline_is_told_by_its_block():
    """The line is that of the scope."""

    async def swallows():
        with anyio.move_on_after(0.01):
            try:
                await asyncio.Event().wait()
            finally:
                told.append((describe(asyncio.current_task()), who(asyncio.current_task())))

    told = []
    asyncio.run(swallows())
    assert told[0][0].startswith("the deadline of anyio's cancel scope")


def test_anyios_scope_is_told_by_whoever_cancelled_it():
    """An explicit cancel has a line of its own."""

    async def main():
        async def host():
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                try:
                    await asyncio.Event().wait()
                finally:
                    told.append(who(asyncio.current_task()))

        scopes, told = [], []
        task = asyncio.create_task(host())
        await asyncio.sleep(0.01)
        scopes[0].cancel()  # this line
        await asyncio.wait([task])
        assert told[0].source == "scopes[0].cancel()  # this line"

    asyncio.run(main())


def test_our_own_function_is_told(run):
    """cancel_and_wait() notes its caller's line, with and without a watch."""

    async def main():
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        report = await cancel_and_wait(task, timeout=0.02, rounds=1)
        assert "await cancel_and_wait(task, timeout=0.02" in report.resisted[0].cancelled_by
        await cancel_and_wait(task)

    run(main())


def test_a_finding_tells_it(run):
    """A task that outlives its block although it was cancelled is told with who did so."""

    async def late():
        async with asyncio.timeout(0.01):
            await deaf()

    async def main():
        with pytest.raises(LeakError) as caught:  # noqa: PT012 - raised at the block's end
            async with no_leaks(grace=0.05):
                task = asyncio.create_task(late())
                await asyncio.sleep(0.05)
        [finding] = caught.value.findings
        facts = dict(finding.facts)
        assert facts["cancelled"] == "once, but it has not ended"
        assert facts["cancelled by"].startswith("asyncio.timeout() at ")
        await cancel_and_wait(task)

    run(main())


def test_our_other_functions_are_told(run):
    """Operations and closings that are stopped learn which call stopped them."""

    async def main():
        told = []

        async def tells():
            try:
                await asyncio.Event().wait()
            finally:
                told.append(describe(asyncio.current_task()))

        await run_concurrently([tells], each=0.01)
        await close_all(tells, timeout=0.01)
        task = asyncio.create_task(tells())
        await asyncio.sleep(0)
        await close_all(task, timeout=0.1)
        assert told[0].startswith("run_concurrently() at ")
        assert told[0].endswith("await run_concurrently([tells], each=0.01)")
        assert told[1].endswith("await close_all(tells, timeout=0.01)")
        assert told[2].endswith("await close_all(task, timeout=0.1)")

    run(main())


# -- what is never claimed -----------------------------------------------------------------


def test_a_plain_cancel_is_not_known_by_itself(run):
    """Without tracing nobody sees it, and nobody claims to."""

    async def main():
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert (describe(task), who(task)) == ("", None)
        await cancel_and_wait(task)

    run(main())


def test_a_timeout_that_is_over_is_not_blamed(run):
    """A handled timeout took its request back; the next canceller is another one."""

    async def twice():
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            await deaf()

    async def main():
        task = asyncio.create_task(twice())
        await asyncio.sleep(0.05)
        assert describe(task) == ""
        task.cancel()
        await asyncio.sleep(0)
        assert task.cancelling() == 1
        assert (describe(task), who(task)) == ("", None)
        await cancel_and_wait(task)

    run(main())


def test_whoever_was_never_cancelled_has_nobody(run):
    """Other objects are fine, too."""

    async def main():
        assert describe(asyncio.current_task()) == ""
        assert who(object()) is None

    run(main())


def test_a_note_keeps_nothing_alive(run):
    """A task that was cancelled goes as soon as nobody needs it."""

    async def main():
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        await cancel_and_wait(task)
        ref = weakref.ref(task)
        del task
        gc.collect()
        assert ref() is None

    run(main())


def test_everything_is_undone():
    """After the patches are taken back the standard library is as it was."""
    from asyncio import runners, taskgroups, tasks, timeouts

    places = [
        (timeouts.Timeout, "_on_timeout"),
        (taskgroups.TaskGroup, "_abort"),
        (tasks._GatheringFuture, "cancel"),
        (runners, "_cancel_all_tasks"),
    ]
    before = [vars(place)[name] for place, name in places]
    patch = Patcher(lambda part, exc: None)
    install(patch)
    assert all(vars(p)[n] is not b for (p, n), b in zip(places, before, strict=True))
    patch.undo()
    assert [vars(place)[name] for place, name in places] == before


# -- on demand -----------------------------------------------------------------------------


@TRACING
def test_tracing_tells_plain_cancels(run):
    """Within the block the line of each ``task.cancel()`` is noted."""

    async def main():
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        with trace_cancels():
            task.cancel()  # the line
        await asyncio.sleep(0)
        assert who(task).source == "task.cancel()  # the line"
        assert describe(task).endswith("task.cancel()  # the line")
        await cancel_and_wait(task)

    run(main())


@TRACING
def test_tracing_sees_functions_that_ran_before(run):
    """Whether code was run, or is running, before the block began does not matter."""

    async def main():
        def end(task):
            task.cancel()  # in a function

        async def ends_later(task):
            await asyncio.sleep(0.02)
            task.cancel()  # in a coroutine

        first, second = [asyncio.create_task(deaf()) for _ in range(2)]
        waits = asyncio.create_task(ends_later(second))
        await asyncio.sleep(0)
        other = asyncio.create_task(asyncio.sleep(60))
        end(other)
        with trace_cancels():
            end(first)
            await waits
        await asyncio.sleep(0)
        assert who(first).source == "task.cancel()  # in a function"
        assert who(second).source == "task.cancel()  # in a coroutine"
        await cancel_and_wait(first, second, other)

    run(main())


@TRACING
def test_tracing_sees_the_latest_of_several(run):
    """Requests that all still stand are told in their order; ``who`` is the latest."""

    async def main():
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        with trace_cancels():
            task.cancel()  # first
            task.cancel()  # second
            assert describe(task).count("; then ") == 1
            assert who(task).source == "task.cancel()  # second"
            task.uncancel()
            assert who(task).source == "task.cancel()  # first"
        await cancel_and_wait(task)

    run(main())


@TRACING
def test_tracing_may_be_repeated_and_nested(run):
    """A second block sees what the first one has looked at, and leaves nothing behind."""

    async def main():
        for _ in range(2):
            with trace_cancels(), trace_cancels():
                task = asyncio.create_task(deaf())
                await asyncio.sleep(0)
                task.cancel()
                assert who(task).source == "task.cancel()"
                task.cancel()
                await asyncio.wait([task], timeout=0.01)
                await cancel_and_wait(task)
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        task.cancel()
        assert who(task) is None
        await cancel_and_wait(task)

    run(main())
    assert [sys.monitoring.get_tool(n) for n in (3, 4)] == [None, None]


@TRACING
def test_tracing_changes_no_type(run):
    """Tasks, factories and what cancel() returns are as they were."""

    async def main():
        with trace_cancels():
            task = asyncio.create_task(deaf())
            assert type(task) is asyncio.Task
            await asyncio.sleep(0)
            assert task.cancel("msg") is True
            await asyncio.sleep(0)
            assert task.cancel() is True
            await asyncio.wait([task])
            assert task.cancel() is False

    run(main())


@TRACING
def test_tracing_without_a_free_tool_says_who_uses_them():
    """Other tools of sys.monitoring are not pushed aside."""
    for number in (3, 4):
        sys.monitoring.use_tool_id(number, f"other {number}")
    try:
        with pytest.raises(RuntimeError, match=r"no free tool id.*'other 3' and 'other 4'"):
            trace_cancels().__enter__()
    finally:
        for number in (3, 4):
            sys.monitoring.free_tool_id(number)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="of 3.11")
def test_tracing_needs_3_12():
    """3.11 says so at once."""
    with pytest.raises(RuntimeError, match=r"needs Python 3\.12"):
        trace_cancels().__enter__()
