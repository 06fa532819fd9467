"""What held a loop: the call, the line, and what to write instead.

A stack here is a tuple of (code object, instruction) pairs, innermost first, from the loop's own
frame inwards, as it was taken from another thread while the call was under way.
"""

from __future__ import annotations

import linecache
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from types import CodeType, FrameType

from ..model import Site
from ..origin import describe, layer, stack_sites
from .frames import OWN

__all__ = [
    "Pair",
    "Stack",
    "by_debugger",
    "call_text",
    "culprit",
    "inwards",
    "line_of",
    "remedy",
    "sites",
]

Pair = tuple[CodeType, int]
Stack = tuple[Pair, ...]

_DEEP = 60


def inwards(frame: FrameType | None) -> Stack:
    """Return the stack from a thread's innermost frame out to the loop that it runs."""
    pairs: list[Pair] = []
    while frame is not None and len(pairs) < _DEEP:
        code = frame.f_code
        if code.co_name in _LOOP and code.co_filename.endswith(_LOOP[code.co_name]):
            # A callback that is C code has no frame of its own.
            return tuple(pairs) or ((code, frame.f_lasti),)
        pairs.append((code, frame.f_lasti))
        frame = frame.f_back
    return tuple(pairs)


#: Where a loop's own code begins; of uvloop, which has no frames, its runner's is seen.
_LOOP = {
    "_run": "asyncio/events.py",
    "_run_once": "asyncio/base_events.py",
    "run_until_complete": "asyncio/base_events.py",
    "run": "asyncio/runners.py",
}

_DEBUGGERS = ("/pdb.py", "/bdb.py", "/pydevd", "/_pydevd", "/debugpy/", "/IPython/core/debugger")


def by_debugger(stack: Stack) -> bool:
    """Tell whether somebody holds the program at a breakpoint."""
    return any(part in code.co_filename for code, _ in stack for part in _DEBUGGERS)


def culprit(stacks: Sequence[Stack]) -> tuple[Pair, Stack, bool]:
    """Return the pair that a reader would call "the line that held the loop", and its stack.

    That is the innermost frame of the project itself in which the thread stood all the time;
    failing that of a library; failing that the innermost one. Its line is the most frequent one.
    The last value tells whether that frame waited for one call all the time.
    """
    outwards = [stack[::-1] for stack in stacks]
    depth = 0
    for level in zip(*outwards, strict=False):
        if any(code is not level[0][0] for code, _ in level):
            break
        depth += 1
    depth = max(depth, 1)
    common = outwards[0][:depth]
    ranks = [
        2 if code.co_filename.startswith(OWN) else layer(code.co_filename) for code, _ in common
    ]
    at = next((n for rank in (0, 1) for n in reversed(range(depth)) if ranks[n] == rank), depth - 1)
    counted = Counter(stack[at][1] for stack in outwards)
    often = counted.most_common(1)[0][0]
    chosen = next(stack for stack in outwards if stack[at][1] == often)
    return chosen[at], chosen[::-1], len(counted) == 1 and _in_call(chosen[at])


def _in_call(pair: Pair) -> bool:
    """Tell whether a frame can stand there because of a call, and not of a loop of its own.

    Code that only computes gives way to other threads where it jumps back.
    """
    from dis import opname

    code, lasti = pair
    name = opname[code.co_code[lasti]] if lasti < len(code.co_code) else ""
    return not name.startswith(("JUMP_BACKWARD", "RESUME"))


def line_of(pair: Pair) -> int:
    """Return a pair's line number."""
    code, lasti = pair
    for start, end, line in code.co_lines():
        if start <= lasti < end and line is not None:
            return line
    return code.co_firstlineno


def sites(stack: Stack) -> list[Site]:
    """Return a stack as sites, without ours."""
    return stack_sites([p for p in stack if not p[0].co_filename.startswith(OWN)], trim=False)


def call_text(code: CodeType, lasti: int, limit: int = 60) -> str:
    """Return the text of the call that is under way: ``time.sleep(0.2)``."""
    place = next(islice(code.co_positions(), lasti // 2, None), None)
    text = ""
    if place is not None and None not in place:
        first, last, begin, end = place
        assert first is not None
        assert last is not None
        lines = [linecache.getline(code.co_filename, n) for n in range(first, last + 1)]
        if all(lines):
            # Columns are counted in bytes.
            raw = [line.encode() for line in lines]
            raw[-1] = raw[-1][:end]
            raw[0] = raw[0][begin:]
            text = " ".join(b"".join(raw).decode(errors="replace").split())
    text = text or describe(code, lasti).source or code.co_qualname
    return text if len(text) <= limit else text[: limit - 3] + "..."


# -- what to write instead ---------------------------------------------------------------------

_THREAD = "await asyncio.to_thread(...)"

#: By the code that the call went into: part of a file's name -> remedy. The outermost one counts.
_FILES: tuple[tuple[str, str], ...] = (
    ("importlib._bootstrap", "import it at the top of the module, before a loop runs"),
    ("/requests/", f"use httpx.AsyncClient or aiohttp.ClientSession, or {_THREAD}"),
    ("/urllib3/", f"use httpx.AsyncClient or aiohttp.ClientSession, or {_THREAD}"),
    ("/urllib/request.py", f"use httpx.AsyncClient or aiohttp.ClientSession, or {_THREAD}"),
    ("/http/client.py", f"use httpx.AsyncClient or aiohttp.ClientSession, or {_THREAD}"),
    ("/subprocess.py", "await asyncio.create_subprocess_exec(...), then await its communicate()"),
    ("/concurrent/futures/_base.py", "await asyncio.wrap_future(future)"),
    ("/concurrent/futures/", f"shut the executor down in a thread: {_THREAD}"),
    ("/multiprocessing/", _THREAD),
    ("/queue.py", f"use asyncio.Queue, or {_THREAD} if the other end is a thread"),
    ("/threading.py", f"use asyncio's Lock, Event or Condition, or {_THREAD} to wait for a thread"),
    ("/ssl.py", "use asyncio.open_connection(..., ssl=context)"),
    ("/socket.py", "use asyncio.open_connection, or loop.sock_connect and its like"),
    ("/shutil.py", _THREAD),
    ("/pathlib", _THREAD),
    ("/redis/", "use redis.asyncio"),
    ("/pymysql/", "use aiomysql or asyncmy, or " + _THREAD),
    ("/pymongo/", "use pymongo.AsyncMongoClient"),
)

#: By the text of the call.
_TEXTS: tuple[tuple[str, str], ...] = (
    (r"\b(time\.)?sleep\(", "await asyncio.sleep(...)"),
    (r"\b(subprocess\.|os\.system|os\.popen|os\.wait|Popen\b)", _FILES[5][1]),
    (r"\brequests?\.", _FILES[1][1]),
    (r"\burlopen\(", _FILES[3][1]),
    (r"\b(getaddrinfo|gethostby\w+)\(", "await loop.getaddrinfo(...)"),
    (r"\bcreate_connection\(", "await asyncio.open_connection(...)"),
    (r"\.(recv|recv_into|recvfrom|accept|connect|sendall|sendto)\(", "await loop.sock_...(...)"),
    (r"\.acquire\(|^with .*[lL]ock", "use asyncio.Lock, or " + _THREAD),
    (r"\.result\(", "await asyncio.wrap_future(future)"),
    (r"\binput\(", _THREAD),
    (r"\b(psycopg2?)\.", "use psycopg.AsyncConnection or asyncpg"),
    (
        r"\.(execute|executemany|commit|fetch\w*)\(",
        "use the driver's async interface, or " + _THREAD,
    ),
)


def remedy(call: str, stack: Stack, line: Pair, computing: bool) -> str:
    """Return what to write instead.

    Args:
        call: the call's text.
        stack: where the thread stood, innermost first.
        line: the pair of the stack that made the call.
        computing: whether it worked all the time, rather than waited.
    """
    if not computing or call.startswith("import "):
        for code, _ in reversed(stack[: stack.index(line)]):
            for part, text in _FILES:
                if part in code.co_filename:
                    return text
        for pattern, text in _TEXTS:
            if re.search(pattern, call):
                return text
        return f"{_THREAD}, or its library's async interface"
    if any("importlib._bootstrap" in code.co_filename for code, _ in stack):
        return _FILES[0][1]
    return f"{_THREAD}; a process pool if it shall run beside the loop's own work"
