"""Findings as text for a terminal: five lines each, always in the same order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..model import Finding, Verdict

__all__ = ["SAME_KIND", "closing", "one_line", "report", "report_one"]

#: Findings of one kind shown in full for one test; then "and N more".
SAME_KIND = 10

_WIDTH = 10

#: Writes one line; the second argument is a style word: "bold", "red", "yellow", "" ...
Style = Callable[[str, str], str]


def _plain(text: str, style: str) -> str:
    return text


def report_one(finding: Finding, style: Style = _plain) -> list[str]:
    """Return a finding's lines."""
    colour = "red" if finding.verdict is Verdict.FAIL else "yellow"
    word = "slow" if finding.verdict is Verdict.SLOW else str(finding.certainty)
    headline = finding.headline
    gap = max(2, 72 - len(headline))
    lines = [style(headline, colour) + " " * gap + f"({word})"]

    def add(name: str, text: str) -> None:
        lines.append(f"  {name:<{_WIDTH}} {text}")

    if finding.made is not None:
        add("made", str(finding.made))
    if finding.verdict is Verdict.SLOW:
        add("gone", f"by itself, {finding.seconds:.2f} s after its owner had ended")
    for name, text in finding.facts:
        add(name, text)
    if finding.parts:
        shown = ", ".join(finding.parts[:4])
        more = f" and {len(finding.parts) - 4} more" if len(finding.parts) > 4 else ""
        add("with it", shown + more)
    outlived = finding.extra.get("outlived", 0)
    if outlived:
        add("still open", f"{outlived} test{'s' if outlived > 1 else ''} later")
    if finding.reason:
        add("because", finding.reason)
    if finding.verdict is not Verdict.ALLOWED:
        add("fix", finding.fix)
        if finding.verdict is Verdict.FAIL:
            add("allow", style(finding.allow, "dim"))
    return lines


def report(findings: Sequence[Finding], limit: int = SAME_KIND, style: Style = _plain) -> str:
    """Return all findings of one test, a blank line between them."""
    shown: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    blocks = []
    for finding in findings:
        if shown[finding.kind] >= limit:
            hidden[finding.kind] += finding.count
            continue
        shown[finding.kind] += 1
        blocks.append("\n".join(report_one(finding, style)))
    blocks += [f"and {n} more of kind {kind}" for kind, n in hidden.items()]
    return "\n\n".join(blocks)


def one_line(findings: Sequence[Finding]) -> str:
    """Return the headline for pytest's short summary."""
    first = findings[0].headline
    more = len(findings) - 1
    return f"{first} (and {more} more)" if more else first


def closing(findings: Iterable[Finding]) -> str:
    """Return the counts by kind and by owner, for the last line."""
    kinds: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    total = timeouts = 0
    for finding in findings:
        if finding.kind == "timeout":
            timeouts += finding.count
            continue
        total += finding.count
        kinds[finding.kind] += finding.count
        owners["fixtures" if finding.owner_kind == "fixture" else "tests"] += finding.count
    said = f"{timeouts} timeout{'s' * (timeouts > 1)}; " if timeouts else ""
    if not total:
        return f"{said}0 leaks"
    by_kind = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
    by_owner = ", ".join(f"{n} left by {who}" for who, n in owners.most_common())
    return f"{said}{total} leak{'s' if total > 1 else ''}: {by_kind}; {by_owner}"
