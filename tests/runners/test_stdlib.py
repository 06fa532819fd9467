"""Loops without a plugin: unittest, asyncio.run, runners and loops made by hand."""

from __future__ import annotations

UNITTEST = """
import asyncio
import socket
import unittest
from harbour import *


class TestAsync(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.sock = socket.socket()
        self.addCleanup(self.sock.close)

    async def asyncSetUp(self):
        self.task = asyncio.create_task(forever())
        self.server = await listen()
        self.addAsyncCleanup(self.stop)

    async def stop(self):
        self.server.close()

    async def asyncTearDown(self):
        self.task.cancel()

    async def test_clean(self):
        reader, writer = await asyncio.open_connection(*address(self.server))
        writer.write(b"ahoy")
        assert await reader.read(10) == b"ahoy"
        writer.close()

    async def test_leaves_a_task(self):
        start(forever())

    async def test_leaves_a_timer(self):
        asyncio.get_running_loop().call_later(1000, print)

    async def test_clean_thread(self):
        await asyncio.to_thread(int)

    async def test_leaves_a_server(self):
        KEPT.append(await listen())

    async def test_subtests(self):
        for n in range(3):
            with self.subTest(n=n):
                await asyncio.sleep(0)


class TestLeakySetup(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        start(forever())

    async def test_leaky_setup(self):
        pass


class TestWide(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sock = socket.socket()

    @classmethod
    def tearDownClass(cls):
        cls.sock.close()

    def test_wide_clean(self):
        self.sock.getsockname()

    def test_wide_leak(self):
        KEPT.append(socket.socket())

    def test_wide_last(self):
        pass


class TestWideLeak(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sock = socket.socket()

    def test_wide_leak_first(self):
        pass

    def test_wide_leak_last(self):
        pass


class TestPlain:
    def setup_class(cls):
        cls.wide = socket.socket()

    def teardown_class(cls):
        cls.wide.close()

    def setup_method(self):
        self.sock = socket.socket()
        self.loop = asyncio.new_event_loop()

    def teardown_method(self):
        self.sock.close()
        self.loop.close()

    def test_plain_clean(self):
        self.loop.run_until_complete(asyncio.sleep(0))

    def test_plain_leak(self):
        self.loop.run_until_complete(self.leak())

    async def leak(self):
        start(forever())

    def test_plain_last(self):
        pass


def setup_module(module):
    module.SOCK = socket.socket()


def teardown_module(module):
    module.SOCK.close()
"""


def test_unittest_and_xunit_classes(run):
    """setUp, asyncSetUp, setUpClass, setup_method and their opposites; clean ones are silent."""
    ran = run(test_it=UNITTEST)
    assert ran.counts["passed"] >= 15
    found = ran.found
    assert found.pop("test_wide_leak_last")[0].startswith("socket fixture '")
    assert found == {
        "test_leaves_a_task": ["task test_leaves_a_task"],
        "test_leaves_a_timer": ["timer test_leaves_a_timer"],
        "test_leaves_a_server": ["server test_leaves_a_server"],
        "test_leaky_setup": ["task test_leaky_setup"],
        "test_wide_leak": ["socket test_wide_leak"],
        "test_plain_leak": ["task test_plain_leak"],
    }


BY_HAND = """
import asyncio
import socket
import sys
import threading
import uvloop
from harbour import *


async def clean():
    server = await listen()
    reader, writer = await asyncio.open_connection(*address(server))
    writer.write(b"ahoy")
    assert await reader.read(10) == b"ahoy"
    writer.close()
    await writer.wait_closed()
    server.close()
    task = asyncio.create_task(forever())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.to_thread(int)
    async with asyncio.timeout(10):
        await asyncio.sleep(0)


async def leak():
    start(forever())
    await asyncio.sleep(0)


def test_run_clean():
    asyncio.run(clean())


def test_run_leak():
    asyncio.run(leak())


def test_run_twice():
    asyncio.run(clean())
    asyncio.run(leak())
    asyncio.run(clean())


def test_run_debug_clean():
    asyncio.run(clean(), debug=True)


def test_runner_clean():
    with asyncio.Runner() as runner:
        runner.run(clean())
        runner.run(clean())


def test_runner_leak():
    with asyncio.Runner() as runner:
        runner.run(leak())
        runner.run(clean())


def test_loop_clean():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(clean())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_loop_leak():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leak())
    loop.close()


def test_loop_never_closed():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    KEPT.append(loop)


def test_loop_never_closed_with_a_task():
    loop = asyncio.new_event_loop()
    loop.run_until_complete(leak())
    KEPT.append(loop)


def test_after_loops():
    asyncio.run(clean())


def test_uvloop_clean():
    uvloop.run(clean())


def test_uvloop_leak():
    uvloop.run(leak())


def test_uvloop_server():
    async def main():
        KEPT.append(await listen())
    uvloop.run(main())


def test_uvloop_loop_clean():
    loop = uvloop.new_event_loop()
    loop.run_until_complete(clean())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_thread_clean():
    thread = threading.Thread(target=lambda: asyncio.run(clean()))
    thread.start()
    thread.join()


def test_thread_leak():
    thread = threading.Thread(target=lambda: asyncio.run(leak()))
    thread.start()
    thread.join()


def test_run_coroutine_threadsafe_clean():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(clean(), loop).result(10)
    asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_task_group_clean():
    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(asyncio.sleep(0))
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        await asyncio.wait_for(asyncio.sleep(0), 10)
        done, pending = await asyncio.wait([asyncio.create_task(asyncio.sleep(0))])
        return asyncio.shield(asyncio.sleep(0))
    asyncio.run(main())


def test_async_generator_clean():
    async def numbers():
        for n in range(10):
            yield n
    async def main():
        async for n in numbers():
            pass
        generator = numbers()
        await anext(generator)
        await generator.aclose()
    asyncio.run(main())


def test_subprocess_clean():
    async def main():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "print(1)", stdout=asyncio.subprocess.PIPE
        )
        await process.communicate()
    asyncio.run(main())


def test_signal_clean():
    import signal
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, print)
        loop.remove_signal_handler(signal.SIGUSR1)
    asyncio.run(main())


def test_policy_loop_clean():
    asyncio.run(clean())


def test_last():
    asyncio.run(clean())
"""


def test_loops_made_in_sync_tests(run):
    """asyncio.run, Runner, new_event_loop, uvloop and loops in threads: the leak is the test's."""
    ran = run(test_it=BY_HAND)
    assert ran.counts["passed"] == 24
    assert ran.found == {
        "test_run_leak": ["task test_run_leak"],
        "test_run_twice": ["task test_run_twice"],
        "test_runner_leak": ["task test_runner_leak"],
        "test_loop_leak": ["task test_loop_leak"],
        "test_loop_never_closed": ["loop test_loop_never_closed"],
        "test_loop_never_closed_with_a_task": [
            "loop test_loop_never_closed_with_a_task",
            "task test_loop_never_closed_with_a_task",
        ],
        "test_uvloop_leak": ["task test_uvloop_leak"],
        "test_uvloop_server": ["server test_uvloop_server"],
        "test_thread_leak": ["task test_thread_leak"],
    }
