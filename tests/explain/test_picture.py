"""The picture at expiry: tasks, threads, timers, jobs, and the text of it."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
import trio
import uvloop

from tightship.explain import picture
from tightship.explain.frames import local_values
from tightship.explain.loop_state import LoopState
from tightship.explain.picture import Picture, render, take
from tightship.explain.task_tree import Node
from tightship.explain.threads import Thread
from tightship.model import Site

RUNNERS = {"asyncio": asyncio.run, "uvloop": uvloop.run}
LOOPS = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)


async def turns(number: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


def picture_of(
    body: Callable[[], Coroutine[Any, Any, Any]], runner: Any = asyncio.run, **options: Any
) -> Picture:
    """Start a coroutine as task ``test``, let it get stuck, and take the picture."""

    async def main() -> Picture:
        task = asyncio.create_task(body(), name="test")
        await turns()
        picture = take([asyncio.get_running_loop()], **options)
        # Members of a ring cannot be cancelled one by one: each hands it on to the next.
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            waiter = other._fut_waiter  # type: ignore[attr-defined]
            if not isinstance(waiter, asyncio.Task):
                other.cancel()
        await asyncio.wait([task], timeout=5)
        return picture

    picture = runner(main())
    assert isinstance(picture, Picture)
    assert picture.faults == ()
    return picture


def stand_still(*idents: int | None) -> None:
    """Wait until threads are where they will be: at one instruction, twenty looks in a row."""
    last: Any = None
    same = 0
    until = time.monotonic() + 1
    while same < 20 and time.monotonic() < until:
        frames = sys._current_frames()
        now = [(id(f), f.f_lasti) for f in (frames.get(i or 0) for i in idents) if f is not None]
        same = same + 1 if now == last and len(now) == len(idents) else 0
        last = now
        del frames
        time.sleep(0.002)


def seen_from_a_thread(block: Callable[[threading.Event], Any]) -> Picture:
    """Run ``block(ready)`` and take the picture in another thread once it has set ``ready``.

    The running loop, if any, is handed over by the block's own attribute ``loop``.
    """
    ready = threading.Event()
    found: list[Picture] = []
    main = threading.get_ident()

    def watch() -> None:
        ready.wait(30)
        stand_still(main)
        loops = [getattr(block, "loop", None)]
        found.append(
            take(
                [loop for loop in loops if loop is not None],
                thread=main,
                own_threads=[threading.get_ident()],
            )
        )
        getattr(block, "release", int)()

    watcher = threading.Thread(target=watch)
    watcher.start()
    block(ready)
    watcher.join(30)
    assert found[0].faults == ()
    return found[0]


def nodes(trees: tuple[Node, ...]) -> Iterator[Node]:
    """Yield all nodes of some trees."""
    for node in trees:
        yield node
        yield from nodes(node.children)


def node(picture: Picture, name: str) -> Node:
    """Return the one node of this name."""
    found = [n for n in nodes(picture.loops[0].tasks.trees) if n.name == name]
    assert len(found) == 1, [n.name for n in nodes(picture.loops[0].tasks.trees)]
    return found[0]


def thread(picture: Picture, name: str) -> Thread:
    """Return the one thread of this name."""
    (found,) = [t for t in picture.threads if t.name == name]
    return found


def text(picture: Picture, **options: Any) -> str:
    """Return the rendered picture."""
    return "\n".join(render(picture, **options))


# ---- tasks ----------------------------------------------------------------------------------


async def level_1(event: asyncio.Event) -> None:
    """Wait one level down."""
    await level_2(event)


async def level_2(event: asyncio.Event) -> None:
    """Wait."""
    await event.wait()


@LOOPS
def test_a_task_shows_its_chain_and_what_it_waits_for(runner: Any) -> None:
    """Innermost first, as everywhere."""
    picture = picture_of(lambda: level_1(asyncio.Event()), runner)
    test = node(picture, "test")
    assert [site.function for site in test.chain] == ["level_2", "level_1"]
    assert test.chain[0].source == "await event.wait()"
    assert test.waits == "asyncio.Event (not set)"


@LOOPS
def test_who_looks_is_running(runner: Any) -> None:
    """The picture may be taken from inside of the loop."""
    picture = picture_of(lambda: level_1(asyncio.Event()), runner)
    main = node(picture, "main")
    assert main.running
    assert main.main
    assert [n.name for n in picture.loops[0].tasks.trees] == ["main", "test"]
    assert picture.loops[0].state == "busy"


@LOOPS
def test_a_thousand_equal_workers_are_one(runner: Any) -> None:
    """Names with trailing numbers collapse."""

    async def body() -> None:
        event = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for n in range(1000):
                group.create_task(level_1(event), name=f"worker-{n}")

    picture = picture_of(body, runner)
    worker = node(picture, "worker-*")
    assert worker.count == 1000
    assert picture.loops[0].tasks.total == 1002
    assert "  1000 x worker-*" in text(picture)
    assert len(render(picture)) < 20


def test_workers_that_differ_are_not_merged() -> None:
    """Not in where they are, nor in what they wait for, nor in the stem of their names."""

    async def body() -> None:
        event, lock = asyncio.Event(), asyncio.Lock()
        await lock.acquire()
        async with asyncio.TaskGroup() as group:
            group.create_task(level_1(event), name="a-1")
            group.create_task(level_2(event), name="a-2")
            group.create_task(level_2(event), name="b-1")

    test = node(picture_of(body), "test")
    assert sorted((n.name, n.count) for n in test.children) == [("a-1", 1), ("a-2", 1), ("b-1", 1)]


def test_merged_sleeps_give_a_range() -> None:
    """Numbers in what they wait for may differ."""

    async def body() -> None:
        await asyncio.gather(*(asyncio.sleep(n) for n in (100, 200, 300)))

    sleep = node(picture_of(body), "sleep")
    assert sleep.count == 3
    assert sleep.waits.startswith(("sleep, due in 99.", "sleep, due in 100.0 to"))
    assert " to 299." in sleep.waits or " to 300.0" in sleep.waits


async def plain(coro: Any) -> None:
    """Await a task."""
    await asyncio.create_task(coro, name="child")


async def gathers(coro: Any) -> None:
    """Gather a task."""
    await asyncio.gather(asyncio.create_task(coro, name="child"), asyncio.sleep(3600))


async def waits(coro: Any) -> None:
    """Wait for a set of tasks."""
    await asyncio.wait([asyncio.create_task(coro, name="child")], timeout=3600)


async def waits_for(coro: Any) -> None:
    """Wait with a time limit."""
    await asyncio.wait_for(asyncio.create_task(coro, name="child"), 3600)


async def shields(coro: Any) -> None:
    """Protect a task."""
    await asyncio.shield(asyncio.create_task(coro, name="child"))


async def group(coro: Any) -> None:
    """Own a task and wait for its end."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(coro, name="child")


async def busy_group(coro: Any) -> None:
    """Own a task and wait for something else."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(coro, name="child")
        await asyncio.Event().wait()


async def anyio_group(coro: Any) -> None:
    """Own a task the other way."""

    async def child() -> None:
        await coro

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(child)
        await anyio.sleep_forever()


async def completed(coro: Any) -> None:
    """Take results as they come."""
    for future in asyncio.as_completed([asyncio.create_task(coro, name="child")]):
        await future


WAYS = [plain, gathers, waits, waits_for, shields, group, busy_group, anyio_group, completed]


@LOOPS
@pytest.mark.parametrize("way", WAYS)
def test_a_child_stands_beneath_the_task_that_awaits_it(way: Any, runner: Any) -> None:
    """Whatever way of awaiting it is."""
    picture = picture_of(lambda: way(level_1(asyncio.Event())), runner)
    test = node(picture, "test")
    (child,) = [n for n in test.children if n.name == "child"]
    assert child.waits == "asyncio.Event (not set)"
    assert "child" not in [n.name for n in picture.loops[0].tasks.trees]


def test_the_task_of_wait_for_is_no_news() -> None:
    """3.11 makes one, later versions do not; the picture is the same."""

    async def body() -> None:
        await asyncio.wait_for(plain(level_1(asyncio.Event())), 3600)

    picture = picture_of(body)
    test = node(picture, "test")
    assert [site.function.rpartition(".")[2] for site in test.chain] == ["plain", "body"]
    assert [n.name for n in test.children] == ["child"]
    assert picture.loops[0].tasks.total == 3


def test_families_are_merged_as_a_whole() -> None:
    """Equal parents with equal children."""

    async def body() -> None:
        event = asyncio.Event()
        await asyncio.gather(
            *(asyncio.create_task(plain(level_1(event)), name=f"p{n}") for n in range(20))
        )

    parent = node(picture_of(body), "p*")
    assert parent.count == 20
    assert [(n.name, n.count) for n in parent.children] == [("child", 20)]


def test_what_many_wait_for_does_not_tear_them_apart() -> None:
    """It stands beneath them once."""

    async def waiter(task: Any) -> None:
        await asyncio.shield(task)

    async def body() -> None:
        shared = asyncio.create_task(level_1(asyncio.Event()), name="shared")
        async with asyncio.TaskGroup() as tasks:
            for n in range(10):
                tasks.create_task(waiter(shared), name=f"w-{n}")

    picture = picture_of(body)
    many = node(picture, "w-*")
    assert many.count == 10
    assert [n.name for n in many.children] == ["shared"]


def ring(size: int) -> Callable[[], Coroutine[Any, Any, None]]:
    """Make tasks that each await the next, the last the first."""

    async def member(tasks: list[Any], n: int) -> None:
        await tasks[(n + 1) % len(tasks)]

    async def body() -> None:
        tasks: list[Any] = []
        tasks += [
            asyncio.create_task(member(tasks, n), name=f"member {'abcdef'[n]}") for n in range(size)
        ]
        await asyncio.Event().wait()

    return body


def in_a_process(source: str) -> str:
    """Run a program of its own, which may leave what nobody can clean up."""
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("size", [2, 3])
def test_a_ring_is_shown_and_said(size: int, runner: str) -> None:
    """Tasks that await each other have no root, and lose no line."""
    out = in_a_process(
        f"""
import asyncio, os, uvloop
from tightship.explain.picture import take, render

async def member(tasks, n):
    await tasks[(n + 1) % {size}]

async def main():
    tasks = []
    tasks += [
        asyncio.create_task(member(tasks, n), name="abc"[n]) for n in range({size})
    ]
    await asyncio.sleep(0.01)
    print(*render(take([asyncio.get_running_loop()])), sep="\\n", flush=True)
    os._exit(0)

{runner}.run(main())
"""
    )
    names = "abc"[:size]
    assert "each waits for the next: " + " -> ".join([*names, "a"]) in out
    for name, other in zip(names, names[1:] + "a", strict=True):
        assert any(
            line.split() == [name, "waits", "for", "task", f"'{other}'"]
            for line in out.splitlines()
        ), out


def test_a_ring_beneath_somebody_who_waits_is_said_as_well() -> None:
    """Its members have another parent, too."""
    out = in_a_process(
        """
import asyncio, os
from tightship.explain.picture import take, render

async def member(other):
    await tasks[other]

async def main():
    global tasks
    tasks = {}
    tasks["a"] = asyncio.create_task(member("b"), name="a")
    tasks["b"] = asyncio.create_task(member("a"), name="b")
    asyncio.get_running_loop().call_later(0.05, look)
    await asyncio.gather(*tasks.values())

def look():
    print(*render(take([asyncio.get_running_loop()])), sep="\\n", flush=True)
    os._exit(0)

asyncio.run(main())
"""
    )
    assert "each waits for the next: a -> b -> a" in out
    assert out.splitlines()[1].split()[0] == "main"


def test_a_chain_of_hundreds_of_tasks_has_an_end() -> None:
    """What is too deep to be told is counted."""

    async def body() -> None:
        task: Any = asyncio.ensure_future(level_1(asyncio.Event()))
        for _ in range(300):
            task = asyncio.ensure_future(one(task))
        await task

    async def one(task: Any) -> None:
        await asyncio.shield(task)

    picture = picture_of(body)
    trees = picture.loops[0].tasks.trees
    assert sum(tree.size() for tree in trees) == picture.loops[0].tasks.total == 303
    assert "tasks beneath" in text(picture, limit_lines=200)


@LOOPS
def test_a_cancelled_task_that_goes_on_says_so(runner: Any) -> None:
    """And by whom, if somebody knows."""

    async def stubborn(event: asyncio.Event) -> None:
        try:
            await event.wait()
        finally:
            await event.wait()

    async def body() -> None:
        event = asyncio.Event()
        task = asyncio.create_task(stubborn(event), name="stubborn")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.wait([task])

    asked = []

    def who(task: Any) -> Site:
        asked.append(task.get_name())
        return Site("shop/stop.py", 7, "stop", "task.cancel()")

    picture = picture_of(body, runner, cancelled_by=who)
    stuck = node(picture, "stubborn")
    assert stuck.cancelling == 1
    assert asked == ["stubborn"]
    assert "although cancelled" in text(picture)
    assert "cancelled by shop/stop.py:7   task.cancel()" in text(picture)


def test_where_a_task_was_made_is_told() -> None:
    """If Python was told to remember it."""

    async def body() -> None:
        global LOOSE
        LOOSE = asyncio.create_task(level_1(asyncio.Event()), name="loose")
        await asyncio.Event().wait()

    before = sys.get_coroutine_origin_tracking_depth()
    sys.set_coroutine_origin_tracking_depth(1)
    try:
        picture = picture_of(body)
    finally:
        sys.set_coroutine_origin_tracking_depth(before)
    made = node(picture, "loose").made
    assert made is not None
    assert made.source.startswith("LOOSE = asyncio.create_task(")
    assert "    made " in text(picture)


def test_a_task_without_a_name_has_its_functions() -> None:
    """Also where others speak of it."""

    async def body() -> None:
        await asyncio.create_task(level_1(asyncio.Event()))

    picture = picture_of(body)
    assert node(picture, "test").waits == "task 'level_1'"
    assert node(picture, "level_1").count == 1


def test_a_task_that_has_not_started_says_so() -> None:
    """It waits for nothing but its turn."""

    async def main() -> Picture:
        task = asyncio.create_task(level_1(asyncio.Event()), name="fresh")
        picture = take([asyncio.get_running_loop()])
        task.cancel()
        return picture

    picture = asyncio.run(main())
    assert node(picture, "fresh").waits == "not started yet"
    assert "has not started" in text(picture)


def test_it_keeps_nothing_alive() -> None:
    """Neither tasks nor what their functions hold."""

    class Thing:
        pass

    async def holds(thing: Thing) -> None:
        await asyncio.Event().wait()
        del thing

    async def main() -> tuple[Picture, list[Any]]:
        thing = Thing()
        task = asyncio.create_task(holds(thing))
        refs = [weakref.ref(thing), weakref.ref(task)]
        await turns()
        picture = take([asyncio.get_running_loop()])
        task.cancel()
        await asyncio.wait([task])
        del task, thing
        await asyncio.sleep(0)
        gc.collect()
        return picture, [ref() for ref in refs]

    picture, alive = asyncio.run(main())
    assert alive == [None, None]
    assert picture.loops[0].tasks.total == 2


def test_many_tasks_do_not_take_long() -> None:
    """Ten thousand different ones; below a second on an idle machine."""

    async def sleeper(n: int) -> None:
        await asyncio.sleep(3600 + n)

    async def main() -> Picture:
        tasks = [asyncio.create_task(sleeper(n), name=f"s{n}") for n in range(10_000)]
        await turns()
        picture = take([asyncio.get_running_loop()])
        for task in tasks:
            task.cancel()
        return picture

    picture = asyncio.run(main())
    tasks = picture.loops[0].tasks
    assert tasks.total == 10_001
    assert sum(tree.size() for tree in tasks.trees) + tasks.unseen == 10_001
    assert picture.seconds < 4.0


def test_a_hostile_name_costs_nothing() -> None:
    """Names may be objects that raise, and repr() is never asked."""

    class Hostile(str):
        def __str__(self) -> str:
            raise GeneratorExit

        __repr__ = __str__

    async def body() -> None:
        await asyncio.create_task(level_1(asyncio.Event()), name=Hostile("hostile"))

    async def main() -> Picture:
        task = asyncio.create_task(level_1(asyncio.Event()))
        task._name = Hostile("x")  # type: ignore[attr-defined]
        await turns()
        picture = take([asyncio.get_running_loop()])
        task.cancel()
        return picture

    assert asyncio.run(main()).loops[0].tasks.total == 2


def test_the_whole_is_plain_data() -> None:
    """It goes into the journal as it is."""

    async def body() -> None:
        asyncio.get_running_loop().call_later(3600, print, "x")
        await gathers(level_1(asyncio.Event()))

    picture = picture_of(body, resources=["socket a -> b"])
    data = json.loads(json.dumps(picture.to_dict()))
    assert data["resources"] == ["socket a -> b"]
    assert data["loops"][0]["tasks"]["trees"][1]["chain"][0]["source"].startswith("await asyncio.")
    assert data["loops"][0]["timers"]
    assert data["threads"][0]["name"] == "MainThread"


# ---- loops ----------------------------------------------------------------------------------


@LOOPS
def test_a_loop_that_waits_for_events_is_seen_from_another_thread(runner: Any) -> None:
    """Its thread is not shown as blocked."""

    def block(ready: threading.Event) -> None:
        async def main() -> None:
            block.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
            event = asyncio.Event()
            block.release = lambda: block.loop.call_soon_threadsafe(event.set)  # type: ignore[attr-defined]
            ready.set()
            await level_1(event)

        runner(main())

    picture = seen_from_a_thread(block)
    loop = picture.loops[0]
    assert loop.state == "waiting for events"
    assert loop.thread == threading.get_ident()
    assert thread(picture, "MainThread").runs_loop
    assert node(picture, "main").chain[0].source == "await event.wait()"
    lines = render(picture)
    assert lines[0] == "tasks (1 pending, the loop is waiting for events)"
    assert any(line.split() == ["MainThread", "runs", "the", "loop"] for line in lines)


@contextmanager
def until_released() -> Iterator[tuple[threading.Lock, Callable[[], None]]]:
    """Give a lock that is held, and what releases it."""
    lock = threading.Lock()
    lock.acquire()
    yield lock, lock.release


@LOOPS
def test_a_task_that_blocks_its_loop_in_c_is_named(runner: Any) -> None:
    """With the line and the call, seen from another thread."""

    def block(ready: threading.Event) -> None:
        with until_released() as (lock, release):
            block.release = release  # type: ignore[attr-defined]

            async def blocking() -> None:
                ready.set()
                lock.acquire()

            async def main() -> None:
                block.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
                other = asyncio.create_task(level_1(asyncio.Event()), name="other")
                await asyncio.sleep(0)
                await blocking()
                other.cancel()

            runner(main())

    picture = seen_from_a_thread(block)
    assert picture.loops[0].state == "blocked in lock.acquire()"
    main = node(picture, "main")
    assert main.running
    assert main.chain[0].source == "lock.acquire()"
    assert [s.function.rpartition(".")[2] for s in main.chain[:2]] == ["blocking", "main"]
    assert node(picture, "other").waits == "asyncio.Event (not set)"
    out = text(picture)
    assert "the loop is blocked in lock.acquire()" in out
    assert ["MainThread", "runs", "the", "loop,", "see", "above"] in [
        line.split() for line in out.splitlines()
    ]


@LOOPS
def test_a_callback_that_blocks_its_loop_is_named(runner: Any) -> None:
    """No task is running then; the line is told with the loop."""

    def block(ready: threading.Event) -> None:
        with until_released() as (lock, release):
            block.release = release  # type: ignore[attr-defined]

            def callback() -> None:
                ready.set()
                lock.acquire()

            async def main() -> None:
                block.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
                asyncio.get_running_loop().call_soon(callback)
                await asyncio.sleep(0.01)

            runner(main())

    picture = seen_from_a_thread(block)
    assert picture.loops[0].state == "blocked in lock.acquire()"
    assert picture.loops[0].where[0].source == "lock.acquire()"
    assert render(picture)[1].endswith("lock.acquire()")


def test_a_uvloop_that_was_started_by_hand_is_understood() -> None:
    """It leaves no frame of its own on the stack."""

    def block(ready: threading.Event) -> None:
        with until_released() as (lock, release):
            block.release = release  # type: ignore[attr-defined]

            def callback() -> None:
                ready.set()
                lock.acquire()

            loop = uvloop.new_event_loop()
            block.loop = loop  # type: ignore[attr-defined]
            loop.call_soon(callback)
            loop.call_later(0.01, loop.stop)
            loop.run_forever()
            loop.close()

    picture = seen_from_a_thread(block)
    assert picture.loops[0].state == "blocked in lock.acquire()"
    assert picture.loops[0].where[0].source == "lock.acquire()"


def test_a_busy_loop_is_not_called_blocked() -> None:
    """Somebody computes."""
    go = threading.Event()

    def block(ready: threading.Event) -> None:
        block.release = go.set  # type: ignore[attr-defined]

        async def main() -> None:
            block.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
            ready.set()
            number = 0
            while not go.is_set():
                number += 1

        asyncio.run(main())

    picture = seen_from_a_thread(block)
    assert picture.loops[0].state.startswith("busy")
    assert node(picture, "main").running


@LOOPS
def test_loops_that_do_not_run_are_told_as_such(runner: Any) -> None:
    """Open, and closed."""
    loop = asyncio.new_event_loop() if runner is asyncio.run else uvloop.new_event_loop()
    assert take([loop]).loops[0].state == "not running"
    loop.close()
    assert take([loop]).loops[0].state == "closed"


@LOOPS
def test_timers_are_told_with_their_callbacks(runner: Any) -> None:
    """The next one first, those of one name as one."""

    class Heartbeat:
        def beat(self) -> None:
            pass

    async def body() -> None:
        loop = asyncio.get_running_loop()
        heart = Heartbeat()
        handles = [loop.call_later(100 + n, heart.beat) for n in range(3)]
        handles.append(loop.call_later(50, lambda: None))
        loop.call_later(10, heart.beat).cancel()
        try:
            await asyncio.sleep(3600)
        finally:
            for handle in handles:
                handle.cancel()

    picture = picture_of(body, runner)
    first, second, third = picture.loops[0].timers
    assert (first.name, first.count) == ("<lambda>", 1)
    assert 49 < first.due <= 50
    assert (second.name, second.count) == ("Heartbeat.beat", 3)
    assert second.site is not None
    assert second.site.source == "def beat(self) -> None:"
    assert (third.name, third.site) == ("sleep", None)
    line = next(line for line in render(picture, width=300) if line.startswith("timers"))
    assert "5: next in" in line
    assert "(3 x Heartbeat.beat, " in line


@LOOPS
def test_callbacks_that_are_ready_are_counted(runner: Any) -> None:
    """A loop that is blocked has a backlog."""

    async def main() -> Picture:
        loop = asyncio.get_running_loop()
        for _ in range(7):
            loop.call_soon(int)
        return take([loop])

    picture = runner(main())
    assert picture.loops[0].ready >= 7
    assert "callbacks ready to run" in text(picture)


# ---- threads and jobs -------------------------------------------------------------------------


@contextmanager
def threads_in(**targets: Callable[[], Any]) -> Iterator[None]:
    """Run functions in threads of their names; they are given time to get stuck."""
    running = [
        threading.Thread(target=target, name=name.replace("_", "-"), daemon=True)
        for name, target in targets.items()
    ]
    for one in running:
        one.start()
    stand_still(*(one.ident for one in running))
    yield
    for one in running:
        one.join(10)


def test_threads_say_what_they_are_blocked_in() -> None:
    """Queues, events and joins by their own words, calls into C as they are written."""
    held, entered = threading.Lock(), threading.Lock()
    held.acquire()
    entered.acquire()
    box: queue.Queue[None] = queue.Queue()
    event = threading.Event()
    reader, writer = os.pipe()
    sleeper = threading.Thread(target=event.wait, name="sleeper")
    sleeper.start()

    def enter() -> None:
        with entered:
            pass

    with threads_in(
        locked=lambda: held.acquire(),
        entering=enter,
        getting=lambda: box.get(),
        waiting=lambda: event.wait(),
        sleeping=lambda: time.sleep(1),
        reading=lambda: os.read(reader, 1),
        joining=lambda: sleeper.join(),
    ):
        picture = take([])
        held.release()
        entered.release()
        box.put(None)
        event.set()
        os.write(writer, b"x")
    os.close(reader)
    os.close(writer)
    doing = {t.name: t.doing for t in picture.threads}
    assert doing["locked"] == "held.acquire()"
    assert doing["entering"] == "the lock in 'with entered'"
    assert doing["getting"] == "get() of a queue.Queue (0 items)"
    assert doing["waiting"] == "a threading.Event"
    assert doing["sleeping"] == "time.sleep()"
    assert doing["reading"] == "os.read()"
    assert doing["joining"] == "the end of thread 'sleeper'"
    out = text(picture)
    assert "is in time.sleep()" in out
    assert "waits for get() of a queue.Queue (0 items)" in out


def test_a_thread_that_waits_for_a_process_names_it() -> None:
    """With its pid."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with threads_in(waiting=child.wait):
        picture = take([])
        assert child.stdin is not None
        child.stdin.close()
    child.wait()
    assert thread(picture, "waiting").doing == f"the end of process {child.pid}"


def test_equal_threads_are_merged_and_idle_workers_are_one_line() -> None:
    """A pool is one thing to a reader."""
    event = threading.Event()
    with ThreadPoolExecutor(4, "pool") as pool:
        barrier = threading.Barrier(5)
        for _ in range(4):
            pool.submit(barrier.wait)
        barrier.wait()
        pool.submit(event.wait)
        pool.submit(event.wait)
        stand_still(*(one.ident for one in pool._threads))
        picture = take([])
        event.set()
    pools = {t.doing: t for t in picture.threads if t.name.startswith("pool")}
    assert set(pools) == {"idle", "a threading.Event"}
    assert pools["a threading.Event"].count == 2
    assert pools["idle"].count == 2
    assert "  idle: 2 x pool_*" in text(picture)


def test_the_test_s_thread_is_first_and_own_threads_are_left_out() -> None:
    """Whoever asks knows which is which."""
    event = threading.Event()
    with threads_in(zz_test=event.wait, mine=event.wait):
        idents = {t.name: t.ident for t in threading.enumerate()}
        picture = take([], thread=idents["zz-test"], own_threads=[idents["mine"] or 0])
        event.set()
    assert picture.threads[0].name == "zz-test"
    assert "mine" not in [t.name for t in picture.threads]


def job(event: threading.Event) -> None:
    """Work in an executor."""
    event.wait(30)


@LOOPS
def test_jobs_are_told_running_and_queued(runner: Any) -> None:
    """By the names of their functions, also those in C."""

    async def main() -> Picture:
        event = threading.Event()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as pool:
            futures = [loop.run_in_executor(pool, job, event) for _ in range(2)]
            futures += [loop.run_in_executor(pool, time.sleep, 0) for _ in range(5)]
            futures.append(asyncio.ensure_future(asyncio.to_thread(job, event)))
            while sum(one.state == "running" for one in take([loop]).jobs) < 3:
                await asyncio.sleep(0)
            picture = take([loop])
            event.set()
            await asyncio.gather(*futures)
        return picture

    picture = runner(main())
    states = [(j.name, j.state) for j in picture.jobs]
    assert states.count((f"job ({__name__})", "running")) == 3
    assert states.count(("sleep (time)", "queued")) == 5
    line = next(line for line in render(picture) if line.startswith("jobs"))
    assert line.split(maxsplit=1)[1] == (
        f"3 running: 3 x job ({__name__}); 5 queued: 5 x sleep (time)"
    )


def test_a_worker_in_c_runs_its_job() -> None:
    """There is no frame of the job's."""
    with ThreadPoolExecutor(1, "pool") as pool:
        pool.submit(time.sleep, 0.5)
        stand_still(*(one.ident for one in pool._threads))
        picture = take([])
    assert thread(picture, "pool_0").doing == "job sleep (time)"
    assert "runs job sleep (time)" in text(picture)


def test_a_signal_handler_may_ask() -> None:
    """It interrupts the main thread, whatever that is in."""
    found: list[Picture] = []

    def handler(number: int, frame: Any) -> None:
        found.append(take([]))

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        timer = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR2))
        timer.start()
        time.sleep(0.3)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    main = thread(found[0], "MainThread")
    assert [s.source for s in main.stack[:2]] == ["found.append(take([]))", "time.sleep(0.3)"]


def test_our_own_signal_handler_sees_what_it_interrupted() -> None:
    """Its frames are left out, and the call is known."""
    found: list[Picture] = []
    source = "def handler(number, frame):\n    found.append(take([]))\n"
    names: dict[str, Any] = {"found": found, "take": take}
    exec(compile(source, picture.__file__, "exec"), names)
    before = signal.signal(signal.SIGUSR2, names["handler"])
    try:
        timer = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR2))
        timer.start()
        time.sleep(0.3)
        timer.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    main = thread(found[0], "MainThread")
    assert main.doing == "time.sleep()"
    assert main.stack[0].source == "time.sleep(0.3)"


def test_looking_does_not_touch_the_variables_of_a_traced_function() -> None:
    """Up to 3.12, Python writes them back from the dict that a look at them makes."""

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if event == "line":
            local_values(frame)
        return trace

    def traced() -> int:
        number = 42
        number += 0
        return number

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = traced()
    finally:
        sys.settrace(before)
    assert found == 42


# ---- trio -------------------------------------------------------------------------------------


def trio_picture(**options: Any) -> Picture:
    """Take a picture of a run from inside of it."""

    async def sleeper() -> None:
        await trio.sleep_forever()

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sleeper)
            nursery.start_soon(trio.Event().wait, name="waiter")

    async def main() -> Picture:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parent)
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(3600):
                picture = take([], **options)
            nursery.cancel_scope.cancel()
        return picture

    return trio.run(main)


def test_a_trio_run_is_a_tree_of_nurseries() -> None:
    """It is found on the stack of its thread."""
    picture = trio_picture()
    loop = picture.loops[0]
    assert loop.kind == "trio"
    assert loop.tasks.total == 6
    main = node(picture, "main")
    assert main.main
    assert main.running
    (parent,) = main.children
    assert (parent.name, parent.waits[:14]) == ("parent", "a nursery of 4")
    assert {(n.name, n.count, n.waits) for n in parent.children} == {
        ("sleeper", 3, "nothing: it sleeps for ever"),
        ("waiter", 1, "trio.Event (not set)"),
    }
    sleeper = next(n for n in parent.children if n.name == "sleeper")
    assert sleeper.chain[0].source == "await trio.sleep_forever()"
    assert "trio is busy" in text(picture)


def test_a_thread_of_trio_runs_its_job() -> None:
    """The function that was handed in, not what trio wraps it in."""

    async def main() -> Picture:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, time.sleep, 0.5)
            found = take([])
            while not any(t.doing.startswith("job ") for t in found.threads):
                await trio.sleep(0)
                found = take([])
            return found

    found = trio.run(main)
    assert [(j.name, j.state) for j in found.jobs] == [("sleep (time)", "running")]
    assert found.loops[0].tasks.trees[0].children[0].waits == "a thread job: sleep (time)"
    assert "runs job sleep (time)" in text(found)


def test_a_trio_run_that_waits_is_seen_from_another_thread() -> None:
    """The loop is in its poll, and its deadline is known."""

    def block(ready: threading.Event) -> None:
        async def main() -> None:
            token = trio.lowlevel.current_trio_token()
            with trio.move_on_after(3600) as scope:
                block.release = lambda: token.run_sync_soon(scope.cancel)  # type: ignore[attr-defined]
                ready.set()
                await trio.sleep_forever()

        trio.run(main)

    picture = seen_from_a_thread(block)
    loop = picture.loops[0]
    assert loop.state == "waiting for events"
    assert loop.thread == threading.get_ident()
    assert 3500 < loop.timers[0].due <= 3600
    assert node(picture, "main").waits == "nothing: it sleeps for ever"
    assert render(picture)[0] == "tasks (1 pending, trio is waiting for events)"
    assert thread(picture, "MainThread").runs_loop


def test_a_blocked_trio_run_names_the_line() -> None:
    """Seen from another thread."""

    def block(ready: threading.Event) -> None:
        with until_released() as (lock, release):
            block.release = release  # type: ignore[attr-defined]

            async def main() -> None:
                ready.set()
                lock.acquire()

            trio.run(main)

    picture = seen_from_a_thread(block)
    assert picture.loops[0].state == "blocked in lock.acquire()"
    assert node(picture, "main").chain[0].source == "lock.acquire()"


# ---- the text -----------------------------------------------------------------------------------


def many_different() -> Picture:
    """Take a picture of very many tasks that are all different."""
    names = ["".join(chr(97 + n // 26**k % 26) for k in range(3)) for n in range(300)]

    async def body() -> None:
        event = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(level_1(event), name=name)

    return picture_of(body, resources=[f"socket {n}" for n in range(100)])


@pytest.mark.parametrize("limit", [20, 60])
def test_the_text_has_an_end(limit: int) -> None:
    """What is left out is counted, and everything has its share."""
    picture = many_different()
    lines = render(picture, limit_lines=limit, width=80)
    assert len(lines) <= limit
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("  ... and ") and line.endswith(" more tasks") for line in lines)
    assert "threads" in lines
    assert any(line.startswith("open") for line in lines)
    assert lines[-1].strip().startswith("... and ")


def test_the_loop_s_own_task_comes_first() -> None:
    """It is the one that the run ends with."""
    lines = render(many_different())
    assert lines[0].startswith("tasks (302 pending, the loop is ")
    assert lines[1].split()[0] == "main"


def test_resources_are_shown_as_they_are() -> None:
    """One line each, under one word."""
    lines = render(take([], resources=["socket a -> b (made x.py:1)", "file f"]))
    assert lines[-2:] == ["open       socket a -> b (made x.py:1)", "           file f"]


def test_a_loop_that_cannot_be_looked_at_is_said() -> None:
    """Whatever is handed in, nothing is raised."""

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise OSError(name)

    picture = take([None, 3, Broken()], thread=5, resources=None)  # type: ignore[arg-type]
    assert all(isinstance(loop, LoopState) for loop in picture.loops)
    assert any(fault.startswith("resources") for fault in picture.faults)
    assert any(line.startswith("not seen") for line in render(picture))
