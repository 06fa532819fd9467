"""Reading frames and asking for referrers without leaving or meeting a trace of ourselves."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from inspect import CO_OPTIMIZED
from operator import is_
from types import CodeType, FrameType
from typing import Any

from ..model import Site
from ..origin import layer, site_at

__all__ = [
    "OWN",
    "Spot",
    "enclosed",
    "executing",
    "get",
    "local_values",
    "outwards",
    "place",
    "readable",
    "site",
    "spot",
    "tops",
    "trim",
]

#: Tightship's own folder: no frame from here belongs into a report.
OWN = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep

#: Code object and line: all that is kept of a frame.
Spot = tuple[CodeType, int]


def spot(frame: FrameType) -> Spot:
    """Return a frame's code and line (Cython's frames may have no line)."""
    code = frame.f_code
    return code, frame.f_lineno or code.co_firstlineno


def site(place: Spot) -> Site:
    """Turn a spot into a site."""
    code, line = place
    return site_at(code.co_filename, line, getattr(code, "co_qualname", code.co_name))


def local_values(frame: FrameType) -> list[tuple[str, Any]]:
    """Return (name, value) of a frame's locals. Drop the list soon: it holds the values."""
    names = frame.f_locals
    pairs = list(names.items())
    # Up to 3.12 the frame keeps the dict we just made, and with it every local that the
    # function may go on to delete. If nobody else has asked for it (three references: the
    # frame's, ours, the call's), emptying it cannot be noticed.
    # Nor if the frame is being traced: then Python writes the dict back into its variables.
    if (
        sys.version_info < (3, 13)
        and frame.f_code.co_flags & CO_OPTIMIZED
        and frame.f_trace is None
        and sys.getrefcount(names) <= 3
    ):
        names.clear()
    return pairs


def tops() -> dict[int, FrameType]:
    """Return each thread's innermost frame by its ident; here, the innermost that isn't ours.

    A function of ours that held its own frame in a variable would make a cycle, and with it
    keep all callers' locals alive until the next collection.
    """
    found = sys._current_frames()
    me = threading.get_ident()
    found.pop(me, None)
    at: FrameType | None = sys._getframe(1)
    while at is not None and at.f_code.co_filename.startswith(OWN):
        at = at.f_back
    if at is not None:
        found[me] = at
    return found


def executing() -> Iterator[FrameType]:
    """Yield the frames on the stacks of all threads, innermost first, without ours."""
    for frame in tops().values():
        yield from outwards(frame)


def outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and its callers, without ours."""
    while frame is not None:
        if not frame.f_code.co_filename.startswith(OWN):
            yield frame
        frame = frame.f_back


def get(obj: object, name: str, default: Any = None) -> Any:
    """Return an attribute of somebody else's object, or ``default`` whatever it raises."""
    try:
        return getattr(obj, name, default)
    except (KeyboardInterrupt, SystemExit):  # not the object's: somebody wants us to stop
        raise
    except BaseException:
        return default


def enclosed(callback: object) -> list[Any]:
    """Return what a closure or a partial holds."""
    held: list[Any] = []
    for cell in get(callback, "__closure__") or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # an empty cell
            continue
    args = get(callback, "args")
    held.extend(args if isinstance(args, tuple) else ())
    return held


def place(code: CodeType) -> tuple[str, str]:
    """Return the last two parts of a function's file and its qualified name, for tables."""
    return "/".join(code.co_filename.replace("\\", "/").rsplit("/", 2)[-2:]), code.co_qualname


def referrers(objects: list[object]) -> list[object]:
    """Return what refers to any of ``objects``, in one pass over the heap.

    The list itself and other containers of the caller are among the answers.
    """
    found = gc.get_referrers(*objects)
    # Since 3.13 so is the tuple of the call's arguments. It is dead but for our list.
    found = [r for r in found if not (type(r) is tuple and _arguments(r, objects))]
    if sys.version_info < (3, 12):
        found.extend(_tasks(objects))
    return found


def _tasks(objects: list[object]) -> list[object]:
    # On 3.11 a task's traverse function drops the answer of its future half, so that it is
    # never named as a referrer of its callbacks, result and exception.
    tasks = sys.modules.get("asyncio.tasks")
    if tasks is None:
        return []
    wanted = {id(o) for o in objects}
    known = [task for ref in list(tasks._all_tasks.data) if (task := ref()) is not None]
    return [t for t in known if any(id(h) in wanted for h in gc.get_referents(t))]


def _arguments(candidate: object, objects: list[object]) -> bool:
    # Held by the list of results, by two variables and by the call: by nobody else.
    row: Any = candidate
    del candidate
    return len(row) == len(objects) and all(map(is_, row, objects)) and sys.getrefcount(row) <= 4


def trim(spots: list[Spot]) -> list[Spot]:
    """Keep the project's spots, and a library's if it is the innermost; never return less
    than one spot of a non-empty list. Innermost first, both ways."""
    wanted = [s for s in spots if layer(s[0].co_filename) < 2]
    kept = [s for n, s in enumerate(wanted) if n == 0 or layer(s[0].co_filename) == 0]
    return kept or spots[:1]


def readable(text: object, limit: int = 80) -> str:
    """Return a name as one short line."""
    if not isinstance(text, str):
        return type(text).__name__
    line = " ".join(str.__str__(text[: limit * 2]).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
