"""One test session: hooks that tell the watch who begins and who ends, and pass on findings."""

from __future__ import annotations

import datetime
import functools
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from .. import origin
from ..config import Config, ConfigError, MarkerPolicy, from_marker, load
from ..journal import SCHEMA, Journal, JournalError
from ..model import Finding, Owner, Verdict
from ..ownership import CURRENT
from ..policy import Policy, group
from ..probes import KINDS, MOMENTS
from ..probes.fdtable import OWN
from ..probes.foreign import load_all
from ..probes.tempfiles import ROOTS
from ..rules import AllowRule
from ..watch import Watch
from .deadlines import ENDS_RUN, Deadlines, limits_of

if TYPE_CHECKING:
    from ..budget import Statistics
    from ..deadlines.error import TightshipTimeout
    from ..forecast import Forecast
    from ..loopwatch import LoopWatch
    from .pytest_timeout import BesidePytestTimeout

__all__ = ["Attempt", "TightshipSession"]

_WIDE = {"class", "module", "package", "session"}


class Attempt(Owner):
    """One run of one test: an owner, and what we remember of it."""

    # On the class: most attempts never have one of their own.
    failed = False
    timed_out = False
    failures = 0
    """How many failures the session had when it began."""
    blocked: str | float | None = None
    """What its markers say of calls that hold a loop."""
    findings: Sequence[Finding] = ()
    expectations: Sequence[AllowRule] = ()

    def has_failed(self, item: pytest.Item) -> bool:
        """Tell whether it failed by itself: raised, or passed although it must not."""
        return self.failed or item.session.testsfailed > self.failures


class TightshipSession:
    """The plugin object that is registered while a session runs."""

    def __init__(self, config: pytest.Config, settings: Config, extra: list[Any]) -> None:
        self.config = config
        self.settings = settings
        self.kinds: tuple[str, ...] = (*KINDS, *MOMENTS, *(p.kind for p in extra))
        self.policy = Policy(settings)
        self.worker = hasattr(config, "workerinput")
        self.watch = Watch(grace=settings.grace, on_fault=self.fault)
        self.extra = extra
        self.faults: dict[str, str] = {}
        self.findings: list[Finding] = []
        self.tests = 0
        self.journal: Journal | None = None
        self.attempt: Attempt | None = None
        self.complete = True
        """False once anything kept a test from running."""
        self.bad_markers: list[str] = []
        self.mistakes: dict[str, None] = {}
        """Markers that came too late to be refused, as messages."""
        self.loopwatch: LoopWatch | None = None
        self.forecast: Forecast | None = None
        self._blocked: str | float | None = None
        self._owners: dict[Any, Owner] = {}
        self._plain: set[Any] = set()
        """Fixtures that are no owners: most tests ask for one or two, and to learn it of one
        takes a look at its scope, which pytest keeps behind two properties."""
        self._parsed: dict[tuple[int, str], tuple[pytest.Mark, MarkerPolicy]] = {}
        self._parent: pytest.Item | pytest.Collector | None = None
        self._parent_marked = False
        self._marked = False
        self.deadlines = Deadlines(self)
        self.honours_timeout = False
        """Whether pytest-timeout's marker is ours to act on, since that plugin is absent."""
        self._of_workers: list[Finding] = []
        self.beside: BesidePytestTimeout | None = None
        """Where pytest-timeout acts: what it is told."""
        self.status = 0
        """The run's exit status, as soon as it is known."""
        self.ended_workers: set[str] = set()
        """Tests for whose sake a worker of pytest-xdist was ended."""
        self.ended = False
        """True once the process is being ended: nothing may touch what the tests made."""
        self.timeouts: list[Finding] = []
        """Of the test that runs: what was told when its time was up."""
        self._judged: list[tuple[pytest.TestReport, list[Finding]]] = []
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
            "timeout": option.tightship_timeout,
            "timeout_scale": option.tightship_timeout_scale,
            "blocked": option.tightship_blocked,
            "blocked_limit": option.tightship_blocked_limit,
            "forecast": option.tightship_forecast,
        }
        extra, broken = load_all((*KINDS, *MOMENTS))
        kinds = (*KINDS, *MOMENTS, *(p.kind for p in extra))
        try:
            settings = load(
                config.rootpath, env=os.environ, cli=cli, kinds=kinds, today=datetime.date.today()
            )
        except ConfigError as exc:
            raise pytest.UsageError(f"tightship: {exc}") from None
        session = cls(config, settings, extra)
        session.honours_timeout = not config.pluginmanager.has_plugin("timeout")
        session.faults.update(broken)
        origin.set_root(str(config.rootpath))
        if settings.journal is not None and not config.option.collectonly:
            path = config.rootpath / settings.journal
            try:
                session.journal = Journal(path, fresh=not session.worker, own=OWN)
            except JournalError as exc:
                raise pytest.UsageError(f"tightship: {exc}") from None
            session._report()
        # Under pytest-xdist the tests run elsewhere.
        controls = not session.worker and getattr(option, "dist", "no") != "no"
        if controls:
            from .controller import Controller

            config.pluginmanager.register(Controller(session), "tightship-controller")
        elif settings.enabled and not config.option.collectonly:
            session.start()
        return session

    def start(self) -> None:
        """Begin to watch."""
        if self.watch.installed:
            return
        self.watch.install()
        self.deadlines.install()
        if self.config.pluginmanager.has_plugin("timeout"):
            from .pytest_timeout import BesidePytestTimeout

            self.beside = BesidePytestTimeout(self)
            self.config.pluginmanager.register(self.beside, "tightship-beside-timeout")
        if self.settings.timeouts.get("fixture") is not None:
            self._limit_fixtures()
        # What lies below tmp_path is pytest's to remove.
        self.watch.patch.after_result(
            pytest.TempPathFactory, "getbasetemp", lambda path: ROOTS.add(str(path))
        )
        for probe in self.extra:
            try:
                self.watch.add_probe(probe)
            except TypeError as exc:
                self.fault(getattr(probe, "kind", repr(probe)), exc)
        if self.settings.blocked != "off" or self.settings.forecast:
            self.watch_loops()

    def watch_loops(self) -> None:
        """Begin to look at running loops."""
        if self.loopwatch is None:
            from .loops import watch_loops

            self.loopwatch = watch_loops(self)
            if self.forecast is not None:
                self.forecast.on_stuck = self.deadlines.foretell

    def _limit_fixtures(self) -> None:
        """Count the time of single fixtures: somebody limits it."""
        from .fixture_limits import FixtureLimits

        name = "tightship-fixture-limits"
        if not self.config.pluginmanager.has_plugin(name):
            self.config.pluginmanager.register(FixtureLimits(self.deadlines), name)

    def close(self) -> None:
        """Stop watching and undo everything."""
        try:
            if self.beside is not None:
                self.beside.close()
            self.deadlines.close(self.status)
            if self.loopwatch is not None:
                self.loopwatch.close()
            self.watch.uninstall()
        finally:
            origin.set_root(self._root)
            if self.journal is not None:
                self.journal.close()

    def wide_owners(self) -> list[Owner]:
        """Return fixtures wider than a test that are set up."""
        return list(self._owners.values())

    def fault(self, part: str, exc: BaseException) -> None:
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
                budgets=self.settings.budgets,
            )
            self._parsed[key] = known = mark, parsed
            if "fixture" in parsed.timeouts:
                self._limit_fixtures()
        return known[1]

    def markers(self, item: pytest.Item) -> list[MarkerPolicy]:
        """Return what a test's markers say, the closest first."""
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
            self._parent_marked = parent is not None and (
                "tightship" in parent.keywords
                or (self.honours_timeout and "timeout" in parent.keywords)
            )
        marked = self._parent_marked
        for mark in item.own_markers:
            if mark.name == "tightship" or mark.name == "timeout":
                marked = True
        self._marked = marked
        if not marked:
            self.watch.grace = self.settings.grace
            return self.settings.enabled or "tightship" in getattr(item, "fixturenames", ())
        enabled = grace = None
        self._blocked = None
        for mark in item.iter_markers("tightship"):
            if self._blocked is None:
                self._blocked = mark.kwargs.get("blocked")
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
        self.attempt = None
        deadlines = self.deadlines
        if self._watched(item):
            if not self.watch.installed:
                self.start()
            self.attempt = attempt = Attempt(item.name, nodeid=item.nodeid)
            attempt.failures = item.session.testsfailed
            attempt.reads_log = "caplog" in getattr(item, "fixturenames", ())
            if self._blocked is not None:
                attempt.blocked, self._blocked = self._blocked, None
                self.watch_loops()
            self.watch.begin(attempt)
        elif not self._marked:
            deadlines.nobody()
            return (yield)
        else:
            deadlines.install()
        deadlines.setup(item, limits_of(item, self) if self._marked else None)
        try:
            result = yield
        except BaseException as exc:
            self._time_up(exc)
            raise
        if deadlines.part_over():
            self._time_up(None)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """Let a test's time be limited."""
        deadlines = self.deadlines
        deadlines.phase("call")
        try:
            result = yield
        except BaseException as exc:
            self._time_up(exc)
            raise
        if deadlines.part_over():
            self._time_up(None)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, Any, Any]:
        """Say that the test has ended, after all fixtures that end with it have."""
        deadlines = self.deadlines
        deadlines.phase("teardown")
        try:
            try:
                result = yield
            except BaseException as exc:
                deadlines.part_over()
                error = deadlines.go_on(exc, item.session._setupstate, nextitem)
                if error is None or error is exc:
                    raise
                raise error from exc
            if deadlines.part_over():
                error = deadlines.go_on(None, item.session._setupstate, nextitem)
                if error is not None:
                    raise error
            return result
        finally:
            deadlines.over()
            attempt = self.attempt
            if attempt is not None and not attempt.ended:
                findings = self.watch.end(attempt)
                if findings:
                    attempt.findings = findings
                    self._report()

    def _time_up(self, exc: BaseException | None) -> None:
        """Raise, if time was up in the part of a test that has just ended."""
        self.deadlines.part_over()
        error = self.deadlines.time_up(exc)
        if error is not None:
            raise error from exc
        if isinstance(exc, ENDS_RUN):  # no teardown comes after it
            self.deadlines.over()
        if (self.beside is not None and self.beside.lines) or hasattr(exc, "finding"):
            self._report()

    def timed_out(self, error: TightshipTimeout) -> None:
        """Take up that a test's time was up."""
        if self.attempt is not None:
            self.attempt.timed_out = True
        self.timeouts.append(error.finding)
        self._report()

    def _report(self) -> None:
        """Edit the next reports."""
        from .reports import Reports

        if not self.config.pluginmanager.has_plugin("tightship-reports"):
            self.config.pluginmanager.register(Reports(self), "tightship-reports")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Let what a fixture's set-up makes belong to the fixture."""
        if fixturedef.argname == "cleanup":
            from .cleanup import choose

            choose(fixturedef, request)
        attempt = self.attempt
        if attempt is None or fixturedef in self._plain:
            return (yield)
        scope = fixturedef.scope
        if scope not in _WIDE:
            code = getattr(fixturedef.func, "__code__", None)
            if code is not None and (
                origin.MACHINERY.get(code.co_filename) or origin.is_machinery(code.co_filename)
            ):
                # pytest's own, or a runner's: nobody would look for a leak's author there.
                self._plain.add(fixturedef)
                return (yield)
            owner = Owner(fixturedef.argname, "function", "fixture", attempt.nodeid, attempt)
            token = CURRENT.set(owner)
            try:
                return (yield)
            finally:
                CURRENT.reset(token)
        owner = Owner(fixturedef.argname, scope, "fixture", attempt.nodeid)
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

    def pytest_exception_interact(self, node: Any) -> None:
        """Remember that the test failed by itself: pytest calls this for nothing else."""
        if self.attempt is not None:
            self.attempt.failed = True

    def told(self, report: pytest.TestReport, judged: list[Finding]) -> None:
        """Remember what a test's report said."""
        if self.worker:
            report.tightship = [f.to_dict() for f in judged]  # type: ignore[attr-defined]
        else:
            self._judged.append((report, judged))

    def record(self, record: dict[str, Any]) -> None:
        """Write a line of the journal; one that cannot be written to is given up."""
        if self.journal is None:
            return
        try:
            self.journal.write(record)
        except (OSError, ValueError) as exc:
            self.fault("journal", exc)
            self.journal.close()
            self.journal = None

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
        self.status = int(exitstatus)
        self.deadlines.disarm_hard()
        watching = self.watch.installed and not self.ended
        if watching:
            self.watch.begin(owner)
        try:
            return (yield from self._last_teardown(session))
        finally:
            for report, findings in self._judged:
                # Whether an attempt was run again is known only after it was reported.
                self.gather(report, findings)
            self._judged.clear()
            late = self._late(session, owner) if watching else []
            self.findings += late
            failing = any(f.verdict is Verdict.FAIL for f in self.findings)
            if self.bad_markers and not self.worker:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
            elif session.exitstatus == 0 and (
                failing or (self.faults and self.settings.fail_on_fault)
            ):
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self.status = int(session.exitstatus)
            self.complete = self.complete and _all_chosen(self.config, session)
            if self.worker:
                self._hand_over()
            else:
                self.record(
                    {
                        "event": "end",
                        "status": int(session.exitstatus),
                        "tests": self.tests,
                        "findings": [f.to_dict() for f in (*late, *self._of_workers)],
                        "faults": self.faults,
                        "budgets": [
                            {**record._asdict(), "share": round(record.share, 4)}
                            for record in self.budgets()
                        ],
                    }
                )

    def _last_teardown(self, session: pytest.Session) -> Generator[None, Any, Any]:
        """Limit the time of what is torn down only now, since the run ends early."""
        state = getattr(session, "_setupstate", None)
        if state is None or not state.stack or self.ended:
            return (yield)
        deadlines = self.deadlines
        deadlines.leftover()
        result = None
        try:
            try:
                result = yield
                raised = None
            except BaseException as exc:
                raised = exc
            deadlines.part_over()
            error = deadlines.go_on(raised, state, None)
            if error is not None and not self.timeouts:
                raise error
            # There is no test left to report it.
            self.findings += self.timeouts
            self.timeouts = []
            return result
        finally:
            deadlines.over()
            deadlines.disarm_hard()

    def _late(self, session: pytest.Session, owner: Owner) -> list[Finding]:
        self.watch.wide_ended(owner)
        left = self.watch.end(owner)
        if not left:
            return []
        late = group(left)
        if session.shouldfail or session.shouldstop:
            for finding in late:
                finding.verdict = Verdict.NOTE
                finding.reason = "found when the session ended early"
            return late
        from .reports import JUDGED

        return self.policy.judge(late, nodeid="", markers=[JUDGED], own_failure=False)

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
            "uses": self.deadlines.uses,
        }

    def budgets(self) -> list[Statistics]:
        """Return how named budgets were used."""
        uses = [use for use in self.deadlines.uses if use[0]]
        if not uses:
            return []
        from ..budget import summarize

        return summarize(uses)

    def _still(self) -> list[tuple[str, str, int, str]]:
        return [
            (f.nodeid, f.fingerprint, f.extra["outlived"], f.extra.get("outlived_last", ""))
            for f in self.watch.still_there
            if f.extra.get("outlived")
        ]

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Write the line that a crashed worker could not write."""
        if crashitem in self.ended_workers:
            return  # that one wrote its own
        self.record(
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
            self.deadlines.uses += map(tuple, output["uses"])
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
        """Begin the journal, and see which threads belong to the run and not to a test."""
        if self.forecast is not None:
            from ..runtimes.idle import carriers

            self.forecast.carriers = carriers()
        if self.journal is not None and not self.worker:
            from .. import __version__

            self.record(
                {
                    "event": "run",
                    "schema": SCHEMA,
                    "tightship": __version__,
                    "python": sys.version.split()[0],
                    "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                }
            )


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
