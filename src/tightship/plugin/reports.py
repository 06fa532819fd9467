"""What a test's reports say of its findings, and what the journal says of its reports.

A hook on every report would cost a clean test more than any other part of the plugin. So these
hooks are registered for as long as they are needed: while a test with findings is reported, or
for the whole run if there is a journal.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from ..config import MarkerPolicy
from ..model import Finding, Verdict
from ..policy import group
from ..reporters import terminal
from .longrepr import longrepr, timeout_longrepr

if TYPE_CHECKING:
    from .session import Attempt, TightshipSession

__all__ = ["JUDGED", "Reports"]

#: Ends the list of a watched test's markers: what is judged is judged.
JUDGED = MarkerPolicy("", enabled=True)


class Reports:
    """The plugin object that edits reports, and writes the journal's line of each test."""

    def __init__(self, session: TightshipSession) -> None:
        self.session = session
        self._outcome = "passed"
        self._seconds = 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put findings into the report of the teardown, where nothing swallows them."""
        report = yield
        session = self.session
        if call.excinfo is not None:
            self._timed_out(item, report, call.excinfo.value)
        beside = session.beside
        if beside is not None and beside.lines and report.failed:
            report.sections.append(("tightship", "\n".join(beside.lines)))
            beside.lines = []
        if session.journal is not None:
            self._note(report)
        if report.when != "teardown":
            return report
        attempt, session.attempt = session.attempt, None
        try:
            judged: list[Finding] = []
            if session.timeouts or (attempt is not None and attempt.findings):
                judged = self._judge(item, report, attempt)
            if session.journal is not None:
                self._write(item, report, judged, watched=attempt is not None)
        except Exception as exc:
            session.fault("report", exc)
        finally:
            if session.journal is None:
                session.config.pluginmanager.unregister(self)
        return report

    def _timed_out(self, item: pytest.Item, report: pytest.TestReport, exc: BaseException) -> None:
        """Show the diagnosis instead of a traceback through pytest's own lines."""
        errors = exc.exceptions if isinstance(exc, BaseExceptionGroup) else (exc,)
        findings = [getattr(error, "finding", None) for error in errors]
        if not all(f is not None and f.nodeid for f in findings):
            return  # of a block in a test, which its traceback shows; or there is more to it
        if report.failed:
            report.longrepr = timeout_longrepr(errors, item)
        elif hasattr(report, "wasxfail"):
            for finding in self.session.timeouts:
                if finding in findings:
                    finding.verdict, finding.reason = Verdict.NOTE, "the test is marked xfail"

    def _judge(
        self, item: pytest.Item, report: pytest.TestReport, attempt: Attempt | None
    ) -> list[Finding]:
        session = self.session
        judged: list[Finding] = []
        if attempt is not None:
            judged = session.policy.judge(
                group(attempt.findings),
                nodeid=report.nodeid,
                # Whoever got here is watched: the closest marker or the fixture says so.
                markers=[*session.markers(item), JUDGED],
                expectations=attempt.expectations,
                own_failure=attempt.has_failed(item) or report.failed,
            )
            if attempt.timed_out:
                # What it left is what it was doing when it was stopped. Later tests aren't told
                # of it either, since it has been found.
                judged = [f for f in judged if f.verdict is not Verdict.NOTE]
            attempt.findings = judged
        leaks, judged = judged, [*session.timeouts, *judged]
        session.timeouts = []
        shown = [f for f in leaks if f.verdict is not Verdict.ALLOWED]
        failing = [f for f in leaks if f.verdict is Verdict.FAIL]
        session.told(report, judged)
        limit = session.settings.max_findings
        if failing and report.outcome != "failed":
            report.outcome = "failed"
            path, line, _ = item.location
            report.longrepr = longrepr(failing, limit, path, (line or 0) + 1)
            shown = [f for f in shown if f.verdict is not Verdict.FAIL]
        if shown:
            # pytest shows a teardown's sections by this word.
            report.sections.append(("tightship after teardown", terminal.report(shown, limit)))
        return judged

    def _note(self, report: pytest.TestReport) -> None:
        """Keep what the journal says of a test's phases."""
        if report.when == "setup":
            self._outcome, self._seconds = "passed", 0.0
        self._seconds += report.duration
        outcome: str = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = {"skipped": "xfailed", "passed": "xpassed"}.get(outcome, outcome)
        if outcome != "passed" and self._outcome != "failed":
            self._outcome = outcome

    def _write(
        self, item: pytest.Item, report: pytest.TestReport, judged: list[Finding], *, watched: bool
    ) -> None:
        session = self.session
        record: dict[str, Any] = {
            "event": "test",
            "nodeid": report.nodeid,
            "outcome": "failed" if report.failed else self._outcome,
            "findings": [f.to_dict() for f in judged],
            "watched": watched,
            "seconds": round(self._seconds, 4),
            "attempt": getattr(item, "execution_count", 1),
            "pid": os.getpid(),
        }
        if session.worker:
            record["worker"] = session.config.workerinput["workerid"]  # type: ignore[attr-defined]
        session.tests += 1
        session.record(record)
