"""Hangs that are to last until their limit: most of them are certain, and would end at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def nobody_foretells(request: pytest.FixtureRequest) -> Iterator[None]:
    """Switch the forecast off in all suites but those that are about it."""
    with pytest.MonkeyPatch.context() as patch:
        if "forecast" not in request.module.__name__:
            patch.setenv("TIGHTSHIP_FORECAST", "off")
        yield
