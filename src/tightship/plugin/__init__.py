"""The pytest plugin: options, then everything else only when a run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..closing import Cleanup
    from .fixtures import Tightship

__all__ = ["cleanup", "tightship"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line. Defaults are None, so that files and environment count."""
    group = parser.getgroup("tightship", "leaks of async tests (tightship)")
    group.addoption(
        "--tightship",
        choices=("on", "off"),
        default=None,
        dest="tightship_enabled",
        help="watch every test, or only those that ask for it (default: on)",
    )
    group.addoption(
        "--tightship-threshold",
        action="append",
        default=None,
        metavar="[KIND=]LEVEL",
        dest="tightship_threshold",
        help="least certainty that fails a test: off, proven, strong (default) or possible; "
        "KIND=LEVEL sets it for one kind; may be given more than once",
    )
    group.addoption(
        "--tightship-allow",
        action="append",
        default=None,
        metavar="KIND:LABEL=REASON",
        dest="tightship_allow",
        help="let findings pass whose kind and label match; may be given more than once",
    )
    group.addoption(
        "--tightship-grace",
        default=None,
        metavar="SECONDS",
        dest="tightship_grace",
        help="longest wait for something that is still going away (default: 1)",
    )
    group.addoption(
        "--tightship-journal",
        default=None,
        metavar="FILE",
        dest="tightship_journal",
        help="write one JSON line per test to this file",
    )
    group.addoption(
        "--tightship-timeout",
        action="append",
        default=None,
        metavar="[PHASE=]LIMIT[!]",
        dest="tightship_timeout",
        help="longest time for a test: seconds, the name of a budget, or off (default: 600); "
        "PHASE=LIMIT for setup, call, teardown, fixture, session or exit; 30! beats every marker",
    )
    group.addoption(
        "--tightship-timeout-scale",
        default=None,
        metavar="FACTOR",
        dest="tightship_timeout_scale",
        help="multiply all timeouts and budgets by this, for slow machines (default: 1)",
    )
    group.addoption(
        "--tightship-blocked",
        choices=("off", "note", "fail", "collect"),
        default=None,
        dest="tightship_blocked",
        help="calls that hold an event loop: note them (default), let them fail their test, or "
        "collect them all in a list by line",
    )
    group.addoption(
        "--tightship-blocked-limit",
        default=None,
        metavar="SECONDS",
        dest="tightship_blocked_limit",
        help="seconds from which on a call counts as holding the loop (default: 0.1)",
    )
    group.addoption(
        "--tightship-forecast",
        choices=("on", "off"),
        default=None,
        dest="tightship_forecast",
        help="end a test at once when nothing can wake its event loop any more (default: on)",
    )
    group.addoption(
        "--tightship-fail-on-fault",
        action="store_true",
        default=None,
        dest="tightship_fail_on_fault",
        help="let the run fail if a part of Tightship itself failed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Read the configuration and begin to watch."""
    config.addinivalue_line(
        "markers",
        "tightship(allow=None, reason=None, until=None, count=None, threshold=None, "
        "enabled=None, grace=None, timeout=None, blocked=None): what this test may leave "
        "behind, and why "
        "(see the documentation of Tightship, Reference, marker)",
    )
    if not config.pluginmanager.has_plugin("timeout"):
        config.addinivalue_line(
            "markers",
            "timeout(seconds, func_only=False): pytest-timeout's marker; that plugin isn't "
            "installed, so Tightship acts on it",
        )
    if config.option.help or config.option.version:
        return
    # pytest rewrites the assert statements of all plugins. Ours have none for it, and where it
    # cannot keep the result (PYTHONDONTWRITEBYTECODE, a read-only site-packages) it would do
    # so in every session.
    rewritten = getattr(getattr(config.pluginmanager, "rewrite_hook", None), "_must_rewrite", None)
    if isinstance(rewritten, set):
        rewritten.discard("tightship")
    from .session import TightshipSession

    config.pluginmanager.register(TightshipSession.from_config(config), "tightship-session")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Undo every patch."""
    session: Any = config.pluginmanager.get_plugin("tightship-session")
    if session is not None:
        config.pluginmanager.unregister(session)
        for name in (
            "tightship-controller",
            "tightship-reports",
            "tightship-beside-timeout",
            "tightship-fixture-limits",
        ):
            if config.pluginmanager.has_plugin(name):
                plugin: Any = config.pluginmanager.unregister(name=name)
                if name == "tightship-controller":
                    plugin.close()
        session.close()


@pytest.fixture
def tightship(request: pytest.FixtureRequest) -> Tightship:
    """What Tightship knows of this test: expect, adopt, findings.

    Requesting it also turns Tightship on for the test when the plugin is set to off.
    """
    from .fixtures import Tightship

    session: Any = request.config.pluginmanager.get_plugin("tightship-session")
    return Tightship(session, request)


@pytest.fixture
def cleanup(request: pytest.FixtureRequest) -> Iterator[Cleanup]:
    """Closes at the end of the test what the test hands to it: ``cleanup(thing)``.

    The last one first, each within a deadline and on its own event loop, whatever the others do.
    """
    from .cleanup import closing

    yield from closing(request)
