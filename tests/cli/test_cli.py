"""The ``tightship`` command, mostly as a process of its own, as users run it."""

import json
import os
import re
import socket
import subprocess
import sys

import pytest

import tightship
from tightship import doctor
from tightship.cli import main
from tightship.journal import SCHEMA, Journal
from tightship.model import Certainty, Finding, Verdict
from tightship.probes import KINDS


def run(*args, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "tightship", *args],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )


RUN = f'{{"event": "run", "schema": {SCHEMA}}}\n'


def finding(**changes):
    values = {
        "kind": "task",
        "label": "poll",
        "subject": "task 'poll'",
        "owner": "test_shop",
        "owner_kind": "test",
        "owner_scope": "function",
        "nodeid": "test_shop.py::test_shop",
        "certainty": Certainty.STRONG,
    }
    return Finding(**{**values, **changes})


@pytest.fixture
def journal(tmp_path):
    """Write a journal and return its path."""

    def write(*tests, schema=SCHEMA):
        path = tmp_path / "run.jsonl"
        book = Journal(path, fresh=True)
        book.write(
            {
                "event": "run",
                "schema": schema,
                "tightship": "0.1.0",
                "python": "3.13.0",
                "started": "2026-01-02T03:04:05+00:00",
            }
        )
        for findings in tests:
            book.write(
                {
                    "event": "test",
                    "nodeid": "t",
                    "outcome": "passed",
                    "findings": [f.to_dict() for f in findings],
                    "pid": 1,
                }
            )
        book.close()
        return path

    return write


# -- doctor ------------------------------------------------------------------------------------


def test_the_doctor_catches_every_kind_and_no_clean_twin(tmp_path):
    """One line per kind, in order, then the settings and the versions."""
    done = run("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[: len(KINDS)]] == list(KINDS)
    for line in lines[: len(KINDS)]:
        assert "caught" in line or "not watched here: " in line
    assert "caught  task 'planted' outlived its block (strong)" in lines[0]
    assert any(re.fullmatch(r"  threshold = strong +the default", line) for line in lines)
    assert any(line.split() == ["tightship", tightship.__version__] for line in lines)
    assert any(line.split()[:1] == ["pytest"] for line in lines)


def test_the_doctor_checks_single_kinds(tmp_path):
    """Given twice, in the order given; the answer as JSON."""
    done = run("doctor", "--kind", "socket", "--kind", "timer", "--json", cwd=tmp_path)
    data = json.loads(done.stdout)
    assert [(c["kind"], c["outcome"]) for c in data["checks"]] == [
        ("socket", "caught"),
        ("timer", "caught"),
    ]
    assert data["settings"]["error"] is None
    assert data["versions"]["tightship"] == tightship.__version__


def test_an_unknown_kind_is_an_error_with_the_nearest_one(tmp_path):
    """Status 2, nothing is checked."""
    done = run("doctor", "--kind", "sokcet", cwd=tmp_path)
    assert done.returncode == 2
    assert "unknown kind 'sokcet'; did you mean 'socket'?" in done.stderr
    assert not done.stdout


def test_the_doctor_says_where_each_setting_comes_from(tmp_path):
    """File and environment, allow rules, expired ones."""
    (tmp_path / "pyproject.toml").write_text(
        """
        [tool.tightship]
        grace = 2.5
        [tool.tightship.thresholds]
        socket = "off"
        [[tool.tightship.allow]]
        what = "task:poll"
        reason = "ends with the program"
        [[tool.tightship.allow]]
        what = "thread:*"
        reason = "for a while"
        until = 2020-01-31
        """
    )
    done = run("doctor", "--kind", "file", cwd=tmp_path, env={"TIGHTSHIP_THRESHOLD": "possible"})
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "grace = 2.5 pyproject.toml [tool.tightship] grace" in text
    assert "threshold = possible environment TIGHTSHIP_THRESHOLD" in text
    assert "thresholds.socket = off pyproject.toml [tool.tightship.thresholds] socket" in text
    assert "allowed: task:poll ends with the program" in text
    assert "EXPIRED on 2020-01-31: thread:*" in text


def test_wrong_settings_are_told_with_status_2(tmp_path):
    """The self-check is done all the same."""
    (tmp_path / "tightship.toml").write_text("threshhold = 'strong'\n")
    done = run("doctor", "--kind", "file", cwd=tmp_path)
    assert done.returncode == 2
    assert "file            caught" in done.stdout
    assert "unknown option 'threshhold'; did you mean 'threshold'?" in done.stderr


def test_a_missed_leak_and_a_noisy_twin_are_failures(tmp_path, monkeypatch, capsys):
    """Status 1: a doctor that catches nothing must not say that all is well."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("TIGHTSHIP")]:
        monkeypatch.delenv(name)

    def pretend(outcome):
        monkeypatch.setattr(
            doctor, "check", lambda kinds: iter([doctor.Check("task", outcome, "...")])
        )
        return main(["doctor"])

    assert pretend("caught") == 0
    assert pretend("blind") == 0
    assert pretend("missed") == 1
    assert "task            MISSED  ..." in capsys.readouterr().out
    assert pretend("noisy") == 1
    assert pretend("broken") == 1


def test_a_check_that_sees_nothing_says_missed(monkeypatch):
    """A plant that plants nothing is as good as a leak that nobody saw."""
    monkeypatch.setitem(doctor._SYNC, "file", lambda leak, keep, after: None)
    assert doctor._check_here("file").outcome == "missed"


def test_a_clean_twin_that_leaks_is_noisy(monkeypatch):
    """The control is looked at as closely as the leak."""

    def plant(leak, keep, after):
        sock = socket.socket()
        keep.append(sock)
        after.callback(sock.close)

    monkeypatch.setitem(doctor._SYNC, "socket", plant)
    check = doctor._check_here("socket")
    assert check.outcome == "noisy"
    assert "socket tcp" in check.text


def test_what_cannot_be_made_is_not_watched_here(monkeypatch):
    """A sandbox without shared memory, say."""

    def plant(leak, keep, after):
        raise OSError("not permitted")

    monkeypatch.setitem(doctor._SYNC, "shared-memory", plant)
    check = doctor._check_here("shared-memory")
    assert str(check).startswith("shared-memory   not watched here: it cannot be made here")
    assert not check.failed


def test_a_check_that_hangs_is_ended():
    """By a time limit, in its own process."""
    (check,) = doctor.check(["process"], limit=0.0)
    assert (check.outcome, check.failed) == ("broken", True)
    assert "did not end within 0 s" in check.text


# -- journal -----------------------------------------------------------------------------------


def test_a_journal_is_printed_in_groups_with_a_closing_line(journal, tmp_path):
    """Equal findings are one; notes are apart; allowed ones are counted."""
    path = journal(
        [finding(), finding()],
        [],
        [finding(verdict=Verdict.NOTE, kind="thread", subject="thread 'x'", reason="so it is")],
        [finding(verdict=Verdict.ALLOWED, kind="socket", subject="socket s")],
    )
    done = run("journal", str(path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "run of 2026-01-02T03:04:05+00:00, tightship 0.1.0, Python 3.13.0" in done.stdout
    assert "2 x task 'poll' outlived test_shop" in done.stdout
    assert "-- noted, without failing a test --" in done.stdout
    assert "thread 'x' outlived test_shop" in done.stdout
    assert "socket s" not in done.stdout
    assert done.stdout.splitlines()[-1] == (
        "2 leaks: 2 task; 2 left by tests in 4 tests (1 noted, 1 allowed)"
    )


def test_a_clean_journal_says_so(journal, tmp_path):
    """Nothing was left."""
    done = run("journal", str(journal([])), cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "0 leaks in 1 test"


def test_a_journal_of_a_real_run_can_be_read(pytester):
    """What the plugin writes, the command reads."""
    pytester.makepyfile(
        """
        import socket
        def test_leaky(request):
            request.node.sock = socket.socket()
        """
    )
    pytester.runpytest_subprocess("--tightship-journal=run.jsonl")
    done = run("journal", "run.jsonl", cwd=pytester.path)
    assert done.returncode == 0, done.stderr
    assert "outlived test_leaky" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 leak: 1 socket; 1 left by tests in 1 test"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot read the journal"),
        ("not json\n{}\n", "line 1: this is not JSON"),
        ('{"a": 1}\n', "a record needs an 'event'"),
        (
            RUN + '{"event": "test", "findings": [{"kind": "task"}]}\n',
            "record 2: this is no finding",
        ),
        (RUN + '{"event": "test", "findings": 3}\n', "record 2: this is no finding"),
        ('{"event": "run", "schema": 99}\n', "newer Tightship"),
        ('{"event": "run", "schema": "x"}\n', "schema"),
    ],
)
def test_a_journal_that_cannot_be_read_is_a_clear_error(content, why, tmp_path):
    """Status 2, one line, no traceback."""
    if content is not None:
        (tmp_path / "run.jsonl").write_text(content)
    done = run("journal", "run.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("tightship: ")
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(journal, tmp_path):
    """``tightship journal FILE | head``."""
    path = journal([finding(subject=f"task '{'x' * n}'") for n in range(3000)])
    process = subprocess.Popen(
        [sys.executable, "-m", "tightship", "journal", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert error == b""


# -- the rest ------------------------------------------------------------------------------------


def test_the_version_is_told(tmp_path):
    """And nothing else."""
    assert run("--version", cwd=tmp_path).stdout == f"tightship {tightship.__version__}\n"


def test_help_names_the_commands(tmp_path):
    """Both of them, with what they are for."""
    text = run("--help", cwd=tmp_path).stdout
    assert "doctor" in text
    assert "journal" in text


def test_no_command_is_an_error_that_says_so(tmp_path):
    """Status 2, as for all bad arguments."""
    done = run(cwd=tmp_path)
    assert done.returncode == 2
    assert "COMMAND" in done.stderr
