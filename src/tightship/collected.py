"""Findings about what was unreachable, and only the garbage collector closed."""

from __future__ import annotations

from collections.abc import Sequence

from . import origin
from .garbage import Garbage
from .looking import Looking
from .model import Certainty, Finding, Key, Owner
from .probes.unclosed import UNCLOSED, described, pid_of
from .reported import Reported
from .telling import finding_of

__all__ = ["Collected"]

#: Types that have a kind; all others are ``unclosed``.
_KINDS = {
    "socket": "socket",
    "SSLSocket": "socket",
    "TextIOWrapper": "file",
    "BufferedReader": "file",
    "BufferedWriter": "file",
    "BufferedRandom": "file",
    "FileIO": "file",
    "Connection": "sqlite3",
    "Popen": "process",
    "TemporaryDirectory": "tempfile",
    "_TemporaryFileCloser": "file",
    "_UnixSelectorEventLoop": "loop",
    "_SelectorSocketTransport": "transport",
    "_SelectorDatagramTransport": "transport",
    "_UnixReadPipeTransport": "transport",
    "_UnixWritePipeTransport": "transport",
    "Loop": "loop",
}

_STATE = ("state", "unreachable and never closed: only the garbage collector did")


class Collected:
    """Tells of garbage.

    Args:
        looking: says which children are still there.
        reported: knows what was told of when its loop closed.
    """

    def __init__(self, looking: Looking, reported: Reported) -> None:
        self.looking = looking
        self.reported = reported

    def findings(
        self, garbage: Sequence[Garbage], test: Owner, *, streams_told: bool = False
    ) -> list[Finding]:
        """Return a finding for each that was not told of otherwise.

        Args:
            garbage: what died.
            test: owns what has no known owner.
            streams_told: a loop that closed was told of: so were its streams.
        """
        children: set[Key] = set()
        if any(pid_of(g.text) is not None for g in garbage):
            children = self.looking.keys(lambda probe: probe.kind == "process")
        findings = []
        for g in garbage:
            if any(u.told(g.text) for u in UNCLOSED):
                continue
            if g.text == "loop is closed" and streams_told:
                # A stream writer whose transport was told of when the loop closed.
                continue
            if self.reported.had(g.source):
                continue
            pid = pid_of(g.text)
            if pid is not None and ("pid", pid) in children:
                continue  # the child is still there, and is told of itself
            if "SubprocessTransport" in g.type_name and any(
                o is not g and pid_of(o.text) == pid for o in garbage
            ):
                continue  # told of by the process object that it is made of
            findings.append(_finding(g, test, pid))
        return findings


def _finding(g: Garbage, test: Owner, pid: int | None) -> Finding:
    birth = g.birth
    kind = _KINDS.get(g.type_name, "unclosed")
    label, subject = described(kind, g.type_name, g.text.removeprefix("unclosed "))
    if pid is not None and g.program:
        # Whether the collector's kill or our look came first: the same words.
        label, subject = g.program, f"process {g.program!r}"
    return finding_of(
        birth.owner if birth is not None and birth.owner is not None else test,
        kind,
        label=label,
        subject=subject,
        certainty=Certainty.PROVEN,
        made=origin.project_site(birth.made) if birth is not None else None,
        facts=[_STATE],
        tail="was left open by",
    )
