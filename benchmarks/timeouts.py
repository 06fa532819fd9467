#!/usr/bin/env python3
"""Compare Tightship's deadlines with pytest-timeout's: what one costs, and what each shows.

    python benchmarks/timeouts.py [--rounds 9] [--tests 2000] [--markdown OUT.md]

Cost: the same trivial tests in fresh processes, by turns, with and without a deadline that never
passes; the figure is the median of the differences of the same round. Hangs: each alone among
tests that pass, with a limit of half a second.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from _measure import Run, clean_environment, run_measured

TESTS_PER_FILE = 100

PYTEST_INI = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

TIGHTSHIP = ("-p", "no:timeout")
TIMEOUT = ("-p", "no:tightship")

#: Name -> (options, the one to compare with).
VARIANTS: dict[str, tuple[tuple[str, ...], str]] = {
    "bare": (("-p", "no:tightship", "-p", "no:timeout"), ""),
    "tightship without deadlines": ((*TIGHTSHIP, "--tightship-timeout=off,exit=off"), ""),
    "tightship": ((*TIGHTSHIP, "--tightship-timeout=60"), "tightship without deadlines"),
    "pytest-timeout, signal": ((*TIMEOUT, "--timeout=60", "--timeout-method=signal"), "bare"),
    "pytest-timeout, thread": ((*TIMEOUT, "--timeout=60", "--timeout-method=thread"), "bare"),
}


@dataclass(frozen=True)
class Hang:
    """A test that hangs, and what a good report says of it."""

    name: str
    source: str
    says: str
    """Words that name the cause."""


AROUND = """\
import asyncio, ctypes, queue, threading, time
import pytest

def test_before():
    pass

{source}

def test_after():
    pass
"""

HANGS = (
    Hang(
        "a task waits for ever",
        "async def test_it():\n    await asyncio.Queue().get()  # culprit",
        "culprit",
    ),
    Hang(
        "a background task is what it waits for",
        "async def work(q):\n    await q.get()  # culprit\n\n"
        "async def test_it():\n    await asyncio.create_task(work(asyncio.Queue()))",
        "culprit",
    ),
    Hang(
        "swallows every cancellation",
        "async def test_it():\n    while True:\n        try:\n"
        "            await asyncio.sleep(60)\n"
        "        except asyncio.CancelledError:  # culprit\n            pass",
        "culprit",
    ),
    Hang(
        "a synchronous call holds the loop",
        "async def test_it():\n    time.sleep(60)  # culprit",
        "culprit",
    ),
    Hang(
        "a lock between threads",
        "def test_it():\n    lock = threading.Lock()\n    lock.acquire()\n"
        "    lock.acquire()  # culprit",
        "culprit",
    ),
    Hang(
        "a fixture's teardown",
        "@pytest.fixture\ndef slow():\n    yield\n    time.sleep(60)  # culprit\n\n"
        "def test_it(slow):\n    pass",
        "culprit",
    ),
    Hang(
        "C code that nothing interrupts",
        "def test_it():\n    lock = ctypes.CDLL(None).pthread_mutex_lock\n"
        "    mutex = ctypes.create_string_buffer(64)\n    lock(mutex)\n    lock(mutex)  # culprit",
        "culprit",
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    try:
        importlib.metadata.version("pytest-timeout")
    except importlib.metadata.PackageNotFoundError:
        print("pytest-timeout is not installed here: pip install pytest-timeout", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="tightship-timeouts-") as scratch:
        lines = [
            *describe(),
            "",
            *costs(Path(scratch), options.rounds, options.tests),
            "",
            *hangs(Path(scratch)),
        ]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def describe() -> Iterator[str]:
    for name in ("tightship", "pytest", "pytest-timeout"):
        yield f"- {name} {importlib.metadata.version(name)}"
    yield f"- Python {sys.version.split()[0]}"


def run(folder: Path, arguments: Sequence[str]) -> Run:
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    return run_measured([*command, *arguments], cwd=folder, env=clean_environment(), timeout=120)


def costs(scratch: Path, rounds: int, tests: int) -> Iterator[str]:
    folders = {}
    for name in VARIANTS:
        folder = folders[name] = scratch / name.replace(" ", "-").replace(",", "")
        folder.mkdir()
        (folder / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
        for first in range(0, tests, TESTS_PER_FILE):
            body = "\n".join(
                f"def test_{n}():\n    assert {n} == {n}\n"
                for n in range(first, min(first + TESTS_PER_FILE, tests))
            )
            (folder / f"test_{first:05}.py").write_text(body, encoding="utf-8")
    found: list[dict[str, float]] = []
    names = list(VARIANTS)
    for number in range(rounds + 1):
        print(f"cost {number}/{rounds}", file=sys.stderr, flush=True)
        start = number % len(names)
        seconds = {}
        for name in names[start:] + names[:start]:
            done = run(folders[name], VARIANTS[name][0])
            if done.status:
                raise SystemExit(f"{name} failed:\n{done.output}")
            seconds[name] = done.cpu
        if number:  # the first one fills the caches
            found.append(seconds)
    yield "| A deadline that never passes | compared with | extra CPU µs per test (quartiles) |"
    yield "|---|---|---:|"
    for name, (_, base) in VARIANTS.items():
        if base:
            extra = [(r[name] - r[base]) / tests * 1e6 for r in found]
            low, middle, high = statistics.quantiles(extra, n=4, method="inclusive")
            yield f"| {name} | {base} | {middle:.1f} ({low:.1f} to {high:.1f}) |"


def hangs(scratch: Path) -> Iterator[str]:
    tools = {
        "tightship": (*TIGHTSHIP, "--tightship-timeout=0.5"),
        "pytest-timeout, signal": (*TIMEOUT, "--timeout=0.5", "--timeout-method=signal"),
        "pytest-timeout, thread": (*TIMEOUT, "--timeout=0.5", "--timeout-method=thread"),
    }
    yield "| Hang | tool | ended after | names the line at fault | the test after it | status |"
    yield "|---|---|---:|---|---|---:|"
    for number, hang in enumerate(HANGS):
        folder = scratch / f"hang-{number}"
        folder.mkdir()
        (folder / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
        path = folder / "test_hang.py"
        path.write_text(AROUND.format(source=hang.source), encoding="utf-8")
        for tool, arguments in tools.items():
            print(f"{hang.name}: {tool}", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--tb=long"]
            done = run_measured(
                [*command, *arguments], cwd=folder, env=clean_environment(), timeout=20
            )
            after = "test_after PASSED" in done.output
            named = is_named(hang.says, done.output)
            ended = "not at all" if done.timed_out else f"{done.wall:.1f} s"
            yield (
                f"| {hang.name} | {tool} | {ended} | {'yes' if named else 'no'} "
                f"| {'ran' if after else 'lost'} | {done.status} |"
            )


def is_named(says: str, output: str) -> bool:
    """Tell whether a report points to a line: the listing of a test's whole source does not."""
    lines = output.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        in_listing = line.startswith(("    ", "E  ")) and not before.startswith("  File ")
        if says in line and not in_listing:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
