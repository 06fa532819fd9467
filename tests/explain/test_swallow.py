"""The line that swallowed a cancellation."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
import uvloop

from tightship.explain.swallow import mark, swallower
from tightship.model import Site

LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Body = Callable[[asyncio.Event], Coroutine[Any, Any, Any]]


async def turns(number: int = 6) -> None:
    """Let everything that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


def cancelled(body: Body, runner: Any = asyncio.run, *, ends: bool = False) -> Site | None:
    """Cancel a task that runs ``body`` and ask who swallowed it.

    ``body`` gets an event that is set once the answer is there; all it may wait for.
    """

    async def main() -> Site | None:
        over = asyncio.Event()
        task = asyncio.create_task(body(over))
        await turns()
        before = mark(task)
        task.cancel()
        await turns()
        try:
            assert task.done() is ends
            return swallower(before, task)
        finally:
            over.set()
            await asyncio.wait([task])

    found = runner(main())
    assert found is None or isinstance(found, Site)
    return found


def source(site: Site | None) -> str:
    """Return the text of the line that was found."""
    assert site is not None
    return site.source


@LOOPS
def test_an_except_that_goes_on_is_named(runner: Any) -> None:
    """The task waits for something else now."""

    async def body(over: asyncio.Event) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
        await over.wait()

    site = cancelled(body, runner)
    assert site is not None
    assert site.source == "except asyncio.CancelledError:"
    assert site.file.endswith("test_swallow.py")
    assert site.function.endswith("body")


@LOOPS
def test_a_loop_that_comes_back_to_the_same_await_is_named(runner: Any) -> None:
    """Nothing moved, yet the exception was there."""

    async def body(over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except CancelledError:
                continue

    assert source(cancelled(body, runner)) == "except CancelledError:"


def test_a_loop_around_a_bare_future_is_named() -> None:
    """The chain is one frame long, and stays."""

    async def body(over: asyncio.Event) -> None:
        while not over.is_set():
            future = asyncio.get_running_loop().create_future()
            waiter = asyncio.ensure_future(over.wait())
            waiter.add_done_callback(lambda _, f=future: f.done() or f.set_result(None))
            try:
                await future
            except BaseException:  # whatever
                pass

    assert source(cancelled(body)) == "except BaseException:  # whatever"


def test_a_bare_except_is_named() -> None:
    """It has no name to compare."""

    async def body(over: asyncio.Event) -> None:
        try:
            await asyncio.sleep(3600)
        except:  # noqa: E722
            await over.wait()

    assert source(cancelled(body)).startswith("except:")


def test_a_finally_that_waits_is_named() -> None:
    """It swallows nothing, but the cancellation is held up in it."""

    async def body(over: asyncio.Event) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            # say goodbye

            await over.wait()

    assert source(cancelled(body)) == "finally:"


def test_an_except_that_will_raise_again_holds_it_up() -> None:
    """Cleaning up may take for ever."""

    async def body(over: asyncio.Event) -> None:
        try:
            await asyncio.sleep(3600)
        except CancelledError:
            await over.wait()
            raise

    assert source(cancelled(body)) == "except CancelledError:"


def test_suppress_is_named_by_its_with() -> None:
    """The context manager that was asked for it."""

    async def body(over: asyncio.Event) -> None:
        with contextlib.suppress(KeyError, CancelledError):
            await asyncio.sleep(0)
            with contextlib.suppress(ValueError):
                await asyncio.sleep(3600)
        await over.wait()

    assert source(cancelled(body)) == "with contextlib.suppress(KeyError, CancelledError):"


def test_a_suppress_of_something_else_is_passed_by() -> None:
    """What a context manager suppresses is read from itself."""

    async def body(over: asyncio.Event) -> None:
        try:
            with contextlib.suppress(ValueError):
                await asyncio.sleep(3600)
        except CancelledError:
            pass
        await over.wait()

    assert source(cancelled(body)) == "except CancelledError:"


class Swallows:
    """A context manager that swallows all."""

    async def __aenter__(self) -> None:
        await asyncio.sleep(0)

    async def __aexit__(self, *exc: object) -> bool:
        await asyncio.sleep(0)
        return True


def test_an_async_context_manager_is_named_by_its_with() -> None:
    """Nobody else can have been it."""

    async def body(over: asyncio.Event) -> None:
        async with asyncio.Lock(), asyncio.timeout(3600), Swallows():
            await asyncio.sleep(3600)
        await over.wait()

    assert "Swallows()" in source(cancelled(body))


def test_an_exit_that_waits_is_named_by_its_with() -> None:
    """It is still busy with the exception."""

    class Waits:
        async def __aenter__(self) -> asyncio.Event:
            self.over = asyncio.Event()
            return self.over

        async def __aexit__(self, *exc: object) -> None:
            await self.over.wait()

    events = []

    async def body(over: asyncio.Event) -> None:
        async with Waits() as mine:
            events.append(mine)
            waiter = asyncio.ensure_future(over.wait())
            waiter.add_done_callback(lambda _: mine.set())
            await asyncio.sleep(3600)

    assert source(cancelled(body)) == "async with Waits() as mine:"


def test_clauses_that_do_not_match_are_passed_by() -> None:
    """`Exception` does not catch it, nor do other names; the tuple in an outer `try` does."""

    async def body(over: asyncio.Event) -> None:
        try:
            try:
                await asyncio.sleep(3600)
            except (OSError, asyncio.InvalidStateError):
                pass
            except Exception:
                pass
        except (KeyError, asyncio.CancelledError) as caught:
            over.is_set(), caught
        await over.wait()

    assert source(cancelled(body)).startswith("except (KeyError, asyncio.CancelledError)")


def test_a_clause_below_one_that_raises_again_is_passed_by() -> None:
    """Of one `try` at most one clause runs."""

    async def body(over: asyncio.Event) -> None:
        try:
            try:
                await asyncio.sleep(3600)
            except CancelledError:
                raise
            except BaseException:
                pass
        except (BaseException, KeyError):
            pass
        await over.wait()

    assert source(cancelled(body)) == "except (BaseException, KeyError):"


STOPS = (CancelledError, KeyboardInterrupt)


def test_names_are_looked_up_in_the_module() -> None:
    """A constant that holds several classes."""

    async def body(over: asyncio.Event) -> None:
        try:
            await asyncio.sleep(3600)
        except STOPS:
            pass
        await over.wait()

    assert source(cancelled(body)) == "except STOPS:"


def test_anyios_name_for_it_is_known() -> None:
    """A call instead of a class."""

    async def body(over: asyncio.Event) -> None:
        try:
            await anyio.sleep(3600)
        except anyio.get_cancelled_exc_class():
            pass
        await over.wait()

    assert source(cancelled(body)) == "except anyio.get_cancelled_exc_class():"


def test_the_swallower_may_be_gone() -> None:
    """An inner function that returned normally afterwards; its caller has moved on."""

    async def inner() -> None:
        try:
            await asyncio.sleep(3600)
        except CancelledError:
            return

    async def middle() -> None:
        try:
            await inner()
        finally:
            await asyncio.sleep(0)

    async def body(over: asyncio.Event) -> None:
        try:
            await middle()
            await over.wait()
        except ValueError:
            pass

    site = cancelled(body)
    assert source(site) == "except CancelledError:"
    assert site is not None
    assert site.function.endswith("inner")


def test_the_innermost_that_is_still_there_has_caught_it() -> None:
    """What is outside of it has seen nothing, whatever it could catch."""

    async def inner() -> None:
        try:
            await asyncio.sleep(3600)
        except ValueError:
            pass

    async def middle(over: asyncio.Event) -> None:
        try:
            await inner()
        except CancelledError:  # middle
            pass
        await over.wait()

    async def body(over: asyncio.Event) -> None:
        try:
            await middle(over)
        except CancelledError:  # body
            pass

    assert source(cancelled(body)) == "except CancelledError:  # middle"


def test_async_generators_are_followed() -> None:
    """One swallows it and yields once more."""

    async def numbers() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(3600)
        except CancelledError:
            yield 1

    async def body(over: asyncio.Event) -> None:
        async for _ in numbers():
            await over.wait()

    site = cancelled(body)
    assert source(site) == "except CancelledError:"
    assert site is not None
    assert site.function.endswith("numbers")


def test_an_async_generator_that_goes_on_waiting_is_named() -> None:
    """It is still in the chain."""

    async def numbers(over: asyncio.Event) -> AsyncIterator[int]:
        try:
            await asyncio.sleep(3600)
        except CancelledError:
            pass
        await over.wait()
        yield 1

    async def body(over: asyncio.Event) -> None:
        async for _ in numbers(over):
            pass

    assert source(cancelled(body)) == "except CancelledError:"


def test_waiting_again_for_what_is_shielded_is_named() -> None:
    """The shield lets the outer task be cancelled; its owner chose to go on."""

    async def body(over: asyncio.Event) -> None:
        work = asyncio.ensure_future(over.wait())
        try:
            await asyncio.shield(work)
        except CancelledError:
            await work

    assert source(cancelled(body)) == "except CancelledError:"


async def stubborn(over: asyncio.Event) -> None:
    """Go on whatever comes."""
    while not over.is_set():
        try:
            await over.wait()
        except CancelledError:  # stubborn
            pass


async def awaits(coro: Awaitable[Any]) -> None:
    """Await a task."""
    try:
        await asyncio.ensure_future(coro)
    except CancelledError:  # awaits
        raise


async def gathers(coro: Awaitable[Any]) -> None:
    """Await a task among others."""
    try:
        await asyncio.gather(coro, asyncio.sleep(3600), return_exceptions=True)
    except CancelledError:  # gathers
        pass


async def groups(coro: Coroutine[Any, Any, Any]) -> None:
    """Own a task."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(coro)
    except CancelledError:  # groups
        pass


async def anyio_groups(coro: Coroutine[Any, Any, Any]) -> None:
    """Own a task the other way."""

    async def child() -> None:
        await coro

    async with anyio.create_task_group() as group:
        group.start_soon(child)


async def waits_for(coro: Awaitable[Any]) -> None:
    """Await with a time limit."""
    await asyncio.wait_for(coro, 3600)


@LOOPS
@pytest.mark.parametrize("way", [awaits, gathers, groups, anyio_groups, waits_for])
def test_a_task_that_got_the_cancel_instead_is_looked_into(way: Any, runner: Any) -> None:
    """Who awaits a task hands its cancellation on to it."""

    async def body(over: asyncio.Event) -> None:
        await way(stubborn(over))

    assert source(cancelled(body, runner)) == "except CancelledError:  # stubborn"


def test_a_child_that_ended_normally_is_named() -> None:
    """Its parent never knew."""

    async def child() -> None:
        try:
            await asyncio.sleep(3600)
        except CancelledError:  # child
            pass

    async def body(over: asyncio.Event) -> None:
        await asyncio.create_task(child())
        await over.wait()

    assert source(cancelled(body)) == "except CancelledError:  # child"


def test_a_task_that_ended_normally_is_told_from_what_it_was() -> None:
    """Its coroutine is exhausted, but the handlers on the way are known."""

    async def body(over: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(3600):
                try:
                    await asyncio.sleep(3600)
                finally:
                    over.is_set()
        except CancelledError:
            return

    assert source(cancelled(body, ends=True)) == "except CancelledError:"


def test_a_return_in_finally_swallows() -> None:
    """The word that most people do not expect it of."""
    body: Any = {}
    text = (
        "async def body(over):\n    try:\n        await sleep(3600)\n    finally:\n        return\n"
    )
    exec(compile(text, "<made>", "exec"), {"sleep": asyncio.sleep}, body)
    site = cancelled(body["body"], ends=True)
    assert site is not None
    assert site.line in (4, 5)


def test_a_task_that_obeyed_has_no_swallower() -> None:
    """The clean twin."""

    async def body(over: asyncio.Event) -> None:
        try:
            await asyncio.sleep(3600)
        except CancelledError:
            over.is_set()
            raise

    assert cancelled(body, ends=True) is None


def test_a_task_that_got_nothing_has_no_swallower() -> None:
    """The cancel is still on its way through a child that cannot be looked into."""

    async def main() -> Site | None:
        async def body() -> None:
            async with Swallows():
                await future

        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(body())
        await turns()
        answer = swallower(mark(task), task)
        future.set_result(None)
        await task
        return answer

    assert asyncio.run(main()) is None


def test_a_mark_keeps_nothing_alive() -> None:
    """Neither the task nor its children nor what they hold."""

    class Thing:
        pass

    async def main() -> list[Any]:
        async def child(thing: Thing) -> None:
            await asyncio.sleep(3600)
            del thing

        async def body(thing: Thing) -> None:
            await asyncio.gather(child(thing))

        thing = Thing()
        task = asyncio.create_task(body(thing))
        refs: list[Any] = [weakref.ref(thing), weakref.ref(task)]
        await turns()
        before = mark(task)
        task.cancel()
        await asyncio.wait([task])
        del thing, task
        gc.collect()
        answer = [ref() for ref in refs]
        assert before.passed_on[0][0]() is None
        return answer

    assert asyncio.run(main()) == [None, None]


@pytest.mark.parametrize("strange", [None, 3, object(), "x", iter([])])
def test_strange_arguments_raise_nothing(strange: Any) -> None:
    """Everything has an answer."""
    assert swallower(mark(strange), strange) is None
