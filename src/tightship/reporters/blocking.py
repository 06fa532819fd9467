"""Calls that held a loop, as text: one line for all of them, or a list by line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..model import Finding, Verdict

__all__ = ["KIND", "by_line", "calm", "in_short"]

KIND = "blocked-loop"

#: Tests named for one line.
_TESTS = 3


def calm(finding: Finding) -> bool:
    """Tell whether this is a mere note of a call that held a loop."""
    return finding.kind == KIND and finding.verdict is Verdict.NOTE


def in_short(findings: Sequence[Finding]) -> str:
    """Return one line for all of them."""
    calls = sum(f.count for f in findings)
    longest = max(findings, key=lambda f: f.seconds)
    limits = [f.extra["limit"] for f in findings]
    return (
        f"{_calls(calls)} held a loop for more than {min(limits):g} s "
        f"(longest {longest.seconds:.2f} s at {_place(longest)}); "
        "--tightship-blocked=collect lists them"
    )


def by_line(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield the lines of a list, that which took the most time first."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(_place(finding), []).append(finding)
    if not groups:
        yield "no call held a loop"
        return
    yield "calls that held a loop, by line:"
    for same in sorted(groups.values(), key=_total, reverse=True):
        longest = max(same, key=lambda f: f.seconds)
        calls = sum(f.count for f in same)
        source = longest.made.source if longest.made is not None else longest.subject
        yield (
            f"  {_total(same):.2f} s in {_calls(calls)}, longest {longest.seconds:.2f} s  "
            f"{_place(longest)}   {source}"
        )
        owners = list(dict.fromkeys(f.nodeid or f.owner for f in same))
        more = f" and {len(owners) - _TESTS} more" if len(owners) > _TESTS else ""
        yield f"    in   {', '.join(owners[:_TESTS])}{more}"
        yield f"    fix  {longest.fix}"


def _calls(number: int) -> str:
    return "1 call" if number == 1 else f"{number} calls"


def _total(findings: Sequence[Finding]) -> float:
    return sum(float(f.extra["total"]) for f in findings)


def _place(finding: Finding) -> str:
    made = finding.made
    return finding.owner if made is None else f"{made.file}:{made.line}"
