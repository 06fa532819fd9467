"""Policy: what becomes of a finding, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from .config import AllowRule, Config, MarkerPolicy, Threshold
from .model import Certainty, Finding, Verdict

if TYPE_CHECKING:
    from .known import Known

__all__ = ["Policy", "group"]

_LEAST: dict[Threshold, Certainty] = {
    "proven": Certainty.PROVEN,
    "strong": Certainty.STRONG,
    "possible": Certainty.POSSIBLE,
}

_CONSEQUENCE = "the test itself failed; its leak may be a consequence"


class Policy:
    """Judges findings, and counts which rules were of use.

    Args:
        config: the settings of the run.
        known: known library behaviour, the built-in list if not given; ignored if the
            settings switch it off.
    """

    def __init__(self, config: Config, known: Sequence[Known] | None = None) -> None:
        self.config = config
        self._known: Sequence[Known] | None = known if config.known else ()
        self._known_used: dict[Known, int] = {}
        self._rules: dict[str, AllowRule] = {}
        self._used: dict[str, int] = {}
        self.register(config.allow)

    # -- judging -------------------------------------------------------------------------

    def judge(
        self,
        findings: Sequence[Finding],
        *,
        nodeid: str,
        markers: Sequence[MarkerPolicy],
        expectations: Sequence[AllowRule] = (),
        own_failure: bool,
    ) -> list[Finding]:
        """Return the findings of one test with verdict and reason; changed ones are copies.

        A finding of which a rule covers a part (``count``) comes back as two.

        Args:
            findings: what was found; a verdict of ``slow`` or ``note`` stays unless a rule
                allows it.
            nodeid: the test during which they were found.
            markers: the test's markers, the closest first.
            expectations: rules that the test itself made while it ran.
            own_failure: whether the test failed by itself. What belongs to it is then only
                noted; what belongs to a wider fixture is not its consequence.
        """
        if not self.enabled(markers):
            return []
        rules = [*expectations, *(r for m in markers for r in m.rules), *self.config.allow]
        self.register(rules)
        left = {r.key: r.count for r in rules if r.count is not None}
        judged: list[Finding] = []
        for found in findings:
            finding = found
            level, where = self.threshold(finding.kind, markers)
            if level == "off":
                continue
            allowed, refused = self._allow(finding, rules, left, nodeid)
            if allowed is not None:
                judged.append(allowed)
                finding = finding.with_(count=finding.count - allowed.count)
            if finding.count > 0:
                judged.append(_verdict(finding, level, where, own_failure, refused))
        return judged

    def _allow(
        self,
        finding: Finding,
        rules: Sequence[AllowRule],
        left: dict[str, int],
        nodeid: str,
    ) -> tuple[Finding | None, str]:
        """Return the part that may be, if any, and why the rest may not."""
        refused = ""
        for rule in rules:
            if not rule.covers(finding.kind, finding.label, nodeid, finding.nodeid):
                continue
            if rule.expired:
                refused = refused or f"the rule that allowed it expired on {rule.until}{_at(rule)}"
                continue
            taken = min(left.get(rule.key, finding.count), finding.count)
            if rule.key in left:
                left[rule.key] -= taken
            # The closest rule wins: its limit is not lifted by a wider rule farther away.
            refused = "" if taken == finding.count else _beyond(rule)
            if not taken:
                return None, refused
            self._used[rule.key] += taken
            reason = f"allowed{_at(rule)}: {rule.reason}"
            return finding.with_(verdict=Verdict.ALLOWED, count=taken, reason=reason), refused
        for entry in self._matches(finding):
            used = self._known_used.get(entry, 0) + finding.count
            if entry.count is None or used <= entry.count:
                self._known_used[entry] = used
                reason = f"known: {entry.reason}"
                return finding.with_(verdict=Verdict.ALLOWED, reason=reason), ""
        return None, refused

    def _matches(self, finding: Finding) -> Iterable[Known]:
        # Loaded with the first finding: most runs have none.
        from .known import KNOWN, matches

        if self._known is None:
            self._known = KNOWN
        return matches(finding, self._known)

    def enabled(self, markers: Sequence[MarkerPolicy] = ()) -> bool:
        """Tell whether a test is looked at: the closest marker that says so, else the settings."""
        said = (m.enabled for m in markers if m.enabled is not None)
        return next(said, self.config.enabled)

    def grace(self, markers: Sequence[MarkerPolicy] = ()) -> float:
        """Return the cap of settling in seconds: the closest marker's, else the settings'."""
        return next((m.grace for m in markers if m.grace is not None), self.config.grace)

    def threshold(self, kind: str, markers: Sequence[MarkerPolicy] = ()) -> tuple[Threshold, str]:
        """Return a kind's threshold and the place that it came from.

        A marker beats the settings, the kind's own beats the general one, in this order.
        """
        for marker in markers:
            if kind in marker.thresholds:
                return marker.thresholds[kind], marker.where
        for marker in markers:
            if marker.threshold is not None:
                return marker.threshold, marker.where
        if kind in self.config.thresholds:
            return self.config.thresholds[kind], self.config.source(f"thresholds.{kind}")
        return self.config.threshold, self.config.source("threshold")

    # -- which rules were of use ---------------------------------------------------------

    def register(self, rules: Iterable[AllowRule]) -> None:
        """Make rules known, so that those never used can be named; twice is fine."""
        for rule in rules:
            key = rule.key
            if key not in self._rules:
                self._rules[key] = rule
                self._used.setdefault(key, 0)

    def unused(self) -> list[AllowRule]:
        """Return the rules that allowed nothing, without the expired ones."""
        return [r for k, r in self._rules.items() if not self._used[k] and not r.expired]

    def expired(self) -> list[AllowRule]:
        """Return the rules whose last day has passed."""
        return [r for r in self._rules.values() if r.expired]

    def usage(self) -> dict[str, int]:
        """Return rule (as `AllowRule.key`) -> findings allowed by it: plain JSON."""
        return dict(self._used)

    def merge_usage(self, usage: Mapping[str, int]) -> None:
        """Add what `usage` of another process returned.

        Raises:
            ValueError: if a key is not a rule's.
        """
        for key, count in usage.items():
            if key not in self._rules:
                self.register([AllowRule.from_key(key)])
            self._used[key] += count


def _verdict(
    finding: Finding, level: Threshold, where: str, own_failure: bool, refused: str
) -> Finding:
    reason = "; ".join(filter(None, (finding.reason, refused)))
    if finding.verdict in (Verdict.SLOW, Verdict.NOTE):  # whoever found it only wanted to say so
        return finding.with_(reason=reason)
    wide = finding.owner_kind == "fixture" and finding.owner_scope != "function"
    if own_failure and not wide:
        return finding.with_(verdict=Verdict.NOTE, reason=_CONSEQUENCE)
    if finding.certainty >= _LEAST[level]:
        return finding.with_(verdict=Verdict.FAIL, reason=reason)
    below = f"{finding.certainty} is below the threshold {level!r} ({where})"
    return finding.with_(
        verdict=Verdict.NOTE, reason="; ".join(filter(None, (finding.reason, below)))
    )


def _at(rule: AllowRule) -> str:
    return f" ({rule.where})" if rule.where else ""


def _beyond(rule: AllowRule) -> str:
    return f"more than the {rule.count} allowed by {rule.selector!r}{_at(rule)}"


def group(findings: Iterable[Finding]) -> list[Finding]:
    """Merge equal findings: their counts are added, everything else is the first one's.

    Equal are those of the same kind, label, owner, line of birth, certainty and verdict, whose
    subjects differ in digits at most. What different libraries made for one line stays apart: one
    may be known, and must not hide or blame the other. The time of slow closers is the longest.
    """
    from .fingerprint import erase_digits

    merged: dict[tuple[object, ...], Finding] = {}
    for f in findings:
        key = (
            f.kind,
            f.label,
            f.owner,
            f.made,
            erase_digits(f.subject),
            f.certainty,
            f.verdict,
            next((str(x).rpartition(":")[0] for x in f.extra.get("stack") or ()), ""),
        )
        first = merged.get(key)
        merged[key] = (
            f
            if first is None
            else first.with_(count=first.count + f.count, seconds=max(first.seconds, f.seconds))
        )
    return list(merged.values())
