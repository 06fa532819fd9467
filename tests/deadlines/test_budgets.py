"""Which limit holds for a test, and what is said of named ones."""

from __future__ import annotations

import pytest
from suites import Ran, Suite

BUDGETS = """
[tool.tightship.budgets]
quick = 0.3
roomy = 60
"""
LIMITS = """
import asyncio
import time

import pytest

from tightship import TightshipTimeout, timeout


@pytest.mark.tightship(timeout={"call": 0.3})
def test_call():
    time.sleep(100)


@pytest.mark.tightship(timeout={"call": 0.3, "setup": 50, "test": 40})
async def test_call_among_others():
    await asyncio.sleep(100)


@pytest.fixture
def slow():
    time.sleep(0.5)


@pytest.fixture
def stuck():
    time.sleep(100)


@pytest.fixture
def stuck_later():
    yield
    time.sleep(100)


@pytest.mark.tightship(timeout={"setup": 0.3})
def test_setup(stuck):
    pass


@pytest.mark.tightship(timeout={"setup": 0.3})
def test_setup_twin():
    time.sleep(0.5)


@pytest.mark.tightship(timeout={"setup": 0.3, "test": "off"})
def test_setup_alone_twin():
    time.sleep(0.5)


@pytest.mark.tightship(timeout={"call": 0.3})
def test_call_twin(slow):
    pass


@pytest.mark.tightship(timeout={"teardown": 0.3})
def test_teardown(stuck_later):
    time.sleep(0.5)


@pytest.mark.tightship(timeout={"fixture": 0.3})
def test_fixture(stuck):
    pass


@pytest.mark.tightship(timeout={"fixture": 0.3})
def test_fixture_later(stuck_later):
    time.sleep(0.5)


@pytest.fixture
async def astuck():
    await asyncio.sleep(100)


@pytest.fixture
async def astuck_later():
    yield
    await asyncio.sleep(100)


@pytest.mark.tightship(timeout={"fixture": "quick"})
async def test_async_fixture(astuck):
    pass


@pytest.mark.tightship(timeout={"fixture": "quick"})
async def test_async_fixture_later(astuck_later):
    pass


@pytest.mark.tightship(timeout=0.3)
def test_teardown_has_as_long_again_twin(request):
    request.addfinalizer(lambda: time.sleep(0.2))
    time.sleep(0.2)


@pytest.mark.tightship(timeout=50)
class TestClosest:
    @pytest.mark.tightship(timeout="quick")
    def test_closest(self):
        time.sleep(100)

    @pytest.mark.tightship(timeout={"call": 0.3})
    def test_both(self):
        time.sleep(100)


@pytest.mark.tightship(timeout="off")
def test_off_twin():
    time.sleep(0.5)


@pytest.mark.timeout(0.3)
def test_of_pytest_timeout():
    time.sleep(100)


@pytest.mark.timeout(timeout=0.3, func_only=True)
def test_of_pytest_timeout_call():
    time.sleep(100)


@pytest.mark.timeout(0.3, func_only=True)
def test_of_pytest_timeout_call_twin(slow):
    pass


@pytest.mark.timeout(0)
def test_of_pytest_timeout_off_twin():
    time.sleep(0.5)


@pytest.mark.timeout(50)
@pytest.mark.tightship(timeout=0.3)
def test_ours_before_theirs():
    time.sleep(100)


@pytest.fixture(scope="module")
def wide():
    time.sleep(100)


@pytest.mark.tightship(timeout=0.3)
def test_wide(wide):
    pass


@pytest.mark.tightship(timeout=50)
def test_wide_again(wide):
    pass


@pytest.fixture
@timeout("quick")
def limited():
    time.sleep(100)
    yield


def test_limited_fixture(limited):
    pass


@pytest.fixture
@timeout("quick")
async def limited_async():
    await asyncio.sleep(0)
    yield 1
    await asyncio.sleep(100)


async def test_limited_async_fixture(limited_async):
    await asyncio.sleep(0.5)


@pytest.mark.tightship(timeout=50)
async def test_inner_twin():
    with pytest.raises(TightshipTimeout) as caught:
        async with timeout("quick", name="inner"):
            await asyncio.sleep(100)
    assert caught.value.budget.name == "quick"


@pytest.mark.tightship(timeout="quick")
async def test_outer():
    async with timeout("roomy", name="inner"):
        await asyncio.sleep(100)


@timeout("quick")
async def test_decorated():
    await asyncio.sleep(100)


class TestMethods:
    @timeout("quick")
    def test_method(self):
        time.sleep(100)
"""
MARK = "0.3 s (test_it.py::{}: @pytest.mark.tightship timeout)"
QUICK = "budget 'quick' of 0.3 s (pyproject.toml [tool.tightship.budgets] quick)"
#: Test -> the part that is named, and the limit with its place.
HOLDS = {
    "test_call": ("call", MARK),
    "test_call_among_others": ("call", MARK),
    "test_setup": ("set-up of fixture 'stuck' (function)", MARK),
    "test_teardown": ("teardown of fixture 'stuck_later' (function)", MARK),
    "test_fixture": ("set-up of fixture 'stuck' (function)", MARK),
    "test_fixture_later": ("teardown of fixture 'stuck_later' (function)", MARK),
    "test_async_fixture": ("set-up of fixture 'astuck' (function)", QUICK),
    "test_async_fixture_later": ("teardown of fixture 'astuck_later' (function)", QUICK),
    "test_closest": ("call", QUICK),
    "test_both": ("call", "0.3 s (test_it.py::TestClosest::test_both: @pytest.mark.tightship"),
    "test_of_pytest_timeout": (
        "call",
        "0.3 s (test_it.py::test_of_pytest_timeout: @pytest.mark.timeout)",
    ),
    "test_of_pytest_timeout_call": (
        "call",
        "0.3 s (test_it.py::test_of_pytest_timeout_call: @pytest.mark.timeout)",
    ),
    "test_ours_before_theirs": ("call", MARK),
    "test_wide": ("set-up of fixture 'wide' (module)", MARK),
    "test_outer": ("call", QUICK),
}
#: Tests that a `timeout()` of their own ended: pytest's failures like any other.
OWN = {"test_limited_fixture", "test_limited_async_fixture", "test_decorated", "test_method"}


@pytest.fixture(scope="module")
def ran(suite_once: Suite) -> Ran:
    """A suite with limits from everywhere, run once, without pytest-timeout."""
    return suite_once(LIMITS, "-p", "no:timeout", toml=BUDGETS, status=1)


@pytest.mark.parametrize("name", HOLDS)
def test_the_tightest_limit_holds_and_is_named(ran, name):
    """With the part of the test that it ended, and the place its value came from."""
    part, limit = HOLDS[name]
    told = ran.timeout(name)
    assert told["subject"] == f"{name} ({part})"
    assert told["facts"]["limit"].startswith(limit.format(name))
    assert 0.3 <= told["seconds"] < 20
    assert (told["extra"]["limit"], told["extra"]["budget"]) == (
        0.3,
        "quick" if limit is QUICK else "",
    )


def test_a_limit_ends_with_its_part(ran):
    """What is in time by its own limit passes, however long the rest took."""
    twins = {n: r["outcome"] for n, r in ran.tests.items() if n.endswith("_twin")}
    assert len(twins) == 8
    assert set(twins.values()) == {"passed"}, ran.text
    assert {n for n, r in ran.tests.items() if r["findings"]} == set(HOLDS)


def test_a_limit_of_the_code_itself(ran):
    """`@timeout` on tests and below fixtures, also async ones: its error fails the test."""
    for name in OWN:
        assert ran.outcomes[name] == "failed"
    operations = ("limited", "limited_async", "test_decorated", "TestMethods.test_method")
    for operation in operations:
        assert f"{operation} took longer than 0.3 s" in ran.text


def test_a_wide_fixture_hangs_once(ran):
    """Other tests that want it are told at once, as for any error of a fixture."""
    assert ran.outcomes["test_wide_again"] == "failed"
    assert ran.tests["test_wide_again"]["seconds"] < 0.25
    assert ran.text.count("test_wide (set-up of fixture 'wide' (module)) took longer") >= 3


# -- from elsewhere -------------------------------------------------------------------------


HANG = """
import time
import pytest


@pytest.mark.tightship(timeout=100)
def test_marked():
    time.sleep(100)


def test_plain():
    time.sleep(100)


def test_clean():
    pass
"""


def test_an_exclamation_mark_beats_every_marker(suite):
    """For one run, and it isn't scaled."""
    ran = suite(HANG, "--tightship-timeout=0.3!", env={"TIGHTSHIP_TIMEOUT_SCALE": "50"}, status=1)
    assert ran.counts == {"failed": 2, "passed": 1}
    limit = ran.timeout("test_marked")["facts"]["limit"]
    assert limit.startswith("0.3 s (command line --tightship-timeout)")


def test_a_default_for_all_tests_and_a_factor(suite):
    """From the file, scaled by the environment; the place is named."""
    ran = suite(
        HANG.replace("=100", "=0.2"),
        toml="[tool.tightship]\ntimeout = 0.1\n",
        env={"TIGHTSHIP_TIMEOUT_SCALE": "3"},
        status=1,
    )
    assert ran.counts == {"failed": 2, "passed": 1}
    plain, marked = ran.timeout("test_plain"), ran.timeout("test_marked")
    assert plain["extra"]["limit"] == pytest.approx(0.3)
    assert plain["extra"]["where"] == "pyproject.toml [tool.tightship] timeout"
    assert marked["extra"]["limit"] == pytest.approx(0.6)


def test_the_session_is_limited(suite):
    """The test that runs then is ended, with the session's limit, and no other one begins."""
    ran = suite(HANG, "--tightship-timeout=session=1.5")
    assert ran.status in (1, 2)
    assert ran.counts == {"failed": 1}
    told = ran.timeout("test_marked")
    assert told["facts"]["limit"].startswith("1.5 s (command line --tightship-timeout)")
    assert 1.5 <= told["seconds"] < 20
    assert set(ran.tests) == {"test_marked"}
    assert "tightship: the run took longer than 1.5 s" in ran.text


def test_a_limit_for_all_fixtures(suite):
    """Set-up and teardown, from the command line; the twin is in time."""
    source = """
import time, pytest

@pytest.fixture(scope="module")
def up():
    time.sleep(100)

@pytest.fixture(scope="module")
def down():
    yield
    time.sleep(100)

@pytest.fixture
def fine():
    yield 1

def test_up(up): pass
def test_clean(fine): time.sleep(0.5)
def test_down(down): pass
"""
    ran = suite(source, "--tightship-timeout=fixture=0.3", status=1)
    assert ran.counts == {"passed": 2, "error": 2}
    assert ran.timeout("test_up")["subject"] == "test_up (set-up of fixture 'up' (module))"
    assert ran.timeout("test_down")["subject"] == "test_down (teardown of fixture 'down' (module))"


# -- with Tightship off ------------------------------------------------------------------------


def test_off_leaves_what_a_marker_asks_for(suite):
    """Whoever writes a limit on a test means it; nothing else is limited, or watched."""
    source = """
import asyncio, time, pytest

@pytest.mark.tightship(timeout=0.3)
def test_marked():
    time.sleep(100)

@pytest.mark.tightship(timeout=0.3)
async def test_marked_coroutine():
    await asyncio.sleep(100)

def test_plain():
    time.sleep(0.5)

LEAK = []
def test_leaks():
    LEAK.append(open(__file__))
"""
    ran = suite(source, "--tightship=off", "--tightship-timeout=0.2", status=1)
    assert ran.counts == {"failed": 2, "passed": 2}
    assert ran.timeout("test_marked")["label"] == "blocked"
    assert ran.timeout("test_marked_coroutine")["label"] == "never-finished"
    assert not any(r["watched"] for r in ran.tests.values())
    assert "2 timeouts; 0 leaks" in ran.section


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("'databse'", "unknown budget 'databse'; did you mean 'database'"),
        ("-1", "expected more than 0 seconds, or 'off', got -1"),
        ("{'cal': 3}", "unknown phase 'cal'; did you mean 'call'"),
    ],
)
def test_a_wrong_marker_ends_the_run_before_the_first_test(suite, value, message):
    """With the test it stands on."""
    source = f"import pytest\n\n\n@pytest.mark.tightship(timeout={value})\ndef test_it(): pass\n"
    ran = suite(source, journal=False, status=4)
    assert f"test_it.py::test_it: @pytest.mark.tightship timeout: {message}" in ran.text


@pytest.mark.parametrize(
    ("args", "toml", "message"),
    [
        (["--tightship-timeout=abc"], "", "command line --tightship-timeout: unknown budget 'abc'"),
        (["--tightship-timeout=cal=3"], "", "unknown phase 'cal'; did you mean 'call'"),
        ([], "[tool.tightship]\nbudgets = 3\n", "budgets: expected a table of name to seconds"),
        ([], "[tool.tightship.budgets]\nhttp = 'x'\n", "[tool.tightship.budgets] http: expected"),
    ],
)
def test_a_wrong_setting_ends_the_run_at_once(suite, args, toml, message):
    """With its place."""
    ran = suite("def test_it(): pass\n", *args, toml=toml, journal=False, status=4)
    assert message in ran.text


# -- statistics ---------------------------------------------------------------------------------


USES = """
import asyncio, time, pytest
from tightship import timeout


@pytest.mark.parametrize("n", range(6))
@pytest.mark.tightship(timeout="database")
async def test_query(n):
    await asyncio.sleep(0.3 if n == 3 else 0.01)


@pytest.mark.tightship(timeout="database")
def test_slow_teardown(request):
    request.addfinalizer(lambda: time.sleep(0.5))


def test_search():
    for _ in range(3):
        with timeout("search"):
            time.sleep(0.01)


@pytest.mark.tightship(timeout="short")
def test_missed():
    time.sleep(100)


@pytest.mark.tightship(timeout=5)
def test_without_a_name():
    pass
"""


@pytest.mark.parametrize("workers", [(), ("-n2",)], ids=["alone", "in workers"])
def test_budgets_are_counted(suite, workers):
    """In the journal's last line and in the summary, also those of workers."""
    toml = "[tool.tightship.budgets]\nsearch = 8\nshort = 0.3\n"
    ran = suite(USES, *workers, toml=toml, status=1)
    found = {b["name"]: b for b in ran.records[-1]["budgets"]}
    assert set(found) == {"database", "search", "short"}
    database = found["database"]
    assert (database["uses"], database["seconds"], database["missed"]) == (7, 10, 0)
    assert 0.5 <= database["longest"] < 5
    assert database["p50"] < database["longest"]
    assert database["p95"] == database["longest"]
    assert database["nearest"] == "test_it.py::test_slow_teardown"
    assert database["share"] == pytest.approx(database["longest"] / 10, abs=0.001)
    assert database["suggestion"] in (2, 5, None)
    assert (found["search"]["uses"], found["search"]["missed"]) == (3, 0)
    assert (found["short"]["uses"], found["short"]["missed"]) == (1, 1)
    assert "budget 'database' (10 s) used 7 times: half took up to " in ran.section
    assert "budget 'short' (0.3 s) used once" in ran.section
    assert "; 1 went over it" in ran.section


def test_no_named_budget_no_line(suite):
    """A run that names none says nothing."""
    ran = suite("def test_it(): pass\n", status=0)
    assert ran.records[-1]["budgets"] == []
    assert "budget '" not in ran.text
