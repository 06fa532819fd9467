"""Files that are still open."""

from __future__ import annotations

from typing import Any

KIND = "file"

SUITE = """
import io
import os
import pathlib
import subprocess
import tempfile

import pytest


@pytest.fixture
def opened(tmp_path):
    return open(tmp_path / "a.txt", "w")  # born


def test_open(opened):
    pass


@pytest.fixture
def io_opened(tmp_path):
    return io.open(tmp_path / "a.txt", "wb")  # born


def test_io_open(io_opened):
    pass


@pytest.fixture
def path_opened(tmp_path):
    return (tmp_path / "a.txt").open("w")  # born


def test_path_open(path_opened):
    pass


def test_os_open(tmp_path):
    os.open(tmp_path / "a.txt", os.O_CREAT | os.O_WRONLY)  # born


@pytest.fixture
def fd_opened(tmp_path):
    fd = os.open(tmp_path / "a.txt", os.O_CREAT | os.O_RDWR)
    return os.fdopen(fd, "w")  # born


def test_fdopen(fd_opened):
    pass


def test_directory(tmp_path):
    (tmp_path / "folder").mkdir()
    os.open(tmp_path / "folder", os.O_RDONLY)  # born


def test_in_a_cycle(tmp_path):
    cycle = [open(tmp_path / "a.txt", "w")]  # born
    cycle.append(cycle)


def test_clean_with(tmp_path):
    with open(tmp_path / "a.txt", "w"):
        pass


def test_clean_path(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert (tmp_path / "a.txt").read_text() == "x"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_clean_os_open(tmp_path):
    os.close(os.open(tmp_path / "a.txt", os.O_CREAT))


def test_clean_temporary_file():
    with tempfile.TemporaryFile() as file:
        file.write(b"x")


def test_clean_closefd_false(tmp_path):
    fd = os.open(tmp_path / "a.txt", os.O_CREAT | os.O_RDWR)
    open(fd, "w", closefd=False)
    os.close(fd)


def test_clean_devnull():
    subprocess.run(["true"], stdout=subprocess.DEVNULL, check=True)


def test_clean_capture(capfd):
    print("hello")
    assert capfd.readouterr().out == "hello\\n"
"""

LEAKS: dict[str, dict[str, Any]] = {
    "test_open": {
        "label": "a.txt",
        "subject": "file 'a.txt'",
        "owner": "fixture 'opened' (function)",
        "facts": {"path": "a.txt  .fd .*open for writing"},
        "fix": "with block",
    },
    "test_io_open": {"label": "a.txt", "owner": "fixture 'io_opened' (function)"},
    "test_path_open": {"label": "a.txt", "owner": "fixture 'path_opened' (function)"},
    "test_os_open": {"label": "a.txt", "fix": "os.close"},
    "test_fdopen": {"label": "a.txt", "owner": "fixture 'fd_opened' (function)"},
    "test_directory": {"label": "folder", "subject": "directory 'folder'"},
    "test_in_a_cycle": {"label": "a.txt", "certainty": "proven"},
}


def test_what_is_left_is_told_once_with_its_line(ran: Any, leak: str) -> None:
    """One finding: the right kind, label, owner, line, facts and remedy."""
    ran.check(KIND, leak, LEAKS[leak])


def test_the_clean_twin_stays_silent(ran: Any, twin: str) -> None:
    """Nothing is said of a test that cleans up."""
    ran.silent(twin)
