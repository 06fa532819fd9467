"""What a pending task waits for, in words: one line of a table per primitive."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FrameType, FunctionType
from typing import Any

from .frames import executing, local_values, readable

__all__ = ["describe_frame", "describe_future", "get", "task_name"]

Locals = Mapping[str, Any]


def get(obj: object, name: str, default: Any = None) -> Any:
    """Return an attribute of somebody else's object, or ``default`` whatever it raises."""
    try:
        return getattr(obj, name, default)
    except (KeyboardInterrupt, SystemExit):  # not the object's: somebody wants us to stop
        raise
    except BaseException:
        return default


def is_future(obj: object) -> bool:
    """Tell whether this is an asyncio future or task, without running the object's code."""
    return hasattr(type(obj), "_asyncio_future_blocking")


def is_task(obj: object) -> bool:
    """Tell whether this future is a task."""
    return is_future(obj) and hasattr(type(obj), "get_coro")


def is_concurrent(obj: object) -> bool:
    """Tell whether this is a future of an executor."""
    module = sys.modules.get("concurrent.futures._base")
    return module is not None and issubclass(type(obj), module.Future)


def done(future: object) -> bool:
    """Tell whether a future is done; when in doubt, it isn't."""
    try:
        return bool(future.done())  # type: ignore[attr-defined]
    except Exception:
        return False


def task_name(task: object) -> str:
    """Return ``task 'name'``."""
    try:
        name = task.get_name()  # type: ignore[attr-defined]
    except Exception:
        name = "?"
    return f"task '{readable(name)}'"


def callbacks(future: object) -> list[Any]:
    """Return a future's done-callbacks."""
    found = get(future, "_callbacks")
    pairs = found if isinstance(found, list) else []
    return [p[0] if isinstance(p, tuple) and p else p for p in pairs]


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


def _size(items: object) -> int:
    try:
        return len(items)  # type: ignore[arg-type]
    except Exception:
        return 0


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _pending(items: object) -> str:
    children = list(items) if isinstance(items, (list, tuple, set, frozenset)) else []
    waiting = [c for c in children if not done(c)]
    text = f"{len(children)} ({len(waiting)} pending"
    named = [task_name(c) for c in waiting[:3] if is_task(c)]
    more = ", ..." if len(waiting) > 3 else ""
    return text + (": " + ", ".join(named) + more if named else "") + ")"


# ---- one function per primitive: locals of its frame -> words ------------------------------


def _queue(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        queue = names.get("self")
        parts = [f"maxsize={get(queue, '_maxsize', 0)}"]
        if verb == "join":
            parts.append(_many(get(queue, "_unfinished_tasks", 0), "unfinished task"))
        elif verb == "get":
            parts.append(_many(_size(get(queue, "_getters")), "getter"))
        else:
            parts.append(_many(_size(get(queue, "_queue")), "item"))
            parts.append(_many(_size(get(queue, "_putters")), "putter"))
        return f"queue.{verb}() on <{type(queue).__name__} {', '.join(parts)}>"

    return words


def _semaphore(names: Locals) -> str:
    sem = names.get("self")
    return f"asyncio.{type(sem).__name__} (locked, value {get(sem, '_value', 0)})"


def _barrier(names: Locals) -> str:
    barrier = names.get("self")
    return f"asyncio.Barrier ({get(barrier, '_count', 0)} of {get(barrier, '_parties', '?')} here)"


def _fixed(text: str) -> Callable[[Locals], str]:
    return lambda names: text


def _sleep(names: Locals) -> str | None:
    handle, loop = names.get("h"), names.get("loop")
    if handle is None:
        return "its next turn in the loop"
    try:
        due = handle.when() - loop.time()  # type: ignore[union-attr]
    except Exception:  # the loop is closed, or none of asyncio's kind
        return "sleep"
    return f"sleep, due in {due:.1f} s" if due > 0 else "sleep, due now"


def _stream(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        return f"{verb} {_ends(get(names.get('self'), '_transport'))}"

    return words


def _ends(transport: object) -> str:
    from .fds import _address, describe_socket

    extra = get(transport, "get_extra_info")
    if extra is None:
        return "a stream without a transport"
    try:
        local, peer = extra("sockname"), extra("peername")
        if local or peer:
            return f"{_address(local) or 'unix socket'} -> {_address(peer) or 'unnamed peer'}"
        sock = extra("socket")
        return describe_socket(sock) if sock is not None else "a pipe"
    except Exception:
        return "a closed stream"


def _process(names: Locals) -> str:
    me = names.get("self")
    pid = get(me, "_pid") or get(me, "pid") or get(get(me, "_transport"), "_pid")
    return f"process {pid} to exit" if pid else "a process to exit"


def _sock(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        from .fds import describe_socket

        sock = names.get("sock")
        return f"{verb}() on {describe_socket(sock)}" if sock is not None else f"{verb}()"

    return words


def _server(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        from .fds import describe_socket

        socks = [describe_socket(s) for s in tuple(get(names.get("self"), "sockets") or ())[:3]]
        return verb + (" on " + ", ".join(socks) if socks else "")

    return words


def _group(names: Locals) -> str | None:
    me = names.get("self")
    tasks = get(me, "_tasks")
    return f"a task group of {_pending(tasks)}" if isinstance(tasks, (set, list)) else None


def _wait(names: Locals) -> str:
    return f"asyncio.wait of {_pending(names.get('fs'))}"


def _thread(names: Locals) -> str | None:
    func = names.get("func")
    return f"a thread job: {_function(func)}" if callable(func) else None


def _connect(names: Locals) -> str:
    host, port = names.get("host"), names.get("port")
    where = f"{readable(host)}:{port}" if isinstance(host, str) else readable(names.get("path"))
    return f"a connection to {where}"


#: (end of the file's path, qualified name) -> words. Matched from the project's frames
#: inwards, so that the most general primitive wins: `readline` before `_wait_for_data`.
_TABLE: dict[tuple[str, str], Callable[[Locals], str | None]] = {
    ("asyncio/queues.py", "Queue.get"): _queue("get"),
    ("asyncio/queues.py", "Queue.put"): _queue("put"),
    ("asyncio/queues.py", "Queue.join"): _queue("join"),
    ("asyncio/locks.py", "Event.wait"): _fixed("asyncio.Event (not set)"),
    ("asyncio/locks.py", "Lock.acquire"): _fixed("asyncio.Lock (locked)"),
    ("asyncio/locks.py", "Semaphore.acquire"): _semaphore,
    ("asyncio/locks.py", "Condition.wait"): _fixed("asyncio.Condition (not notified)"),
    ("asyncio/locks.py", "Barrier.wait"): _barrier,
    ("asyncio/tasks.py", "sleep"): _sleep,
    ("asyncio/tasks.py", "__sleep0"): _fixed("its next turn in the loop"),
    ("asyncio/tasks.py", "_wait"): _wait,
    ("asyncio/taskgroups.py", "TaskGroup.__aexit__"): _group,
    ("asyncio/taskgroups.py", "TaskGroup._aexit"): _group,
    ("_backends/_asyncio.py", "TaskGroup.__aexit__"): _group,
    ("asyncio/threads.py", "to_thread"): _thread,
    ("_backends/_asyncio.py", "AsyncIOBackend.run_sync_in_worker_thread"): _thread,
    ("asyncio/subprocess.py", "Process.wait"): _process,
    ("asyncio/subprocess.py", "Process.communicate"): _process,
    ("asyncio/base_subprocess.py", "BaseSubprocessTransport._wait"): _process,
    ("asyncio/streams.py", "open_connection"): _connect,
    ("asyncio/streams.py", "open_unix_connection"): _connect,
    ("asyncio/base_events.py", "Server.serve_forever"): _server("serving"),
    ("asyncio/base_events.py", "Server.wait_closed"): _server("connections of a server to end"),
    ("streams/memory.py", "MemoryObjectReceiveStream.receive"): _fixed(
        "receive() on a memory object stream"
    ),
    ("streams/memory.py", "MemoryObjectSendStream.send"): _fixed(
        "send() on a full memory object stream"
    ),
}
_TABLE.update(
    {
        ("asyncio/streams.py", f"StreamReader.{name}"): _stream("reading from")
        for name in ("read", "readline", "readexactly", "readuntil", "_wait_for_data")
    }
)
_TABLE.update(
    {
        ("asyncio/streams.py", f"StreamWriter.{name}"): _stream(verb)
        for name, verb in (("drain", "writing to"), ("wait_closed", "the end of"))
    }
)
_TABLE.update(
    {
        (file, f"{owner}{name}"): _sock(name)
        for name in (
            "sock_recv",
            "sock_recv_into",
            "sock_recvfrom",
            "sock_recvfrom_into",
            "sock_sendall",
            "sock_sendto",
            "sock_connect",
            "sock_accept",
        )
        for file, owner in (
            ("asyncio/selector_events.py", "BaseSelectorEventLoop."),
            # Cython: its frames have no locals, and `co_qualname` is the bare name.
            ("uvloop/loop.pyx", "Loop."),
            ("uvloop/loop.pyx", ""),
        )
    }
)


def describe_frame(frame: FrameType) -> str | None:
    """Return what a frame of a library primitive waits for, or None if it is none we know."""
    code = frame.f_code
    file = "/".join(code.co_filename.replace("\\", "/").rsplit("/", 2)[-2:])
    words = _TABLE.get((file, code.co_qualname))
    try:
        return None if words is None else words(dict(local_values(frame)))
    except Exception:  # another version of the library: fall back to the future
        return None


def describe_future(future: object) -> str:
    """Return what a future is that nothing but its own type and callbacks tell about."""
    if is_task(future):
        return task_name(future)
    if is_concurrent(future):
        return _job(future)
    children = get(future, "_children")
    if type(future).__name__ == "_GatheringFuture" and isinstance(children, (list, tuple)):
        return f"gather of {_pending(children)}"
    if not is_future(future):
        return f"{type(future).__module__}.{type(future).__qualname__}".removeprefix("builtins.")
    for callback in callbacks(future):
        qualname = get(callback, "__qualname__", "")
        held = enclosed(callback)
        if qualname.startswith("shield."):
            inner = next((h for h in held if is_future(h) and h is not future), None)
            if inner is not None:
                return f"shield of {describe_future(inner)}"
        elif qualname.startswith("_chain_future."):
            job = next((h for h in held if is_concurrent(h)), None)
            if job is not None:
                return _job(job)
    if done(future):
        return "a future that is done (it has not run since)"
    if type(future).__name__ in ("Future", "_PyFuture"):
        return "a future nobody has resolved yet"
    return f"{type(future).__qualname__} that is not done"


def _job(future: object) -> str:
    """Name the function behind a concurrent future: the worker that runs it knows."""
    for frame in executing():
        if frame.f_code.co_name == "run" and "self" in frame.f_code.co_varnames[:1]:
            item = dict(local_values(frame)).get("self")
            if get(item, "future") is future and get(item, "fn") is not None:
                return f"a thread job: {_function(item.fn)}"  # type: ignore[union-attr]
    for names in gc.get_referrers(future):  # it is still queued: its work item holds it
        fn = names.get("fn") if isinstance(names, dict) else get(names, "fn")
        if callable(fn):
            return f"a thread job: {_function(fn)} (queued)"
    return "a future of another thread"


def _function(func: object) -> str:
    # asyncio.to_thread submits partial(context.run, func, ...)
    for _ in range(5):
        inner, args = get(func, "func"), get(func, "args")
        if not callable(inner) or not isinstance(args, tuple):
            break
        func = args[0] if get(inner, "__name__") == "run" and args else inner
    name = get(func, "__qualname__") or get(func, "__name__") or type(func).__qualname__
    module = func.__module__ if isinstance(func, FunctionType) else get(func, "__module__")
    text = readable(name)
    return f"{text} ({readable(module)})" if isinstance(module, str) and module else text


def names_of(tasks: Iterable[object]) -> list[str]:
    """Return the sorted names of tasks."""
    return sorted({task_name(t).removeprefix("task ").strip("'") for t in tasks})
