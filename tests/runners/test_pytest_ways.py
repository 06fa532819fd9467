"""Everything pytest and its other plugins do to a test: the verdict stays the same."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.skipif(
    int(pytest.__version__.split(".")[0]) < 9,
    reason="subtests and the native toml table came with pytest 9",
)

MIXED = """
import asyncio
import os
import pytest
import socket
import warnings
from hypothesis import given, settings, strategies as st
from harbour import *


# -- outcomes


@pytest.mark.xfail(strict=False)
async def test_xfail_leak():
    start(forever())
    assert False


@pytest.mark.xfail(strict=False)
async def test_xfail_clean():
    assert False


@pytest.mark.xfail(strict=True)
async def test_xfail_strict_leak():
    start(forever())
    assert False


@pytest.mark.xfail(strict=False)
async def test_xpass_leak():
    start(forever())


@pytest.mark.skip
async def test_skip_mark():
    start(forever())


async def test_skip_inside_leak():
    start(forever())
    pytest.skip("later")


async def test_skip_inside_clean():
    pytest.skip("later")


async def test_fails_and_leaks():
    start(forever())
    assert 1 == 2, "this is what went wrong"


@pytest.fixture
async def broken_setup():
    start(forever())
    raise RuntimeError("set-up went wrong")


async def test_broken_setup(broken_setup):
    pass


@pytest.fixture
async def broken_teardown():
    yield
    start(forever())
    raise RuntimeError("tear-down went wrong")


async def test_broken_teardown(broken_teardown):
    pass


async def test_clean_after_broken():
    pass


# -- hypothesis


@given(st.integers())
@settings(max_examples=5, database=None)
def test_given_clean(n):
    asyncio.run(asyncio.sleep(0))


@given(st.integers())
@settings(max_examples=5, database=None)
async def test_given_async_clean(n):
    await asyncio.sleep(0)


@given(st.just(1))
@settings(max_examples=5, database=None)
async def test_given_async_leak(n):
    start(forever())


@given(st.just(1))
@settings(max_examples=5, database=None)
def test_given_leak(n):
    KEPT.append(asyncio.new_event_loop())


# -- fixtures


@pytest.fixture(scope="session", autouse=True)
def everywhere():
    sock = socket.socket()
    yield sock
    sock.close()


@pytest.fixture(scope="session")
def late():
    sock = socket.socket()
    yield sock
    sock.close()


@pytest.fixture(scope="session")
def late_leak():
    KEPT.append(socket.socket())


def test_dynamic_fixture(request):
    assert request.getfixturevalue("late").fileno() > 0


def test_dynamic_again(request, late):
    assert request.getfixturevalue("late") is late


def test_dynamic_leak(request):
    request.getfixturevalue("late_leak")


async def test_dynamic_in_async(request, late):
    assert request.getfixturevalue("everywhere").fileno() > 0


@pytest.fixture(params=["clean", "leak"])
def param(request):
    sock = socket.socket()
    yield request.param
    if request.param == "leak":
        KEPT.append(sock)
    else:
        sock.close()


def test_param(param):
    pass


@pytest.fixture(scope="module", params=["clean", "leak"])
def wide_param(request):
    sock = socket.socket()
    yield request.param
    if request.param == "leak":
        KEPT.append(sock)
    else:
        sock.close()


def test_wide_param(wide_param):
    pass


def test_builtin_fixtures(tmp_path, capfd, monkeypatch, caplog, recwarn, cache, tmp_path_factory):
    monkeypatch.setenv("ANCHOR", "down")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log").write_text("ahoy")
    os.write(1, b"ahoy")
    assert capfd.readouterr().out == "ahoy"
    caplog.set_level(10)
    tmp_path_factory.mktemp("x")
    warnings.warn("shoal")


def test_capsys(capsys, capsysbinary=None):
    print("ahoy")


def test_subtests_clean(subtests):
    for n in range(3):
        with subtests.test(n=n):
            asyncio.run(asyncio.sleep(0))


async def test_subtests_leak(subtests):
    for n in range(2):
        with subtests.test(n=n):
            await asyncio.sleep(0)
    start(forever())


def test_raises_clean():
    with pytest.raises(ValueError), pytest.warns(UserWarning):
        warnings.warn("shoal")
        raise ValueError


def test_last():
    pass
"""

MIXED_FOUND = {
    "test_xfail_leak": ["task test_xfail_leak"],
    "test_xfail_strict_leak": ["task test_xfail_strict_leak"],
    "test_xpass_leak": ["task test_xpass_leak"],
    "test_skip_inside_leak": ["task test_skip_inside_leak"],
    "test_fails_and_leaks": ["task test_fails_and_leaks"],
    "test_broken_setup": ["task fixture 'broken_setup' (function)"],
    "test_broken_teardown": ["task fixture 'broken_teardown' (function)"],
    "test_given_async_leak": ["task test_given_async_leak"],
    "test_given_leak": ["loop test_given_leak"],
    "test_param[leak]": ["socket fixture 'param' (function)"],
    "test_subtests_leak": ["task test_subtests_leak"],
    # The last test of module and session is also the end of their fixtures.
    "test_last": ["socket fixture 'late_leak' (session)", "socket fixture 'wide_param' (module)"],
}


def test_outcomes_hypothesis_and_fixtures(run):
    """xfail, skip, broken set-ups, @given, late and parametrized fixtures, builtin ones."""
    ran = run(test_it=MIXED, status=1)
    assert ran.found == MIXED_FOUND
    text = ran.text
    # The test's own failure is what the summary says; the xfail stays an xfail.
    assert "this is what went wrong" in text
    assert "FAILED test_it.py::test_fails_and_leaks - AssertionError: this is what went" in text
    assert "ERROR test_it.py::test_fails_and_leaks" not in text
    assert "ERROR test_it.py::test_broken_setup - RuntimeError: set-up went wrong" in text
    assert "ERROR test_it.py::test_broken_teardown - RuntimeError: tear-down went" in text
    for name in ("test_xfail_leak", "test_xfail_strict_leak"):
        assert f"XFAIL test_it.py::{name}" in text
        assert f"ERROR test_it.py::{name} - task 'forever' outlived {name}" in text
    assert "XFAIL test_it.py::test_xfail_clean" in text
    assert ran.counts["xfailed"] == 3


@pytest.mark.parametrize(
    "args",
    [
        ("-n2",),
        ("-n2", "--dist", "loadgroup"),
        ("-p", "no:legacypath", "--strict-markers", "--strict-config"),
        ("-W", "error"),
        ("-s",),
        ("--import-mode=importlib",),
        ("-p", "no:unraisableexception", "-p", "no:threadexception"),
    ],
    ids=" ".join,
)
def test_the_way_the_suite_is_run_changes_no_finding(run, args):
    """xdist's distributions, strictness, warnings as errors: the same findings."""
    ran = run(*args, ini="pythonpath = .\n", test_it=MIXED, status=1)
    found = dict(ran.found)
    expected = dict(MIXED_FOUND)
    # Where a session's fixture ends depends on the distribution, but not whose it is.
    late = [x for left in found.values() for x in left if "late_leak" in x]
    wide = [x for left in found.values() for x in left if "wide_param" in x]
    assert sorted(late + wide) == expected.pop("test_last")
    rest = {
        test.partition("@")[0]: kept
        for test, left in found.items()
        if (kept := [x for x in left if "late_leak" not in x and "wide_param" not in x])
    }
    assert rest == expected


STRICT = """
import asyncio
import pytest
from harbour import *

@pytest.mark.tightship(allow="task:forever", reason="kept for the test")
def test_allowed():
    asyncio.run(main())

def test_leak():
    asyncio.run(main())

def test_clean():
    asyncio.run(asyncio.sleep(0))

async def main():
    start(forever())
"""


def test_the_native_toml_table_with_strict_true(run, pytester):
    """`[tool.pytest]` is typed, and strict forbids markers that nobody registered."""
    pytester.makepyprojecttoml("[tool.pytest]\nstrict = true\n")
    ran = run("-c", "pyproject.toml", "-p", "no:asyncio", test_it=STRICT, status=1)
    assert ran.found == {"test_leak": ["task test_leak"]}


RERUN = """
import asyncio
from harbour import *

RUNS = []

async def test_always():
    start(forever())

async def test_only_first():
    RUNS.append(1)
    if len(RUNS) == 1:
        start(forever())

async def test_clean():
    pass
"""


def test_a_rerun_is_a_test_of_its_own(run):
    """pytest-rerunfailures: each run is judged alone; a leak on the first only is forgiven."""
    ran = run("--reruns", "1", test_it=RERUN, status=1)
    assert ran.found == {
        "test_always": ["task test_always"] * 2,
        "test_only_first": ["task test_only_first"],
    }
    assert ran.counts["error"] == 1
    assert ran.counts["rerun"] == 2


STOPS = """
import pytest
import socket
from harbour import *


@pytest.fixture(scope="session")
def wide():
    sock = socket.socket()
    yield
    sock.close()


@pytest.fixture(scope="session")
def wide_leak():
    KEPT.append(socket.socket())
    yield


async def test_one(wide, wide_leak):
    pass


async def test_two(wide):
    start(forever())


async def test_three():
    start(forever())


async def test_four():
    pass
"""


@pytest.mark.parametrize(("args", "errors"), [(("-x",), 1), (("--maxfail=2",), 2)])
def test_a_leak_counts_for_stopping(run, args, errors):
    """-x and --maxfail stop at leaks; fixtures that end with the session early are not blamed."""
    ran = run(*args, test_it=STOPS)
    names = ["test_two", "test_three"][:errors]
    assert {t: f for t, f in ran.found.items() if t in names} == {n: [f"task {n}"] for n in names}
    assert ran.counts["error"] == errors
    assert "stopping after" in ran.text
    assert "outlived fixture 'wide' " not in ran.text
    assert ran.text.count("outlived fixture 'wide_leak' (session)") >= 1


def test_last_failed_runs_the_leaking_tests_again(run, pytester):
    """--lf takes a leak for the failure it is."""
    run("-p", "cacheprovider", test_it=STOPS)
    ran = run("-p", "cacheprovider", "--lf", test_it=STOPS)
    assert ran.found == {
        "test_two": ["task test_two"],
        "test_three": ["task test_three"],
    }
    assert set(ran.outcomes) == {"test_two", "test_three"}


CUSTOM = """
import pytest
import socket


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".chart":
        return Chart.from_parent(parent, path=file_path)


class Chart(pytest.File):
    def collect(self):
        for line in self.path.read_text().split():
            yield Course.from_parent(self, name=line)


class Course(pytest.Item):
    kept = []

    def runtest(self):
        if self.name == "leak":
            self.kept.append(socket.socket())
        if self.name == "fail":
            raise ValueError("off course")

    def repr_failure(self, excinfo):
        return str(excinfo.value)
"""

DOCTEST = '''
def clean():
    """
    >>> import asyncio
    >>> asyncio.run(asyncio.sleep(0))
    """


def leak():
    """
    >>> import asyncio
    >>> from harbour import start, forever
    >>> async def main(): _ = start(forever())
    >>> asyncio.run(main())
    """
'''


def test_items_that_are_no_functions(run, pytester):
    """Doctests and a conftest's own items: no fixturenames, no _request, yet watched."""
    pytester.path.joinpath("one.chart").write_text("clean leak fail last")
    ran = run("--doctest-modules", conftest=CUSTOM, seamarks=DOCTEST, status=1)
    assert ran.found == {"leak": ["socket leak"], "seamarks.leak": ["task seamarks.leak"]}
    assert "off course" in ran.text
