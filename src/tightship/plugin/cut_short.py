"""What pytest does for exceptions of fixtures, done for those that end a hang.

pytest remembers what a fixture's set-up raised, for the other tests that want it, and collects
what finalizers raise. A `BaseException` it lets through: the set-up is tried again by the next
test, and the finalizers that had still to run are forgotten, so that fixtures stay set up and
the next test fails because of them. A cancellation is such an exception, and so is what ends a
blocked call.
"""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.fixtures import FixtureDef
from _pytest.runner import SetupState

__all__ = ["put_back", "remember", "seen_by_pytest"]


def seen_by_pytest(exc: BaseException) -> bool:
    """Tell whether pytest does all that by itself."""
    return isinstance(exc, (Exception, pytest.fail.Exception))


def remember(exc: BaseException, error: BaseException) -> None:
    """Let other tests have the error of a fixture's set-up at once.

    Args:
        exc: what went through the set-up.
        error: what to tell.
    """
    for names in _locals(exc, FixtureDef.execute.__code__):
        fixturedef, request = names["self"], names["request"]
        cached = fixturedef.cached_result
        if cached is None or cached[2] is not None:
            key = fixturedef.cache_key(request)
            fixturedef.cached_result = None, key, (error, error.__traceback__)


def put_back(exc: BaseException, state: Any) -> list[BaseException]:
    """Give back the finalizers that were left out, for pytest to run in its own way.

    Args:
        exc: what went past them.
        state: the session's ``SetupState``.

    Returns:
        What those that had run before had raised.
    """
    for names in _locals(exc, SetupState.teardown_exact.__code__):
        node, finalizers = names.get("node"), names.get("finalizers")
        if finalizers and node not in state.stack:
            state.stack[node] = finalizers, None
        return [*(names.get("exceptions") or ()), *(names.get("these_exceptions") or ())]
    return []


def _locals(exc: BaseException, code: Any) -> list[Any]:
    """Return the local names of the frames of a function that an exception went through."""
    found = []
    tb = exc.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code is code:
            found.append(tb.tb_frame.f_locals)
        tb = tb.tb_next
    return found
