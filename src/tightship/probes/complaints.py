"""What event loops tell their exception handlers, for the kinds that listen."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["listen"]


def listen(patch: Any, hear: Callable[[Any, dict[str, Any]], None]) -> None:
    """Call ``hear(loop, context)`` before a loop's exception handler is called.

    Not on loops whose handler somebody set: then these errors are his.
    """

    def wrap(cls: Any) -> None:
        original = cls.call_exception_handler

        @functools.wraps(original)
        def call_exception_handler(loop: Any, context: dict[str, Any]) -> Any:
            if patch.active:
                try:
                    if not _answered(loop):
                        hear(loop, context)
                except Exception as exc:
                    patch.fault(exc)
            return original(loop, context)

        patch.set(cls, "call_exception_handler", call_exception_handler)

    patch.when_imported("asyncio.base_events", lambda m: wrap(m.BaseEventLoop))
    patch.when_imported("uvloop", lambda m: wrap(m.Loop))


def _answered(loop: Any) -> bool:
    get = getattr(loop, "get_exception_handler", None)
    return get is not None and get() is not None
