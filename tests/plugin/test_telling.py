"""What a user reads: header, reports, short summary, our section, junitxml."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

SUITE = """
import asyncio, os, socket, threading, time
import pytest

KEPT = []

async def poll():
    await asyncio.sleep(3600)

async def main(n):
    for _ in range(n):
        asyncio.create_task(poll())
    await asyncio.sleep(0)

@pytest.fixture(scope="module")
def wide():
    KEPT.append(os.dup(2))
    yield

def test_many():
    asyncio.run(main(37))

def test_kinds():
    for n in range(15):
        exec(f"async def poll_{chr(97 + n)}():\\n    await asyncio.sleep(3600)", globals())
    async def start():
        for n in range(15):
            asyncio.create_task(globals()[f"poll_{chr(97 + n)}"]())
        await asyncio.sleep(0)
    asyncio.run(start())

def test_slow():
    threading.Thread(target=time.sleep, args=(0.08,)).start()

def test_note():
    KEPT.append(socket.socket())

def test_fails_itself():
    asyncio.create_task
    KEPT.append(os.dup(2))
    assert 0

@pytest.mark.xfail(strict=False)
def test_expected_to_fail():
    KEPT.append(os.dup(2))
    assert 0

def test_stays_open():
    KEPT.append(os.dup(2))

@pytest.mark.tightship(allow="task:poll", reason="on purpose")
def test_allowed():
    asyncio.run(main(1))

def test_clean():
    pass

def test_last(wide):
    pass
"""


def lines(text, word):
    return [x for x in text.splitlines() if x.startswith(word)]


@pytest.mark.parametrize("xdist", [(), ("-n1",)], ids=["alone", "xdist"])
def test_each_finding_has_a_line_and_each_failing_test_a_complete_one(suite, xdist):
    """The section, the short summary and the closing counts, with and without pytest-xdist."""
    ran = suite(SUITE, *xdist, status=1)
    text, section = ran.text, ran.section
    # One line per finding; equal ones are one line with a count.
    assert section.count("LEAK 37 x task 'poll' outlived test_many") == 1
    # Lists are cut and say so.
    assert len(lines(section, "LEAK task 'poll_")) == 10, section
    assert "LEAK and 5 more of kind task in test_kinds (-v shows all)" in section
    assert "and 5 more of kind task" in text.replace(section, "")
    # Slow closers and notes stand apart, with their reasons.
    assert re.search(r"^SLOW thread 'sleep' .*0\.\d\d s", section, re.M), section
    assert re.search(r"^NOTE socket .*test_note.*kept on purpose", section, re.M), section
    assert "the test itself failed" in section
    # Who it outlived, and the fixture's place.
    still = r"outlived test_stays_open.*\[still open 3 tests later, after test_last\]"
    assert re.search(still, section), section
    assert re.search(r"fixture 'wide' \(module\).*\(test_it.py::test_last\)", section), section
    # The last line: counts by kind and by owner.
    last = section.splitlines()[-1]
    assert re.match(r"\d+ leaks: 52 task, .*left by tests, 1 left by fixtures", last), last
    assert "1 slow to close" in last
    assert "1 allowed" in last
    # The short summary's line is complete, and the report below has the five lines.
    assert "ERROR test_it.py::test_many - 37 x task 'poll' outlived test_many" in text
    for word in ("made", "waiting", "fix", "allow"):
        assert re.search(rf"^  {word} +\S", text, re.M), word
    # Its own failure outranks a leak; an xfail does not hide one.
    assert "FAILED test_it.py::test_fails_itself - assert 0" in text
    assert "ERROR test_it.py::test_fails_itself" not in text
    assert "ERROR test_it.py::test_expected_to_fail" in text
    assert "\x1b[" not in text


def test_the_header_says_what_is_watched_and_from_where_on_a_test_fails(suite):
    """Kinds, threshold, what is off, and what cannot be seen if there is anything."""
    ran = suite("def test_a(): pass\n", "--tightship-threshold=proven,fd=off")
    (head,) = lines(ran.text, "tightship-")
    assert re.search(r"\d+ kinds watched, a test fails from 'proven' on; off: fd", head)
    assert ran.section == ""


def test_quiet_and_verbose_change_how_much_is_told(suite):
    """``-q`` drops the header, ``-v`` shows what was cut and what is allowed."""
    ran = suite(SUITE, "-q", status=1)
    assert not lines(ran.text, "tightship-")
    assert "37 x task 'poll'" in ran.section
    ran = suite(SUITE, "-v", status=1)
    assert len(lines(ran.section, "LEAK task 'poll_")) == 15
    assert re.search(r"^ALLOWED task 'poll' .*on purpose", ran.section, re.M)
    ran = suite(SUITE, "-vv", "--tb=line", status=1)
    assert "ERROR test_it.py::test_many - 37 x task 'poll' outlived test_many\n" in ran.text


def test_colours_are_used_where_pytest_has_them(suite):
    """In the section; never inside the report that other tools read."""
    ran = suite(SUITE, "--color=yes", "-k", "test_many", status=1)
    assert "\x1b[31mLEAK \x1b[0m" in ran.text
    report = ran.text[ran.text.index("37 x task") :]
    assert "\x1b[" not in report[: report.index("allow")]


def test_junitxml_has_the_findings_and_stays_valid(suite, pytester):
    """The error's message is the first line, its text the whole report."""
    suite(SUITE, "--junitxml=out.xml", "-rA", status=1)
    root = ElementTree.parse(pytester.path / "out.xml").getroot()
    errors = {
        case.get("name"): error for case in root.iter("testcase") for error in case.iter("error")
    }
    assert "37 x task 'poll' outlived test_many" in errors["test_many"].get("message")
    assert "waiting" in errors["test_many"].text


def test_notes_of_passing_tests_are_shown_on_request(suite):
    """``-rA`` shows the whole report of what failed nothing; without it there is one line."""
    ran = suite(SUITE, "-rA", "-k", "note or slow", status=0)
    assert "tightship after teardown" in ran.text
    assert re.search(r"^  gone +by itself", ran.text, re.M)
    ran = suite(SUITE, "-k", "note or slow", status=0)
    assert "tightship after teardown" not in ran.text
    assert "0 leaks (1 slow to close, 1 noted)" in ran.section


def test_notes_that_say_the_same_of_many_tests_are_one_line(suite):
    """Twelve tests that keep a socket on purpose: one line with the number; ``-v`` shows all."""
    source = "import socket, pytest\nKEPT = []\n" + (
        "@pytest.mark.parametrize('n', range(12))\n"
        "def test_keeps(n):\n    KEPT.append(socket.socket())\n"
        "def test_other():\n    KEPT.append(open(__file__))\n"
    )
    ran = suite(source, status=0)
    sockets, file = lines(ran.section, "NOTE ")
    assert "[and 11 like it elsewhere]" in sockets
    assert "elsewhere" not in file
    assert "13 noted" in ran.section
    assert len(lines(suite(source, "-v", status=0).section, "NOTE ")) == 13


def test_a_clean_run_is_told_by_the_header_alone(suite):
    """No section for nothing."""
    ran = suite("def test_a(): pass\n", "-v", status=0)
    assert ran.section == ""


def test_an_attempt_that_was_run_again_fails_nothing(suite):
    """pytest-rerunfailures: the leak of a rerun attempt is a note if a later one is clean."""
    ran = suite(
        "import os\nKEPT = []\n"
        "def test_flaky():\n    if len(KEPT) < 2:\n        KEPT.append(os.dup(2))\n",
        "--reruns=3",
        status=0,
    )
    assert "that attempt was run again" in ran.section, ran.text
    attempts = [r["attempt"] for r in ran.records if r["event"] == "test"]
    assert attempts == [1, 2, 3]
    assert [len(r["findings"]) for r in ran.records if r["event"] == "test"] == [1, 1, 0]
