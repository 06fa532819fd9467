"""Hangs that nothing ends but the end of the process; nothing that is known gets lost."""

from __future__ import annotations

import json
import xml.etree.ElementTree

import pytest
from suites import Ran, Suite

from tightship.plugin.status import STATUS

HEAD = '''
import ctypes

import pytest

pytestmark = pytest.mark.tightship(timeout=0.3)
LOCK = ctypes.create_string_buffer(64)


def stuck(library):
    """Lock a mutex twice: the second time waits for ever, in C, and begins anew after signals."""
    lock = library(None).pthread_mutex_lock
    for _ in range(2):
        lock(LOCK)  # here: stuck


'''
WITHOUT_GIL = (
    HEAD
    + """
@pytest.fixture(scope="module")
def place():
    yield
    print("torn down in the wrong thread")


def test_before(place):
    pass


def test_fails(place):
    assert 1 == 2


def test_stuck(place):
    print("said before it hung")
    stuck(ctypes.CDLL)


def test_after():
    pass


def test_after_that():
    pass
"""
)


@pytest.fixture(scope="module")
def alone(suite_once: Suite) -> Ran:
    """A run without pytest-xdist."""
    return suite_once(WITHOUT_GIL, "--junitxml=report.xml", status=STATUS)


def test_the_process_ends_with_a_status_of_its_own(alone):
    """Which no run of pytest has."""
    assert alone.status == 97 not in range(6)


def test_the_test_is_reported_as_any_other(alone):
    """With its diagnosis, and what it had printed."""
    told = alone.timeout("test_stuck")
    assert told["label"] == "stuck-in-c"
    assert told["facts"]["at"].startswith(alone.line("# here: stuck"))
    assert "said before it hung" in alone.text
    assert "FAILED test_it.py::test_stuck" in alone.text
    assert f"ended the process (status {STATUS})" in alone.text


def test_earlier_results_are_kept(alone):
    """In the journal, in the summary, in junitxml."""
    outcomes = {"test_before": "passed", "test_fails": "failed", "test_stuck": "failed"}
    assert alone.outcomes == outcomes
    assert alone.tests["test_stuck"]["ended_process"] == STATUS
    assert alone.counts == {"passed": 1, "failed": 2}
    root = xml.etree.ElementTree.parse(alone.path / "report.xml").getroot()
    found = {case.get("name"): len(case.findall("failure")) for case in root.iter("testcase")}
    assert found == {"test_before": 0, "test_fails": 1, "test_stuck": 1}


def test_what_did_not_run_is_said(alone):
    """With a way to go on."""
    assert "2 tests after it did not run" in alone.text
    assert "pytest-xdist" in alone.text


def test_nothing_of_the_stuck_threads_is_torn_down(alone):
    """Its fixtures belong to it."""
    assert "torn down in the wrong thread" not in alone.text


def test_the_journal_ends_as_always(alone):
    """With the line of the run's end."""
    assert alone.records[-1]["event"] == "end"


def test_without_a_journal_and_with_less_output(suite):
    """Whatever is switched off or on."""
    ran = suite(WITHOUT_GIL, "-q", "-s", "--tb=line", "-p", "no:terminalreporter", status=STATUS)
    assert ran.timeout("test_stuck")["label"] == "stuck-in-c"


def test_in_a_fixture(suite):
    """It is named, in its set-up."""
    source = HEAD + (
        "@pytest.fixture\ndef place():\n    stuck(ctypes.CDLL)\n\n\ndef test_it(place):\n    pass\n"
    )
    ran = suite(source, status=STATUS)
    assert ran.timeout("test_it")["subject"] == "test_it (set-up of fixture 'place' (function))"


def test_a_worker_is_replaced(suite):
    """Under pytest-xdist all other tests run, and the report is the worker's."""
    ran = suite(WITHOUT_GIL, "-n1", status=1)
    assert ran.counts == {"passed": 3, "failed": 2}
    assert ran.timeout("test_stuck")["label"] == "stuck-in-c"
    assert "said before it hung" in ran.text
    assert "test_stuck (call) took longer than 0.3 s" in ran.text
    assert ran.failed == {"test_stuck"}
    assert not list(ran.path.glob("tightship-*.json"))


def test_with_the_interpreters_lock(suite):
    """No thread of Python runs then: the system ends the process, and all stacks are written."""
    ran = suite(
        HEAD + "def test_before():\n    pass\n\n\ndef test_stuck():\n    stuck(ctypes.PyDLL)\n",
        # Two seconds after all rungs, not fifteen.
        conftest="import tightship.plugin.deadlines\ntightship.plugin.deadlines._SLACK = 2.0\n",
    )
    assert ran.status == -6
    assert "Fatal Python error: Aborted" in ran.text
    assert (
        f'File "{ran.path}/test_it.py", line {ran.line("# here: stuck").split(":")[1]}' in ran.text
    )
    assert ran.outcomes == {"test_before": "passed"}


def test_one_that_does_not_get_stuck(suite):
    """The same call in time is no business of ours."""
    source = HEAD + (
        "def test_it():\n    lock = ctypes.create_string_buffer(64)\n"
        "    ctypes.CDLL(None).pthread_mutex_lock(lock)\n"
    )
    ran = suite(source, status=0)
    assert json.loads(json.dumps(ran.tests["test_it"]["findings"])) == []
