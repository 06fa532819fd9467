"""What is raised when time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..budget import Budget

if TYPE_CHECKING:
    from ..explain.picture import Picture
    from ..model import Finding

__all__ = ["TightshipTimeout"]


class TightshipTimeout(TimeoutError):
    """An operation took longer than it may.

    Its text is the whole diagnosis: what took too long, whose limit that was, why it hung, and
    what everything was waiting for at that moment.
    """

    def __init__(
        self, report: str, finding: Finding, budget: Budget, elapsed: float, picture: Picture | None
    ) -> None:
        super().__init__(report)
        self.report = report
        self.finding = finding
        """The same as data, as it goes into the journal."""
        self.operation = finding.subject
        """What took too long."""
        self.budget = budget
        """The limit: ``seconds``, ``name``, and ``where`` its value came from."""
        self.elapsed = elapsed
        """Seconds from the beginning until the operation had been ended."""
        self.verdict = str(finding.extra.get("verdict", ""))
        """Why, in one word or two: ``never finished``, ``blocked``, ``late``, ..."""
        self.picture = picture
        """Tasks, threads and timers at the moment when time was up; None if it was over by then."""

    def __reduce__(self) -> Any:  # the text alone would not do for __init__
        picture = None  # plain data, but large; the finding says where the journal has it
        return type(self), (self.report, self.finding, self.budget, self.elapsed, picture)
