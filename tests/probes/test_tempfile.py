"""Temporary files and directories that nobody removed."""

from __future__ import annotations

from typing import Any

KIND = "tempfile"

SUITE = """
import os
import tempfile

import pytest


def test_mkdtemp():
    tempfile.mkdtemp()  # born


def test_mkstemp():
    fd, path = tempfile.mkstemp()  # born
    os.close(fd)


def test_named_and_kept():
    with tempfile.NamedTemporaryFile(delete=False):  # born
        pass


@pytest.fixture
def folder():
    return tempfile.TemporaryDirectory()  # born


def test_folder(folder):
    open(os.path.join(folder.name, "a"), "w").close()


def test_clean_removed():
    os.rmdir(tempfile.mkdtemp())


def test_clean_with():
    with tempfile.TemporaryDirectory() as folder:
        tempfile.mkdtemp(dir=folder)


def test_clean_named():
    with tempfile.NamedTemporaryFile():
        pass


def test_clean_inside_tmp_path(tmp_path):
    tempfile.mkdtemp(dir=tmp_path)


def test_clean_inside_tmpdir_by_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tempfile.mkdtemp()
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_mkdtemp": {
        "label": "directory",
        "facts": {"path": "/", "holds": "nothing"},
        "fix": "tmp_path",
    },
    "test_mkstemp": {"label": "file", "fix": "unlink"},
    "test_named_and_kept": {"label": "file"},
    "test_folder": {
        "label": "directory",
        "owner": "fixture 'folder' (function)",
        "facts": {"holds": "a"},
    },
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
