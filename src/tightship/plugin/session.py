"""One test session: hooks that tell the watch who begins and who ends, and pass on findings."""

from __future__ import annotations

import datetime
import functools
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from typing import Any

import pytest

from .. import origin
from ..config import Config, ConfigError, MarkerPolicy, from_marker, load
from ..journal import SCHEMA, Journal, JournalError
from ..model import Finding, Owner, Verdict
from ..ownership import CURRENT
from ..policy import Policy, group
from ..probes import KINDS
from ..probes.fdtable import OWN
from ..probes.foreign import load_all
from ..probes.tempfiles import ROOTS
from ..watch import Watch

__all__ = ["TightshipSession"]

_WIDE = {"class", "module", "package", "session"}


class _State:
    """What we remember of one run of one test."""

    __slots__ = ("expectations", "failed", "findings", "owner")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.failed = False
        self.findings: Sequence[Finding] = ()
        self.expectations: list[Any] = []


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
        self.complete = True
        """False once anything kept a test from running."""
        self.bad_markers: list[str] = []
        self.mistakes: dict[str, None] = {}
        """Markers that came too late to be refused, as messages."""
        self._owners: dict[Any, Owner] = {}
        self._parsed: dict[tuple[int, str], tuple[pytest.Mark, MarkerPolicy]] = {}
        self._parent: pytest.Item | pytest.Collector | None = None
        self._parent_marked = False
        self._of_workers: list[Finding] = []
        self._judged: list[tuple[pytest.TestReport, list[Finding]]] = []
        self._outcome = "passed"
        self._seconds = 0.0
        self._root = origin.root()
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
        extra, broken = load_all(KINDS)
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
                session.journal = Journal(path, fresh=not session.worker, own=OWN)
            except JournalError as exc:
                raise pytest.UsageError(f"tightship: {exc}") from None
        # Under pytest-xdist the tests run elsewhere.
        controls = not session.worker and getattr(option, "dist", "no") != "no"
        if controls:
            config.pluginmanager.register(_Controller(session), "tightship-controller")
        elif settings.enabled and not config.option.collectonly:
            session.start()
        return session

    def start(self) -> None:
        """Begin to watch."""
        if self.watch.installed:
            return
        self.watch.install()
        # What lies below tmp_path is pytest's to remove.
        self.watch.patch.after_result(
            pytest.TempPathFactory, "getbasetemp", lambda path: ROOTS.add(str(path))
        )
        for probe in self.extra:
            try:
                self.watch.add_probe(probe)
            except TypeError as exc:
                self._fault(getattr(probe, "kind", repr(probe)), exc)

    def close(self) -> None:
        """Stop watching and undo everything."""
        try:
            self.watch.uninstall()
        finally:
            origin.set_root(self._root)
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
            if "tightship" not in item.keywords:  # ten times faster than a look at all marks
                continue
            for node, mark in item.iter_markers_with_node("tightship"):
                try:
                    self.policy.register(self._parse(node, mark).rules)
                except ConfigError as exc:
                    errors[str(exc)] = None
        if not errors:
            return
        lines = list(errors)
        more = [f"... and {len(lines) - 10} more"] if len(lines) > 10 else []
        if not self.worker:
            raise pytest.UsageError("\n".join(("tightship: bad marker", *lines[:10], *more)))
        # An error here would come out as a crash of the worker: the controller tells it.
        self.bad_markers = lines[:10] + more
        items.clear()

    def _parse(self, node: Any, mark: pytest.Mark) -> MarkerPolicy:
        name = node.nodeid
        if getattr(node, "callspec", None) is not None:
            # Its parameters share the marker.
            name = f"{node.parent.nodeid}::{node.originalname}"
        key = id(mark), name
        known = self._parsed.get(key)
        if known is None:
            parsed = from_marker(
                mark.args,
                mark.kwargs,
                kinds=self.kinds,
                where=f"{name}: @pytest.mark.tightship" if name else "@pytest.mark.tightship",
                today=datetime.date.today(),
            )
            self._parsed[key] = known = mark, parsed
        return known[1]

    def _markers(self, item: pytest.Item) -> list[MarkerPolicy]:
        found = []
        for node, mark in item.iter_markers_with_node("tightship"):
            try:
                found.append(self._parse(node, mark))
            except ConfigError as exc:  # a marker added while the test ran
                self.mistakes[str(exc)] = None
        return found

    def _watched(self, item: pytest.Item) -> bool:
        """Tell whether a test is looked at, and for how long at most."""
        parent = item.parent
        if parent is not self._parent:
            # A look at all keywords is a walk up the tree: once for all tests of a parent.
            self._parent = parent
            self._parent_marked = parent is not None and "tightship" in parent.keywords
        if not self._parent_marked and not any(m.name == "tightship" for m in item.own_markers):
            self.watch.grace = self.settings.grace
            return self.settings.enabled or "tightship" in getattr(item, "fixturenames", ())
        enabled = grace = None
        for mark in item.iter_markers("tightship"):
            if enabled is None:
                enabled = mark.kwargs.get("enabled")
            if grace is None:
                grace = mark.kwargs.get("grace")
        self.watch.grace = self.settings.grace if grace is None else grace
        if enabled is not None:
            return bool(enabled)
        return self.settings.enabled or "tightship" in getattr(item, "fixturenames", ())

    def pytest_deselected(self, items: Any) -> None:
        """Remember that not all tests run."""
        if items:
            self.complete = False

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember that some tests could not be collected."""
        if report.failed:
            self.complete = False

    # -- a test's way ----------------------------------------------------------------------

    # These hooks run for every test, and are counted in microseconds.

    # A wrapper, so that begin and end see the same outside of everybody else's wrappers:
    # pytest's capturing among them, which exchanges descriptors.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Say that the test begins, before any fixture does."""
        self.state = None
        if self._watched(item):
            if not self.watch.installed:
                self.start()
            owner = Owner(item.name, nodeid=item.nodeid)
            owner.reads_log = "caplog" in getattr(item, "fixturenames", ())
            self.state = _State(owner)
            self.watch.begin(owner)
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
            code = getattr(fixturedef.func, "__code__", None)
            if code is not None and origin.is_machinery(code.co_filename):
                # pytest's own, or a runner's: nobody would look for a leak's author there.
                return (yield)
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
        # Added first, run last: when the fixture has ended.
        fixturedef.addfinalizer(functools.partial(self._fixture_ended, fixturedef))
        CURRENT.set(owner)
        try:
            value = yield
            self.watch.value(owner, value)
            return value
        finally:
            CURRENT.set(before)
            self.watch.mark(owner)

    def _fixture_ended(self, fixturedef: Any) -> None:
        """Say that a wider fixture has ended."""
        owner = self._owners.pop(fixturedef, None)
        if owner is not None:
            self.watch.wide_ended(owner)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put findings into the report of the teardown, where nothing swallows them."""
        report = yield
        state = self.state
        if state is not None and self.journal is None and report.outcome == "passed":
            if report.when != "teardown":
                return report
            if not state.findings:
                self.state = None
                return report
        self._reported(item, report, state)
        return report

    def _reported(self, item: pytest.Item, report: pytest.TestReport, state: _State | None) -> None:
        if self.journal is not None:
            self._note(report)
        if report.when != "teardown":
            if state is not None and report.outcome != "passed":
                state.failed = state.failed or report.failed
            return
        self.state = None
        if state is None:
            if self.journal is not None:
                self._write(item, report, None)
            return
        try:
            self._report(item, report, state)
        except Exception as exc:
            self._fault("report", exc)

    def _report(self, item: pytest.Item, report: pytest.TestReport, state: _State) -> None:
        if state.findings:
            self._judge(item, report, state)
        if self.journal is not None:
            self._write(item, report, state)

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

    def _write(self, item: pytest.Item, report: pytest.TestReport, state: _State | None) -> None:
        record = {
            "event": "test",
            "nodeid": report.nodeid,
            "outcome": "failed" if report.failed else self._outcome,
            "findings": [] if state is None else [f.to_dict() for f in state.findings],
            "watched": state is not None,
            "seconds": round(self._seconds, 4),
            "attempt": getattr(item, "execution_count", 1),
            "pid": os.getpid(),
        }
        if self.worker:
            record["worker"] = self.config.workerinput["workerid"]  # type: ignore[attr-defined]
        self.tests += 1
        self._journal(record)

    def _journal(self, record: dict[str, Any]) -> None:
        """Write a line; a journal that cannot be written to is given up."""
        if self.journal is None:
            return
        try:
            self.journal.write(record)
        except (OSError, ValueError) as exc:
            self._fault("journal", exc)
            self.journal.close()
            self.journal = None

    def _judge(self, item: pytest.Item, report: pytest.TestReport, state: _State) -> None:
        from ..reporters import terminal
        from .longrepr import longrepr

        judged = self.policy.judge(
            group(state.findings),
            nodeid=report.nodeid,
            # Whoever got here is watched: the closest marker or the fixture says so.
            markers=[*self._markers(item), _WATCHED],
            expectations=state.expectations,
            own_failure=state.failed or report.failed,
        )
        state.findings = judged
        shown = [f for f in judged if f.verdict is not Verdict.ALLOWED]
        failing = [f for f in judged if f.verdict is Verdict.FAIL]
        if self.worker:
            report.tightship = [f.to_dict() for f in judged]  # type: ignore[attr-defined]
        else:
            self._judged.append((report, judged))
        limit = self.settings.max_findings
        if failing and report.outcome != "failed":
            report.outcome = "failed"
            path, line, _ = item.location
            report.longrepr = longrepr(failing, limit, path, (line or 0) + 1)
            shown = [f for f in shown if f.verdict is not Verdict.FAIL]
        if shown:
            # pytest shows a teardown's sections by this word.
            report.sections.append(("tightship after teardown", terminal.report(shown, limit)))

    # -- telling ---------------------------------------------------------------------------

    def gather(self, report: pytest.TestReport, findings: Iterable[Finding]) -> None:
        """Take up what a test was told."""
        rerun = report.outcome == "rerun"  # type: ignore[comparison-overlap]
        for finding in findings:
            if rerun and finding.verdict is Verdict.FAIL:
                finding.verdict, finding.reason = Verdict.NOTE, "that attempt was run again"
            self.findings.append(finding)

    def pytest_report_header(self) -> str | None:
        """Say what is watched, and what can't be."""
        from .summary import header

        return header(self)

    # The innermost wrapper: fixtures are torn down inside it, and the summary as well as a
    # worker's last message are written outside.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, Any, Any]:
        """Judge what ends only now, and hand over what a worker knows."""
        owner = self.session_owner
        if self.watch.installed:
            self.watch.begin(owner)
        try:
            return (yield)
        finally:
            for report, findings in self._judged:
                # Whether an attempt was run again is known only after it was reported.
                self.gather(report, findings)
            self._judged.clear()
            late = self._late(session, owner) if self.watch.installed else []
            self.findings += late
            failing = any(f.verdict is Verdict.FAIL for f in self.findings)
            if self.bad_markers and not self.worker:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
            elif session.exitstatus == 0 and (
                failing or (self.faults and self.settings.fail_on_fault)
            ):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self.complete = self.complete and _all_chosen(self.config, session)
            if self.worker:
                self._hand_over()
            else:
                self._journal(
                    {
                        "event": "end",
                        "status": int(session.exitstatus),
                        "tests": self.tests,
                        "findings": [f.to_dict() for f in (*late, *self._of_workers)],
                        "faults": self.faults,
                    }
                )

    def _late(self, session: pytest.Session, owner: Owner) -> list[Finding]:
        self.watch.wide_ended(owner)
        late = group(self.watch.end(owner))
        if session.shouldfail or session.shouldstop:
            for finding in late:
                finding.verdict = Verdict.NOTE
                finding.reason = "found when the session ended early"
            return late
        return self.policy.judge(late, nodeid="", markers=[_WATCHED], own_failure=False)

    def _hand_over(self) -> None:
        """Give the controller what a worker knows."""
        self.config.workeroutput["tightship"] = {  # type: ignore[attr-defined]
            "faults": self.faults,
            "usage": self.policy.usage(),
            "findings": [f.to_dict() for f in self.findings],
            "still": self._still(),
            "complete": self.complete,
            "bad_markers": self.bad_markers,
            "mistakes": self.mistakes,
        }

    def _still(self) -> list[tuple[str, str, int, str]]:
        return [
            (f.nodeid, f.fingerprint, f.extra["outlived"], f.extra.get("outlived_last", ""))
            for f in self.watch.still_there
            if f.extra.get("outlived")
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Write the line that a crashed worker could not write."""
        self._journal(
            {
                "event": "test",
                "nodeid": crashitem,
                "outcome": "crashed",
                "findings": [],
                "watched": self.settings.enabled,
                "seconds": 0.0,
                "attempt": 1,
                "pid": os.getpid(),
            }
        )

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Take over what a worker knows; a crashed one has nothing."""
        output = getattr(node, "workeroutput", {}).get("tightship")
        if output:
            self.faults.update(output["faults"])
            self.policy.merge_usage(output["usage"])
            late = [Finding.from_dict(d) for d in output["findings"]]
            self._of_workers += late
            self.findings += late
            self._outlived(output["still"])
            self.complete = self.complete and output["complete"]
            self.bad_markers = self.bad_markers or output["bad_markers"]
            self.mistakes.update(output["mistakes"])
        elif error:
            self.complete = False

    def _outlived(self, still: Any) -> None:
        said = {(nodeid, mark): (count, last) for nodeid, mark, count, last in still}
        for finding in self.findings:
            found = said.get((finding.nodeid, finding.fingerprint))
            if found is not None:
                finding.extra["outlived"], finding.extra["outlived_last"] = found

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the section of this run."""
        from .summary import write

        if not self.worker:
            self._outlived(self._still())
            write(self, terminalreporter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Begin the journal."""
        if self.journal is not None and not self.worker:
            from .. import __version__

            self._journal(
                {
                    "event": "run",
                    "schema": SCHEMA,
                    "tightship": __version__,
                    "python": sys.version.split()[0],
                    "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                }
            )


class _Controller:
    """Registered where others run the tests: takes findings from the workers' reports."""

    def __init__(self, session: TightshipSession) -> None:
        self.session = session

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather findings, in the process that tells the user."""
        if report.when == "teardown":
            self.session.tests += 1
            told = getattr(report, "tightship", ())
            self.session.gather(report, map(Finding.from_dict, told))


#: Ends the list of a watched test's markers: what is judged is judged.
_WATCHED = MarkerPolicy("", enabled=True)


def _all_chosen(config: pytest.Config, session: pytest.Session) -> bool:
    """Tell whether all tests ran: only then does an unused rule mean anything."""
    option = config.option
    chosen = option.keyword or option.markexpr or getattr(option, "lf", False)
    ignored = getattr(option, "ignore", None) or getattr(option, "ignore_glob", None)
    named = config.args_source is config.ArgsSource.ARGS and any(
        os.path.abspath(os.path.join(config.invocation_params.dir, a)) != str(config.rootpath)
        for a in map(str, config.args)
    )
    stopped = session.shouldfail or session.shouldstop
    return not (chosen or ignored or named or stopped or getattr(option, "deselect", None))
