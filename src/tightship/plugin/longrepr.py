"""What pytest shows for a test that left something behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..model import Finding
from ..reporters import terminal

__all__ = ["longrepr"]


def longrepr(findings: Sequence[Finding], limit: int, path: str, line: int) -> Any:
    """Return the findings as pytest represents an error.

    With a place and a first line of its own, so that the short summary, ``--tb=line`` and
    junitxml have one line that is complete; in a form that pytest-xdist can send.

    Args:
        findings: those that fail the test.
        limit: how many of a kind are shown.
        path: the test's file, if nothing is known about where the first one was made.
        line: the test's line.
    """
    text = terminal.report(findings, limit)
    try:
        from _pytest._code.code import (
            ReprEntryNative,
            ReprExceptionInfo,
            ReprFileLocation,
            ReprTraceback,
        )
    except ImportError:  # pytest's own: it may move
        return text
    made = findings[0].made
    place = (made.file, made.line) if made is not None else (path, line)
    return ReprExceptionInfo(
        reprtraceback=ReprTraceback([ReprEntryNative([text + "\n"])], None, "native"),
        reprcrash=ReprFileLocation(*place, terminal.one_line(findings)),
    )
