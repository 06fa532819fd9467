"""Limits of time for single fixtures: each one's set-up, and its teardown again.

Registered as soon as somebody asks for one.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from ..deadlines.deadline import Deadline
from .cut_short import remember

if TYPE_CHECKING:
    from ..budget import Budget
    from .deadlines import Deadlines

__all__ = ["FixtureLimits"]


class FixtureLimits:
    """The plugin object that counts the time of fixtures.

    Args:
        deadlines: those of the tests.
    """

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Limit a fixture's set-up, and its teardown."""
        limit = self._deadlines.fixture
        if limit is None:
            return (yield)
        name = f"fixture '{fixturedef.argname}' ({fixturedef.scope})"
        deadline = self._deadline(f"set-up of {name}", limit)
        ending = self._deadline(f"teardown of {name}", limit)
        # Finalizers run in the reverse order: this one after the fixture's own.
        fixturedef.addfinalizer(lambda: self._deadlines.torn_down(ending))
        deadline.start()
        try:
            value = yield
        except BaseException as exc:
            error = self._deadlines.fixture_over(deadline, exc)
            if error is None:
                raise
            remember(exc, error)
            raise error from exc
        error = self._deadlines.fixture_over(deadline, None)
        if error is not None:
            raise error
        fixturedef.addfinalizer(ending.start)
        return value

    def _deadline(self, what: str, limit: Budget) -> Deadline:
        deadlines = self._deadlines
        return Deadline(what, limit, loops=deadlines.loops, on_last=deadlines.end_process)
