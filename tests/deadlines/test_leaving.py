"""After the last test: who keeps Python from ending is named, and ended."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from suites import Suite

from tightship.plugin.status import STATUS

#: The end of Python is limited, to less than it would take.
ARGS = ("--tightship-timeout=exit=1",)
ALLOWED = '@pytest.mark.tightship(threshold="off")\n'

HEAD = """
import atexit
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest


def test_before():
    pass


"""
LEAVING = {
    "thread": (
        "def test_it():\n"
        "    threading.Thread(target=time.sleep, args=(100,), name='stayer').start()  # here\n",
        "  thread 'stayer', started by test_it.py::test_it, made test_it.py:",
    ),
    "executor": (
        "def test_it():\n"
        "    pool = ThreadPoolExecutor(1, thread_name_prefix='pool')\n"
        "    pool.submit(time.sleep, 100)  # here\n",
        "  thread 'pool_0', started by test_it.py::test_it, made ",
    ),
    "atexit": (
        "def goodbye():\n    time.sleep(100)  # here\n\n\n"
        "def test_it():\n    atexit.register(goodbye)\n",
        "  and the main thread is at test_it.py:",
    ),
    "child": (
        "def test_it():\n"
        "    import multiprocessing\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    context.Process(target=time.sleep, args=(100,), name='child').start()  # here\n",
        " 'child' of multiprocessing",
    ),
}


@pytest.mark.parametrize("name", LEAVING)
def test_it_is_named_and_the_process_is_ended(suite: Suite, name: str):
    """With the test that started it, and where it stands; pytest's report is whole."""
    source, line = LEAVING[name]
    source = source.replace("def test_it", ALLOWED + "def test_it")
    ran = suite(HEAD + source, *ARGS, "-p", "no:rerunfailures", status=STATUS, seconds=60)
    assert ran.counts == {"passed": 2}
    assert ran.outcomes == {"test_before": "passed", "test_it": "passed"}
    said = ran.text.partition(
        "tightship: the tests are over, but Python does not end. It waits for"
    )
    assert said[1], ran.text
    assert line in said[2], said[2]
    assert re.search(r"Python did not end within 1 s after the last test", said[2])
    if name == "child":  # it held our pipe: the run would not have come back yet
        assert "and its child processes (1) with it" in said[2]
    else:
        assert ran.line("# here") in said[2]


def test_a_runs_own_failure_is_its_status(suite: Suite):
    """A process that is ended does not hide that tests failed."""
    source = HEAD + ALLOWED + LEAVING["thread"][0] + "\n\ndef test_fails():\n    assert 0\n"
    ran = suite(source, *ARGS, status=1)
    assert "Python did not end within 1 s" in ran.text


def test_who_ends_in_time_is_not_named(suite: Suite):
    """A thread that ends by itself soon after the last test."""
    source = HEAD + ALLOWED + LEAVING["thread"][0].replace("100", "0.5")
    ran = suite(source, *ARGS, status=0)
    assert "does not end" not in ran.text


def test_it_can_be_switched_off(suite: Suite):
    """Whoever wants to wait, waits."""
    source = HEAD + ALLOWED + LEAVING["thread"][0].replace("100", "1.5")
    ran = suite(source, "--tightship-timeout=exit=off", status=0)
    assert "does not end" not in ran.text


def test_a_program_that_goes_on_after_its_run(tmp_path):
    """The clock starts when Python ends, not when a run of pytest in a program does."""
    (tmp_path / "program.py").write_text(
        "import sys, time, pytest\n"
        "status = pytest.main(['-q', '-p', 'no:cacheprovider', '--tightship-timeout=exit=0.2',"
        " sys.argv[1]])\n"
        "time.sleep(1)\n"
        "print('went on', int(status))\n"
    )
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n")
    result = subprocess.run(
        [sys.executable, "program.py", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "went on 0" in result.stdout, result.stdout + result.stderr
    assert result.returncode == 0
    assert "does not end" not in result.stderr


def test_a_worker_of_xdist(suite: Suite):
    """A worker that can't leave neither holds up the run nor changes its result."""
    source = HEAD + ALLOWED + LEAVING["thread"][0]
    ran = suite(source, *ARGS, "-n1", status=0, seconds=60)
    assert ran.counts == {"passed": 2}
