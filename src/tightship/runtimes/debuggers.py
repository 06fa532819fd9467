"""Is somebody debugging? Then no clock of ours may run: the person in front of it is the clock."""

from __future__ import annotations

import sys
from types import FrameType

__all__ = ["debugging"]

#: Where the frames of a debugger's prompt come from.
_PROMPTS = ("/bdb.py", "/pdb.py", "/_pytest/debugging.py")

#: Tracers that watch a program and never stop it.
_HARMLESS = ("coverage", "slipcover", "trace", "hunter", "viztracer", "cProfile", "profile")


def debugging(ident: int) -> str:
    """Return what holds a thread for a person, or an empty text.

    Args:
        ident: the thread whose time is limited.
    """
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is not None:
        tool = monitoring.get_tool(monitoring.DEBUGGER_ID)
        if tool is not None:
            return f"the debugger {tool!r}"
    pydevd = sys.modules.get("pydevd")
    if pydevd is not None:
        attached = getattr(pydevd, "get_global_debugger", None)
        if attached is not None and attached() is not None:
            return "the debugger pydevd"
    frame: FrameType | None = sys._current_frames().get(ident)
    while frame is not None:
        file = frame.f_code.co_filename.replace("\\", "/")
        if file.endswith(_PROMPTS[:2]) or (
            file.endswith(_PROMPTS[2]) and frame.f_code.co_name in ("set_trace", "_enter_pdb")
        ):
            return "a debugger's prompt"
        tracer = frame.f_trace
        if tracer is not None and not _let_go(tracer):
            module = getattr(tracer, "__module__", None) or type(tracer).__module__
            if str(module).partition(".")[0] not in _HARMLESS:
                return f"a trace function of {module}"
        frame = frame.f_back
    return ""


def _let_go(tracer: object) -> bool:
    """Tell whether a debugger is done that left its function in the frames it stood at.

    So pdb does, on "continue" without a breakpoint.
    """
    state = getattr(getattr(tracer, "__self__", None), "__dict__", {})
    return state.get("stoplineno") == -1 and not state.get("breaks", True)
