#!/usr/bin/env python3
"""Measure what Tightship costs a clean test, against bare pytest and against pyleak.

    python benchmarks/overhead.py [--rounds 7] [--only NAME] [--markdown OUT.md] [--json OUT.json]

Generates test suites in a temporary directory and runs each in fresh processes, the variants by
turns (A B C, B C A, ...), after a warm-up round that is not counted. The figures are medians of
the differences between a variant and the bare run of the same round, so that what slows the whole
machine for a while slows both.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from _measure import Run, clean_environment, run_measured

REPOSITORY = Path(__file__).resolve().parent.parent

ASYNC_BUDGET_US = 60.0
IMPORT_BUDGET_MS = 15.0
MEMORY_BUDGET_KIB = 5 * 1024

TESTS_PER_FILE = 100

TRIVIAL_ASYNC = """\
async def test_{n}():
    await asyncio.sleep(0)
"""

TRIVIAL_SYNC = """\
def test_{n}():
    assert {n} == {n}
"""

SERVER_AND_CLIENTS = """\
async def test_{n}():
    await exchange_lines(clients=5)
"""

MANY_TASKS = """\
async def test_{n}():
    async with asyncio.TaskGroup() as group:
        for _ in range(500):
            group.create_task(asyncio.sleep(0))
"""

HELPERS = """\
import asyncio


async def echo_line(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def one_client(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello\\n")
    assert await reader.readline() == b"hello\\n"
    writer.close()
    await writer.wait_closed()


async def exchange_lines(clients):
    handlers = []

    async def handle(reader, writer):
        handlers.append(asyncio.current_task())
        await echo_line(reader, writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await asyncio.gather(*(one_client(port) for _ in range(clients)))
    # A client can be done before its handler is: a test that returned now would leave that task.
    await asyncio.gather(*handlers)
    server.close()
    await server.wait_closed()
"""

CONFTEST_OBJECTS = """\
# 1.5 million objects that the garbage collector knows: each dict holds a list.
BALLAST = [{"list": []} for _ in range(750_000)]
"""

CONFTEST_SOCKETS = """\
import resource
import socket
import threading

import pytest


@pytest.fixture(scope="session", autouse=True)
def sockets_and_threads():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = [end for _ in range(1000) for end in socket.socketpair()]
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(100)]
    for thread in threads:
        thread.start()
    yield
    stop.set()
    for thread in threads:
        thread.join()
    for end in sockets:
        end.close()
"""

# pyleak checks only the tests that ask for it.
CONFTEST_PYLEAK = """\
import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.no_leaks)
"""

PYTEST_INI = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
markers =
    no_leaks: checked by pyleak
"""


@dataclass(frozen=True)
class Suite:
    """A generated test suite."""

    name: str
    title: str
    tests: int
    template: str
    conftest: str = ""
    pyleak_share: int = 20
    """pyleak runs one in this many of the tests: it waits in each for a tenth of a second."""

    @property
    def few(self) -> int:
        return max(1, self.tests // self.pyleak_share)


SESSION = Suite("session", "one trivial async test: the cost of a session", 1, TRIVIAL_ASYNC)

SUITES = (
    SESSION,
    Suite("async", "trivial async tests", 1000, TRIVIAL_ASYNC),
    Suite("more", "trivial async tests, four times as many", 4000, TRIVIAL_ASYNC, pyleak_share=80),
    Suite("sync", "trivial sync tests", 2000, TRIVIAL_SYNC),
    Suite("servers", "a server and five clients each", 300, SERVER_AND_CLIENTS),
    Suite(
        "objects",
        "trivial async tests beside 1.5 million objects",
        1000,
        TRIVIAL_ASYNC,
        conftest=CONFTEST_OBJECTS,
    ),
    Suite(
        "sockets",
        "trivial async tests beside 2000 sockets and 100 threads",
        1000,
        TRIVIAL_ASYNC,
        conftest=CONFTEST_SOCKETS,
    ),
    Suite("tasks", "500 tasks each", 200, MANY_TASKS, pyleak_share=10),
)

IMPORTS = {"tightship": "tightship.plugin", "pyleak": "pyleak.pytest_plugin"}


@dataclass(frozen=True)
class Variant:
    """One way to run a suite: which plugin, how many of the tests, compared with which other."""

    name: str
    plugin: str
    tests: int
    base: str
    every_round: bool = True


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)

    def scaled(self, factor: float, shift: float = 0.0) -> Spread:
        return Spread(*((x - shift) * factor for x in (self.median, self.low, self.high)))

    def text(self, digits: int = 0) -> str:
        shown = (f"{x:,.{digits}f}" for x in (self.median, self.low, self.high))
        return "{} ({} to {})".format(*shown)


@dataclass(frozen=True)
class Row:
    """What a variant cost more than the bare runs of the same rounds, in whole-run units."""

    suite: str
    title: str
    variant: str
    tests: int
    rounds: int
    bare_cpu: float
    """Median seconds of the bare runs."""
    cpu: Spread
    """Seconds more."""
    wall: Spread
    rss_kib: Spread
    cpu_of_minima: float
    """The least of the variant's seconds less the least of the bare ones: a second opinion, since
    other work on the machine can only add to a run."""
    cpu_ratio: float
    """Median of the variant's processor time divided by the bare run's."""
    wall_ratio: float

    def microseconds(self, spread: Spread) -> Spread:
        return spread.scaled(1e6 / self.tests)


class RunFailed(Exception):
    """A measured run did not do what it should."""

    def __init__(self, what: str, run: Run) -> None:
        super().__init__(f"{what}: exit status {run.status}\n{run.output}")


def main() -> int:
    options = parse_arguments()
    environment = Environment.detect()
    if not environment.tightship:
        print("no Tightship to measure: neither installed nor importable from this checkout")
        return 1
    chosen = [suite for suite in SUITES if not options.only or suite.name in options.only]
    rows: list[Row] = []
    imports: dict[str, Spread] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="tightship-overhead-") as scratch:
            if not options.only or "import" in options.only:
                imports = measure_imports(environment, Path(scratch), options.import_rounds)
            for suite in chosen:
                rows += measure_suite(suite, environment, Path(scratch), options)
    except RunFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    report = "\n".join(markdown(environment, rows, imports))
    print(report)
    if options.markdown:
        options.markdown.write_text(report + "\n", encoding="utf-8")
    if options.json:
        found = {
            "machine": environment.describe(),
            "rows": [asdict(row) for row in rows],
            "import_ms": {name: asdict(spread) for name, spread in imports.items()},
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def parse_arguments() -> argparse.Namespace:
    names = [suite.name for suite in SUITES] + ["import"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=positive, default=7, help="counted rounds per suite")
    parser.add_argument(
        "--pyleak-rounds",
        type=natural,
        default=3,
        help="counted rounds with pyleak, whose tests are slow; 0 leaves it out",
    )
    parser.add_argument(
        "--import-rounds", type=positive, default=21, help="processes per import timed"
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="NAME",
        help=f"only this suite (may be repeated): {', '.join(names)}",
    )
    parser.add_argument("--markdown", type=Path, metavar="OUT.md", help="write the tables there")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the figures there")
    return parser.parse_args()


def natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


@dataclass(frozen=True)
class Environment:
    """Where the runs happen: the interpreter, the plugins found, the environment variables."""

    python: str
    variables: dict[str, str]
    tightship: str
    """"installed", "checkout", or "" if it is nowhere."""
    pyleak: bool

    @classmethod
    def detect(cls) -> Environment:
        variables = clean_environment()
        plugins = importlib.metadata.entry_points(group="pytest11")
        tightship = "installed" if "tightship" in plugins.names else ""
        if not tightship and (REPOSITORY / "src" / "tightship" / "plugin").exists():
            tightship = "checkout"
            # For every variant: a longer import path must not look like the plugin's cost.
            variables["PYTHONPATH"] = str(REPOSITORY / "src")
        return cls(sys.executable, variables, tightship, "pyleak" in plugins.names)

    def plugin_arguments(self, plugin: str) -> list[str]:
        unwanted = [name for name in ("tightship", "pyleak") if name != plugin]
        arguments = [part for name in unwanted for part in ("-p", f"no:{name}")]
        if plugin == "tightship" and self.tightship == "checkout":
            arguments += ["-p", "tightship.plugin"]
        return arguments

    def describe(self) -> dict[str, str]:
        packages = ("pytest", "pytest-asyncio", "pyleak")
        return {
            "processor": f"{processor_model()}, {len(os.sched_getaffinity(0))} cores",
            "kernel": f"{platform.system()} {platform.release()}",
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "tightship": f"{package_version('tightship')} ({self.tightship})",
            **{name: package_version(name) for name in packages},
        }


def processor_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def measure_imports(environment: Environment, folder: Path, rounds: int) -> dict[str, Spread]:
    """Milliseconds to import each plugin after pytest, each time in a fresh process."""
    modules = dict(IMPORTS)
    if not environment.pyleak:
        del modules["pyleak"]
    times: dict[str, list[float]] = {name: [] for name in modules}
    for number in range(rounds + 1):
        progress(f"import {number}/{rounds}")
        for name, module in modules.items():
            code = (
                "import pytest, time; t = time.perf_counter(); "
                f"import {module}; print((time.perf_counter() - t) * 1000)"
            )
            run = run_measured(
                [environment.python, "-c", code], cwd=folder, env=environment.variables
            )
            if run.status:
                raise RunFailed(f"import {module}", run)
            if number:  # the first only fills the caches
                times[name].append(float(run.output))
    return {name: Spread.of(values) for name, values in times.items()}


def measure_suite(
    suite: Suite, environment: Environment, scratch: Path, options: argparse.Namespace
) -> list[Row]:
    variants = list(variants_of(suite, with_pyleak=environment.pyleak and options.pyleak_rounds))
    folders = {variant.name: write_suite(suite, variant, scratch) for variant in variants}
    # runs[number][variant]; number 0 is the warm-up, which also writes the byte code.
    runs: list[dict[str, Run]] = []
    for number in range(options.rounds + 1):
        progress(f"{suite.name} {number}/{options.rounds}")
        due = [v for v in variants if v.every_round or number <= options.pyleak_rounds]
        start = number % len(due)  # nobody always runs right after the same one
        runs.append({v.name: run(v, folders, environment) for v in due[start:] + due[:start]})
    return [
        compare(suite, variant, runs[1:]) for variant in variants if variant.name != variant.base
    ]


def variants_of(suite: Suite, *, with_pyleak: bool) -> Iterator[Variant]:
    yield Variant("bare", "", suite.tests, base="bare")
    yield Variant("tightship", "tightship", suite.tests, base="bare")
    if with_pyleak:
        # Compared with as many bare tests: what a session costs weighs more on fewer tests.
        yield Variant("bare-few", "", suite.few, base="bare-few", every_round=False)
        yield Variant("pyleak", "pyleak", suite.few, base="bare-few", every_round=False)


def write_suite(suite: Suite, variant: Variant, scratch: Path) -> Path:
    """Write the test files; each variant gets its own, so that none profits by another's."""
    folder = scratch / f"{suite.name}-{variant.name}"
    folder.mkdir()
    (folder / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    (folder / "helpers.py").write_text(HELPERS, encoding="utf-8")
    conftest = suite.conftest + (CONFTEST_PYLEAK if variant.plugin == "pyleak" else "")
    (folder / "conftest.py").write_text(conftest, encoding="utf-8")
    header = "import asyncio\n\nfrom helpers import exchange_lines\n"
    for first in range(0, variant.tests, TESTS_PER_FILE):
        numbers = range(first, min(first + TESTS_PER_FILE, variant.tests))
        tests = (suite.template.format(n=n) for n in numbers)
        path = folder / f"test_{first:05}.py"
        path.write_text("\n\n".join([header, *tests]), encoding="utf-8")
    return folder


def run(variant: Variant, folders: dict[str, Path], environment: Environment) -> Run:
    command = [
        *(environment.python, "-m", "pytest", "-q", "--no-header"),
        *("-p", "no:cacheprovider", "-p", "no:randomly"),
        *environment.plugin_arguments(variant.plugin),
    ]
    done = run_measured(command, cwd=folders[variant.name], env=environment.variables)
    if done.status or f"{variant.tests} passed" not in done.output:
        raise RunFailed(f"{folders[variant.name].name}", done)
    return done


def compare(suite: Suite, variant: Variant, rounds: Sequence[dict[str, Run]]) -> Row:
    pairs = [(r[variant.base], r[variant.name]) for r in rounds if variant.name in r]

    def difference(figure: Callable[[Run], float]) -> Spread:
        return Spread.of([figure(with_it) - figure(bare) for bare, with_it in pairs])

    return Row(
        suite=suite.name,
        title=suite.title,
        variant=variant.name,
        tests=variant.tests,
        rounds=len(pairs),
        bare_cpu=statistics.median(bare.cpu for bare, _ in pairs),
        cpu=difference(lambda run: run.cpu),
        wall=difference(lambda run: run.wall),
        rss_kib=difference(lambda run: run.rss_kib),
        cpu_of_minima=min(w.cpu for _, w in pairs) - min(bare.cpu for bare, _ in pairs),
        cpu_ratio=statistics.median(with_it.cpu / bare.cpu for bare, with_it in pairs),
        wall_ratio=statistics.median(with_it.wall / bare.wall for bare, with_it in pairs),
    )


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def markdown(
    environment: Environment, rows: Sequence[Row], imports: dict[str, Spread]
) -> Iterator[str]:
    yield from (f"- {name}: {value}" for name, value in environment.describe().items())
    if rows:
        yield ""
        yield from test_table(rows)
    if imports:
        yield ""
        yield from import_table(imports)
    yield ""
    yield from budget_table(rows, imports)


def test_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "Microseconds are per test; a median, and the quartiles around it."
    yield ""
    yield (
        "| Suite | Plugin | Tests | Rounds | Bare, CPU µs | Extra CPU µs | ... of the minima "
        "| ... less the session's | Extra wall µs | CPU ratio | Wall ratio | Extra peak RSS, KiB |"
    )
    yield f"|---|---|{'---:|' * 10}"
    sessions = {row.variant: row.cpu.median for row in rows if row.suite == SESSION.name}
    for row in rows:
        cells = [
            row.title,
            row.variant,
            f"{row.tests:,}",
            str(row.rounds),
            f"{row.bare_cpu / row.tests * 1e6:,.0f}",
            row.microseconds(row.cpu).text(),
            f"{row.cpu_of_minima / row.tests * 1e6:,.0f}",
            marginal(row, sessions),
            row.microseconds(row.wall).text(),
            f"{row.cpu_ratio:.2f}",
            f"{row.wall_ratio:.2f}",
            row.rss_kib.text(),
        ]
        yield f"| {' | '.join(cells)} |"


def marginal(row: Row, sessions: dict[str, float]) -> str:
    """What one more test costs: the extra without what the plugin costs a session of one test."""
    if row.suite == SESSION.name or row.variant not in sessions:
        return "-"
    return f"{(row.cpu.median - sessions[row.variant]) / row.tests * 1e6:,.0f}"


def import_table(imports: dict[str, Spread]) -> Iterator[str]:
    yield "| Plugin | Import after pytest, ms |"
    yield "|---|---:|"
    for name, spread in imports.items():
        yield f"| {name} | {spread.text(1)} |"


def budget_table(rows: Iterable[Row], imports: dict[str, Spread]) -> Iterator[str]:
    found = {row.suite: row for row in rows if row.variant == "tightship"}
    yield "| Budget | Measured | Kept |"
    yield "|---|---:|---|"
    session = found.get(SESSION.name)
    if (few := found.get("async")) and (many := found.get("more")):
        # What one more test costs, without the start and the end of a session.
        extra = (many.cpu.median - few.cpu.median) / (many.tests - few.tests) * 1e6
        yield budget("one more clean trivial async test, CPU", extra, ASYNC_BUDGET_US, "µs")
    for name in ("async", "sync", "objects", "sockets"):
        if (row := found.get(name)) and session:
            # The same from one suite alone: noise in the session's start counts in full.
            extra = (row.cpu.median - session.cpu.median) / row.tests * 1e6
            yield budget(
                f"{row.title}, less the session's start, CPU", extra, ASYNC_BUDGET_US, "µs"
            )
    if "tightship" in imports:
        yield budget("import", imports["tightship"].median, IMPORT_BUDGET_MS, "ms")
    if row := session:
        # A plugin that imports most of itself later has a cheap import and a dear session.
        yield f"| a session of one test, CPU: no budget | {row.cpu.median * 1000:,.1f} ms | - |"
    for name in ("async", "objects"):
        if row := found.get(name):
            what = f"peak memory, {row.title}"
            yield budget(what, row.rss_kib.median, MEMORY_BUDGET_KIB, "KiB")


def budget(what: str, measured: float, limit: float, unit: str) -> str:
    mark = "✅ yes" if measured <= limit else "❌ no"
    return f"| {what}: at most {limit:,.0f} {unit} | {measured:,.1f} {unit} | {mark} |"


if __name__ == "__main__":
    sys.exit(main())
