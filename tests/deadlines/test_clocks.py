"""Debuggers stop the clocks; a test that moves or stops time does not."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from suites import Ran, Suite

HEAD = """
import asyncio
import sys
import time

import pytest

pytestmark = pytest.mark.tightship(timeout=0.3)
"""

# -- time that a test moves, or stops --------------------------------------------------------

FROZEN = (
    HEAD
    + """
import datetime

import freezegun
import time_machine

REAL = time.sleep


@freezegun.freeze_time("2020-01-01")
def test_frozen():
    assert datetime.date.today().year == 2020
    REAL(100)


@freezegun.freeze_time("2020-01-01", tick=True)
async def test_frozen_coroutine():
    await asyncio.Event().wait()


@freezegun.freeze_time("2020-01-01")
def test_frozen_twin():
    assert time.time() == 1577836800
    assert time.time() == 1577836800


@time_machine.travel("2050-01-01", tick=False)
def test_travelled():
    assert datetime.date.today().year == 2050
    REAL(100)


@time_machine.travel("2050-01-01")
async def test_travelled_coroutine():
    await asyncio.Event().wait()


@time_machine.travel("2050-01-01")
def test_travelled_twin():
    assert datetime.date.today().year == 2050


def test_jumps_twin():
    with freezegun.freeze_time("2020-01-01") as moment:
        for _ in range(10):
            moment.tick(3600)


def test_patched_time(monkeypatch):
    for name in ("time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "thread_time"):
        monkeypatch.setattr(time, name, lambda: 0.0)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    while True:
        time.sleep(1)


def test_patched_time_twin(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 1e9)
    monkeypatch.setattr(time, "monotonic", lambda: 1e9)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    time.sleep(100)


def test_last_twin():
    REAL(0.01)
"""
)
FROZEN_LABELS = {
    "test_frozen": "blocked",
    "test_frozen_coroutine": "never-finished",
    "test_travelled": "blocked",
    "test_travelled_coroutine": "never-finished",
    "test_patched_time": "busy",
}


@pytest.fixture(scope="module")
def frozen(suite_once: Suite) -> Ran:
    """Tests under freezegun, time-machine and patches of their own."""
    return suite_once(FROZEN, status=1)


@pytest.mark.parametrize("name", FROZEN_LABELS)
def test_a_deadline_does_not_ask_the_tests_clock(frozen, name):
    """It ends in real time."""
    told = frozen.timeout(name)
    assert told["label"] == FROZEN_LABELS[name]
    assert 0.3 <= told["seconds"] < 20


def test_time_that_jumps_ends_nothing(frozen):
    """The twins have all the time that they had."""
    assert frozen.failed == set(FROZEN_LABELS)
    assert frozen.counts["passed"] == 5


# -- debuggers -------------------------------------------------------------------------------


def typed(tmp_path, source: str, lines: dict[str, str], *args: str) -> str:
    """Run a suite at a terminal, and type a line a second after each of these words appeared."""
    (tmp_path / "test_it.py").write_text(source)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb", "PYTEST_ADDOPTS": ""},
        start_new_session=True,
    )
    os.close(theirs)
    said = b""
    waiting = list(lines.items())
    try:
        while True:
            try:
                data = os.read(ours, 10000)
            except OSError:  # the other end was closed
                break
            if not data:
                break
            said += data
            if waiting and waiting[0][0].encode() in said:
                # A person thinks: three times as long as the test may take.
                try:
                    process.wait(1.2)
                except subprocess.TimeoutExpired:
                    pass
                os.write(ours, waiting.pop(0)[1].encode())
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    text = said.decode(errors="replace")
    assert not waiting, text
    return text


def test_at_the_prompt_of_pdb_no_time_counts(tmp_path):
    """`breakpoint()` in a test that then goes on and passes."""
    source = HEAD + "\n\ndef test_it():\n    breakpoint()\n    assert 1 + 1 == 2\n"
    text = typed(tmp_path, source, {"(Pdb)": "c\n"})
    assert "1 passed" in text
    assert "took longer" not in text


def test_at_the_prompt_in_a_coroutine_no_time_counts(tmp_path):
    """Nor is its task cancelled."""
    source = HEAD + "\n\nasync def test_it():\n    breakpoint()\n    await asyncio.sleep(0.01)\n"
    text = typed(tmp_path, source, {"(Pdb)": "c\n"})
    assert "1 passed" in text
    assert "took longer" not in text


def test_after_a_failure_with_pdb_no_time_counts(tmp_path):
    """`--pdb`: the person looks at the failure, and the failure stays what it was."""
    source = HEAD + "\n\ndef test_it():\n    assert 1 == 2\n\n\ndef test_next():\n    pass\n"
    text = typed(tmp_path, source, {"(Pdb)": "c\n"}, "--pdb")
    assert "1 failed, 1 passed" in text
    assert "took longer" not in text


def test_a_hang_after_the_prompt_is_still_ended(tmp_path):
    """The clock begins anew when the debugger is gone."""
    source = HEAD + "\n\ndef test_it():\n    breakpoint()\n    time.sleep(100)\n"
    text = typed(tmp_path, source, {"(Pdb)": "c\n"})
    assert "1 failed" in text
    assert "test_it (call) took longer than 0.3 s" in text


TRACED = (
    HEAD
    + """


def tracer(frame, event, arg):
    return tracer


def test_traced_twin():
    sys.settrace(tracer)
    try:
        inner()
    finally:
        sys.settrace(None)


def inner():
    time.sleep(0.8)


def test_untraced():
    time.sleep(100)
"""
)


def test_under_a_trace_function_no_time_counts(suite: Suite):
    """Somebody steps through it; the next test has its limit again."""
    ran = suite(TRACED, status=1)
    assert ran.counts == {"passed": 1, "failed": 1}
    assert ran.failed == {"test_untraced"}


MEASURED = (
    HEAD
    + """
import trace

TRACE = trace.Trace(count=1, trace=0)


def test_measured():
    TRACE.runfunc(inner)


def inner():
    time.sleep(100)
"""
)


def test_under_a_tracer_that_only_measures_time_counts(suite: Suite):
    """The standard library's `trace`, as coverage does it."""
    ran = suite(MEASURED, status=1)
    assert ran.timeout("test_measured")["label"] == "blocked"
