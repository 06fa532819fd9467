"""One test session: hooks that tell the watch who begins and who ends, and pass on findings."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest

from .. import origin
from ..config import Config, ConfigError, from_marker, load
from ..journal import SCHEMA, Journal, JournalError
from ..model import Finding, Owner, Verdict
from ..ownership import CURRENT
from ..policy import Policy, group
from ..probes import KINDS
from ..reporters import terminal
from ..watch import Watch

__all__ = ["TightshipSession"]

_WIDE = {"class", "module", "package", "session"}


@dataclass(slots=True)
class _State:
    """What we remember of one run of one test."""

    owner: Owner
    failed: bool = False
    raised: bool = False
    findings: list[Finding] = field(default_factory=list)
    expectations: list[Any] = field(default_factory=list)


class TightshipSession:
    """The plugin object that is registered while a session runs."""

    def __init__(self, config: pytest.Config, settings: Config, extra: list[Any]) -> None:
        self.config = config
        self.settings = settings
        self.kinds: tuple[str, ...] = (*KINDS, *(p.kind for p in extra))
        self.policy = Policy(settings)
        self.worker = hasattr(config, "workerinput")
        self.watch = Watch(grace=settings.grace, on_fault=self._fault)
        self.extra = extra
        self.faults: dict[str, str] = {}
        self.findings: list[Finding] = []
        self.tests = 0
        self.journal: Journal | None = None
        self.state: _State | None = None
        self._owners: dict[Any, Owner] = {}
        self.session_owner = Owner("the session", "session", "session")

    # -- beginning and end -----------------------------------------------------------------

    @classmethod
    def from_config(cls, config: pytest.Config) -> TightshipSession:
        """Read the configuration; bad input ends the run with one clear message."""
        option = config.option
        cli = {
            "enabled": None
            if option.tightship_enabled is None
            else option.tightship_enabled == "on",
            "threshold": option.tightship_threshold,
            "allow": option.tightship_allow,
            "grace": option.tightship_grace,
            "journal": option.tightship_journal,
            "fail_on_fault": option.tightship_fail_on_fault,
        }
        extra, broken = _foreign_probes()
        kinds = (*KINDS, *(p.kind for p in extra))
        try:
            settings = load(
                config.rootpath, env=os.environ, cli=cli, kinds=kinds, today=datetime.date.today()
            )
        except ConfigError as exc:
            raise pytest.UsageError(f"tightship: {exc}") from None
        session = cls(config, settings, extra)
        session.faults.update(broken)
        origin.set_root(str(config.rootpath))
        if settings.journal is not None and not config.option.collectonly:
            path = config.rootpath / settings.journal
            try:
                session.journal = Journal(path, fresh=not session.worker)
            except JournalError as exc:
                raise pytest.UsageError(f"tightship: {exc}") from None
        if settings.enabled and not config.option.collectonly:
            session.start()
        return session

    def start(self) -> None:
        """Begin to watch."""
        if self.watch.installed:
            return
        self.watch.install()
        for probe in self.extra:
            try:
                self.watch.add_probe(probe)
            except TypeError as exc:
                self._fault(getattr(probe, "kind", repr(probe)), exc)
        if self.journal is not None:
            from ..probes.fdtable import OWN

            OWN.add(self.journal.fd)

    def close(self) -> None:
        """Stop watching and undo everything."""
        try:
            self.watch.uninstall()
        finally:
            if self.journal is not None:
                self.journal.close()

    def wide_owners(self) -> list[Owner]:
        """Return fixtures wider than a test that are set up."""
        return list(self._owners.values())

    def _fault(self, part: str, exc: BaseException) -> None:
        where = ""
        tb = exc.__traceback__
        while tb is not None:
            where = f" ({os.path.basename(tb.tb_frame.f_code.co_filename)}:{tb.tb_lineno})"
            tb = tb.tb_next
        self.faults.setdefault(part, f"{type(exc).__name__}: {exc}{where}")

    # -- collection ------------------------------------------------------------------------

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse bad markers before the first test runs, all of them at once."""
        errors: dict[str, None] = {}
        for item in items:
            for mark in item.iter_markers("tightship"):
                try:
                    self._marker(item, mark)
                except ConfigError as exc:
                    errors[f"{item.nodeid}: {exc}"] = None
        if errors:
            lines = list(errors)
            more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
            raise pytest.UsageError("tightship: bad marker\n" + "\n".join(lines[:10] + more))

    def _marker(self, item: pytest.Item, mark: pytest.Mark) -> Any:
        return from_marker(
            mark.args,
            mark.kwargs,
            kinds=self.kinds,
            where="@pytest.mark.tightship",
            today=datetime.date.today(),
        )

    def _markers(self, item: pytest.Item) -> list[Any]:
        found = []
        for mark in item.iter_markers("tightship"):
            try:
                found.append(self._marker(item, mark))
            except ConfigError as exc:  # a marker added while the test ran
                self._fault("marker", exc)
        return found

    def _watched(self, item: pytest.Item) -> bool:
        for mark in item.iter_markers("tightship"):
            enabled = mark.kwargs.get("enabled")
            if enabled is not None:
                return bool(enabled)
        return self.settings.enabled or "tightship" in getattr(item, "fixturenames", ())

    # -- a test's way ----------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Say that the test begins, before any fixture does."""
        self.state = None
        if self._watched(item):
            if not self.watch.installed:
                self.start()
            self.state = _State(Owner(item.name, nodeid=item.nodeid))
            self.watch.begin(self.state.owner)
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Say that the test has ended, after all fixtures that end with it have."""
        try:
            return (yield)
        finally:
            state = self.state
            if state is not None and not state.owner.ended:
                state.findings = self.watch.end(state.owner)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Let what a fixture's set-up makes belong to the fixture."""
        state = self.state
        if state is None:
            return (yield)
        scope = fixturedef.scope
        if scope not in _WIDE:
            owner = Owner(
                fixturedef.argname, "function", "fixture", state.owner.nodeid, state.owner
            )
            token = CURRENT.set(owner)
            try:
                return (yield)
            finally:
                CURRENT.reset(token)
        owner = Owner(fixturedef.argname, scope, "fixture", state.owner.nodeid)
        before = CURRENT.get()
        self.watch.mark(before)
        self._owners[fixturedef] = owner
        CURRENT.set(owner)
        try:
            value = yield
            self.watch.value(owner, value)
            return value
        finally:
            CURRENT.set(before)
            self.watch.mark(owner)

    def pytest_fixture_post_finalizer(self, fixturedef: Any) -> None:
        """Say that a wider fixture has ended."""
        owner = self._owners.pop(fixturedef, None)
        if owner is not None:
            self.watch.wide_ended(owner)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put findings into the report of the teardown, where nothing swallows them."""
        report = yield
        state = self.state
        if state is None:
            return report
        if report.when != "teardown":
            if call.excinfo is not None:
                state.raised = state.owner.raised = True
            if report.failed:
                state.failed = True
            return report
        self.state = None
        try:
            self._report(item, report, state)
        except Exception as exc:
            self._fault("report", exc)
        return report

    def _report(self, item: pytest.Item, report: pytest.TestReport, state: _State) -> None:
        if state.findings:
            self._judge(item, report, state)
        if self.journal is not None:
            try:
                self.journal.write(
                    {
                        "event": "test",
                        "nodeid": report.nodeid,
                        "outcome": "failed" if state.failed else report.outcome,
                        "findings": [f.to_dict() for f in state.findings],
                        "pid": os.getpid(),
                    }
                )
            except OSError as exc:
                self._fault("journal", exc)

    def _judge(self, item: pytest.Item, report: pytest.TestReport, state: _State) -> None:
        judged = self.policy.judge(
            group(state.findings),
            nodeid=report.nodeid,
            markers=self._markers(item),
            expectations=state.expectations,
            own_failure=state.failed or report.failed,
        )
        state.findings = judged
        shown = [f for f in judged if f.verdict is not Verdict.ALLOWED]
        failing = [f for f in judged if f.verdict is Verdict.FAIL]
        report.tightship = [f.to_dict() for f in judged]  # type: ignore[attr-defined]
        limit = self.settings.max_findings
        if failing and report.outcome != "failed":
            report.outcome = "failed"
            report.longrepr = (
                terminal.one_line(failing) + "\n\n" + terminal.report(failing, limit)
            )
            shown = [f for f in shown if f.verdict is not Verdict.FAIL]
        if shown:
            report.sections.append(("tightship", terminal.report(shown, limit)))

    # -- telling ---------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather findings, in the process that tells the user."""
        if self.worker or report.when != "teardown":
            return
        self.tests += 1
        for data in getattr(report, "tightship", ()):
            self.findings.append(Finding.from_dict(data))

    def pytest_report_header(self) -> str | None:
        """Say what is watched, and what can't be."""
        from .summary import header

        return header(self)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, Any, Any]:
        """Judge fixtures that end only now (after ``-x``), and hand over what a worker knows."""
        owner = self.session_owner
        if self.watch.installed:
            self.watch.begin(owner)
        result = yield
        if self.watch.installed:
            self.watch.wide_ended(owner)
            late = self.watch.end(owner)
            for finding in late:
                finding.verdict = Verdict.NOTE
                finding.reason = "found when the session ended early"
            self.findings += late
        if self.faults and self.settings.fail_on_fault and session.exitstatus == 0:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if self.worker:
            self.config.workeroutput["tightship"] = {  # type: ignore[attr-defined]
                "faults": self.faults,
                "usage": self.policy.usage(),
                "findings": [f.to_dict() for f in self.findings],
                "still": [(f.fingerprint, f.extra.get("outlived", 0)) for f in self.watch.still_there],
            }
        return result

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take over what a worker knows; a crashed one has nothing."""
        output = getattr(node, "workeroutput", {}).get("tightship")
        if output:
            self.faults.update(output["faults"])
            self.policy.merge_usage(output["usage"])
            self.findings += [Finding.from_dict(d) for d in output["findings"]]
            self._outlived(output["still"])

    def _outlived(self, pairs: Any) -> None:
        counts = dict(pairs)
        for finding in self.findings:
            if counts.get(finding.fingerprint):
                finding.extra["outlived"] = counts[finding.fingerprint]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the section of this run."""
        from .summary import write

        if not self.worker:
            self._outlived((f.fingerprint, f.extra.get("outlived", 0)) for f in self.watch.still_there)
            write(self, terminalreporter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin the journal."""
        if self.journal is not None and not self.worker:
            from .. import __version__

            self.journal.write(
                {
                    "event": "run",
                    "schema": SCHEMA,
                    "tightship": __version__,
                    "python": sys.version.split()[0],
                    "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                }
            )


def _foreign_probes() -> tuple[list[Any], dict[str, str]]:
    """Load probes of other packages (entry point group ``tightship.probes``)."""
    from importlib.metadata import entry_points

    probes: list[Any] = []
    broken: dict[str, str] = {}
    for point in entry_points(group="tightship.probes"):
        try:
            probe = point.load()()
            if not isinstance(getattr(probe, "kind", None), str):
                raise TypeError(f"{point.value} has no 'kind'")
            probes.append(probe)
        except Exception as exc:
            broken[f"probe {point.name}"] = f"{type(exc).__name__}: {exc}"
    return probes, broken
