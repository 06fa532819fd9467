"""Run a command and report what it cost, as the kernel accounts for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One finished child process."""

    status: int
    """Exit status; negative if a signal ended it, as in `subprocess`."""
    cpu: float
    """User plus system seconds of the child and of every child it waited for."""
    wall: float
    """Seconds from start to exit."""
    rss_kib: int
    """Peak resident set size."""
    output: str
    """Standard output and standard error, interleaved."""
    timed_out: bool = False


def run_measured(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float = 1800.0,
) -> Run:
    """Run `command` to its end and return its cost.

    `os.wait4` is used rather than `resource.getrusage(RUSAGE_CHILDREN)` because the latter adds up
    all children so far and its peak RSS is the largest of them, not this one's.
    """
    # A file and not a pipe: nobody has to read it while the child runs, so this process
    # does not compete with the child for the processor.
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        expired = threading.Event()
        timer = threading.Timer(timeout, _kill_group, (process.pid, expired))
        timer.daemon = True
        timer.start()
        try:
            _, wait_status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _kill_group(process.pid, expired)
            raise
        finally:
            timer.cancel()
        wall = time.perf_counter() - started
        # Popen did not do the waiting: tell it, or its destructor warns.
        process.returncode = os.waitstatus_to_exitcode(wait_status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return Run(
        status=process.returncode,
        cpu=usage.ru_utime + usage.ru_stime,
        wall=wall,
        rss_kib=usage.ru_maxrss,
        output=text,
        timed_out=expired.is_set(),
    )


def _kill_group(pid: int, expired: threading.Event) -> None:
    """End the child and what it started (it leads a session of its own)."""
    expired.set()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def clean_environment() -> dict[str, str]:
    """The environment without what would change how Python or pytest behave in a child."""
    unwanted = ("PYTHON", "PYTEST", "COVERAGE", "VIRTUAL_ENV", "TIGHTSHIP")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    env["PYTHONHASHSEED"] = "0"
    return env
