"""What all tests share."""

from __future__ import annotations

import pathlib

import pytest

pytest_plugins = ["pytester", "suites"]

HERE = pathlib.Path(__file__).parent

#: Tests here plant survivors on purpose, in this very process, to look at them.
PLANTING = (
    HERE / "explain",
    HERE / "core",
    HERE / "probes",
    HERE / "blocks",
    HERE / "cancellation",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Turn the plugin off where leaks are the test's subject."""
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in PLANTING):
            item.add_marker(pytest.mark.tightship(enabled=False))
