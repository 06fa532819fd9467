"""What the ``tightship`` fixture gives to a test."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

from ..config import ConfigError, from_marker
from ..model import Finding, Owner

if TYPE_CHECKING:
    from .session import TightshipSession

__all__ = ["Tightship"]


class Tightship:
    """A test's own view of Tightship."""

    def __init__(self, session: TightshipSession, request: pytest.FixtureRequest) -> None:
        self._session = session
        self._request = request

    def expect(self, what: str, *, reason: str, count: int | None = None) -> None:
        """Let this test leave something behind, on purpose.

        Args:
            what: ``kind:label``; the label may contain ``*``.
            reason: why; shown in the report.
            count: at most this many.

        Raises:
            ConfigError: (a ValueError) if the kind is unknown or the reason is missing.
        """
        kwargs: dict[str, Any] = {"allow": what, "reason": reason}
        if count is not None:
            kwargs["count"] = count
        parsed = from_marker(
            (),
            kwargs,
            kinds=self._session.kinds,
            where="tightship.expect()",
            today=datetime.date.today(),
        )
        attempt = self._session.attempt
        if attempt is not None:
            attempt.expectations = (*attempt.expectations, *parsed.rules)

    def adopt(self, obj: object, *, to: str = "session", reason: str) -> None:
        """Give something this test made to a longer-living owner, which is judged for it.

        Args:
            obj: a task, socket, thread, connection, process...: what the test made.
            to: ``"session"``, or the name of a fixture with a wider scope that is in use.
            reason: why it has to live on; shown if it outlives that owner too.

        Raises:
            ConfigError: (a ValueError) if no such owner is active, or the reason is missing.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigError("tightship.adopt() needs a reason: say why this has to live on")
        self._session.watch.adopt(obj, self._owner(to), reason)

    def _owner(self, to: str) -> Owner:
        session = self._session
        if to == "session":
            return session.session_owner
        owners = {o.name: o for o in session.wide_owners()}
        if to in owners:
            return owners[to]
        from ..suggest import unknown

        raise ConfigError("tightship.adopt(): " + unknown(to, ["session", *owners], "owner"))

    @property
    def findings(self) -> list[Finding]:
        """What this test would be told if it ended at this moment. Changes nothing."""
        attempt = self._session.attempt
        return [] if attempt is None else self._session.watch.peek(attempt)
