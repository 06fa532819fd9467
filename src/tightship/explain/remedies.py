"""What to write instead, kind by kind, in the words of the API that made the thing.

A table that grows as kinds come. A probe that knows better says so in its evidence.
"""

from __future__ import annotations

__all__ = ["REMEDIES", "remedy"]

REMEDIES: dict[str, str] = {
    "task": "cancel and await it before the test returns, or let asyncio.TaskGroup own it",
    "timer": "keep the handle and call handle.cancel()",
    "reader": "call loop.remove_reader(fd) or loop.remove_writer(fd) before closing the descriptor",
    "server": "server.close() and await server.wait_closed(), or use 'async with server:'",
    "transport": "transport.close(), then give the loop a turn",
    "asyncgen": "await agen.aclose(), or iterate inside 'async with contextlib.aclosing(agen):'",
    "coroutine": "await it, or hand it to asyncio.create_task",
    "exception": "await the task so that its exception is seen",
    "loop": "loop.close(), or let asyncio.Runner or asyncio.run own the loop",
    "executor": "executor.shutdown(), or use it in a with block",
    "process": "process.terminate(), then process.wait() (await it for asyncio's)",
    "thread": "tell it to stop, then thread.join() it",
    "native-thread": "close the object whose library started it",
    "sqlite3": "connection.close(); 'with connection:' only commits, contextlib.closing closes",
    "shared-memory": "block.close() in every process, block.unlink() in one",
    "mmap": "mapping.close(), or use it in a with block",
    "tempfile": "remove it, or use pytest's tmp_path",
    "socket": "sock.close(), or use it in a with block",
    "pipe": "os.close both ends",
    "file": "file.close(), or open it in a with block",
    "fd": "os.close it",
    "unclosed": "close it where it is used last: until the collector ran, it stayed open",
}


def remedy(kind: str) -> str:
    """Return the remedy for a kind, or a general one for kinds of other packages."""
    return REMEDIES.get(kind, "close it before its owner ends")
