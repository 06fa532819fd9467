"""What a pending task waits for, in words: one line of a table per primitive."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from math import inf
from types import FrameType
from typing import Any

from .fds import _address, describe_socket
from .frames import enclosed, get, local_values, place, readable
from .jobs import function_name, job_of

__all__ = ["describe_frame", "describe_future", "get", "task_name"]

Locals = Mapping[str, Any]


def is_future(obj: object) -> bool:
    """Tell whether this is an asyncio future or task, without running the object's code."""
    return hasattr(type(obj), "_asyncio_future_blocking")


def is_task(obj: object) -> bool:
    """Tell whether this future is a task."""
    return is_future(obj) and hasattr(type(obj), "get_coro")


def is_queue(obj: object) -> bool:
    """Tell whether this is one of asyncio's queues."""
    module = sys.modules.get("asyncio.queues")
    return module is not None and issubclass(type(obj), module.Queue)


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
    named = sorted(task_name(c) for c in waiting if is_task(c))[:3]
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


_FOR_EVER = "nothing: it sleeps for ever"


def _sleep(names: Locals) -> str | None:
    handle, loop = names.get("h"), names.get("loop")
    if handle is None:
        return "its next turn in the loop"
    try:
        due = handle.when() - loop.time()  # type: ignore[union-attr]
    except Exception:  # the loop is closed, or none of asyncio's kind
        return "sleep"
    if due == inf:
        return _FOR_EVER
    return f"sleep, due in {due:.1f} s" if due > 0 else "sleep, due now"


def _stream(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        return f"{verb} {_ends(get(names.get('self'), '_transport'))}"

    return words


def _ends(transport: object) -> str:
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
    me = get(me, "_process") or me  # anyio's and trio's wrap another
    pid = get(me, "_pid") or get(me, "pid") or get(get(me, "_transport"), "_pid")
    return f"process {pid} to exit" if pid else "a process to exit"


def _sock(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        sock = names.get("sock")
        return f"{verb}() on {describe_socket(sock)}" if sock is not None else f"{verb}()"

    return words


def _own_sock(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        me = names.get("self")
        sock = get(me, "_sock") or get(me, "_raw_socket")
        return f"{verb}() on {describe_socket(sock)}" if sock is not None else f"{verb}()"

    return words


def _ready(for_what: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        obj = names.get("obj")
        known = get(obj, "getsockname") is not None
        return f"{for_what} on {describe_socket(obj) if known else 'a file descriptor'}"

    return words


_USED_UP = "anyio.CapacityLimiter (used up)"


def _server(verb: str) -> Callable[[Locals], str]:
    def words(names: Locals) -> str:
        socks = [describe_socket(s) for s in tuple(get(names.get("self"), "sockets") or ())[:3]]
        return verb + (" on " + ", ".join(socks) if socks else "")

    return words


def _group(names: Locals) -> str | None:
    me = names.get("self")
    tasks = get(me, "_tasks")
    return f"a task group of {_pending(tasks)}" if isinstance(tasks, (set, list)) else None


def _nursery(names: Locals) -> str:
    children = list(get(names.get("self"), "_children") or ())
    named = ", ".join(f"task '{readable(get(c, 'name'))}'" for c in children[:3])
    more = ", ..." if len(children) > 3 else ""
    inside = f"{len(children)} ({named}{more})" if children else "none, and its own body"
    return f"a nursery of {inside}"


def _sleep_of(names: Locals) -> str:
    seconds = names.get("seconds")
    return f"sleep of {seconds:g} s" if type(seconds) in (int, float) else "sleep"


def _wait(names: Locals) -> str:
    return f"asyncio.wait of {_pending(names.get('fs'))}"


def _thread(names: Locals) -> str | None:
    func = names.get("func")
    return f"a thread job: {function_name(func)}" if callable(func) else None


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
        ("asyncio/tasks.py", name): _fixed("the next of asyncio.as_completed")
        for name in ("_AsCompletedIterator._wait_for_one", "as_completed.<locals>._wait_for_one")
    }
)
_TABLE.update(
    {
        (f"{folder}.py", name): words
        for folder, name, words in (
            ("_core/_eventloop", "sleep_forever", _fixed(_FOR_EVER)),
            ("_core/_synchronization", "Condition.wait", _fixed("anyio.Condition (not notified)")),
            ("_backends/_asyncio", "Event.wait", _fixed("anyio.Event (not set)")),
            ("_backends/_asyncio", "Lock.acquire", _fixed("anyio.Lock (locked)")),
            ("_backends/_asyncio", "Semaphore.acquire", _fixed("anyio.Semaphore (value 0)")),
            ("_backends/_asyncio", "CapacityLimiter.acquire", _fixed(_USED_UP)),
            ("_backends/_asyncio", "CapacityLimiter.acquire_on_behalf_of", _fixed(_USED_UP)),
            ("_backends/_asyncio", "Process.wait", _process),
            ("_backends/_asyncio", "SocketStream.receive", _stream("reading from")),
            ("_backends/_asyncio", "SocketStream.send", _stream("writing to")),
            (
                "_backends/_asyncio",
                "StreamReaderWrapper.receive",
                _fixed("output of a process"),
            ),
            ("_backends/_asyncio", "UNIXSocketStream.receive", _own_sock("recv")),
            ("_backends/_asyncio", "UNIXSocketStream.send", _own_sock("send")),
            ("_backends/_asyncio", "TCPSocketListener.accept", _own_sock("accept")),
            ("_backends/_asyncio", "UNIXSocketListener.accept", _own_sock("accept")),
            ("_backends/_asyncio", "AsyncIOBackend.wait_readable", _ready("something to read")),
            ("_backends/_asyncio", "AsyncIOBackend.wait_writable", _ready("room to write")),
        )
    }
)
_TABLE.update(
    {
        ("trio/_timeouts.py", "sleep"): _sleep_of,
        ("trio/_timeouts.py", "sleep_until"): _fixed("sleep"),
        ("trio/_timeouts.py", "sleep_forever"): _fixed(_FOR_EVER),
        ("trio/_sync.py", "Event.wait"): _fixed("trio.Event (not set)"),
        ("trio/_sync.py", "Condition.wait"): _fixed("trio.Condition (not notified)"),
        ("trio/_sync.py", "CapacityLimiter.acquire"): _fixed("trio.CapacityLimiter (used up)"),
        ("trio/_sync.py", "CapacityLimiter.acquire_on_behalf_of"): _fixed(
            "trio.CapacityLimiter (used up)"
        ),
        ("trio/_sync.py", "_LockImpl.acquire"): _fixed("trio.Lock (locked)"),
        ("trio/_sync.py", "Semaphore.acquire"): _fixed("trio.Semaphore (value 0)"),
        ("trio/_channel.py", "MemoryReceiveChannel.receive"): _fixed(
            "receive() on a memory channel"
        ),
        ("trio/_channel.py", "MemorySendChannel.send"): _fixed("send() on a full memory channel"),
        ("_core/_run.py", "Nursery._nested_child_finished"): _nursery,
        ("trio/_threads.py", "to_thread_run_sync"): lambda names: _thread(
            {"func": names.get("sync_fn")}
        ),
        ("trio/_subprocess.py", "Process.wait"): _process,
    }
)
_TABLE.update(
    {
        ("trio/_socket.py", f"_SocketType.{name}"): _own_sock(name)
        for name in ("accept", "recv", "recv_into", "recvfrom", "send", "sendto", "connect")
    }
)
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
    words = _TABLE.get(place(code))
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
    found = job_of(future)
    if found is None:
        return "a future of another thread"
    return f"a thread job: {found.name}" + (" (queued)" if found.state == "queued" else "")


def names_of(tasks: Iterable[object]) -> list[str]:
    """Return the sorted names of tasks."""
    return sorted({task_name(t).removeprefix("task ").strip("'") for t in tasks})
