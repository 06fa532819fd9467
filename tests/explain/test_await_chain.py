"""Where a task is stuck, and what it waits for."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import gc
import socket
import sys
import threading
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
import uvloop

from tightship.explain.await_chain import awaited_by, chain, format_waiting, waiting

LOOPS = pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Main = Callable[[], Coroutine[Any, Any, Any]]


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def turns(number: int = 4) -> None:
    """Let everything that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


async def look(coro: Coroutine[Any, Any, Any]) -> tuple[list[Any], str]:
    """Start a coroutine, let it get stuck, and tell where."""
    task = asyncio.create_task(coro)
    await turns()
    answer = waiting(task)
    await stop(task)
    return answer


def what(make: Callable[[], Coroutine[Any, Any, Any]], runner: Any = asyncio.run) -> str:
    """Return only what a coroutine waits for."""

    async def main() -> str:
        return (await look(make()))[1]

    return str(runner(main()))


async def level_1(awaitable: Awaitable[Any]) -> None:
    """Wait two levels deep."""
    await level_2(awaitable)


async def level_2(awaitable: Awaitable[Any]) -> None:
    """Wait for it."""
    await awaitable


@LOOPS
def test_the_sites_are_the_projects_own_lines_innermost_first(runner: Any) -> None:
    """asyncio's frames are left out."""

    async def main() -> Any:
        return await look(level_1(asyncio.Event().wait()))

    sites, text = runner(main())
    assert [s.function for s in sites] == ["level_2", "level_1"]
    assert sites[0].source == "await awaitable"
    assert text == "asyncio.Event (not set)"


def test_one_line_shows_where_a_task_is_stuck() -> None:
    """The innermost line in full, the others as places."""

    async def main() -> str:
        task = asyncio.create_task(level_1(asyncio.Event().wait()))
        await turns()
        line = format_waiting(task)
        await stop(task)
        return line

    line = asyncio.run(main())
    first = level_2.__code__.co_firstlineno + 2
    second = level_1.__code__.co_firstlineno + 2
    name = "test_await_chain.py"
    assert f"{name}:{first}   await awaitable   <- " in line
    assert line.endswith(f"{name}:{second}")


def test_one_line_shows_at_most_six_places() -> None:
    """A deep recursion does not fill the report."""

    async def deep(levels: int) -> None:
        if levels:
            await deep(levels - 1)
        else:
            await asyncio.Event().wait()

    async def main() -> str:
        task = asyncio.create_task(deep(20))
        await turns()
        line = format_waiting(task)
        await stop(task)
        return line

    line = asyncio.run(main())
    assert line.count("test_await_chain.py:") == 6
    assert line.endswith(" <- ...")


def test_a_task_of_the_runtime_alone_keeps_a_line() -> None:
    """If there is no line of the project, the innermost there is must do."""

    async def main() -> Any:
        return await look(asyncio.Queue().get())

    sites, _ = asyncio.run(main())
    assert len(sites) == 1
    assert sites[0].file.endswith("asyncio/queues.py")


def test_the_chain_goes_through_async_generators() -> None:
    """Their C awaitables hide the next level."""

    async def numbers(event: asyncio.Event) -> Any:
        await event.wait()
        yield 1

    async def consume(event: asyncio.Event) -> None:
        async for _ in numbers(event):
            pass

    async def main() -> Any:
        task = asyncio.create_task(consume(asyncio.Event()))
        await turns()
        links = chain(task)
        await stop(task)
        return links

    links = asyncio.run(main())
    assert [link.kind for link in links] == ["coroutine", "async generator", "coroutine"]
    assert links[1].function.endswith("numbers")


def test_the_chain_goes_through_anext_with_a_default() -> None:
    """anext() wraps the wrapper."""

    async def numbers(event: asyncio.Event) -> Any:
        await event.wait()
        yield 1

    async def consume(event: asyncio.Event) -> None:
        await anext(numbers(event), None)

    async def main() -> Any:
        task = asyncio.create_task(consume(asyncio.Event()))
        await turns()
        answer = waiting(task)
        await stop(task)
        return answer

    sites, text = asyncio.run(main())
    assert [s.function.rsplit(".", 1)[-1] for s in sites] == ["numbers", "consume"]
    assert text == "asyncio.Event (not set)"


def test_the_chain_goes_through_generators_and_own_awaitables() -> None:
    """types.coroutine and __await__ are levels like others."""

    @types.coroutine
    def old(event: asyncio.Event) -> Any:
        yield from event.wait()

    class Custom:
        def __init__(self, event: asyncio.Event) -> None:
            self.event = event

        def __await__(self) -> Any:
            yield from old(self.event)

    async def main() -> Any:
        task = asyncio.create_task(level_2(Custom(asyncio.Event())))
        await turns()
        links = chain(task)
        await stop(task)
        return links

    names = [link.function.rsplit(".", 1)[-1] for link in asyncio.run(main())]
    assert names == ["level_2", "__await__", "old", "wait"]


def test_the_chain_goes_through_coroutine_wrappers() -> None:
    """``coro.__await__()`` is opaque but to the garbage collector."""

    class Wrapper:
        def __init__(self, coro: Any) -> None:
            self.coro = coro

        def __await__(self) -> Any:
            return self.coro.__await__()

    async def main() -> Any:
        return await look(level_2(Wrapper(level_1(asyncio.Event().wait()))))

    sites, _ = asyncio.run(main())
    assert [s.function for s in sites] == ["level_2", "level_1", "level_2"]


async def in_queue(queue: asyncio.Queue[int], verb: str) -> None:
    """Wait on a queue."""
    await getattr(queue, verb)(*([1] if verb == "put" else []))


def test_waiting_for_an_item_names_the_queue() -> None:
    """With its size and its getters."""
    assert what(lambda: in_queue(asyncio.Queue(), "get")) == (
        "queue.get() on <Queue maxsize=0, 1 getter>"
    )


def test_waiting_for_room_names_the_queue() -> None:
    """With its items and its putters."""

    async def full() -> None:
        queue: asyncio.Queue[int] = asyncio.LifoQueue(maxsize=1)
        await queue.put(0)
        await in_queue(queue, "put")

    assert what(full) == "queue.put() on <LifoQueue maxsize=1, 1 item, 1 putter>"


def test_joining_a_queue_names_the_unfinished_tasks() -> None:
    """join() waits for task_done()."""

    async def join() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()
        await queue.put(0)
        await queue.join()

    assert what(join) == "queue.join() on <Queue maxsize=0, 1 unfinished task>"


def test_locks_are_named() -> None:
    """A lock that somebody else holds."""

    async def twice() -> None:
        lock = asyncio.Lock()
        async with lock, lock:
            pass

    assert what(twice) == "asyncio.Lock (locked)"


def test_semaphores_are_named_with_their_value() -> None:
    """A semaphore that is used up."""

    async def none_left() -> None:
        await asyncio.BoundedSemaphore(0).acquire()

    assert what(none_left) == "asyncio.BoundedSemaphore (locked, value 0)"


def test_conditions_and_barriers_are_named() -> None:
    """Both wait for others to come."""

    async def condition() -> None:
        cond = asyncio.Condition()
        async with cond:
            await cond.wait()

    async def barrier() -> None:
        await asyncio.Barrier(3).wait()

    assert what(condition) == "asyncio.Condition (not notified)"
    assert what(barrier) == "asyncio.Barrier (1 of 3 here)"


@LOOPS
def test_a_sleep_tells_when_it_is_due(runner: Any) -> None:
    """In seconds from now."""
    text = what(lambda: asyncio.sleep(3600), runner)
    assert text.startswith("sleep, due in 3599.") or text == "sleep, due in 3600.0 s"


def test_waiting_for_another_task_names_it() -> None:
    """By the name its author gave it."""

    async def main() -> str:
        other = asyncio.create_task(asyncio.sleep(3600), name="other")
        text = (await look(level_2(other)))[1]
        await stop(other)
        return text

    assert asyncio.run(main()) == "task 'other'"


def test_gather_counts_its_children() -> None:
    """All, and those that are still pending."""

    async def main() -> str:
        never = asyncio.create_task(asyncio.Event().wait(), name="never")
        other = asyncio.create_task(asyncio.Event().wait(), name="other")

        async def gather() -> None:
            await asyncio.gather(asyncio.sleep(0), never, other)

        text = (await look(gather()))[1]
        await stop(never, other)
        return text

    text = asyncio.run(main())
    assert text == "gather of 3 (2 pending: task 'never', task 'other')"


def test_asyncio_wait_counts_its_futures() -> None:
    """The set that it was given."""

    async def main() -> str:
        other = asyncio.create_task(asyncio.Event().wait(), name="other")

        async def wait() -> None:
            await asyncio.wait({other})

        text = (await look(wait()))[1]
        await stop(other)
        return text

    assert asyncio.run(main()) == "asyncio.wait of 1 (1 pending: task 'other')"


def test_a_shield_names_what_it_protects() -> None:
    """The inner task goes on when the outer is cancelled."""

    async def main() -> str:
        other = asyncio.create_task(asyncio.Event().wait(), name="other")

        async def shielded() -> None:
            await asyncio.shield(other)

        text = (await look(shielded()))[1]
        await stop(other)
        return text

    assert asyncio.run(main()) == "shield of task 'other'"


def test_a_task_group_names_its_children() -> None:
    """Its end waits for all of them."""

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.Event().wait(), name="child")

    assert what(group) == "a task group of 1 (1 pending: task 'child')"


@LOOPS
def test_an_anyio_task_group_names_its_children(runner: Any) -> None:
    """The same for anyio's."""

    async def group() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever, name="child")

    assert what(group, runner) == "a task group of 1 (1 pending: task 'child')"


def test_a_memory_stream_is_named() -> None:
    """anyio's streams wait on an event; the event is not the news."""

    async def receive() -> None:
        send, receive = anyio.create_memory_object_stream[int](0)
        with send, receive:
            await receive.receive()

    assert what(receive) == "receive() on a memory object stream"


async def anyio_semaphore() -> None:
    """Wait for a semaphore."""
    await anyio.Semaphore(0).acquire()


async def anyio_condition() -> None:
    """Wait to be notified."""
    condition = anyio.Condition()
    async with condition:
        await condition.wait()


async def anyio_limiter() -> None:
    """Wait for a token."""
    limiter = anyio.CapacityLimiter(1)
    await limiter.acquire_on_behalf_of(1)
    await limiter.acquire()


async def anyio_event() -> None:
    """Wait for an event."""
    await anyio.Event().wait()


async def anyio_readable() -> None:
    """Wait for bytes."""
    one, other = socket.socketpair()
    with one, other:
        await anyio.wait_readable(one)


@LOOPS
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (anyio_semaphore, "anyio.Semaphore (value 0)"),
        (anyio_condition, "anyio.Condition (not notified)"),
        (anyio_limiter, "anyio.CapacityLimiter (used up)"),
        (anyio_event, "anyio.Event (not set)"),
        (anyio_readable, "something to read on unix socketpair"),
        (anyio.sleep_forever, "nothing: it sleeps for ever"),
    ],
)
def test_anyios_primitives_are_called_by_their_names(body: Any, words: str, runner: Any) -> None:
    """Not by those of asyncio's that they are made of."""
    assert what(body, runner) == words


def test_anyios_lock_is_named() -> None:
    """It waits on a bare future."""

    async def locked() -> None:
        lock = anyio.Lock()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold, lock)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await lock.acquire()

    async def hold(lock: anyio.Lock) -> None:
        async with lock:
            await anyio.sleep_forever()

    assert what(locked) == "anyio.Lock (locked)"


def test_as_completed_is_named() -> None:
    """Not the queue that it is made of."""

    async def completed() -> None:
        for future in asyncio.as_completed([asyncio.Event().wait()]):
            await future

    assert what(completed) == "the next of asyncio.as_completed"


def test_wait_for_shows_the_inside_of_its_task() -> None:
    """On 3.11 the coroutine runs in a task of its own."""

    async def inner() -> None:
        await asyncio.Queue().get()

    async def outer() -> None:
        await asyncio.wait_for(inner(), 3600)

    async def main() -> Any:
        return await look(outer())

    sites, text = asyncio.run(main())
    assert [s.function.rsplit(".", 1)[-1] for s in sites] == ["inner", "outer"]
    assert text == "queue.get() on <Queue maxsize=0, 1 getter>"


def blocking(go: threading.Event) -> None:
    """Work in a thread."""
    go.wait(30)


@LOOPS
def test_a_thread_job_is_named_by_its_function(runner: Any) -> None:
    """to_thread and run_in_executor."""

    async def main() -> list[str]:
        go = threading.Event()

        async def in_executor() -> None:
            await asyncio.get_running_loop().run_in_executor(None, blocking, go)

        tasks = [
            asyncio.create_task(asyncio.to_thread(blocking, go)),
            asyncio.create_task(in_executor()),
        ]
        await turns()
        texts = [waiting(t)[1] for t in tasks]
        go.set()
        await asyncio.gather(*tasks)
        return texts

    expected = f"a thread job: blocking ({__name__})"
    assert runner(main()) == [expected, expected]


def test_a_queued_thread_job_says_so() -> None:
    """All workers are busy."""
    from concurrent.futures import ThreadPoolExecutor

    async def main() -> str:
        go = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(blocking, go)

            async def queued() -> None:
                await asyncio.get_running_loop().run_in_executor(pool, blocking, go)

            task = asyncio.create_task(queued())
            await turns()
            text = waiting(task)[1]
            go.set()
            await task
        return text

    assert asyncio.run(main()) == f"a thread job: blocking ({__name__}) (queued)"


@LOOPS
def test_reading_from_a_connection_names_both_ends(runner: Any) -> None:
    """Our end first."""

    async def main() -> None:
        async def silent(reader: Any, writer: Any) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        own = writer.get_extra_info("sockname")[1]
        text = (await look(reader.readline()))[1]
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert text == f"reading from 127.0.0.1:{own} -> 127.0.0.1:{port}"

    runner(main())


@LOOPS
def test_a_socket_operation_is_named(runner: Any) -> None:
    """uvloop's own coroutines are Cython, without locals or line numbers."""

    async def main() -> str:
        a, b = socket.socketpair()
        a.setblocking(False)
        with a, b:
            return (await look(level_2(asyncio.get_running_loop().sock_recv(a, 1))))[1]

    text = runner(main())
    assert text == ("sock_recv()" if runner is uvloop.run else "sock_recv() on unix socketpair")


def test_the_levels_of_a_cython_coroutine_have_a_site() -> None:
    """Even if its frame has no line."""

    async def main() -> Any:
        a, b = socket.socketpair()
        a.setblocking(False)
        with a, b:
            task = asyncio.create_task(level_2(asyncio.get_running_loop().sock_recv(a, 1)))
            await turns()
            links = chain(task)
            await stop(task)
            return links

    links = uvloop.run(main())
    assert links[0].function == "level_2"
    assert links[-1].function.endswith("sock_recv")
    assert links[-1].site.line > 0


@LOOPS
def test_waiting_for_a_process_names_its_pid(runner: Any) -> None:
    """A child that does not end."""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE
        )
        text = (await look(process.wait()))[1]
        await process.communicate(b"\n")
        assert text == f"process {process.pid} to exit"

    runner(main())


def test_a_bare_future_is_said_to_be_unresolved() -> None:
    """Nothing more is known about it."""

    async def bare() -> None:
        await asyncio.get_running_loop().create_future()

    assert what(bare) == "a future nobody has resolved yet"


def test_a_pure_python_future_is_recognised() -> None:
    """It is awaited through a generator."""

    async def bare() -> None:
        await asyncio.futures._PyFuture(loop=asyncio.get_running_loop())  # type: ignore[attr-defined]

    assert what(bare) == "a future nobody has resolved yet"


def test_a_task_that_has_not_started_says_so() -> None:
    """Its site is where its coroutine begins."""

    async def main() -> Any:
        task = asyncio.create_task(level_1(asyncio.Event().wait()))
        answer = waiting(task), format_waiting(task)
        await turns()
        await stop(task)
        return answer

    (sites, text), line = asyncio.run(main())
    assert text == "not started yet"
    assert sites[0].line == level_1.__code__.co_firstlineno
    assert line.endswith("(not started yet)")


def test_tasks_that_are_done_say_how() -> None:
    """Returned, cancelled or failed."""

    async def fail() -> None:
        raise ValueError

    async def main() -> Any:
        tasks = [asyncio.create_task(c) for c in (asyncio.sleep(0), asyncio.sleep(9), fail())]
        tasks[1].cancel()
        await asyncio.wait(tasks)
        texts = [waiting(t)[1] for t in tasks]
        assert isinstance(tasks[2].exception(), ValueError)
        return texts

    assert asyncio.run(main()) == ["done", "cancelled", "failed with ValueError"]


def test_looking_at_a_failed_task_does_not_silence_asyncio() -> None:
    """An error that nobody retrieved is still reported."""
    heard: list[Any] = []

    async def fail() -> None:
        raise ValueError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, c: heard.append(c["message"]))
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        waiting(task)
        del task
        gc.collect()

    asyncio.run(main())
    assert heard == ["Task exception was never retrieved"]


def test_a_running_task_shows_its_stack() -> None:
    """Asked from inside, it stands in the asking line."""

    def ask() -> Any:
        return waiting(asyncio.current_task())

    async def main() -> Any:
        return ask()

    sites, text = asyncio.run(main())
    assert text == "running now"
    assert [s.function.rsplit(".", 1)[-1] for s in sites] == ["ask", "main"]


def test_a_task_running_in_another_thread_shows_its_stack() -> None:
    """A blocked loop is seen from outside."""
    go, ready = threading.Event(), threading.Event()
    tasks: list[Any] = []

    async def main() -> None:
        tasks.append(asyncio.current_task())
        ready.set()
        blocking(go)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait(30)
    sites, text = waiting(tasks[0])
    links = chain(tasks[0])
    go.set()
    thread.join()
    assert text == "running now"
    # It may stand just before the call or in it.
    assert sites[-1].function.endswith("main")
    assert links[-1].kind == "running"


def test_a_task_that_was_woken_waits_for_its_turn() -> None:
    """What it waited for has come."""

    async def main() -> str:
        event = asyncio.Event()
        task = asyncio.create_task(level_2(asyncio.sleep(0)))
        await asyncio.sleep(0)
        text = waiting(task)[1]
        await stop(task)
        del event
        return text

    assert asyncio.run(main()) == "its next turn in the loop"


def test_a_task_that_resists_cancellation_says_so() -> None:
    """It was asked to end and waits on."""

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    async def main() -> str:
        task = asyncio.create_task(stubborn())
        await turns()
        task.cancel()
        await turns()
        text = waiting(task)[1]
        await stop(task)
        return text

    assert asyncio.run(main()) == "asyncio.Event (not set), although cancelled"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
def test_eager_tasks_are_followed() -> None:
    """They start before they are scheduled."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
        task = asyncio.create_task(level_1(asyncio.Event().wait()))
        answer = waiting(task)
        await stop(task)
        return answer

    sites, text = asyncio.run(main())
    assert [s.function for s in sites] == ["level_2", "level_1"]
    assert text == "asyncio.Event (not set)"


@LOOPS
def test_who_awaits_a_task_is_found_through_every_primitive(runner: Any) -> None:
    """await, gather, wait, wait_for, shield and task groups."""

    async def main() -> list[str]:
        target = asyncio.create_task(asyncio.Event().wait(), name="target")

        async def gather() -> None:
            await asyncio.gather(target)

        async def wait() -> None:
            await asyncio.wait({target})

        async def wait_for() -> None:
            await asyncio.wait_for(target, 3600)

        async def shield() -> None:
            await asyncio.shield(target)

        tasks = [
            asyncio.create_task(coro, name=name)
            for name, coro in (
                ("a plain", level_2(target)),
                ("b gather", gather()),
                ("c wait", wait()),
                ("d wait_for", wait_for()),
                ("e shield", shield()),
            )
        ]
        await turns()
        names = awaited_by(target)
        await stop(target, *tasks)
        return names

    assert runner(main()) == ["a plain", "b gather", "c wait", "d wait_for", "e shield"]


def test_the_parent_of_a_task_group_awaits_its_children() -> None:
    """The group remembers the task that opened it."""

    async def main() -> list[str]:
        found: list[str] = []

        async def parent() -> None:
            async with asyncio.TaskGroup() as group:
                child = group.create_task(asyncio.Event().wait())
                found.extend(awaited_by(child))
                child.cancel()

        await asyncio.create_task(parent(), name="parent")
        return found

    assert asyncio.run(main()) == ["parent"]


def test_looking_keeps_nothing_alive() -> None:
    """Neither the locals of a stuck coroutine nor those of the one who asks."""

    class Thing:
        pass

    async def stuck(thing: Thing, event: asyncio.Event) -> None:
        refs.append(weakref.ref(thing))
        await event.wait()
        del thing
        await asyncio.Event().wait()

    refs: list[weakref.ref[Thing]] = []

    async def main() -> bool:
        event = asyncio.Event()
        task = asyncio.create_task(stuck(Thing(), event))
        await turns()
        waiting(task)
        chain(task)
        event.set()
        await turns()
        gone = refs[0]() is None
        await stop(task)
        return gone

    assert asyncio.run(main())


@pytest.mark.parametrize("strange", [None, 3, object(), "x", iter([])])
def test_strange_arguments_raise_nothing(strange: Any) -> None:
    """Everything has an answer."""
    assert chain(strange) == []
    assert isinstance(waiting(strange)[1], str)
    assert isinstance(format_waiting(strange), str)
    assert awaited_by(strange) == []


def test_hostile_awaitables_raise_nothing() -> None:
    """An object may raise whatever it likes when looked at."""

    class Hostile:
        def __getattr__(self, name: str) -> Any:
            raise GeneratorExit(name)

        def __repr__(self) -> str:
            raise GeneratorExit

    assert chain(Hostile()) == []
    assert isinstance(waiting(Hostile())[1], str)
