"""What a process is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tightship.explain.processes import describe, redact


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", "--token", "hunter2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.communicate(b"\n")


def test_a_process_has_a_command_a_parent_and_an_age(child: subprocess.Popen[bytes]) -> None:
    """Read from the system, not remembered."""
    info = describe(child.pid)
    assert info is not None
    assert (info.pid, info.parent) == (child.pid, os.getpid())
    assert info.command.startswith(sys.executable)
    assert 0 <= info.seconds < 600


def test_a_waiting_process_sleeps(child: subprocess.Popen[bytes]) -> None:
    """Or is about to."""
    info = describe(child.pid)
    assert info is not None
    assert info.state in ("sleeping", "running")


def test_the_running_process_runs() -> None:
    """Ourselves."""
    info = describe(os.getpid())
    assert info is not None
    assert info.state == "running"


def test_secrets_of_a_process_are_not_shown(child: subprocess.Popen[bytes]) -> None:
    """A report may be public."""
    info = describe(child.pid)
    assert info is not None
    assert info.command.endswith("--token ***")


def test_a_zombie_is_called_so() -> None:
    """It has ended, but nobody has waited for it; it has a name and no command line."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    info = describe(process.pid)
    process.wait()
    assert info is not None
    assert info.state == "zombie"
    assert info.command.startswith("[")


def test_a_process_that_is_gone_is_nothing() -> None:
    """Not an error."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert describe(process.pid) is None


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["run", "--password=x y"], "run --password=***"),
        (["run", "--db-password", "x"], "run --db-password ***"),
        (["run", "--api-key", "x", "-v"], "run --api-key *** -v"),
        (["env", "PGPASSWORD=x", "psql"], "env PGPASSWORD=*** psql"),
        (["psql", "postgres://me:pw@host/db"], "psql postgres://***@host/db"),
        (["redis", "redis://:p@ss@host"], "redis redis://***@host"),
        (["curl", "-u", "me:pw", "host"], "curl -u me:*** host"),
        (["curl", "-H", "Authorization: Bearer abc.def"], "curl -H Authorization: ***"),
        (["curl", "http://h/?token=abc&x=1"], "curl http://h/?token=***&x=1"),
        (["python", "-c", "f(secret='x', n=1)"], "python -c f(secret=***, n=1)"),
        (["run", "--token", "--verbose"], "run --token --verbose"),
        (["run", "two\nlines"], "run two lines"),
    ],
)
def test_secrets_are_starred_out(words: list[str], shown: str) -> None:
    """In options, assignments, URLs and headers."""
    assert redact(words) == shown


def test_an_innocent_command_line_is_shown_as_it_is() -> None:
    """The twin: nothing is starred out without need."""
    words = ["python", "-m", "http.server", "--bind", "127.0.0.1", "http://host:80/a@b"]
    assert redact(words) == " ".join(words)


def test_a_long_command_line_is_cut() -> None:
    """One line of a report."""
    assert len(redact(["x" * 1000])) == 200
