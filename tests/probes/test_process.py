"""Child processes that nobody waited for."""

from __future__ import annotations

from typing import Any

KIND = "process"

SUITE = """
import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest


@pytest.fixture
def popen():
    return subprocess.Popen(["sleep", "20"])  # born


def test_popen(popen):
    pass


@pytest.fixture
def with_pipes():
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # born


def test_with_pipes(with_pipes):
    pass


@pytest.fixture
async def asyncios():
    return await asyncio.create_subprocess_exec("sleep", "20")  # born


async def test_of_asyncio(asyncios):
    pass


async def test_dropped():
    await asyncio.create_subprocess_exec("sleep", "20")  # born
    asyncio.get_running_loop().kept = process


@pytest.fixture
async def asyncios_with_pipes():
    return await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1, stderr=-1)  # born


async def test_of_asyncio_with_pipes(asyncios_with_pipes):
    pass


async def test_dropped_with_pipes():
    await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1, stderr=-1)  # born


async def test_of_asyncio_in_a_task_of_its_own():
    coro = asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)  # born
    kept.append(await asyncio.create_task(coro))


kept = []


def test_on_uvloop():
    import uvloop

    async def main():
        return await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        process = runner.run(main())


def test_dropped_on_uvloop():
    import uvloop

    async def main():
        await asyncio.create_subprocess_exec("sleep", "20")  # born

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


class TestOnALoopThatStays:
    @pytest.mark.asyncio(loop_scope="class")
    async def test_with_pipes(self):
        self.process = await asyncio.create_subprocess_exec(  # born
            "cat", stdin=-1, stdout=-1
        )
        kept.append(self.process)


class TestOfAWiderFixture:
    @pytest.fixture(scope="class")
    def daemon(self):
        # Started on a loop that ends, waited for without one.
        process = asyncio.run(asyncio.create_subprocess_exec("sleep", "20"))
        yield process
        os.kill(process.pid, signal.SIGKILL)
        try:
            os.waitpid(process.pid, 0)
        except ChildProcessError:  # asyncio's own thread was faster (3.11)
            pass

    def test_daemon(self, daemon):
        pass


@pytest.fixture
def spawned():
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=time.sleep, args=(20,), daemon=True)
    process.start()  # born
    return process


def test_spawned(spawned):
    pass


@pytest.fixture
def zombie():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def test_clean_zombie_that_poll_collects(zombie):
    pass


def test_forked():
    pid = os.fork()  # born
    if pid == 0:
        signal.alarm(20)
        signal.pause()
        os._exit(0)


def test_forked_zombie():
    pid = os.fork()  # born
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_forked_with_a_terminal():
    pid, fd = os.forkpty()  # born
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(fd)


def test_clean_fork_beside_a_thread():
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pid = os.fork()
        if pid == 0:
            os._exit(0)
    os.waitpid(pid, 0)
    stop.set()
    thread.join()
    # Python 3.12 and later warn; the line is the caller's.
    assert {w.filename for w in caught} <= {__file__}


def test_clean_run():
    subprocess.run(["true"], check=True)


def test_clean_communicate():
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate(b"x")[0] == b"x"


async def test_clean_of_asyncio():
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    assert (await process.communicate(b"x"))[0] == b"x"


async def test_clean_of_asyncio_waited():
    process = await asyncio.create_subprocess_exec("true")
    assert await process.wait() == 0


def test_clean_spawned():
    process = multiprocessing.get_context("spawn").Process(target=int)
    process.start()
    process.join()
    process.close()


def test_clean_forkserver():
    process = multiprocessing.get_context("forkserver").Process(target=int)
    process.start()
    process.join()
    process.close()


def test_clean_forked():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_popen": {
        "label": "sleep",
        "subject": "process 'sleep'",
        "owner": "fixture 'popen' (function)",
        "facts": {"state": r"pid \d+", "command": "sleep 20"},
        "fix": "process.wait",
    },
    "test_with_pipes": {"label": "cat", "owner": "fixture 'with_pipes' (function)"},
    "test_of_asyncio": {"label": "sleep", "owner": "fixture 'asyncios' (function)"},
    "test_of_asyncio_with_pipes": {
        "label": "cat",
        "subject": "^process 'cat'",
        "owner": "fixture 'asyncios_with_pipes' (function)",
        "fix": "process.wait",
    },
    "test_dropped_with_pipes": {"label": "cat", "subject": "^process 'cat'"},
    "test_of_asyncio_in_a_task_of_its_own": {"label": "cat"},
    "test_on_uvloop": {"label": "cat", "subject": "^process 'cat'"},
    "test_dropped_on_uvloop": {"label": "sleep"},
    "TestOnALoopThatStays::test_with_pipes": {"label": "cat", "owner": "test_with_pipes"},
    "test_spawned": {
        "label": "SpawnProcess-*",
        "owner": "fixture 'spawned' (function)",
        "fix": "join",
    },
    "test_forked": {"label": "pytest"},
    "test_forked_with_a_terminal": {"label": "python", "subject": "zombie"},
    "test_forked_zombie": {"label": "python", "subject": "zombie", "fix": "exit status"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_a_dropped_process_is_told_once(ran: Any) -> None:
    """The collector kills it; whether it is gone by then or not, it is one process."""
    found = ran.one("test_dropped")
    assert (found.kind, found.label) == (KIND, "sleep"), ran.output
    assert found.made is not None, ran.output
    assert "# born" in found.made.source, ran.output


def test_a_wider_fixture_may_end_a_process_without_its_loop(ran: Any) -> None:
    """It is not told when the loop closes. (asyncio itself leaves a pidfd open then.)"""
    told = [f for found in ran.tests.values() for f in found if "daemon" in f.owner]
    assert all(f.label == "pidfd" for f in told), ran.output


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
