"""What the test suites of well-known libraries taught: each was noise or a false alarm once."""

from __future__ import annotations

from typing import Any

WATCHDOG = """
import faulthandler, os
import pytest

KEPT = []

@pytest.mark.parametrize("n", range(3))
def test_leaks(n):
    KEPT.append(os.open("/dev/null", os.O_RDONLY))

def test_own_watchdog():
    faulthandler.dump_traceback_later(60)
    KEPT.append(os.open("/dev/null", os.O_RDONLY))
    faulthandler.cancel_dump_traceback_later()

def test_after():
    KEPT.append(os.open("/dev/null", os.O_RDONLY))
"""


def test_the_watchdog_of_faulthandler_is_no_thread_of_the_test(suite: Any) -> None:
    """pytest's faulthandler_timeout starts a new thread for each test, from C."""
    ran = suite(WATCHDOG, status=1, toml="faulthandler_timeout = 60\n")
    assert {name: ran.verdicts(name) for name in ran.tests} == {
        name: [("file", "fail")]
        for name in (*(f"test_leaks[{n}]" for n in range(3)), "test_own_watchdog", "test_after")
    }
