"""What a frame is calling at this moment, if that is a function in C.

A thread that is blocked in C has no frame that would say so: `lock.acquire`, `time.sleep` and
`recv` are only visible as the call that the innermost Python frame is in.
"""

from __future__ import annotations

import ast
import dis
import linecache
from itertools import islice
from types import FrameType

__all__ = ["callee"]


def callee(frame: FrameType) -> str:
    """Return what a frame calls, as its author wrote it: ``time.sleep``, ``self._lock.acquire``.

    ``with lock`` for a lock that is being entered; empty if it is at no call, or at one whose
    source cannot be had. Says something about what goes on only for a thread's innermost frame.
    """
    try:
        return _callee(frame)
    except Exception:
        return ""


def _callee(frame: FrameType) -> str:
    code, lasti = frame.f_code, frame.f_lasti
    if lasti < 0:
        return ""
    name = dis.opname[code.co_code[lasti]]
    entering = name in ("BEFORE_WITH", "LOAD_SPECIAL")
    if not name.startswith(("CALL", "PRECALL")) and not entering:
        return ""
    positions = next(islice(code.co_positions(), lasti // 2, None), None)
    if positions is None or None in positions:
        return ""
    text = _segment(code.co_filename, *positions)  # type: ignore[arg-type]
    if entering:  # 3.11 gives the whole statement, later versions the expression alone
        return text.partition(":")[0] if text.startswith("with ") else f"with {text}"
    tree = ast.parse(text, mode="eval").body
    called = ast.unparse(tree.func) if isinstance(tree, ast.Call) else ""
    return called if len(called) <= 60 else called[:57] + "..."


def _segment(file: str, line: int, end: int, start: int, stop: int) -> str:
    if end - line > 20:
        return ""
    # The columns are those of UTF-8.
    lines = [linecache.getline(file, n).encode() for n in range(line, end + 1)]
    lines[-1] = lines[-1][:stop]
    lines[0] = lines[0][start:]
    return b"".join(lines).decode().strip()
