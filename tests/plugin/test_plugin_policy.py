"""What fails a test and what may be left behind, through every source a user has."""

from __future__ import annotations

import pytest

#: One leak of each certainty, and a clean test.
THREE = '''
import asyncio, os, socket
import pytest

KEPT = []


async def poll():
    await asyncio.sleep(3600)


class Cycle:
    pass


def test_clean():
    pass


def test_possible():
    """A module global holds it: perhaps on purpose."""
    KEPT.append(socket.socketpair()[0])


def test_strong():
    async def main():
        KEPT.append(asyncio.create_task(poll()))
        await asyncio.sleep(0)
    asyncio.run(main())


def test_proven():
    c = Cycle()
    c.me = c
    c.sock = socket.socket()
'''

ONE = """
import asyncio, pytest

async def poll():
    await asyncio.sleep(3600)

def leak(n=1):
    async def main():
        for _ in range(n):
            asyncio.create_task(poll())
        await asyncio.sleep(0)
    asyncio.run(main())
"""

LEVELS = {
    "off": set(),
    "proven": {"test_proven"},
    "strong": {"test_proven", "test_strong"},
    "possible": {"test_proven", "test_strong", "test_possible"},
}


@pytest.mark.parametrize("level", LEVELS)
def test_a_test_fails_from_the_threshold_on(suite, level):
    """Each threshold fails what is at least that certain, and lists the rest."""
    ran = suite(THREE, f"--tightship-threshold={level}")
    assert ran.failed == LEVELS[level], ran.text
    assert ran.status == (1 if LEVELS[level] else 0)


@pytest.mark.parametrize("source", ["pyproject", "tightship.toml", "environment", "command line"])
def test_a_kinds_threshold_can_be_set_everywhere(suite, pytester, monkeypatch, source):
    """``task`` switched off leaves the socket; the general threshold goes to ``possible``."""
    args, toml = [], ""
    lines = "threshold = 'possible'\n{}\ntask = 'off'\n"
    if source == "pyproject":
        toml = "[tool.tightship]\n" + lines.format("[tool.tightship.thresholds]")
    elif source == "tightship.toml":
        (pytester.path / "tightship.toml").write_text(lines.format("[thresholds]"))
    elif source == "environment":
        monkeypatch.setenv("TIGHTSHIP_THRESHOLD", "possible,task=off")
    else:
        args = ["--tightship-threshold=possible", "--tightship-threshold=task=off"]
    ran = suite(THREE, *args, toml=toml, status=1)
    assert ran.failed == {"test_proven", "test_possible"}, ran.text
    assert ran.tests["test_strong"]["findings"] == []


def test_a_kind_that_is_off_takes_its_parts_along(suite):
    """It is looked at all the same: else its parts would be findings of other kinds.

    A marker or a block can ask for it, so it cannot be left out for the whole run.
    """
    ran = suite(
        """
import asyncio
import pytest
from tightship import no_leaks

KEPT = []

def leak():
    async def main():
        KEPT.append(await asyncio.start_server(print, "127.0.0.1", 0))
    asyncio.run(main())

def test_off():
    leak()

@pytest.mark.tightship(threshold={"server": "strong"})
def test_marker():
    leak()

def test_block():
    with no_leaks():
        leak()
""",
        "--tightship-threshold=server=off",
        status=1,
    )
    assert ran.tests["test_off"]["findings"] == [], ran.text
    assert [f["kind"] for f in ran.tests["test_marker"]["findings"]] == ["server"], ran.text
    assert ran.failed == {"test_marker"}, ran.text
    assert ran.tests["test_block"]["outcome"] == "failed"
    assert "LeakError: server" in ran.text, ran.text


def test_a_stronger_source_wins(suite, monkeypatch):
    """Marker beats command line beats environment beats file."""
    monkeypatch.setenv("TIGHTSHIP_THRESHOLD", "possible")
    source = THREE.replace(
        "def test_strong", "@pytest.mark.tightship(threshold='strong')\ndef test_strong"
    )
    toml = "[tool.tightship]\nthreshold = 'off'\n"
    ran = suite(source, toml=toml)
    assert ran.failed == LEVELS["possible"]
    ran = suite(source, "--tightship-threshold=proven", toml=toml)
    assert ran.failed == {"test_proven", "test_strong"}


def test_a_marker_sets_thresholds_for_its_test_alone(suite):
    """A marker on a function, its class and its module: the closest one counts."""
    ran = suite(
        ONE
        + """
pytestmark = pytest.mark.tightship(threshold="off")

def test_module():
    leak()

@pytest.mark.tightship(threshold="strong")
class TestClass:
    def test_class(self):
        leak()

    @pytest.mark.tightship(threshold={"task": "off"})
    def test_function(self):
        leak()

    @pytest.mark.tightship(enabled=False)
    def test_disabled(self):
        leak()

@pytest.mark.tightship(threshold="strong")
@pytest.mark.tightship(allow="task:poll", reason="stacked")
def test_stacked():
    leak()
""",
        status=1,
    )
    assert ran.failed == {"test_class"}, ran.text
    assert ran.verdicts("test_stacked") == [("task", "allowed")]


RULES = {
    "marker": ("@pytest.mark.tightship(allow='task:poll', reason='on purpose')", "", ()),
    "pyproject": (
        "",
        "[[tool.tightship.allow]]\nwhat = 'task:poll'\nreason = 'on purpose'\n",
        (),
    ),
    "command line": ("", "", ("--tightship-allow=task:poll=on purpose",)),
}


@pytest.mark.parametrize("source", [*RULES, "nowhere"])
def test_an_allow_rule_lets_pass_what_fails_without_it(suite, source):
    """The same leak passes with a rule from each source, with its reason, and fails without."""
    marker, toml, args = RULES.get(source, ("", "", ()))
    ran = suite(f"{ONE}\n{marker}\ndef test_leak():\n    leak()\n", "-v", *args, toml=toml)
    if source == "nowhere":
        assert ran.status == 1
        assert ran.failed == {"test_leak"}
    else:
        assert ran.status == 0, ran.text
        assert ran.verdicts("test_leak") == [("task", "allowed")]
        assert "on purpose" in ran.section


def test_the_allow_line_of_a_report_can_be_pasted(suite):
    """The marker that a report prints makes the test pass once a reason is given."""
    ran = suite(f"{ONE}\ndef test_leak():\n    leak()\n", status=1)
    line = next(x for x in ran.text.splitlines() if x.strip().startswith("allow "))
    marker = line.strip().removeprefix("allow").strip()
    assert 'reason="..."' in marker
    suite(f"{ONE}\n{marker}\ndef test_leak():\n    leak()\n", status=0)


def test_rules_can_be_limited_by_test_and_count_and_date(suite):
    """``tests``, ``count`` and ``until`` each hold as far as they say and no further."""
    ran = suite(
        ONE
        + """
def test_named():
    leak()

def test_other():
    leak()

@pytest.mark.tightship(allow="task:poll", reason="two", count=2)
def test_within():
    leak(2)

@pytest.mark.tightship(allow="task:poll", reason="two", count=2)
def test_beyond():
    leak(3)

@pytest.mark.tightship(allow="task:poll", reason="old", until="2020-01-01")
def test_expired():
    leak()

@pytest.mark.tightship(allow="task:poll", reason="new", until="2999-01-01")
def test_valid():
    leak()
""",
        toml="[[tool.tightship.allow]]\nwhat = 'task:poll'\nreason = 'r'\n"
        "tests = 'test_it.py::test_named'\n",
        status=1,
    )
    assert ran.failed == {"test_other", "test_beyond", "test_expired"}, ran.text
    beyond = ran.tests["test_beyond"]["findings"]
    assert [f["count"] for f in beyond if f["verdict"] == "fail"] == [1]
    assert "more than the 2 allowed" in ran.text
    assert "expired on 2020-01-01" in ran.section
    assert "test_expired" in ran.section


STALE = (
    ONE
    + """
@pytest.mark.tightship(allow="task:gone", reason="stale")
def test_stale():
    pass

@pytest.mark.parametrize("n", range(3))
@pytest.mark.tightship(allow="task:poll", reason="in use")
def test_used(n):
    if n == 1:
        leak()
"""
)
RULE = "[[tool.tightship.allow]]\nwhat = 'socket:no-such'\nreason = 'stale too'\n"


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["alone", "xdist"])
def test_rules_never_used_are_named(suite, xdist):
    """A stale rule is named with its place; one that any worker used is not."""
    ran = suite(STALE, *xdist, toml=RULE, status=0)
    lines = [x for x in ran.section.splitlines() if "never used" in x]
    assert len(lines) == 2, ran.text
    assert any("socket:no-such" in x and "pyproject.toml" in x for x in lines)
    assert any("task:gone" in x and "test_stale" in x for x in lines)


@pytest.mark.parametrize(
    "args",
    [
        ("-k", "used"),
        ("test_it.py",),
        ("test_it.py::test_used",),
        ("-n2", "-k", "used"),
        ("--deselect", "test_it.py::test_used[0]"),
        ("-n2", "test_it.py"),
    ],
    ids=" ".join,
)
def test_rules_are_not_called_unused_when_only_some_tests_ran(suite, args):
    """A selection by keyword, file, test or deselection proves nothing about a rule."""
    ran = suite(STALE, *args, toml=RULE, status=0)
    assert "never used" not in ran.text


@pytest.mark.parametrize(
    ("marker", "told"),
    [
        ("allow='tsak:poll', reason='r'", "did you mean 'task'?"),
        ("allow='task:poll'", "reason"),
        ("allow='task:poll', reason='r', untill='2030-01-01'", "did you mean 'until'?"),
        ("threshold='strnog'", "did you mean 'strong'?"),
        ("enabled='no'", "expected true or false"),
        ("'task:poll'", "keywords only"),
    ],
)
def test_a_bad_marker_is_one_clear_error(suite, marker, told):
    """It ends the run before the first test, with its place and without a traceback."""
    source = f"{ONE}\n@pytest.mark.tightship({marker})\ndef test_a():\n    leak()\n"
    ran = suite(source, status=4)
    lines = [x for x in ran.text.splitlines() if "test_it.py::test_a" in x]
    assert len(lines) == 1, ran.text
    assert told in lines[0]
    assert "Traceback" not in ran.text
    assert "ERROR: tightship: bad marker" in ran.text


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["alone", "xdist"])
def test_a_bad_marker_is_told_once_for_all_the_tests_it_stands_on(suite, xdist):
    """On a module or class it is one error, not one per test; others are told with it."""
    ran = suite(
        ONE
        + """
pytestmark = pytest.mark.tightship(threshold="strnog")

@pytest.mark.tightship(allow="tsak:a", reason="r")
class TestMany:
    @pytest.mark.parametrize("n", range(30))
    def test_many(self, n):
        pass
""",
        *xdist,
    )
    assert ran.status not in (0, 1), ran.text
    assert "Traceback" not in ran.text
    assert ran.text.count("did you mean 'strong'?") == 1, ran.text
    assert ran.text.count("did you mean 'task'?") == 1, ran.text


@pytest.mark.parametrize("xdist", [(), ("-n1",)], ids=["alone", "xdist"])
def test_a_bad_marker_that_comes_too_late_is_named_and_ignored(suite, xdist):
    """Added while its test runs, it cannot be refused at the start, and is no fault of ours."""
    source = f"""{ONE}
def test_late(request):
    request.node.add_marker(pytest.mark.tightship(allow="sockte:*", reason="r"))
    leak()
"""
    ran = suite(source, *xdist, status=1)
    assert ran.failed == {"test_late"}
    (line,) = [x for x in ran.section.splitlines() if x.startswith("IGNORED ")]
    assert "did you mean 'socket'" in line
    assert "FAULT" not in ran.section


def test_a_markers_grace_is_the_cap_of_its_test(suite):
    """With a grace of nothing, what needs a moment is a leak; else it is only slow."""
    ran = suite(
        """
import threading, time, pytest

def start():
    threading.Thread(target=time.sleep, args=(0.08,)).start()

@pytest.mark.tightship(grace=0)
def test_none():
    start()

def test_default():
    start()
""",
        status=1,
    )
    assert ran.failed == {"test_none"}, ran.text
    assert ran.verdicts("test_default") == [("thread", "slow")]


FILES = {
    "malformed": ("[tool.tightship\n", None, "pyproject.toml"),
    "unknown key": ("[tool.tightship]\ntreshold = 'off'\n", None, "did you mean 'threshold'?"),
    "wrong type": ("[tool.tightship]\ngrace = 'long'\n", None, "a number of seconds"),
    "wrong section": ("[tool]\ntightship = 3\n", None, "expected a table"),
    "unknown kind": (
        "[tool.tightship.thresholds]\nsokcet = 'off'\n",
        None,
        "did you mean 'socket'?",
    ),
    "no reason": ("[[tool.tightship.allow]]\nwhat = 'task:a'\n", None, "without a reason"),
    "malformed own": ("", "threshold = ", "tightship.toml: is not valid TOML"),
    "both": ("[tool.tightship]\ngrace = 1\n", "grace = 1\n", "keep one of them"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_one_clear_error(suite, pytester, name):
    """Exit status 4 and one line that says where and what; nothing of Python's own."""
    toml, own, told = FILES[name]
    if own is not None:
        (pytester.path / "tightship.toml").write_text(own)
    ran = suite("def test_a(): pass\n", toml=toml, status=4)
    assert told in ran.text
    assert "Traceback" not in ran.text
    if name != "malformed":  # pytest itself is the first to stumble over that
        assert "ERROR: tightship: " in ran.text


@pytest.mark.parametrize(
    ("args", "env", "told"),
    [
        (["--tightship-threshold=strnog"], {}, "did you mean 'strong'?"),
        (["--tightship-threshold=sokcet=off"], {}, "did you mean 'socket'?"),
        (["--tightship-allow=task:a"], {}, "has no reason"),
        (["--tightship-grace=soon"], {}, "a number of seconds"),
        ([], {"TIGHTSHIP_THRESHOLD": "strnog"}, "did you mean 'strong'?"),
        ([], {"TIGHTSHIP_TRESHOLD": "strong"}, "did you mean 'TIGHTSHIP_THRESHOLD'?"),
    ],
)
def test_a_wrong_word_outside_files_is_one_clear_error(suite, monkeypatch, args, env, told):
    """The same for the command line and the environment."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ran = suite("def test_a(): pass\n", *args, status=4)
    assert "ERROR: tightship: " in ran.text
    assert told in ran.text
    assert "Traceback" not in ran.text
