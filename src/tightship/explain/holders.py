"""Who holds an object, and the proof that nobody does.

Everything here asks the garbage collector, which sees neither frozen objects nor the locals
of functions that are executing. Nobody unfreezes anything here: callers do that, or accept
the narrower view. A pass over the heap costs about 10 ms per 100 000 objects.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from types import (
    AsyncGeneratorType,
    CellType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
    TracebackType,
)
from typing import Any

from ..origin import layer, shorten
from .frames import OWN, executing, local_values, readable, referrers
from .isolation import closure, module_name, proven, sealed
from .waits import done, get, is_task, task_name

__all__ = ["cycle", "holder_path", "isolated", "reachable_ids", "traceback_roots"]

#: Holders looked at per level; a wider level means that the object is held by everybody.
_WIDE = 5000


def isolated(obj: object, extra: int = 0, limit: int = 2000) -> bool:
    """Prove that nothing outside can reach ``obj``: only it and its like hold it.

    True is a proof: every reference to it, to all that holds it, and so on, has been found
    inside of that set. False means "not proven", never "reachable". ``extra`` is how many
    local variables of the caller, a plain function, refer to ``obj``; anything else the
    caller holds must be weak. Never raises.
    """
    try:
        found = closure(obj, limit)
        if found is None:
            return False
        root = id(obj)
        del obj  # from here on our only references are those in `found`
        return sealed(found, root, extra) and proven(found)
    except Exception:
        return False


def cycle(obj: object, extra: int = 1) -> str | None:
    """Return the shortest cycle that alone holds ``obj``, as type names; None if there is none.

    ``extra`` as for `isolated`.
    """
    try:
        found = closure(obj, 2000)
        if found is None:
            return None
        root = id(obj)
        del obj
        return _round(found, root) if sealed(found, root, extra) else None
    except Exception:
        return None


def _round(found: dict[int, object], root: int) -> str | None:
    before: dict[int, int] = {}
    level = [root]
    while level:
        following = []
        for key in level:
            for held in gc.get_referents(found[key]):
                other = id(held)
                if other == root:
                    names = [_type(found[root])]
                    step: int | None = key
                    while step is not None and step != root:
                        names.append(_type(found[step]))
                        step = before.get(step)
                    names.append(names[0])
                    return " -> ".join(reversed(names))
                if other in found and other not in before:
                    before[other] = key
                    following.append(other)
        level = following
    return None


# ---- the path from a root -------------------------------------------------------------------


def holder_path(obj: object, *, ignore: Iterable[object] = (), budget: float = 0.15) -> str | None:
    """Say what keeps ``obj`` alive, from a root down to it; None if no root was found in time.

    ``module shop.db .POOL -> Pool.items -> list[0] -> Connection``. Roots are modules,
    classes, local variables of executing functions, threads, event loops, and pending tasks
    if there is nothing better. ``budget`` is in seconds; it is looked at between passes.
    ``ignore`` names holders not worth mentioning. Never raises.
    """
    try:
        return _search(obj, {id(i) for i in ignore}, time.perf_counter() + budget)
    except Exception:
        return None


def _search(obj: object, skip: set[int], deadline: float) -> str | None:
    held_by_frames = _frame_locals(skip)
    # `parents` leads from a holder back to what it holds, down to the object itself.
    objects: dict[int, object] = {id(obj): obj}
    parents: dict[int, int] = {}
    level: list[object] = [obj]
    task: int | None = None
    distant: str | None = None
    skip |= {id(objects), id(parents), id(skip), id(held_by_frames)}
    while level:
        for holder in level:
            place = held_by_frames.get(id(holder))
            if place is not None:
                text = _join(place[1], id(holder), objects, parents)
                if place[0]:
                    return text
                distant = distant or text
        if time.perf_counter() > deadline:
            break
        fresh: list[object] = []
        skip |= {id(level), id(fresh)}
        wanted = {id(o) for o in level}
        for holder in referrers(level):
            key = id(holder)
            if key in objects or key in skip:
                continue
            target = next((id(h) for h in _held_by(holder) if id(h) in wanted), None)
            if target is None:
                continue
            objects[key], parents[key] = holder, target
            if _root(holder):
                return _path(key, objects, parents)
            if task is None and is_task(holder) and not done(holder):
                task = key
            fresh.append(holder)
            if len(fresh) > _WIDE:
                break
        skip.discard(id(level))  # its id may be handed out again
        level = fresh
    if distant is not None:
        return distant
    return None if task is None else _path(task, objects, parents)


def _frame_locals(skip: set[int]) -> dict[int, tuple[bool, str]]:
    """Return id of a local's value -> (it is the project's, words), for executing frames.

    Only ids are kept: the objects in question are held by the frames themselves.
    """
    found: dict[int, tuple[bool, str]] = {}
    for frame in executing():
        code = frame.f_code
        # A module's frame has the module's own namespace for locals: that is found as such.
        if id(frame) in skip or code.co_filename.startswith(OWN) or code.co_name == "<module>":
            continue
        near = layer(code.co_filename) < 2
        where = f"{readable(code.co_qualname)} ({shorten(code.co_filename)}:{frame.f_lineno})"
        for name, value in local_values(frame):
            if id(value) not in found or (near and not found[id(value)][0]):
                found[id(value)] = near, f"local '{name}' of {where}"
    return found


def _held_by(holder: object) -> Iterable[object]:
    # Never ask a C module for its referents: on 3.12 asyncio's shows its list of free
    # iterators, and whoever takes one from there frees it twice.
    if isinstance(holder, ModuleType):
        return list(vars(holder).values())
    return gc.get_referents(holder)


def _root(holder: object) -> bool:
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and issubclass(type(holder), asyncio.AbstractEventLoop):
        return True
    threading = sys.modules.get("threading")
    if threading is not None and issubclass(type(holder), threading.Thread):
        return True
    return isinstance(holder, (ModuleType, type)) or module_name(holder) is not None


def _path(key: int, objects: dict[int, object], parents: dict[int, int]) -> str:
    return _join(None, key, objects, parents)


def _join(first: str | None, key: int, objects: dict[int, object], parents: dict[int, int]) -> str:
    parts = [] if first is None else [first]
    owner = ""  # set while the next holder is just the namespace of the last one
    while key in parents:
        holder, held = objects[key], objects[parents[key]]
        name = owner or _name(holder)
        if _is_namespace(holder, held):
            owner = name
        else:
            edge = _edge(holder, held)
            parts.append(name + (" " if owner.startswith("class ") else "") + edge)
            owner = ""
        key = parents[key]
    parts.append(_name(objects[key]))
    if len(parts) > 12:
        parts = [*parts[:6], "...", *parts[-5:]]
    return " -> ".join(parts)


def _is_namespace(holder: object, held: object) -> bool:
    """Tell whether ``held`` is the dict of the holder's attributes."""
    if type(held) is not dict or type(holder) is dict:
        return False
    if isinstance(holder, type):
        return True
    return _has_dict(holder) and object.__getattribute__(holder, "__dict__") is held


def _edge(holder: object, held: object) -> str:
    """Return how a holder refers to what it holds: ``.items``, ``[0]`` or nothing."""
    try:
        if type(holder) is dict:
            sign = " " if module_name(holder) is not None else ""
            return next((sign + _key(k) for k, v in list(holder.items()) if v is held), "")
        if type(holder) in (list, tuple):
            row: Any = holder
            return next((f"[{n}]" for n, v in enumerate(row) if v is held), "")
        if isinstance(holder, (CoroutineType, GeneratorType, AsyncGeneratorType)):
            frame = next(
                (f for a in ("cr_frame", "gi_frame", "ag_frame") if (f := get(holder, a))), None
            )
            names = local_values(frame) if frame is not None else []
            return next((f" local '{n}'" for n, v in names if v is held), "")
        if isinstance(holder, FrameType):
            return next((f" local '{n}'" for n, v in local_values(holder) if v is held), "")
        if isinstance(holder, FunctionType):
            cells = zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=False)
            return next((f" closing over '{n}'" for n, c in cells if c is held), "")
        return _attribute(holder, held)
    except Exception:  # it changes under our eyes, or compares in strange ways
        return ""


def _attribute(holder: object, held: object) -> str:
    names = type.__getattribute__(holder, "__dict__") if isinstance(holder, type) else None
    if names is None:
        names = object.__getattribute__(holder, "__dict__") if _has_dict(holder) else {}
    sign = " ." if isinstance(holder, (type, ModuleType)) else "."
    for name, value in list(names.items()):
        if value is held:
            return f"{sign}{readable(name)}"
    for cls in type(holder).__mro__:
        for name, slot in list(cls.__dict__.items()):
            if type(slot).__name__ == "member_descriptor":
                try:
                    if slot.__get__(holder) is held:
                        return f"{sign}{name}"
                except Exception:  # an empty slot
                    continue
    return ""


def _has_dict(obj: object) -> bool:
    return any(
        type(cls.__dict__.get("__dict__")).__name__ == "getset_descriptor"
        for cls in type(obj).__mro__
    )


def _key(key: object) -> str:
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() else f"[{readable(key, 40)!r}]"
    return f"[{key!r}]" if type(key) in (int, bool, float) else f"[a {_type(key)}]"


def _type(obj: object) -> str:
    return readable(type(obj).__qualname__)


def _name(obj: object) -> str:
    name = module_name(obj)
    if name is not None:
        return f"module {name}"
    if isinstance(obj, ModuleType):
        return f"module {readable(get(obj, '__name__'))}"
    if isinstance(obj, type):
        return f"class {readable(obj.__module__)}.{readable(obj.__qualname__)}"
    if is_task(obj):
        return task_name(obj)
    if isinstance(obj, FunctionType):
        return f"function {readable(obj.__qualname__)}"
    if isinstance(obj, MethodType):
        return f"method {readable(get(obj, '__qualname__'))}"
    if isinstance(obj, FrameType):
        return f"frame of {readable(obj.f_code.co_qualname)}, kept by a traceback or generator"
    if isinstance(obj, CellType):
        return "cell"
    if isinstance(obj, (CoroutineType, GeneratorType, AsyncGeneratorType)):
        return f"{type(obj).__name__.replace('_', ' ')} {readable(obj.__qualname__)}"
    threading = sys.modules.get("threading")
    if threading is not None and issubclass(type(obj), threading.Thread):
        return f"thread '{readable(get(obj, '_name'))}'"
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and issubclass(type(obj), asyncio.AbstractEventLoop):
        return "event loop"
    return _type(obj)


# ---- what a traceback keeps -----------------------------------------------------------------


def traceback_roots(tb: TracebackType | None) -> list[object]:
    """Return the values that the project's frames of a traceback hold as locals.

    The frames of pytest and of the runtime are left out: from their locals one can reach
    everything. Drop the list soon. Never raises.
    """
    values: list[object] = []
    while tb is not None:
        frame = tb.tb_frame
        if layer(frame.f_code.co_filename) < 2 and frame.f_code.co_name != "<module>":
            with suppress(Exception):  # a frame that is being torn down
                values.extend(value for _, value in local_values(frame))
        tb = tb.tb_next
    return values


def reachable_ids(roots: Iterable[object], limit: int = 20000) -> set[int]:
    """Return the ids of all that can be reached from ``roots``, roots included.

    Modules, classes, frames, threads and event loops are counted but not entered, since
    everything can be reached from them. Stops at ``limit``. Never raises; the ids are good
    only as long as the roots live.
    """
    seen: set[int] = set()
    level = list(roots)
    try:
        while level and len(seen) < limit:
            fresh = []
            for obj in level:
                if id(obj) in seen:
                    continue
                seen.add(id(obj))
                if len(seen) >= limit:
                    break
                if not (_root(obj) or isinstance(obj, FrameType)):
                    fresh.append(obj)
            # One call per level; a function's globals are met as a module's dict above.
            level = [h for h in gc.get_referents(*fresh) if id(h) not in seen]
    except Exception:
        return seen
    return seen
