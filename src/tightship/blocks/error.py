"""The exception that says what a block left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..model import Finding
from ..reporters import terminal

__all__ = ["LeakError", "message"]


class LeakError(AssertionError):
    """Something made within a block is still there at its end.

    Args:
        findings: what was left, at least one.
    """

    findings: tuple[Finding, ...]
    """What was left."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__(message(self.findings))

    def __reduce__(self) -> Any:
        """Travel between processes by its findings."""
        return type(self), (self.findings,)


# As everybody imports it: shorter in a traceback's last line.
LeakError.__module__ = "tightship"


def message(findings: Sequence[Finding]) -> str:
    """Return findings as text, several of them below a line that counts them."""
    text = terminal.report(findings)
    return text if len(findings) < 2 else f"{terminal.one_line(findings)}\n\n{text}"
