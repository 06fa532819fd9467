"""Where a thread stands, as sites and as one line of text."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import CodeType, FrameType

from ..model import Site
from ..origin import layer
from .frames import OWN, Spot, site, spot

__all__ = ["format_stack", "frame_stack", "thread_stack"]

_threading = os.sep + "threading.py"
_births = OWN + "births.py"


def thread_stack(ident: int, limit: int = 12) -> list[Site]:
    """Return the stack of a running thread, innermost first, without machinery.

    Empty if the thread is gone or is one of ours. A thread that runs nothing but runtime
    code (an idle executor worker) keeps its runtime frames. Never raises.
    """
    return frame_stack(sys._current_frames().get(ident), limit)


def frame_stack(frame: FrameType | None, limit: int = 12) -> list[Site]:
    """Return the same for a thread's innermost frame."""
    try:
        spots = _spots(frame)
        theirs = [s for s in spots if not s[0].co_filename.startswith(OWN)]
        ours = any(s[0].co_filename.startswith(OWN) and not _wrapper(s[0]) for s in spots)
        if ours and all(s[0].co_filename.endswith(_threading) for s in theirs):
            return []
        wanted = [s for s in theirs if layer(s[0].co_filename) < 2] or theirs
        return [site(s) for s in wanted[:limit]]
    except Exception:  # evidence must not cost the report
        return []


def _wrapper(code: CodeType) -> bool:
    """Tell whether this is what notes births: every thread starts in it."""
    return code.co_filename.endswith(_births)


def _spots(frame: FrameType | None) -> list[Spot]:
    spots = []
    while frame is not None:
        spots.append(spot(frame))
        frame = frame.f_back
    return spots


def format_stack(sites: Sequence[Site], limit: int = 6) -> str:
    """Return sites (innermost first) as one line: the first in full, the others as places."""
    if not sites:
        return ""
    rest = [f"{s.file}:{s.line}" for s in sites[1:limit]]
    if len(sites) > limit:
        rest.append("...")
    return str(sites[0]) + ("   <- " + " <- ".join(rest) if rest else "")
