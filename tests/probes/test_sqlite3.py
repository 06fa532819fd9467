"""Connections of sqlite3 that are still open."""

from __future__ import annotations

from typing import Any

KIND = "sqlite3"

SUITE = """
import contextlib
import sqlite3
import threading

import pytest


@pytest.fixture
def in_file(tmp_path):
    return sqlite3.connect(tmp_path / "shop.db")  # born


def test_in_file(in_file):
    in_file.execute("create table a(b)")


@pytest.fixture
def in_memory():
    return sqlite3.connect(":memory:")  # born


def test_in_memory(in_memory):
    pass


@pytest.fixture
def in_transaction(tmp_path):
    connection = sqlite3.connect(tmp_path / "shop.db")  # born
    connection.execute("create table a(b)")
    connection.execute("insert into a values (1)")
    return connection


def test_in_transaction(in_transaction):
    pass


@pytest.fixture
def of_another_thread(tmp_path):
    made = []

    def make():
        made.append(sqlite3.connect(tmp_path / "shop.db"))  # born

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]


def test_of_another_thread(of_another_thread):
    pass


def test_clean_closing(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        connection.execute("create table a(b)")


def test_clean_dropped():
    sqlite3.connect(":memory:").close()
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_in_file": {
        "label": "shop.db",
        "subject": "sqlite3 connection to .*shop.db",
        "owner": "fixture 'in_file' (function)",
        "fix": "connection.close",
    },
    "test_in_memory": {"label": ":memory:", "owner": "fixture 'in_memory' (function)"},
    "test_in_transaction": {
        "label": "shop.db",
        "owner": "fixture 'in_transaction' (function)",
        "facts": {"transaction": "open"},
    },
    "test_of_another_thread": {
        "label": "shop.db",
        "owner": "fixture 'of_another_thread' (function)",
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
