"""What pytest shows for a test that left something behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..model import Finding
from ..reporters import terminal

__all__ = ["longrepr", "native", "timeout_longrepr"]


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
    made = findings[0].made
    place = (made.file, made.line) if made is not None else (path, line)
    return native(terminal.report(findings, limit), place, terminal.one_line(findings))


def timeout_longrepr(errors: Sequence[Any], item: Any) -> Any:
    """Return what is shown for a test whose time was up.

    Args:
        errors: each `TightshipTimeout`: one, or those of several fixtures.
        item: the test.
    """
    finding = errors[0].finding
    made = finding.made
    path, line, _ = item.location
    place = (made.file, made.line) if made is not None else (path, (line or 0) + 1)
    # pytest names the test before it: what is new comes first.
    headline = f"{finding.tail} ({_part(finding.subject)})"
    return native("\n\n".join(error.report for error in errors), place, headline)


def _part(subject: str) -> str:
    return subject.partition(" (")[2].removesuffix(")") or subject


def native(text: str, place: tuple[str, int], headline: str) -> Any:
    """Return a text as pytest represents an error, with its place and its one line."""
    try:
        from _pytest._code.code import (
            ReprEntryNative,
            ReprExceptionInfo,
            ReprFileLocation,
            ReprTraceback,
        )
    except ImportError:  # pytest's own: it may move
        return text
    return ReprExceptionInfo(
        reprtraceback=ReprTraceback([ReprEntryNative([text + "\n"])], None, "native"),
        reprcrash=ReprFileLocation(*place, headline),
    )
