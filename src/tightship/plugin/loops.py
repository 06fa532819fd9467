"""Looking at the loops of the test that runs: what the settings and its markers want of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..blocking import Blocking, Rule
from ..forecast import Forecast
from ..loopwatch import LoopWatch
from ..model import Owner

if TYPE_CHECKING:
    from .session import TightshipSession

__all__ = ["watch_loops"]


def watch_loops(session: TightshipSession) -> LoopWatch:
    """Return a watch of the session's loops that has begun."""
    settings = session.settings

    def rule(owner: Owner) -> Rule:
        said = getattr(owner, "blocked", None)
        if said is None:
            return settings.blocked, settings.blocked_limit
        if isinstance(said, str):
            return said, settings.blocked_limit
        watch.hasten(said)
        level = settings.blocked
        return "note" if level == "off" else level, said

    # The session knows who runs: a test pays nothing for being looked at.
    watch = LoopWatch(lambda: session.attempt, session.watch.loops.open, session.fault)
    watch.hasten(settings.blocked_limit)
    watch.parts.append(Blocking(rule, session.watch.note, watch.lateness, session.fault))
    if settings.forecast:
        session.forecast = Forecast(session.fault)
        watch.parts.append(session.forecast)
    watch.start()
    return watch
