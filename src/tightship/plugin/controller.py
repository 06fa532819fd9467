"""The process that tells the user, where pytest-xdist's workers run the tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from ..model import Finding

if TYPE_CHECKING:
    from .session import TightshipSession

__all__ = ["Controller"]


class Controller:
    """Registered where others run the tests: takes findings from the workers' reports."""

    def __init__(self, session: TightshipSession) -> None:
        self.session = session
        self._notes: dict[str, str] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where to leave its last words if it has to be ended."""
        from .last import note_path

        self._notes[node.gateway.id] = node.workerinput["tightship_note"] = note_path()

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        """Show a worker's last words instead of the crash, which was our doing."""
        from .last import left_by_worker
        from .longrepr import native

        for path in self._notes.values():
            said = left_by_worker(path)
            if said is None or said["nodeid"] != crashitem:
                continue
            os.truncate(path, 0)
            finding = Finding.from_dict(said["finding"])
            place = (finding.made.file, finding.made.line) if finding.made else ("", 0)
            report.longrepr = native(said["report"], place, finding.headline)
            report.sections += [(name, text) for name, text in said["sections"]]
            self.session.findings.append(finding)
            self.session.ended_workers.add(crashitem)

    def close(self) -> None:
        """Remove what the workers may have written."""
        for path in self._notes.values():
            try:
                os.unlink(path)
            except OSError:
                pass

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Gather findings, in the process that tells the user."""
        if report.when == "teardown":
            self.session.tests += 1
            told = getattr(report, "tightship", ())
            self.session.gather(report, map(Finding.from_dict, told))
