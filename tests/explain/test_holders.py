"""Who holds an object, and the proof that nobody does."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ClassVar

import anyio
import pytest
import uvloop

from tightship.explain.holders import (
    cycle,
    holder_path,
    isolated,
    reachable_ids,
    traceback_roots,
)

GLOBAL_EVENTS: list[Any] = []
VARIABLE: contextvars.ContextVar[Any] = contextvars.ContextVar("VARIABLE")


class Pool:
    """Something that keeps things."""

    shared: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.items: list[Any] = []


@pytest.fixture(autouse=True)
def quiet_heap() -> Iterator[None]:
    """Freeze what was there before the test, as Tightship does; leave nothing in globals."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    GLOBAL_EVENTS.clear()
    Pool.shared.clear()


def ask(ref: weakref.ref[Any]) -> bool:
    """Ask as Tightship does: from a plain function that holds one local."""
    task = ref()
    assert task is not None
    return isolated(task, extra=1)


async def turns(number: int = 3) -> None:
    """Let everything that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


def start(coro: Coroutine[Any, Any, Any]) -> weakref.ref[Any]:
    """Start a task that nobody keeps."""
    return weakref.ref(asyncio.create_task(coro))


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run in a fresh loop, and take the debris with us."""
    try:
        return asyncio.run(main())
    finally:
        gc.collect()


async def wait_for_event(event: asyncio.Event) -> None:
    """Wait."""
    await event.wait()


def test_a_task_waiting_for_a_future_that_only_it_knows_is_isolated() -> None:
    """A lone future can never be resolved."""

    async def lone() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> bool:
        ref = start(lone())
        await turns()
        return ask(ref)

    assert run(main) is True


def test_a_task_waiting_for_a_queue_that_only_it_knows_is_isolated() -> None:
    """A lone queue.get() can never return."""

    async def main() -> bool:
        ref = start(asyncio.Queue().get())
        await turns()
        return ask(ref)

    assert run(main) is True


def test_tasks_that_wait_for_each_others_events_are_isolated() -> None:
    """A deadlock of two that nobody else knows."""

    async def one(mine: asyncio.Event, other: asyncio.Event) -> None:
        await mine.wait()
        other.set()

    async def main() -> tuple[bool, bool]:
        def both() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
            a, b = asyncio.Event(), asyncio.Event()
            return start(one(a, b)), start(one(b, a))

        first, second = both()
        await turns()
        return ask(first), ask(second)

    assert run(main) == (True, True)


def test_a_cycle_of_tasks_in_a_set_that_nobody_holds_is_isolated() -> None:
    """A set of tasks proves nothing if the set itself is lost."""

    class Owner:
        def __init__(self) -> None:
            self.tasks: set[Any] = set()
            self.event = asyncio.Event()

        async def work(self) -> None:
            await self.event.wait()

        def go(self) -> weakref.ref[Any]:
            task = asyncio.create_task(self.work())
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return weakref.ref(task)

    async def main() -> bool:
        ref = Owner().go()
        await turns()
        return ask(ref)

    assert run(main) is True


def test_a_task_group_inside_of_an_isolated_task_is_isolated_with_it() -> None:
    """Parent and children refer to each other and to nothing else."""

    async def parent() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_event(asyncio.Event()))

    async def main() -> bool:
        ref = start(parent())
        await turns()
        return ask(ref)

    assert run(main) is True


def test_an_async_generator_inside_of_an_isolated_task_does_not_spoil_the_proof() -> None:
    """The loop's registry of generators is weak."""

    async def numbers() -> Any:
        await asyncio.Event().wait()
        yield 1

    async def consume() -> None:
        async for _ in numbers():
            pass

    async def main() -> bool:
        ref = start(consume())
        await turns()
        return ask(ref)

    assert run(main) is True


def test_a_loop_over_a_list_inside_of_an_isolated_task_does_not_spoil_the_proof() -> None:
    """Iterators are followed like other holders."""

    async def each() -> None:
        for event in [asyncio.Event(), asyncio.Event()]:
            await event.wait()

    async def main() -> bool:
        ref = start(each())
        await turns()
        return ask(ref)

    assert run(main) is True


def test_a_caught_error_inside_of_an_isolated_task_does_not_spoil_the_proof() -> None:
    """The traceback refers to the coroutine's own frame."""

    async def after_error() -> None:
        try:
            raise ValueError("x")
        except ValueError as error:
            kept = error
            await asyncio.Event().wait()
            del kept

    async def main() -> bool:
        ref = start(after_error())
        await turns()
        return ask(ref)

    assert run(main) is True


def test_a_task_looked_at_before_is_still_isolated() -> None:
    """Explaining it (which makes frame objects) leaves no reference behind."""
    from tightship.explain.await_chain import chain, waiting

    def explain(ref: weakref.ref[Any]) -> None:
        chain(ref())
        waiting(ref())

    async def main() -> bool:
        ref = start(wait_for_event(asyncio.Event()))
        await turns()
        explain(ref)
        return ask(ref)

    assert run(main) is True


def test_it_may_be_asked_twice_and_without_a_local() -> None:
    """Asking changes nothing; a temporary reference is not counted."""

    async def main() -> tuple[bool, bool]:
        ref = start(wait_for_event(asyncio.Event()))
        await turns()
        return isolated(ref()), isolated(ref())

    assert run(main) == (True, True)


def test_the_proof_works_on_uvloop() -> None:
    """Tasks there are asyncio's own."""

    async def main() -> bool:
        ref = start(wait_for_event(asyncio.Event()))
        await turns()
        return ask(ref)

    assert uvloop.run(main()) is True


def test_a_task_whose_event_is_in_a_global_is_not_isolated() -> None:
    """Anybody may set it."""

    async def main() -> bool:
        GLOBAL_EVENTS.append(asyncio.Event())
        ref = start(wait_for_event(GLOBAL_EVENTS[0]))
        await turns()
        return ask(ref)

    assert run(main) is False


def test_a_task_whose_event_is_in_a_frozen_global_is_not_isolated() -> None:
    """The collector does not see frozen holders, but the count of references does."""

    async def main() -> bool:
        event = asyncio.Event()
        GLOBAL_EVENTS.append(event)
        gc.freeze()
        ref = start(wait_for_event(event))
        del event
        await turns()
        return ask(ref)

    assert run(main) is False


def test_a_task_whose_event_is_a_local_of_the_running_test_is_not_isolated() -> None:
    """The running coroutine may set it later."""

    async def main() -> bool:
        event = asyncio.Event()
        ref = start(wait_for_event(event))
        await turns()
        answer = ask(ref)
        event.set()
        return answer

    assert run(main) is False


def test_a_task_whose_event_is_a_local_of_a_plain_running_function_is_not_isolated() -> None:
    """Locals of executing functions are invisible to the collector."""
    event = asyncio.Event()

    async def main() -> bool:
        ref = start(wait_for_event(GLOBAL_EVENTS.pop()))
        await turns()
        return ask(ref)

    GLOBAL_EVENTS.append(event)
    assert run(main) is False
    event.set()


def test_a_task_that_a_local_variable_holds_is_not_isolated() -> None:
    """It could be cancelled or awaited."""

    async def main() -> bool:
        task = asyncio.create_task(wait_for_event(asyncio.Event()))
        await turns()
        answer = ask(weakref.ref(task))
        task.cancel()
        return answer

    assert run(main) is False


def test_a_task_whose_event_another_sleeping_task_will_set_is_not_isolated() -> None:
    """The timer of the other task leads to the event."""

    async def later(event: asyncio.Event) -> None:
        await asyncio.sleep(3600)
        event.set()

    async def main() -> bool:
        def both() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
            event = asyncio.Event()
            return start(later(event)), start(wait_for_event(event))

        _sleeper, ref = both()
        await turns()
        return ask(ref)

    assert run(main) is False


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_sleeping_task_is_not_isolated(runner: Callable[[Any], Any]) -> None:
    """The loop's timer will wake it."""

    async def main() -> bool:
        ref = start(asyncio.sleep(3600))
        await turns()
        return ask(ref)

    assert runner(main()) is False


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_task_under_a_timeout_is_not_isolated(runner: Callable[[Any], Any]) -> None:
    """The timeout will wake it."""

    async def limited() -> None:
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()

    async def main() -> bool:
        ref = start(limited())
        await turns()
        return ask(ref)

    assert runner(main()) is False


def test_a_task_that_is_ready_to_run_is_not_isolated() -> None:
    """It stands in the loop's queue, started or not."""

    async def main() -> bool:
        return ask(start(wait_for_event(asyncio.Event())))

    assert run(main) is False


def test_a_task_that_has_just_been_woken_is_not_isolated() -> None:
    """Its wakeup stands in the loop's queue."""

    async def main() -> bool:
        event = asyncio.Event()
        ref = start(wait_for_event(event))
        await turns()
        event.set()
        del event
        return ask(ref)

    assert run(main) is False


def test_a_task_whose_future_a_thread_holds_is_not_isolated() -> None:
    """A thread's local variable is enough."""
    go, ready = threading.Event(), threading.Event()
    answers: list[bool] = []

    def work(box: list[Any]) -> None:
        loop, future = box
        box.clear()
        ready.set()
        go.wait(30)
        loop.call_soon_threadsafe(future.cancel)

    async def wait_on(box: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        box.extend((loop, future))
        await future

    async def main() -> None:
        box: list[Any] = []
        ref = start(wait_on(box))
        await turns()
        thread = threading.Thread(target=work, args=(box,))
        thread.start()
        ready.wait(30)
        answers.append(ask(ref))
        go.set()
        thread.join()

    run(main)
    assert answers == [False]


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_task_waiting_for_a_thread_job_is_not_isolated(runner: Callable[[Any], Any]) -> None:
    """The worker will wake it through the loop."""
    go = threading.Event()

    async def main() -> bool:
        ref = start(asyncio.to_thread(go.wait, 30))
        await turns()
        answer = ask(ref)
        go.set()
        return answer

    assert runner(main()) is False


def test_a_task_waiting_for_a_queued_job_is_not_isolated() -> None:
    """The executor's queue leads to it."""
    go = threading.Event()

    async def main() -> bool:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(go.wait, 30)

            async def queued() -> None:
                await asyncio.get_running_loop().run_in_executor(pool, int)

            ref = start(queued())
            await turns()
            answer = ask(ref)
            go.set()
            return answer

    assert run(main) is False


async def ended(ref: weakref.ref[Any]) -> None:
    """Wait until the task is done, and its connection closed."""
    async with asyncio.timeout(30):
        while (task := ref()) is not None and not task.done():
            del task
            await asyncio.sleep(0)
    await turns()


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_task_reading_from_an_open_stream_is_not_isolated(runner: Callable[[Any], Any]) -> None:
    """Data may arrive."""

    async def read(sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        del sock
        await reader.read(1)
        writer.close()
        await writer.wait_closed()

    async def main() -> bool:
        a, b = socket.socketpair()
        ref = start(read(a))
        del a
        await turns(5)
        answer = ask(ref)
        b.close()
        await ended(ref)
        return answer

    assert runner(main()) is False


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_task_known_to_its_stream_by_weak_references_is_not_isolated(
    runner: Callable[[Any], Any],
) -> None:
    """A client's protocol refers to its reader weakly: the selector leads there all the same."""

    async def read(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        transport, _ = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader), sock=sock
        )
        del sock, _
        await reader.read(1)
        transport.close()

    async def main() -> bool:
        a, b = socket.socketpair()
        ref = start(read(a))
        del a
        await turns(5)
        answer = ask(ref)
        b.close()
        await ended(ref)
        return answer

    assert runner(main()) is False


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_task_fed_by_a_protocol_is_not_isolated(runner: Callable[[Any], Any]) -> None:
    """The loop's C library may know the transport by a bare pointer."""

    class Feed(asyncio.Protocol):
        def __init__(self) -> None:
            self.queue: asyncio.Queue[bytes] = asyncio.Queue()

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.queue.put_nowait(data)

    async def consume(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        transport, feed = await loop.create_connection(Feed, sock=sock)
        queue = feed.queue
        del sock, feed
        await queue.get()
        transport.close()

    async def main() -> bool:
        a, b = socket.socketpair()
        ref = start(consume(a))
        del a
        await turns(5)
        answer = ask(ref)
        b.send(b"x")
        await ended(ref)
        b.close()
        return answer

    assert runner(main()) is False


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_task_waiting_on_a_file_descriptor_is_not_isolated(
    runner: Callable[[Any], Any],
) -> None:
    """The selector leads to it."""

    async def watch(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.add_reader(sock, future.set_result, None)
        try:
            await future
        finally:
            loop.remove_reader(sock)

    async def main() -> bool:
        a, b = socket.socketpair()
        with a, b:
            ref = start(watch(a))
            await turns()
            answer = ask(ref)
            b.send(b"x")
            while ref() is not None and not ref().done():  # type: ignore[union-attr]
                await asyncio.sleep(0)
            return answer

    assert runner(main()) is False


def test_a_task_reached_through_a_weak_set_is_not_isolated() -> None:
    """A publisher may know its subscribers weakly."""
    subscribers: weakref.WeakSet[Any] = weakref.WeakSet()

    class Subscriber:
        def __init__(self) -> None:
            self.event = asyncio.Event()
            subscribers.add(self)

        async def work(self) -> None:
            await self.event.wait()

    async def main() -> bool:
        ref = start(Subscriber().work())
        await turns()
        return ask(ref)

    assert run(main) is False


def test_a_task_whose_attributes_are_held_as_a_dict_is_not_isolated() -> None:
    """``vars(obj)`` leads to an object's attributes, yet on 3.13 refers to none of them."""

    class Owner:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        async def work(self) -> None:
            await self.event.wait()

    async def main() -> bool:
        owner = Owner()
        names = vars(owner)
        ref = start(owner.work())
        del owner
        await turns()
        answer = ask(ref)
        names["event"].set()
        return answer

    assert run(main) is False


def test_a_task_whose_frame_is_held_is_not_isolated() -> None:
    """Whoever holds the frame can reach its locals."""
    frames: list[Any] = []

    async def work() -> None:
        frames.append(sys._getframe())
        event = asyncio.Event()
        await event.wait()

    async def main() -> bool:
        ref = start(work())
        await turns()
        answer = ask(ref)
        frames[0].f_locals["event"].set()
        frames.clear()
        return answer

    assert run(main) is False


def test_a_task_whose_event_is_in_a_context_is_not_isolated() -> None:
    """The current context is held by the thread's state, in C."""

    async def main() -> bool:
        VARIABLE.set(asyncio.Event())
        ref = start(wait_for_event(VARIABLE.get()))
        await turns()
        return ask(ref)

    assert run(main) is False


def test_a_task_in_an_anyio_task_group_of_the_test_is_not_isolated() -> None:
    """The group is open in a running function."""

    async def main() -> bool:
        refs: list[Any] = []

        async def child() -> None:
            refs.append(weakref.ref(asyncio.current_task()))
            await anyio.Event().wait()

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await turns()
            answer = ask(refs[0])
            group.cancel_scope.cancel()
        return answer

    assert run(main) is False


def test_a_task_that_a_finalizer_could_wake_is_not_isolated() -> None:
    """Collecting its owner would set the event."""

    class Owner:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        def __del__(self) -> None:
            self.event.set()

        async def work(self) -> None:
            await self.event.wait()

    async def main() -> bool:
        ref = start(Owner().work())
        await turns()
        return ask(ref)

    assert run(main) is False


def test_the_running_task_is_not_isolated() -> None:
    """Something that executes can do anything."""

    async def main() -> bool:
        return isolated(asyncio.current_task())

    assert run(main) is False


def test_a_set_beyond_the_limit_is_not_isolated() -> None:
    """Large sets are not searched to their end."""

    async def main() -> bool:
        ref = start(wait_for_event(asyncio.Event()))
        await turns()
        return isolated(ref(), limit=3)

    assert run(main) is False


def test_isolation_keeps_nothing_alive() -> None:
    """After the answer the task can be collected."""

    async def main() -> bool:
        ref = start(wait_for_event(asyncio.Event()))
        await turns()
        assert ask(ref)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        gc.collect()
        return ref() is None

    assert run(main) is True


def test_a_cycle_is_named_by_its_types() -> None:
    """The way round leads back to where it began."""

    class Node:
        def __init__(self) -> None:
            self.me = [self]

    def ask_cycle() -> str | None:
        node = Node()
        return cycle(node)

    text = ask_cycle()
    assert text is not None
    assert text.startswith("test_a_cycle_is_named_by_its_types.<locals>.Node -> ")
    assert text.endswith(" -> list -> test_a_cycle_is_named_by_its_types.<locals>.Node")


def test_an_object_without_a_cycle_has_none() -> None:
    """A local variable alone is no cycle."""

    def ask_cycle() -> str | None:
        pool = Pool()
        return cycle(pool)

    assert ask_cycle() is None


def test_an_object_that_something_else_holds_too_is_not_held_by_its_cycle() -> None:
    """A cycle is no answer if a global is one."""

    def ask_cycle() -> str | None:
        pool = Pool()
        pool.items.append(pool)
        GLOBAL_EVENTS.append(pool)
        return cycle(pool)

    assert ask_cycle() is None


def path(ref: weakref.ref[Any]) -> str | None:
    """Ask for the path with all of the heap in view."""
    gc.unfreeze()
    return holder_path(ref(), budget=10)


def test_the_path_leads_from_a_module_to_the_object() -> None:
    """Each step says how it holds the next."""

    def fill() -> weakref.ref[Any]:
        pool, held = Pool(), Pool()
        pool.items.append(held)
        GLOBAL_EVENTS.append(pool)
        return weakref.ref(held)

    text = path(fill())
    assert text == f"module {__name__} .GLOBAL_EVENTS -> list[0] -> Pool.items -> list[0] -> Pool"


def test_the_path_may_begin_at_a_class() -> None:
    """A class attribute is named with its class."""

    def fill() -> weakref.ref[Any]:
        held = Pool()
        Pool.shared.append(held)
        return weakref.ref(held)

    assert path(fill()) == f"class {__name__}.Pool .shared -> list[0] -> Pool"


def test_the_path_may_begin_at_a_local_of_a_running_function() -> None:
    """The collector cannot see it, the frame can."""
    kept = Pool()

    def fill() -> weakref.ref[Any]:
        held = Pool()
        kept.items.append(held)
        return weakref.ref(held)

    text = path(fill())
    assert text is not None
    assert text.startswith("local 'kept' of test_the_path_may_begin_at_a_local")
    assert text.endswith(" -> Pool.items -> list[0] -> Pool")


def test_the_path_may_begin_at_a_pending_task() -> None:
    """What only a stuck coroutine holds is named with its task."""

    async def keep() -> None:
        pool = Pool()
        refs.append(weakref.ref(pool))
        await asyncio.get_running_loop().create_future()

    refs: list[Any] = []

    async def main() -> str | None:
        asyncio.create_task(keep(), name="keeper")
        await turns()
        return path(refs[0])

    text = run(main)
    assert "task 'keeper'" in text
    assert text.endswith("keep local 'pool' -> Pool")


def test_the_path_may_begin_at_the_event_loop() -> None:
    """A timer holds what it will call."""

    async def main() -> str | None:
        def fill() -> weakref.ref[Any]:
            held = Pool()
            asyncio.get_running_loop().call_later(3600, held.items.append, held)
            return weakref.ref(held)

        return path(fill())

    text = run(main)
    assert text is not None
    assert text.startswith("event loop._scheduled -> list[")


def test_the_path_is_not_searched_beyond_its_budget() -> None:
    """No budget, no path; and no error."""
    GLOBAL_EVENTS.append(Pool())
    ref = weakref.ref(GLOBAL_EVENTS[0])
    text = holder_path(ref(), budget=-1)
    assert text is None


def test_ignored_holders_are_not_mentioned() -> None:
    """A holder that is known already can be left out."""
    keeper = [Pool()]
    GLOBAL_EVENTS.append(keeper)
    gc.unfreeze()
    text = holder_path(weakref.ref(keeper[0])(), ignore=[keeper], budget=10)
    assert text is None


def test_finding_a_path_keeps_no_locals_alive() -> None:
    """Reading a frame's locals leaves no snapshot that would keep them."""
    held = Pool()
    ref = weakref.ref(held)
    path(ref)
    del held
    assert ref() is None


def test_what_a_failed_test_left_in_its_traceback_is_reachable() -> None:
    """Locals of the project's frames, and what they lead to."""

    def fail() -> None:
        pool = Pool()
        pool.items.append(GLOBAL_EVENTS[0])
        raise ValueError

    GLOBAL_EVENTS.append(Pool())
    try:
        fail()
    except ValueError as error:
        roots = traceback_roots(error.__traceback__)
        assert id(GLOBAL_EVENTS[0]) in reachable_ids(roots)


def test_modules_are_not_entered_when_asking_what_can_be_reached() -> None:
    """A function among the roots does not make the whole program reachable."""

    def local() -> None: ...

    GLOBAL_EVENTS.append(Pool())
    assert id(GLOBAL_EVENTS[0]) not in reachable_ids([local])


def test_reaching_stops_at_the_limit() -> None:
    """The answer has a bounded size."""
    assert len(reachable_ids([[object() for _ in range(100)]], limit=10)) == 10
