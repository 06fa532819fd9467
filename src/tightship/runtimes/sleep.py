"""Sleeping in whatever async library runs here."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from .loops import current_task

__all__ = ["sleep"]


async def sleep(seconds: float) -> None:
    """Wait and let others run. On trio not even a cancellation ends it early."""
    trio: Any = sys.modules.get("trio")
    if trio is not None and _in_trio(trio):
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
    elif asyncio._get_running_loop() is not None:
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251 - a loop of an unknown kind: nothing to await


def _in_trio(trio: Any) -> bool:
    if current_task() is not None:
        return False
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
