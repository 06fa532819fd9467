"""Which async library runs the code that asks."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

from .loops import current_task

__all__ = ["running_library"]


def running_library() -> Literal["asyncio", "trio"] | None:
    """Return ``"asyncio"`` (uvloop is that too), ``"trio"``, or None outside of both."""
    if current_task() is not None:
        return "asyncio"
    trio: Any = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except RuntimeError:
            pass
        else:
            return "trio"
    return "asyncio" if asyncio._get_running_loop() is not None else None
