"""The parts of the proof that a set of objects is cut off from everything else.

Three steps: take an object with all that refers to it, directly or not; count that every
reference to a member comes from a member; rule out the ways to reach an object that no
count of references shows. Each step answers "no" when in doubt.
"""

from __future__ import annotations

import builtins
import gc
import sys
import weakref
from collections import Counter
from types import (
    AsyncGeneratorType,
    BuiltinFunctionType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    GetSetDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from .frames import executing, referrers
from .waits import is_task

__all__ = ["closure", "module_name", "proven", "sealed"]

_HEAP = 1 << 9
_MANAGED_DICT = 1 << 4

_BUILTIN = """
object dict list tuple set frozenset cell function method builtin_function_or_method
method-wrapper coroutine coroutine_wrapper generator async_generator async_generator_asend
async_generator_athrow anext_awaitable frame traceback list_iterator list_reverseiterator
tuple_iterator set_iterator dict_keyiterator dict_valueiterator dict_itemiterator dict_keys
dict_values dict_items enumerate zip map filter reversed slice hamt hamt_bitmap_node
hamt_array_node hamt_collision_node mappingproxy FrameLocalsProxy
"""

#: Types written in C that keep nothing but what they show to the garbage collector. A type
#: of an extension may be known to its library by a bare pointer, which counts as no
#: reference (uvloop's transports are known to libuv so), and is never part of a proof.
_PLAIN = {
    "builtins": _BUILTIN.split(),
    "_asyncio": ["Future", "Task", "FutureIter", "TaskStepMethWrapper", "TaskWakeupMethWrapper"],
    "collections": ["deque", "defaultdict", "OrderedDict"],
    "_collections": ["_deque_iterator"],
    "functools": ["partial"],
    "_contextvars": ["Context", "Token"],
    "typing": ["Generic"],
    "_queue": ["SimpleQueue"],
}


def module_name(obj: object) -> str | None:
    """Return the module's name if this is a module's namespace, else None."""
    if type(obj) is not dict:
        return None
    names: dict[Any, Any] = obj
    name = names.get("__name__")
    if not isinstance(name, str):
        return None
    return name if "__spec__" in names or "__builtins__" in names else None


def closure(obj: object, limit: int) -> dict[int, object] | None:
    """Return all that refers to ``obj``, directly or not, by id; ``obj`` comes first.

    None if that includes a root (an event loop, a thread, a module, a class, something that
    executes) or more than ``limit`` objects.
    """
    found: dict[int, object] = {}
    level: list[object] = []
    fresh: list[object] = [obj]
    while fresh:
        for member in fresh:
            if _endless(member):
                return None
            found[id(member)] = member
        if len(found) > limit:
            return None
        # Whoever holds the frame of a suspended coroutine can reach its locals, although
        # the frame does not refer to the coroutine: it has to belong to the set as well.
        frames: list[object] = []
        for member in fresh:
            if isinstance(member, (CoroutineType, GeneratorType, AsyncGeneratorType, FrameType)):
                if _executes(member):
                    return None
                frames.extend(
                    h
                    for h in gc.get_referents(member)
                    if type(h) is FrameType and id(h) not in found
                )
        level = fresh
        ours = {id(found), id(level), id(frames)}
        fresh = list({id(f): f for f in frames}.values())
        ours.add(id(fresh))
        fresh.extend(r for r in referrers(level) if id(r) not in found and id(r) not in ours)
        fresh = list({id(f): f for f in fresh if id(f) not in ours}.values())
    return found


def _endless(member: object) -> bool:
    """Tell whether this is one of the places from which everything can be reached."""
    if isinstance(member, (ModuleType, type)) or module_name(member) is not None:
        return True
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and issubclass(type(member), asyncio.AbstractEventLoop):
        return True
    threading = sys.modules.get("threading")
    return threading is not None and issubclass(type(member), threading.Thread)


def _executes(member: object) -> bool:
    if isinstance(member, FrameType):
        return _on_stack(member)
    if isinstance(member, CoroutineType):
        return bool(member.cr_running)
    if isinstance(member, GeneratorType):
        return bool(member.gi_running)
    # ag_running is also true while it is suspended inside of an `await`.
    assert isinstance(member, AsyncGeneratorType)
    return member.ag_frame is not None and _on_stack(member.ag_frame)


def _on_stack(frame: FrameType) -> bool:
    # Compared by identity while all of them live: frame objects are made on demand.
    return any(f is frame for f in executing())


def sealed(found: dict[int, object], root: int, extra: int) -> bool:
    """Tell whether each reference to a member is held by a member.

    ``found`` must hold the only strong references of ours. ``extra`` more are granted to
    ``root``. On interpreters without exact reference counts the answer is no.
    """
    # Free-threaded builds count references in two places and defer some.
    if sys.implementation.name != "cpython" or "t" in sys.abiflags:
        return False
    # A stranger that only we hold, in the same places as the members: it shows how many
    # references our own looking costs, whatever the version of the interpreter.
    stranger = _Stranger()
    key = id(stranger)
    found[key] = stranger
    del stranger
    members = list(found.values())
    try:
        counts = list(map(sys.getrefcount, members))
        inside = Counter(map(id, gc.get_referents(*members)))
        # Another thread may have moved a reference while we counted.
        if counts != list(map(sys.getrefcount, members)):
            return False
    finally:
        del members
        del found[key]
    base = counts.pop()
    for member, count in zip(found, counts, strict=True):
        if count - base != inside.get(member, 0) + (extra if member == root else 0):
            return False
    return True


class _Stranger:
    __slots__ = ()


def proven(found: dict[int, object]) -> bool:
    """Rule out the ways to a member that leave no trace in its reference count."""
    return all(_plain(m) and not _observed(m) and _lone_dict(m) for m in found.values())


def _plain(member: object) -> bool:
    """Tell whether its type is Python code, or C code that is known to hide nothing."""
    for cls in type(member).__mro__:
        module = cls.__module__
        if cls.__qualname__ in _PLAIN.get(module, ()):
            continue
        if module == "builtins" and getattr(builtins, cls.__name__, None) is cls:
            if issubclass(cls, BaseException):
                continue
            return False
        if not _in_python(cls):
            return False
        # It could still wake somebody when it is collected.
        if isinstance(cls.__dict__.get("__del__"), FunctionType) and not module.startswith(
            "asyncio."
        ):
            return False
    return True


def _in_python(cls: type) -> bool:
    if not cls.__flags__ & _HEAP:
        return False
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if module is None or not (cls.__module__ == "__main__" or str(file).endswith(".py")):
        return False
    # An extension's class may call any module its own, but has methods made in C.
    for name, value in cls.__dict__.items():
        if isinstance(value, (MethodDescriptorType, WrapperDescriptorType)):
            return False
        if name == "__new__" and isinstance(value, BuiltinFunctionType):
            return False
    return True


def _observed(member: object) -> bool:
    """Tell whether somebody may reach it through a weak reference.

    asyncio's registries refer weakly to tasks and async generators, and the ledger to
    coroutines; through none of these a task is woken. A stream's transport on the other
    hand knows its reader by a weak reference only.
    """
    if is_task(member) or isinstance(member, (CoroutineType, AsyncGeneratorType)):
        return False
    return weakref.getweakrefcount(member) > 0


def _lone_dict(member: object) -> bool:
    """Tell whether nobody but its owner holds an instance's ``__dict__``.

    Since 3.13 an instance's attributes may be shared with a dict that does not show up
    among its referents, nor the instance among the dict's.
    """
    if sys.version_info < (3, 13):
        return True
    kind = type(member)
    if not kind.__flags__ & _MANAGED_DICT:
        return True
    entries = [cls.__dict__["__dict__"] for cls in kind.__mro__ if "__dict__" in cls.__dict__]
    if not entries:  # a C type that lets nobody at it: asyncio's own Task and Future
        return True
    if not all(isinstance(entry, GetSetDescriptorType) for entry in entries):
        return False
    return _dict_count(member) <= _dict_count(_Lone())


def _dict_count(obj: object) -> int:
    return sys.getrefcount(object.__getattribute__(obj, "__dict__"))


class _Lone:
    """An instance whose dict nobody else can have: the measure for others."""
