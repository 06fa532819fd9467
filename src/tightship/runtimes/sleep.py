"""Sleeping in whatever async library runs here."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from .async_library import running_library

__all__ = ["sleep"]


async def sleep(seconds: float) -> None:
    """Wait and let others run. On trio not even a cancellation ends it early."""
    library = running_library()
    if library == "trio":
        trio: Any = sys.modules["trio"]
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)
    elif library == "asyncio":
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)  # noqa: ASYNC251 - a loop of an unknown kind: nothing to await
