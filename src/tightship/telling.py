"""Telling: a survivor becomes a finding, in words.

Slow, and so only for what is shown. A finding keeps nothing alive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from . import origin
from .explain.holders import holder_path
from .explain.remedies import remedy
from .fingerprint import fingerprint
from .model import Evidence, Finding, Owner
from .roster import Roster
from .survivors import EVENTS, Survivor

__all__ = ["Telling", "finding_of"]

_TAILS = {
    "coroutine": "was never awaited in",
    "exception": "was never seen in",
    "unclosed": "was left open by",
}

#: Holders that hold everything of their kind: naming them explains nothing.
_REGISTRIES = (
    "event loop",
    "module _pytest",
    "module pytest",
    "module pluggy",
    "module threading",
    "module subprocess",
    "module tightship",
    "module asyncio",
    "module concurrent",
)


def finding_of(owner: Owner, kind: str, **said: Any) -> Finding:
    """Return a finding on this owner, with its remedy and fingerprint."""
    finding = Finding(
        kind=kind,
        owner=str(owner),
        owner_kind=owner.kind,
        owner_scope=owner.scope,
        nodeid=owner.nodeid,
        **said,
    )
    finding.fix = finding.fix or remedy(kind)
    finding.fingerprint = fingerprint(finding)
    return finding


class Telling:
    """Puts survivors into words.

    Args:
        roster: the probes that know the words.
        on_fault: called with (part, exception) if naming a holder fails.
        adopted_because: tells of a handle why somebody gave it to another owner.
    """

    def __init__(
        self,
        roster: Roster,
        on_fault: Callable[[str, BaseException], None],
        adopted_because: Callable[[Any], str],
    ) -> None:
        self.roster = roster
        self.on_fault = on_fault
        self._adopted_because = adopted_because

    def findings(self, chosen: Iterable[tuple[Survivor, list[Survivor]]]) -> list[Finding]:
        """Return a finding for each survivor, which names its parts."""
        findings = []
        for s, parts in chosen:
            finding = self.finding(s)
            finding.parts = [self._subject(p) for p in parts]
            findings.append(finding)
        return findings

    def finding(self, s: Survivor) -> Finding:
        """Return what there is to say of one survivor."""
        probe, handle, ask = s.probe, s.handle, self.roster.ask
        evidence = self._evidence(s)
        label = ask(probe, lambda: probe.label(handle), "?")
        raw = ask(probe, lambda: probe.made(handle), None)
        s.subject = evidence.subject
        facts = list(evidence.facts)
        stack = [f"{x.file}:{x.line}" for x in origin.stack_sites(raw or (), trim=False)]
        adopted = self._adopted_because(handle)
        if adopted:
            facts.append(("adopted", adopted))
        if probe.kind not in EVENTS:
            held = self._held(s)
            if held:
                facts.append(("held by", held))
        return finding_of(
            s.owner,
            probe.kind,
            label=label,
            subject=evidence.subject,
            certainty=s.certainty,
            made=evidence.made or origin.project_site(raw),
            facts=facts,
            fix=evidence.fix,
            reason=s.reason,
            tail=_TAILS.get(probe.kind, "outlived"),
            extra={"stack": stack} if stack else {},
        )

    def _subject(self, s: Survivor) -> str:
        return s.subject or self._evidence(s).subject

    def _evidence(self, s: Survivor) -> Evidence:
        nothing = Evidence(s.probe.kind)
        evidence: Evidence = self.roster.ask(s.probe, lambda: s.probe.explain(s.handle), nothing)
        return evidence

    def _held(self, s: Survivor) -> str:
        obj = s.object
        if obj is None:
            return ""
        try:
            path = holder_path(obj, ignore=_untouchable(), budget=0.05) or ""
            return "" if path.startswith(_REGISTRIES) or ".funcargs" in path else path
        except Exception as exc:
            self.on_fault("holders", exc)
            return ""
        finally:
            obj = None


def _untouchable() -> list[Any]:
    """Return what must not be asked for its referents.

    On 3.12 asyncio's C module shows the collector its list of free iterators; whoever takes
    one from there frees it twice, and the next pass over the heap never ends.
    """
    return [m for m in (sys.modules.get("_asyncio"),) if m is not None]
