"""The lines that Tightship adds to pytest's header and summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model import Finding, Verdict
from ..probes import MOMENTS
from ..reporters import blocking, terminal

if TYPE_CHECKING:
    from .session import TightshipSession

__all__ = ["header", "write"]


def header(session: TightshipSession) -> str | None:
    """Return the header: what is watched, from which certainty on a test fails, what can't be."""
    from .. import __version__
    from ..window import blind_spots

    if not session.settings.enabled:
        return f"tightship-{__version__}: off (watches tests that ask for it)"
    kinds = [k for k in session.kinds if k not in MOMENTS]
    off = [k for k in kinds if session.settings.thresholds.get(k) == "off"]
    text = f"tightship-{__version__}: {len(kinds) - len(off)} kinds watched"
    level = session.settings.threshold
    text += f", a test fails from {level!r} on" if level != "off" else ", no test fails"
    if off:
        text += f"; off: {', '.join(off)}"
    blind = blind_spots()
    if blind:
        text += "; cannot see: " + "; ".join(blind)
    return text


def write(session: TightshipSession, reporter: Any) -> None:
    """Write the section: one line per finding, then the counts."""
    findings = session.findings
    failing = [f for f in findings if f.verdict is Verdict.FAIL]
    notes = [f for f in findings if f.verdict in (Verdict.NOTE, Verdict.SLOW)]
    allowed = [f for f in findings if f.verdict is Verdict.ALLOWED]
    verbose = session.config.option.verbose
    collect = session.settings.blocked == "collect"
    held = [f for f in notes if blocking.calm(f)]
    if collect or verbose < 1:
        notes = [f for f in notes if not blocking.calm(f)]
    unused = session.policy.unused() if session.complete else []
    expired = session.policy.expired()
    if session.bad_markers:
        for line in ("tightship: bad marker", *session.bad_markers):
            first = "ERROR: " if line.startswith("tightship:") else ""
            reporter.write_line(first + line, red=True)
        return
    budgets = session.budgets()
    more = session.faults or session.mistakes or unused or expired or budgets
    if not (failing or notes or held or collect or more or (allowed and verbose >= 1)):
        return
    # Else the first line would be broken where pytest's progress ended without a failure.
    reporter.ensure_newline()
    reporter.section("tightship", sep="=", blue=True)
    _leaks(reporter, failing, session.settings.max_findings, verbose)
    _some(reporter, "SLOW ", [f for f in notes if f.verdict is Verdict.SLOW], verbose)
    _some(reporter, "NOTE ", [f for f in notes if f.verdict is Verdict.NOTE], verbose)
    if collect:
        for line in blocking.by_line([f for f in findings if f.kind == blocking.KIND]):
            reporter.write_line(line)
    elif held and verbose < 1:
        reporter.write("NOTE ", yellow=True)
        reporter.write_line(blocking.in_short(held))
    if verbose >= 1:
        _some(reporter, "ALLOWED ", allowed, verbose)
    for record in budgets:
        reporter.write_line(str(record))
    for rule in expired:
        reporter.write_line(
            f"allow rule {rule.kind}:{rule.label} ({rule.where}) expired on {rule.until}"
        )
    for rule in unused:
        reporter.write_line(
            f"allow rule {rule.kind}:{rule.label} ({rule.where}) was never used: remove it?"
        )
    for mistake in session.mistakes:
        reporter.write("IGNORED ", yellow=True)
        reporter.write_line(f"a marker that was added while its test ran: {mistake}")
    for part, text in session.faults.items():
        reporter.write("FAULT ", yellow=True)
        reporter.write_line(
            f"Tightship's own part '{part}' failed and was switched off: {text}. "
            "No test's outcome was changed by this; please report it."
        )
    if failing or notes:
        extra = []
        slow = sum(f.count for f in notes if f.verdict is Verdict.SLOW)
        noted = sum(f.count for f in notes if f.verdict is Verdict.NOTE)
        if slow:
            extra.append(f"{slow} slow to close")
        if noted:
            extra.append(f"{noted} noted")
        if allowed:
            extra.append(f"{sum(f.count for f in allowed)} allowed")
        line = terminal.closing(failing)
        if extra:
            line += " (" + ", ".join(extra) + ")"
        reporter.write_line(line, red=bool(failing), yellow=not failing, bold=True)


def _line(finding: Finding) -> str:
    made = f"  {finding.made.file}:{finding.made.line}" if finding.made is not None else ""
    outlived = finding.extra.get("outlived", 0)
    last = finding.extra.get("outlived_last", "")
    after = f", after {last}" if last else ""
    still = f"  [still open {outlived} test{'s' * (outlived > 1)} later{after}]" if outlived else ""
    where = f"  ({finding.nodeid})" if finding.owner_kind == "fixture" else ""
    return f"{finding.headline}{made}{where}{still}"


def _leaks(reporter: Any, failing: list[Finding], limit: int, verbose: int) -> None:
    """Write a line for each leak, but no more of one kind and owner than a report shows."""
    shown: dict[tuple[str, str, str], int] = {}
    hidden: dict[tuple[str, str, str], int] = {}
    for finding in failing:
        key = finding.kind, finding.owner, finding.nodeid
        if shown.get(key, 0) >= limit and verbose < 1:
            hidden[key] = hidden.get(key, 0) + finding.count
            continue
        shown[key] = shown.get(key, 0) + 1
        reporter.write("TIMEOUT " if finding.kind == "timeout" else "LEAK ", red=True)
        reporter.write_line(_line(finding))
    for (kind, owner, _), count in hidden.items():
        reporter.write("LEAK ", red=True)
        reporter.write_line(f"and {count} more of kind {kind} in {owner} (-v shows all)")


def _some(reporter: Any, word: str, findings: list[Finding], verbose: int) -> None:
    """Write a line for each, but one for all that say the same of different tests."""
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for number, finding in enumerate(findings):
        apart = str(number) if verbose >= 1 else ""
        key = finding.kind, finding.label, finding.tail, finding.reason, apart
        alike.setdefault(key, []).append(finding)
    limit = len(alike) if verbose >= 1 else 10
    for same in list(alike.values())[:limit]:
        finding = max(same, key=lambda f: f.seconds)
        reporter.write(word, yellow=True)
        seconds = f"  {finding.seconds:.2f} s" if finding.verdict is Verdict.SLOW else ""
        more = f"  [and {len(same) - 1} like it elsewhere]" if len(same) > 1 else ""
        because = f"  ({finding.reason})" if finding.reason else ""
        reporter.write_line(_line(finding) + seconds + more + because)
    if len(alike) > limit:
        left = sum(len(same) for same in list(alike.values())[limit:])
        reporter.write_line(f"{word}and {left} more (-v shows all)")
