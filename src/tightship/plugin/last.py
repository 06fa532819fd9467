"""The last rung: the process cannot be freed of a hang, so it ends, and nothing is lost.

Runs in the sentry's thread while the main thread is stuck in code that nothing interrupts. The
journal gets its line first. Then whoever waits for this process is told: pytest-xdist's
controller through a file, a person through the report and summary that pytest would have
written.
"""

from __future__ import annotations

import _thread
import json
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from ..deadlines.verdict import timeout_error
from ..runtimes.sentry import wait
from .longrepr import timeout_longrepr
from .status import STATUS

if TYPE_CHECKING:
    from ..deadlines.error import TightshipTimeout
    from ..deadlines.ladder import Ladder
    from .session import TightshipSession

__all__ = ["end_process", "left_by_worker", "note_path"]

#: Seconds that writing everything down may take.
_PATIENCE = 10.0


def end_process(
    session: TightshipSession, ladder: Ladder, what: str, item: pytest.Item | None
) -> None:
    """Write down all that is known, and end the process with `STATUS`."""
    _thread.start_new_thread(_end_anyway, ())
    try:
        nodeid = item.nodeid if item is not None else ""
        error = timeout_error(
            ladder, what=what, owner=item.name if item is not None else "", nodeid=nodeid
        )
        _journal(session, error, nodeid)
        if session.worker:
            _leave_note(session, error, nodeid)
        elif item is not None:
            _finish(session, error, item)
        else:
            _say(error.report)
    except BaseException as exc:  # whatever is left unsaid, the process has to end
        _say(f"tightship: could not write everything down: {exc!r}")
    finally:
        os._exit(STATUS)


def _end_anyway() -> None:
    wait(_PATIENCE)
    os._exit(STATUS)


def _journal(session: TightshipSession, error: TightshipTimeout, nodeid: str) -> None:
    session.record(
        {
            "event": "test",
            "nodeid": nodeid,
            "outcome": "failed",
            "findings": [error.finding.to_dict()],
            "watched": True,
            "seconds": round(error.elapsed, 4),
            "attempt": 1,
            "pid": os.getpid(),
            "ended_process": STATUS,
        }
    )


def _say(text: str) -> None:
    """Write to where the process's errors really go, whatever is captured."""
    os.write(2, (text + "\n").encode(errors="replace"))


def _finish(session: TightshipSession, error: TightshipTimeout, item: pytest.Item) -> None:
    """Let pytest report this test and write its summary, without touching the stuck thread."""
    config = session.config
    session.ended = True
    hang = error.finding
    hang.facts.append(("ended", f"the process, with status {STATUS}: nothing else would"))
    report = pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={item.name: 1},
        outcome="failed",
        longrepr=timeout_longrepr([error], item),
        when="call",
        sections=_captured(config),
        duration=error.elapsed,
        start=0.0,
        stop=0.0,
    )
    session.findings.append(hang)
    _release_capture(config)
    config.hook.pytest_runtest_logreport(report=report)
    item.session.testsfailed = max(item.session.testsfailed, 1)
    item.session.shouldfail = False
    # Fixtures belong to the stuck thread: nothing of theirs may run here.
    item.session._setupstate.stack.clear()
    session.complete = False
    config.hook.pytest_sessionfinish(session=item.session, exitstatus=pytest.ExitCode.TESTS_FAILED)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        left = _not_run(item)
        reporter.write_line(
            f"tightship ended the process (status {STATUS}): {hang.subject} could not be "
            f"interrupted. {left}Run with pytest-xdist (-n 1 will do) to go on after such a test.",
            red=True,
            bold=True,
        )
        reporter._tw.flush()
    sys.stdout.flush()


def _not_run(item: pytest.Item) -> str:
    items = item.session.items
    try:
        left = len(items) - 1 - items.index(item)
    except ValueError:
        return ""
    return f"{left} tests after it did not run. " if left else ""


def _captured(config: pytest.Config) -> list[tuple[str, str]]:
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if capture is None or not capture.is_globally_capturing():
        return []
    out, err = capture.read_global_capture()
    return [(f"Captured {n} call", text) for n, text in (("stdout", out), ("stderr", err)) if text]


def _release_capture(config: pytest.Config) -> None:
    capture: Any = config.pluginmanager.get_plugin("capturemanager")
    if capture is not None and capture.is_globally_capturing():
        capture.suspend_global_capture(in_=False)


# -- pytest-xdist: a worker's last words ---------------------------------------------------


def note_path() -> str:
    """Return a file for a worker's last words; made by the controller, which removes it."""
    fd, path = tempfile.mkstemp(prefix="tightship-", suffix=".json")
    os.close(fd)
    return path


def _leave_note(session: TightshipSession, error: TightshipTimeout, nodeid: str) -> None:
    path = session.config.workerinput.get("tightship_note")  # type: ignore[attr-defined]
    if path is None:
        return
    sections = _captured(session.config)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(
            {
                "nodeid": nodeid,
                "finding": error.finding.to_dict(),
                "report": error.report,
                "sections": sections,
            },
            file,
        )


def left_by_worker(path: str) -> dict[str, Any] | None:
    """Return a worker's last words, or None."""
    try:
        with open(path, encoding="utf-8") as file:
            said: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    return said
