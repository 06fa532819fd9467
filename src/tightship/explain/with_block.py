"""The line of the ``with`` statement that a context manager was entered by.

A timeout or a task group ends a task from inside the event loop, where no stack leads to the
line that a reader would look for. But a frame inside of a ``with`` keeps the manager's exit
method on its stack, and the collector may look there.
"""

from __future__ import annotations

import dis
import gc
from types import CodeType, FrameType
from typing import Any

from ..model import Site
from ..origin import describe, layer
from .frames import local_values

__all__ = ["with_site"]

_EXITS = ("__exit__", "__aexit__")


def with_site(task: Any, manager: object) -> Site | None:
    """Return the line of the ``with`` whose block a suspended task is in, or None.

    If that ``with`` is in a library's own function (`asyncio.wait_for`), the line that called
    it. Never raises and keeps nothing alive.
    """
    try:
        levels = _levels(task.get_coro())
        for number, level in enumerate(levels):
            frame = _frame(level)
            if frame is None:
                continue
            if _leaves(frame, manager):  # it waits in its exit: the line is that of the with
                return _outward(levels, number - 1)
            position = _position(level, manager)
            if position is None:
                continue
            if layer(frame.f_code.co_filename) == 2:
                return _outward(levels, number - 1)
            offset = _with(frame.f_code, frame.f_lasti, position)
            return describe(frame.f_code, frame.f_lasti if offset is None else offset)
    except Exception:
        pass
    return None


def _levels(coro: Any) -> list[Any]:
    found: list[Any] = []
    while coro is not None and len(found) < 200 and _frame(coro) is not None:
        found.append(coro)
        coro = next(
            (
                inner
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if (inner := getattr(coro, name, None)) is not None
            ),
            None,
        )
    return found


def _frame(level: Any) -> FrameType | None:
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        frame = getattr(level, name, None)
        if isinstance(frame, FrameType):
            return frame
    return None


def _outward(levels: list[Any], number: int) -> Site | None:
    """Return where the next level outward that is not the runtime's own stands."""
    for level in reversed(levels[: number + 1]):
        frame = _frame(level)
        if frame is not None and layer(frame.f_code.co_filename) < 2:
            return describe(frame.f_code, frame.f_lasti)
    return None


def _leaves(frame: FrameType, manager: object) -> bool:
    code = frame.f_code
    if code.co_name not in _EXITS or not code.co_varnames:
        return False
    values = dict(local_values(frame))
    return values.get(code.co_varnames[0]) is manager


def _position(level: Any, manager: object) -> int | None:
    """Return the how-many-th of the open ``with`` blocks of a level is this manager's."""
    exits = [h for h in gc.get_referents(level) if getattr(h, "__name__", None) in _EXITS]
    for number, held in enumerate(exits):
        if getattr(held, "__self__", None) is manager:
            return number
    return None


def _with(code: CodeType, lasti: int, position: int) -> int | None:
    """Return the offset of an instruction of the so-many-th open block's ``with`` line."""
    table = [(e.start, e.end, e.target) for e in dis._parse_exception_table(code)]  # type: ignore[attr-defined]
    names = {one.offset: one.opname for one in dis.get_instructions(code)}
    found: list[int] = []
    seen: set[int] = set()
    at: int | None = lasti
    # Where an error here would go, an error there, and so on outwards.
    while at is not None:
        at = next((target for start, end, target in table if start <= at < end), None)
        if at is None or at in seen:
            break
        seen.add(at)
        if names.get(at) == "PUSH_EXC_INFO" and names.get(at + 2) == "WITH_EXCEPT_START":
            found.append(at)
    found.reverse()
    return found[position] if position < len(found) else None
