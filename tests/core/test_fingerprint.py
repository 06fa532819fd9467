"""Fingerprints of findings."""

import string

import pytest

from tightship.fingerprint import erase, fingerprint
from tightship.model import Certainty, Finding, Site


def make(owner="test_restock", label="poll", **made):
    site = {"file": "tests/test_shop.py", "line": 31, "function": "test_restock", "source": "go()"}
    return Finding(
        kind="task",
        label=label,
        subject="task 'poll'",
        owner=owner,
        owner_kind="test",
        owner_scope="function",
        nodeid="tests/test_shop.py::test_restock",
        certainty=Certainty.STRONG,
        made=Site(**{**site, **made}),
    )


def test_a_fingerprint_is_twelve_hex_digits():
    """Its form is fixed: baselines are compared as text."""
    text = fingerprint(make())
    assert len(text) == 12
    assert set(text) <= set(string.hexdigits.lower())


def test_a_fingerprint_never_changes_between_versions():
    """A pinned value: changing it would void every stored baseline."""
    assert fingerprint(make()) == "136439140922"


@pytest.mark.parametrize(
    "other",
    [
        make(line=99),
        make(owner="test_restock[eu-2]"),
        make(owner="test_restock@group1"),
        make(owner="test_restock[a]@group1"),
        make(source="  go() "),
    ],
    ids=["line", "parameters", "xdist group", "both", "blanks"],
)
def test_what_changes_without_the_code_changing_is_left_out(other):
    """Line numbers, parameters and worker groups do not count."""
    assert fingerprint(other) == fingerprint(make())


@pytest.mark.parametrize(
    "other",
    [
        make().with_(kind="timer"),
        make(label="push"),
        make(owner="test_sale"),
        make(file="tests/test_till.py"),
        make(function="other"),
        make(source="went()"),
        make().with_(made=None),
    ],
    ids=["kind", "label", "owner", "file", "function", "source", "no site"],
)
def test_what_tells_findings_apart_is_in_it(other):
    """A different cause has a different fingerprint."""
    assert fingerprint(other) != fingerprint(make())


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("<Job at 0x7f3a>", "<Job at 0x11bc>"),
        ("Thread-12", "Thread-3"),
        ("/tmp/pytest-of-me/pytest-3/test_x0/a.db", "/tmp/pytest-of-me/pytest-14/test_x1/a.db"),
        ("/tmp/tmpab3_9xyz/a.db", "/tmp/tmpqq1kw8_d/a.db"),
        ("/private/var/folders/x1/T/abc/a.db", "/private/var/folders/zz/T/def/a.db"),
        ("/private/tmp/x1/a.db", "/private/tmp/y/a.db"),
        (r"C:\Users\me\AppData\Local\Temp\x1\a.db", r"C:\Users\me\AppData\Local\Temp\y\a.db"),
        ("/tmp/tmpab3_9xyz", "/tmp/tmpqq1kw8_d"),
        ("tmpab*_*xyz", "tmpqq*kw*_d"),
    ],
)
def test_addresses_digits_and_temporary_paths_are_erased(one, two):
    """Two runs of the same code read the same."""
    assert erase(one) == erase(two)


def test_a_temporary_path_keeps_the_name_that_the_author_gave():
    """Two files in one temporary directory stay two."""
    assert erase("/tmp/tmpab3_9xyz/a.db") != erase("/tmp/tmpab3_9xyz/b.db")


def test_a_projects_own_tmp_directory_is_not_erased():
    """Only the system's temporary directories are."""
    for path in ("src/tmp/a.py", "src/T/a.py", "/home/me/tmp/a.py", "tmp_store.py"):
        assert erase(path) == path
