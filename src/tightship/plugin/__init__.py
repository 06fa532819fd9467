"""The pytest plugin: options, then everything else only when a run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .fixtures import Tightship

__all__ = ["tightship"]


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
        "enabled=None, grace=None, timeout=None): what this test may leave behind, and why "
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
