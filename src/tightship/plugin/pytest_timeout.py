"""Beside pytest-timeout: it ends the test, we say what everything was waiting for.

Registered only where that plugin is. It tells through a hook of its own how much time a test
has; shortly before, we take our picture.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from ..runtimes.sentry import SENTRY, Alarm

if TYPE_CHECKING:
    from .session import TightshipSession

__all__ = ["BesidePytestTimeout"]

#: Seconds before its timeout at which the picture is taken: time enough to take it.
_AHEAD = 0.1


class BesidePytestTimeout:
    """The plugin object that listens to pytest-timeout's hooks."""

    def __init__(self, session: TightshipSession) -> None:
        self._session = session
        self._alarm = Alarm("the picture for pytest-timeout", self._ring)
        self._thread = 0
        self._method = ""
        self.lines: list[str] = []
        """What everything was waiting for, if its time was nearly up."""

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_set_timer(self, settings: Any) -> None:
        """Arm our alarm; returning nothing lets pytest-timeout arm its own."""
        import threading

        self.lines = []
        self._thread = threading.get_ident()
        self._method = str(getattr(settings, "method", ""))
        seconds = getattr(settings, "timeout", None)
        if seconds:
            SENTRY.add(self._alarm)
            SENTRY.arm(self._alarm, SENTRY.now() + max(seconds - _AHEAD, seconds * 0.8))

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_timeout_cancel_timer(self) -> None:
        """Switch our alarm off as well."""
        self._alarm.due = None

    def close(self) -> None:
        """Forget the alarm."""
        SENTRY.drop(self._alarm)

    def _ring(self) -> None:
        from ..explain import picture

        taken = picture.take(
            self._session.watch.loops.open(), thread=self._thread, own_threads={SENTRY.ident}
        )
        self.lines = ["just before pytest-timeout ended the test:", *picture.render(taken)]
        if self._method == "thread":
            # It ends the process, and shows before what was captured: this among it.
            os.write(2, ("\n".join(self.lines) + "\n").encode(errors="replace"))
