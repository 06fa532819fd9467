"""Who is running: the owner that everything made right now belongs to.

One `ContextVar` holds it. asyncio copies the context into every task, timer, callback and
protocol, so ownership follows the program by itself; threads and executors are handed the
owner at their birth (`runtimes.threads`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar

from .model import Owner

__all__ = ["CURRENT", "current", "of_context", "owned_by"]

CURRENT: ContextVar[Owner | None] = ContextVar("tightship_owner", default=None)

current = CURRENT.get
"""Return the current owner or None (30 ns: safe on every birth)."""


def of_context(context: Context | None) -> Owner | None:
    """Return the owner that a context carries, without entering it."""
    return None if context is None else context.get(CURRENT)


@contextmanager
def owned_by(owner: Owner | None) -> Iterator[None]:
    """Make ``owner`` the current owner for a block."""
    token = CURRENT.set(owner)
    try:
        yield
    finally:
        CURRENT.reset(token)
