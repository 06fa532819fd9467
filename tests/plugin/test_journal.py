"""The journal: what is in it, and that nothing in it is ever lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tightship.journal import SCHEMA, JournalError, read

SUITE = """
import os, signal, pytest
KEPT = []

@pytest.mark.parametrize("n", range(20))
def test_clean(n):
    pass

def test_leak():
    KEPT.append(os.dup(2))

@pytest.mark.skip
def test_skipped():
    pass

@pytest.mark.xfail
def test_xfailed():
    assert 0

@pytest.mark.xfail(strict=False)
def test_xpassed():
    pass

def test_failed():
    assert 0

@pytest.fixture
def broken():
    1 / 0

def test_setup(broken):
    pass
"""

TEST_FIELDS = {
    "event", "nodeid", "outcome", "findings", "watched", "seconds", "attempt", "pid",
}  # fmt: skip


@pytest.mark.parametrize("xdist", [(), ("-n2",)], ids=["alone", "xdist"])
def test_each_test_has_one_line_whatever_became_of_it(suite, pytester, xdist):
    """A run line, a line per test, an end line; at most 1 KB for a clean test."""
    ran = suite(SUITE, *xdist, status=1)
    records = list(read(pytester.path / "journal.jsonl"))
    assert [r["event"] for r in records] == ["run", *["test"] * 26, "end"]
    assert set(records[0]) == {"event", "schema", "tightship", "python", "started"}
    assert records[0]["schema"] == SCHEMA
    extra = {"worker"} if xdist else set()
    assert all(set(r) == TEST_FIELDS | extra for r in records[1:-1])
    assert set(records[-1]) == {"event", "status", "tests", "findings", "faults", "budgets"}
    assert (records[-1]["status"], records[-1]["tests"]) == (1, 26)
    outcomes = {n: r["outcome"] for n, r in ran.tests.items() if "clean" not in n}
    assert outcomes == {
        "test_leak": "failed",
        "test_skipped": "skipped",
        "test_xfailed": "xfailed",
        "test_xpassed": "xpassed",
        "test_failed": "failed",
        "test_setup": "failed",
    }
    clean = [x for x in (pytester.path / "journal.jsonl").read_text().splitlines() if "clean[" in x]
    assert len(clean) == 20
    assert max(map(len, clean)) <= 1024
    (finding,) = ran.tests["test_leak"]["findings"]
    assert finding["made"]["file"] == "test_it.py"
    assert len(finding["fingerprint"]) == 12


def test_every_field_is_documented(suite):
    """The reference page has a row for each field of each record and of a finding."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "journal.md"
    documented = set(re.findall(r"^\| `(\w+)`", page.read_text(), re.M))
    ran = suite(SUITE, "-n1")
    used = {key for r in ran.records for key in r}
    used |= {key for r in ran.records for f in r.get("findings", ()) for key in f}
    assert used <= documented, used - documented


def test_a_worker_that_dies_loses_no_line(suite):
    """``os._exit`` and SIGKILL: what was written stays, the crashed test has its line."""
    ran = suite(
        """
import os, signal, pytest

@pytest.mark.parametrize("n", range(8))
def test_before(n):
    pass

def test_exit():
    os._exit(3)

def test_killed():
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.parametrize("n", range(8))
def test_after(n):
    pass
""",
        "-n2",
        "--max-worker-restart=4",
        status=1,
    )
    names = [r["nodeid"] for r in ran.records if r["event"] == "test"]
    assert len(names) == len(set(names)) == 18, ran.text
    assert ran.tests["test_exit"]["outcome"] == "crashed"
    assert ran.tests["test_killed"]["outcome"] == "crashed"


def test_a_process_that_dies_leaves_a_readable_journal(suite, pytester):
    """Without workers the whole run dies: the lines until then are there, the end is not."""
    suite("import os\ndef test_a(): pass\ndef test_b(): os._exit(9)\n", status=9)
    events = [r["event"] for r in read(pytester.path / "journal.jsonl")]
    assert events == ["run", "test"]


@pytest.mark.parametrize("xdist", [(), ("-n1",)], ids=["alone", "xdist"])
def test_a_full_disk_is_named_once_and_changes_nothing(suite, xdist):
    """As is any other reason why a line cannot be written."""
    ran = suite(
        "def test_a(): pass\ndef test_b(): pass\n",
        "--tightship-journal=/dev/full",
        *xdist,
        journal=False,
        faults=True,
        status=0,
    )
    assert ran.text.count("Tightship's own part 'journal' failed") == 1, ran.text
    assert "No space left" in ran.text


def test_a_descriptor_that_a_test_closed_is_opened_again(suite):
    """Nothing is lost, and nothing is written to what has the number now."""
    ran = suite(
        """
import os

def test_closes():
    os.closerange(150, 4096)

def test_reuses(tmp_path):
    global other, path
    os.closerange(150, 4096)
    path = tmp_path / "other"
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    for fd in range(195, 215):
        os.dup2(other, fd)

def test_unharmed():
    assert path.read_bytes() == b""
    for fd in range(195, 215):
        os.close(fd)
    os.close(other)

def test_clean():
    pass
""",
        "--tightship-threshold=off",
        status=0,
    )
    assert len(ran.tests) == 4
    assert ran.records[-1]["event"] == "end"


@pytest.mark.parametrize("path", ["/proc/nowhere/j.jsonl", ".", "test_it.py/j.jsonl"])
def test_a_path_that_cannot_be_written_is_one_clear_error(suite, path):
    """Exit status 4, before any test."""
    ran = suite("def test_a(): pass\n", f"--tightship-journal={path}", journal=False, status=4)
    assert "ERROR: tightship: cannot write the journal" in ran.text
    assert "Traceback" not in ran.text


def test_its_directory_is_made_and_an_older_journal_replaced(suite, pytester):
    """A relative path is relative to the root directory."""
    for _ in range(2):
        args = "--tightship-journal=deep/er/j.jsonl"
        suite("def test_a(): pass\n", args, journal=False, status=0)
    assert len(list(read(pytester.path / "deep" / "er" / "j.jsonl"))) == 3


RUN = json.dumps({"event": "run", "schema": SCHEMA}, separators=(",", ":"))

SPOILT = {
    "corrupt middle line": (f'{RUN}\n{{"event": "te\n{RUN}\n', "line 2: this is not JSON"),
    "corrupt last line": (f'{RUN}\n{{"event": "te\n', "line 2: this is not JSON"),
    "newer": ('{"event": "run", "schema": 99}\n', "written by a newer Tightship"),
    "schema of another type": ('{"event": "run", "schema": "1"}\n', "number of its schema"),
    "text": ("hello\n", "no Tightship journal"),
    "text without an end": ("hello", "no Tightship journal"),
    "other JSON lines": ('{"level": "info"}\n', "no Tightship journal"),
    "another tool's events": ('{"event": "login"}\n', "no Tightship journal"),
    "list": ("[1]\n", "no Tightship journal"),
    "bytes": ("\udcff\udcfe\n", "no Tightship journal"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_journal_is_refused_with_its_place(tmp_path, name):
    """The message says which file, which line, and why."""
    text, told = SPOILT[name]
    path = tmp_path / "j.jsonl"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(JournalError, match=re.escape(told)) as caught:
        list(read(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("torn", ['{"event":"test","nod', '{"', "", '{"event":"test"}'])
def test_a_torn_last_line_is_left_out(tmp_path, torn):
    """The process was killed while it wrote it; a whole one without its newline counts."""
    path = tmp_path / "j.jsonl"
    path.write_text(f"{RUN}\n{torn}")
    assert len(list(read(path))) == (2 if torn.endswith("}") else 1)
    path.write_text(RUN[:9])
    assert list(read(path)) == []


def test_a_journal_that_cannot_be_read_is_named(tmp_path):
    """A missing file and a directory."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(JournalError, match="cannot read the journal"):
            list(read(path))
