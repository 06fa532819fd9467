"""Beside everybody else: signals, forks, Ctrl-C, pytest's options, nested runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from suites import Ran, Suite, run_suite

# -- what tests do to signals, threads and processes ------------------------------------------

SIGNALS = '''
import asyncio
import os
import signal
import threading
import time

import pytest

pytestmark = pytest.mark.tightship(timeout=0.4)


def test_alarm_twin():
    """A test that uses SIGALRM and setitimer itself."""
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        time.sleep(0.2)
        assert rung
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_under_an_alarm():
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        time.sleep(100)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def all_signals(what):
    before = {}
    for number in signal.valid_signals():
        try:
            before[number] = signal.signal(number, what)
        except (OSError, ValueError):
            pass
    return before


def restore(before):
    for number, handler in before.items():
        if handler is not None:
            signal.signal(number, handler)


def test_takes_all_signals():
    before = all_signals(lambda *_: None)
    try:
        while True:
            time.sleep(0.05)
    finally:
        restore(before)


def test_takes_all_signals_and_is_late():
    before = all_signals(signal.SIG_IGN)
    end = time.perf_counter() + 0.6
    try:
        while time.perf_counter() < end:
            time.sleep(1)
    finally:
        restore(before)


def test_keeps_all_signals():
    all_signals(signal.SIG_IGN)
    while True:
        time.sleep(0.05)


def test_after_signals_twin():
    time.sleep(0.1)


def test_counts_threads_twin():
    kinds = [type(t).__name__ for t in threading.enumerate()]
    assert threading.active_count() == len(kinds)
    assert all(not t.name.lower().startswith("tightship") for t in threading.enumerate())


async def test_signal_handlers_of_a_loop():
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
    await asyncio.sleep(100)


def test_wakeup_fd():
    left, right = os.pipe()
    os.set_blocking(right, False)
    before = signal.set_wakeup_fd(right)
    try:
        time.sleep(100)
    finally:
        signal.set_wakeup_fd(before)
        os.close(left)
        os.close(right)


def test_last_twin():
    pass
'''


def test_signals(suite: Suite):
    """Tests may do with signals what they like, and hangs still end."""
    ran = suite(SIGNALS, status=1)
    hung = {
        "test_under_an_alarm": "blocked",
        "test_takes_all_signals": "blocked",
        "test_takes_all_signals_and_is_late": "blocked",
        "test_keeps_all_signals": "blocked",
        "test_signal_handlers_of_a_loop": "never-finished",
        "test_wakeup_fd": "blocked",
    }
    for name, label in hung.items():
        assert ran.timeout(name)["label"] == label, name
    assert ran.counts == {"failed": 6, "passed": 4}


FORKS = """
import multiprocessing
import os
import time

import pytest

pytestmark = pytest.mark.tightship(timeout=0.5)


def child():
    pass


def fork():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def test_fork_twin():
    for _ in range(10):
        fork()


def test_after_a_fork():
    fork()
    time.sleep(100)


def test_busy_after_forks():
    for _ in range(3):
        fork()
    while True:
        pass


async def test_coroutine_after_a_fork():
    import asyncio

    fork()
    await asyncio.sleep(100)


def test_multiprocessing_twin():
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    process.close()


def test_waits_for_a_child():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        os.waitpid(pid, 0)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_last_twin():
    pass
"""


def test_forks(suite: Suite):
    """No warning of threads where a process forks, and a hang after it still ends."""
    # pytest-rerunfailures listens in a thread of its own, of which Python would warn.
    ran = suite(FORKS, "-W", "error", "-p", "no:rerunfailures", python=("-W", "error"), status=1)
    labels = {n: ran.timeout(n)["label"] for n, r in ran.tests.items() if r["findings"]}
    assert labels == {
        "test_after_a_fork": "blocked",
        "test_busy_after_forks": "busy",
        "test_coroutine_after_a_fork": "never-finished",
        "test_waits_for_a_child": "blocked",
    }
    assert ran.counts == {"failed": 4, "passed": 3}
    assert "multi-threaded" not in ran.text


NESTED = '''
import asyncio
import time

import pytest

pytest_plugins = ["pytester"]
INNER = """
import time, asyncio, pytest

@pytest.mark.tightship(timeout=0.3)
def test_hangs(): time.sleep(100)

@pytest.mark.tightship(timeout="inner")
def test_clean(): pass
"""


@pytest.mark.tightship(timeout=30)
def test_run_inside_twin(pytester):
    pytester.makepyfile(INNER)
    pytester.makeini("[pytest]\\nasyncio_default_fixture_loop_scope = function\\n")
    (pytester.path / "tightship.toml").write_text("[budgets]\\ninner = 5\\n")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(failed=1, passed=1)


@pytest.mark.tightship(timeout=1.5)
def test_run_inside_that_hangs(pytester):
    pytester.makepyfile("import time\\ndef test_it(): time.sleep(100)")
    pytester.runpytest_inprocess("-p", "no:cacheprovider")


@pytest.mark.tightship(timeout=0.3)
def test_after_hangs():
    time.sleep(100)


def test_last_twin():
    pass
'''


def test_runs_of_pytest_inside_a_test(suite: Suite):
    """Each run minds its own tests; the outer limit ends the whole inner run."""
    ran = suite(NESTED, status=1)
    assert ran.outcomes["test_run_inside_twin"] == "passed", ran.text
    assert ran.timeout("test_after_hangs")["label"] == "blocked"
    assert ran.outcomes["test_last_twin"] == "passed"
    assert ran.outcomes["test_run_inside_that_hangs"] == "failed"
    assert ran.outcomes["test_after_hangs"] == "failed"


# -- outcomes ---------------------------------------------------------------------------------

OUTCOMES = """
import asyncio
import time

import pytest

from tightship import TightshipTimeout, timeout

pytestmark = pytest.mark.tightship(timeout=0.3)


@pytest.mark.xfail(strict=True)
def test_xfail():
    time.sleep(100)


@pytest.mark.xfail(strict=True)
async def test_xfail_coroutine():
    await asyncio.sleep(100)


@pytest.mark.xfail(strict=True, raises=TightshipTimeout)
def test_xfail_raises():
    time.sleep(100)


@pytest.fixture
def skips():
    time.sleep(0.1)
    pytest.skip("not today")


def test_skip(skips):
    pass


@pytest.mark.tightship(timeout=50)
async def test_catches():
    with pytest.raises(TimeoutError):
        async with timeout(0.1):
            await asyncio.sleep(100)


def test_own_error():
    raise TimeoutError("mine")


async def test_own_cancellation():
    raise asyncio.CancelledError("mine")
"""


def test_outcomes(suite: Suite):
    """An expected failure is one; a test's own timeout and cancellation are its own."""
    ran = suite(OUTCOMES, status=1)
    assert ran.counts == {"xfailed": 3, "skipped": 1, "passed": 1, "failed": 2}
    for name in ("test_xfail", "test_xfail_coroutine", "test_xfail_raises"):
        assert ran.timeout(name)["verdict"] == "note"
        assert ran.outcomes[name] == "xfailed"
    assert not ran.failed
    assert "test_xfail (call) took longer" in ran.section


def test_an_expected_hang_alone_does_not_fail_the_run(suite: Suite):
    """Nor does what it leaves behind."""
    source = OUTCOMES.partition("@pytest.fixture")[0]
    ran = suite(source, status=0)
    assert ran.counts == {"xfailed": 3}


RERUN = """
import time

import pytest

pytestmark = pytest.mark.tightship(timeout=0.3)
COUNT = []


@pytest.mark.flaky(reruns=2)
def test_hangs_once():
    COUNT.append(1)
    if len(COUNT) == 1:
        time.sleep(100)


@pytest.mark.flaky(reruns=1)
def test_hangs_always():
    time.sleep(100)
"""


def test_reruns(suite: Suite):
    """Each attempt has the whole limit; one that was run again fails nothing."""
    ran = suite(RERUN, status=1)
    assert ran.counts["passed"] == 1
    assert ran.counts["failed"] == 1
    assert ran.counts["rerun"] == 2
    attempts = [r for r in ran.records if r["event"] == "test"]
    assert [len(r["findings"]) for r in attempts] == [1, 0, 1, 1]


STOP = """
import time

import pytest

pytestmark = pytest.mark.tightship(timeout=0.3)


@pytest.fixture(scope="module")
def wide():
    yield
    time.sleep(100)


def test_first(wide):
    pass


def test_hangs(wide):
    time.sleep(100)


def test_last(wide):
    pass
"""


@pytest.mark.parametrize("option", ["-x", "--maxfail=1"])
def test_the_run_that_stops_at_a_hang(suite: Suite, option: str):
    """What is torn down then is limited as well."""
    ran = suite(STOP, option)
    assert ran.status in (1, 2)
    assert set(ran.tests) == {"test_first", "test_hangs"}
    assert ran.counts == {"passed": 1, "failed": 1, "error": 1}
    assert "test_hangs (teardown of fixture 'wide' (module)) took longer than 0.3 s" in ran.text


def test_what_is_torn_down_at_the_very_end(suite: Suite):
    """A wide fixture of a run that is stopped in between is limited by the default."""
    source = STOP.replace("pytestmark = ", "MARK = ").replace(
        "def test_first(wide):\n    pass", "def test_first(wide):\n    pytest.exit('enough')"
    )
    ran = suite(source, "--tightship-timeout=0.5", status=2)
    assert "the session (teardown of fixture 'wide' (module)) took longer than 0.5 s" in ran.text


LAST_FAILED = """
import time, pytest

@pytest.mark.tightship(timeout=0.3)
def test_hangs(): time.sleep(100)

def test_fine(): pass
"""


def test_last_failed(tmp_path):
    """A hang is a failure for pytest's cache."""
    run_suite(tmp_path, LAST_FAILED, "-p", "cacheprovider", status=1)
    ran = run_suite(tmp_path, "", "-p", "cacheprovider", "--lf", status=1)
    assert ran.counts["failed"] == 1
    assert "passed" not in ran.counts


# -- Ctrl-C -------------------------------------------------------------------------------------

CTRL_C = """
import asyncio
import time

import pytest

pytestmark = pytest.mark.tightship(timeout={limit})


@pytest.fixture(scope="module", autouse=True)
def place():
    yield
    print("torn down")


def test_before():
    pass


{test}


def test_after():
    pass
"""
WAITS = {
    "function": "def test_it():\n    open('ready', 'w').close()\n    time.sleep(60)",
    "coroutine": (
        "async def test_it():\n    open('ready', 'w').close()\n    await asyncio.sleep(60)"
    ),
    "resists": (
        "def test_it():\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(60)\n"
        "        except BaseException as exc:\n"
        "            if type(exc) is KeyboardInterrupt:\n"
        "                raise\n"
        "            open('ready', 'w').close()"
    ),
}


@pytest.mark.parametrize("name", WAITS)
def test_ctrl_c_ends_the_run_as_always(tmp_path, name: str):
    """While a test has time, and while its time is up."""
    limit = 0.2 if name == "resists" else 60
    (tmp_path / "test_it.py").write_text(CTRL_C.format(limit=limit, test=WAITS[name]))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
    )
    try:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        text, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2, text
    assert "KeyboardInterrupt" in text
    assert "torn down" in text
    assert "1 passed" in text
    assert "INTERNALERROR" not in text


# -- at the edges ----------------------------------------------------------------------------

EDGES = """
import asyncio
import time

import pytest

pytestmark = pytest.mark.tightship(timeout=0.1)


@pytest.fixture
def slow():
    time.sleep(0.04)
    yield
    time.sleep(0.04)


@pytest.mark.parametrize("n", range(12))
def test_function(slow, n):
    time.sleep(0.0515 + n * 0.001)


@pytest.mark.parametrize("n", range(12))
async def test_coroutine(n):
    await asyncio.sleep(0.0915 + n * 0.001)


@pytest.mark.parametrize("n", range(12))
def test_teardown(request, n):
    request.addfinalizer(lambda: time.sleep(0.0955 + n * 0.001))


@pytest.mark.tightship(timeout=50)
@pytest.mark.parametrize("n", range(5))
async def test_clean(n):
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)
    time.sleep(0.01)
"""


def test_a_deadline_at_the_very_end_of_a_part(suite: Suite):
    """Each test either ended or is told of, once; nothing reaches the next one."""
    ran = suite(EDGES)
    assert len(ran.tests) == 41
    for name, record in ran.tests.items():
        kinds = [f["kind"] for f in record["findings"]]
        assert kinds == (["timeout"] if record["outcome"] == "failed" else []), (name, ran.text)
        if name.startswith("test_clean"):
            assert record["outcome"] == "passed", ran.text
    assert ran.outcomes["test_function[11]"] == ran.outcomes["test_coroutine[11]"] == "failed"


TEARDOWNS = """
import time

import pytest


@pytest.fixture
def first():
    yield
    DOWN.append("first")


@pytest.fixture
def second(first):
    yield
    time.sleep(100)


@pytest.fixture
def third(second):
    yield
    raise ValueError("third")


@pytest.fixture(scope="module")
def wide():
    yield
    time.sleep(100)


DOWN = []


class TestOne:
    @pytest.mark.tightship(timeout=0.3)
    def test_hangs(self, wide, third):
        pass


class TestTwo:
    def test_first_is_down(self):
        assert DOWN == ["first"]

    @pytest.mark.tightship(timeout=0.3)
    def test_last(self):
        pass
"""


def test_a_teardown_goes_on_after_a_hang(suite: Suite):
    """All that is left is torn down, other errors are told, and the next test is not blamed."""
    ran = suite(TEARDOWNS, status=1)
    assert ran.outcomes["test_first_is_down"] == "passed", ran.text
    assert ran.timeout("test_hangs")["subject"] == (
        "test_hangs (teardown of fixture 'second' (function))"
    )
    assert "ValueError: third" in ran.text
    assert ran.timeout("test_last")["subject"] == "test_last (teardown of fixture 'wide' (module))"
    assert ran.counts == {"passed": 3, "error": 2}


def test_ran_is_what_it_says(suite: Suite):
    """A run without hangs has none: what these tests read is there."""
    ran: Ran = suite("def test_it(): pass\n", status=0)
    assert ran.counts == {"passed": 1}
    assert not ran.failed
