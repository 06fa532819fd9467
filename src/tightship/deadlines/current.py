"""What a run says of all limits in it: which names there are, and where uses are noted."""

from __future__ import annotations

from ..budget import Budgets

__all__ = ["BUDGETS", "USES"]

#: The budgets that names stand for, the innermost run's first; those of the box come last.
BUDGETS: list[Budgets] = [Budgets()]

#: Where to note (name, limit, seconds taken, what) of each operation; None for nowhere.
USES: list[list[tuple[str, float, float, str]] | None] = [None]
