#!/usr/bin/env python3
"""Run the shipped test suites of well-known async libraries without and with Tightship.

    python benchmarks/real_suites.py [--only NAME] [--cache DIR] [--json OUT]

For each library: download its pinned sdist, make a virtual environment with the released package
and what its tests need, run the tests twice, and compare the outcome of every test. A test that
passes bare and fails with Tightship is either a leak in that library's tests or a false positive;
the table gives the first line of each, to be looked into.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from _measure import Run, clean_environment, run_measured

REPOSITORY = Path(__file__).resolve().parent.parent

PYTEST = "pytest==9.2.0"
PYTEST_ASYNCIO = "pytest-asyncio==1.5.0"

# Options every run gets: no state kept between runs, and no reordering by a plugin that
# happens to be there.
COMMON_ARGUMENTS = ("-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:randomly")

NO_ADDOPTS = ("-o", "addopts=")
"""For suites whose configuration asks for coverage, xdist or the like: one process, no tracing."""


@dataclass(frozen=True)
class Suite:
    """A library, and how to run the tests its sdist ships."""

    name: str
    version: str
    requirements: tuple[str, ...] = ()
    """What the tests need besides the library (without its extras) and pytest."""
    extras: str = ""
    paths: tuple[str, ...] = ("tests",)
    """What to hand to pytest, relative to the unpacked sdist."""
    arguments: tuple[str, ...] = ()
    deselect: tuple[str, ...] = ()
    """Node ids that fail bare where there is no network, no terminal or no other tool."""
    pythonpath: str = ""
    """A folder of the sdist to import from, for tests that live inside the package."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def requirement(self) -> str:
        extras = f"[{self.extras}]" if self.extras else ""
        return f"{self.name}{extras}=={self.version}"


# Pinned, so that two runs of this script a month apart speak of the same tests.
SUITES = (
    Suite(
        "anyio",
        "4.16.0",
        extras="trio",
        requirements=(
            "blockbuster",
            "hypothesis",
            "psutil",
            "pytest-mock",
            "pytest-timeout",
            "trustme",
            "truststore",
            "uvloop",
        ),
        # Many machines resolve no name to an IPv6 address.
        arguments=("-m", "not network", "-k", "not ipv6 and not dualstack"),
        deselect=(
            *(
                f"tests/test_sockets.py::TestTCPStream::test_connection_refused[{backend}-multi]"
                for backend in ("asyncio", "asyncio+uvloop", "asyncio+eager", "trio")
            ),
            # Needs a kernel whose socket buffers fill up as this test counts on.
            "tests/test_sockets.py::TestUDPSocketBackpressure",
        ),
    ),
    Suite(
        "trio",
        "0.35.0",
        requirements=("async-generator", "astor", "cryptography", "pyOpenSSL", "trustme"),
        paths=("src/trio",),
        pythonpath="src",
        arguments=("--skip-optional-imports",),
    ),
    Suite(
        "httpcore",
        "1.0.9",
        extras="asyncio,http2,socks,trio",
        requirements=("pytest-httpbin", "pytest-trio", "trustme", "werkzeug"),
    ),
    Suite(
        "httpx",
        "0.28.1",
        extras="brotli,cli,http2,socks,zstd",
        requirements=(
            "chardet==5.2.0",
            "click==8.1.8",
            "cryptography",
            "trio==0.27.0",
            "trustme",
            "uvicorn==0.32.1",
        ),
        arguments=("-m", "not network"),
        deselect=(
            "tests/test_timeouts.py::test_write_timeout[trio]",
            "tests/test_utils.py::test_logging_request",
            "tests/test_utils.py::test_logging_redirect_chain",
        ),
    ),
    Suite(
        "starlette",
        "1.10.0",
        extras="full",
        requirements=(
            "blockbuster",
            "httpx2[zstd]",
            "importlib-metadata",
            "opentelemetry-sdk",
            "pytest-codspeed",
            "trio",
        ),
        deselect=(
            # Expects what no file mode forbids the superuser.
            "tests/test_staticfiles.py::test_staticfiles_with_invalid_dir_permissions_returns_401",
        ),
    ),
    Suite(
        "uvicorn",
        "0.54.0",
        extras="standard",
        requirements=(
            "a2wsgi",
            "anyio",
            "cryptography",
            "httpx2",
            "pytest-codspeed",
            "pytest-mock",
            "pytest-xdist[psutil]",
            "trustme",
            "wsproto",
            "zttp",
        ),
        arguments=NO_ADDOPTS,
    ),
    Suite(
        "aiohttp",
        "3.14.5",
        extras="speedups",
        requirements=(
            "blockbuster",
            "coverage",
            "freezegun",
            "isal",
            "pkgconfig",
            "proxy.py",
            "pytest-codspeed",
            "pytest-mock",
            "pytest-timeout",
            "pytest-xdist",
            "python-on-whales",
            "trustme",
            "uvloop",
            "zlib-ng",
        ),
        # The files that open connections; all of them take several minutes.
        paths=tuple(
            f"tests/test_{name}.py"
            for name in (
                "client_functional",
                "client_session",
                "connector",
                "proxy_functional",
                "run_app",
                "test_utils",
                "web_functional",
                "web_server",
                "web_sendfile_functional",
                "web_websocket_functional",
            )
        ),
        arguments=(*NO_ADDOPTS, "-m", "not dev_mode and not autobahn and not internal"),
        # The installed package, not the one in the sdist: that has no compiled parts.
        environment={"PYTHONSAFEPATH": "1"},
    ),
    Suite(
        "aiofiles",
        "25.1.0",
        requirements=(PYTEST_ASYNCIO,),
        deselect=("tests/test_os.py::test_access",),  # fails for the superuser
    ),
    Suite(
        "aiojobs",
        "1.4.0",
        extras="aiohttp",
        requirements=("pytest-aiohttp",),
        arguments=("-o", "asyncio_mode=auto"),
    ),
    Suite(
        "aiolimiter",
        "1.3.0",
        requirements=("dunamai", PYTEST_ASYNCIO, "typing-extensions"),
        arguments=NO_ADDOPTS,
        deselect=("tests/test_aiolimiter.py::test_version",),  # asks git for the version
    ),
    Suite(
        "aiosmtpd",
        "1.4.6",
        requirements=(PYTEST_ASYNCIO, "pytest-mock", "setuptools<81"),
        paths=("aiosmtpd/tests",),
        arguments=(
            *NO_ADDOPTS,
            *("-o", "asyncio_default_fixture_loop_scope=function"),
            *("-W", "ignore:pkg_resources is deprecated:UserWarning"),
        ),
        # Python 3.13 removes the socket that it expects to find.
        deselect=("aiosmtpd/tests/test_server.py::TestUnthreaded::test_unixsocket",),
    ),
    Suite("aiostream", "0.8.1", requirements=(PYTEST_ASYNCIO,), arguments=NO_ADDOPTS),
    Suite(
        "apscheduler",
        "3.11.3",
        extras="gevent,sqlalchemy,tornado,twisted",
        requirements=("anyio", "pytest-timeout", "pytz"),
        arguments=(
            *("-m", "not external_service"),
            *("-k", "not mongodb and not redis and not rethinkdb and not etcd and not zookeeper"),
        ),
        deselect=("tests/triggers",),  # no thread, no loop: dates, and some depend on tzlocal's
    ),
    Suite("asgiref", "3.13.0", extras="tests", requirements=(PYTEST_ASYNCIO,)),
    Suite(
        "async-lru",
        "2.4.0",
        requirements=(PYTEST_ASYNCIO, "pytest-timeout"),
        arguments=(*NO_ADDOPTS, "-o", "asyncio_default_fixture_loop_scope=function"),
    ),
    Suite(
        "asyncstdlib",
        "3.14.0",
        requirements=("typing-extensions",),
        paths=("unittests",),
    ),
    Suite(
        "falcon",
        "4.4.0",
        requirements=(
            "aiofiles",
            "cbor2",
            "httpx",
            "msgpack",
            "msgspec",
            "mujson",
            "orjson",
            "pyyaml",
            "requests",
            "ujson",
            "uvicorn",
            "websockets",
        ),
        deselect=("tests/test_static.py",),  # replaces os.stat for Python itself too
    ),
    Suite(
        "hypercorn",
        "0.18.0",
        extras="h3,trio,uvloop",
        requirements=("httpx", "hypothesis", "mock", PYTEST_ASYNCIO, "pytest-trio"),
        arguments=NO_ADDOPTS,
        # Newer releases of h2 reject the request these two make.
        deselect=(
            "tests/asyncio/test_sanity.py::test_http2_websocket",
            "tests/trio/test_sanity.py::test_http2_websocket",
        ),
    ),
    Suite("janus", "2.0.0", requirements=(PYTEST_ASYNCIO, "pytest-codspeed"), arguments=NO_ADDOPTS),
    Suite("pytest-asyncio", "1.5.0", requirements=("hypothesis",)),
    Suite("stamina", "26.1.0", requirements=("anyio", "dirty-equals", "trio")),
    Suite("tenacity", "9.2.1", requirements=("tornado", "trio", "typeguard")),
    Suite(
        "tornado",
        "6.6.1",
        paths=("tornado/test",),
        # Its own runner silences this logger too: the tests fail on a line they did not expect.
        arguments=("-o", "python_files=*_test.py", "--log-disable=tornado.access"),
    ),
)

# A pytest plugin that writes what became of each test, a JSON object per line. Lines and not
# one document, so that a run that dies half way leaves what it had. It speaks only of reports:
# nothing it does can keep an object alive or change an outcome.
RECORDER = """\
import json
import os


class Recorder:
    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8")
        self.pid = os.getpid()

    def write(self, **line):
        if os.getpid() == self.pid:  # not in a forked child of a test
            self.file.write(json.dumps(line) + "\\n")
            self.file.flush()

    def pytest_collectreport(self, report):
        if report.failed:
            text = str(report.longrepr)
            self.write(id=report.nodeid, when="collect", outcome="failed", text=text)

    def pytest_runtest_logreport(self, report):
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "xpassed"
        text = report.longreprtext if report.failed else ""
        self.write(id=report.nodeid, when=report.when, outcome=outcome, text=text)


def pytest_configure(config):
    path = os.environ.pop("BENCH_RECORD", None)  # popped: pytest runs inside tests do not record
    if path is not None:
        recorder = Recorder(path)
        config.pluginmanager.register(recorder, "bench-recorder")
        recorder.write(loaded=config.pluginmanager.has_plugin("tightship"))
"""

# The worst phase of a test is its outcome: a test that passes and whose teardown fails has failed.
SEVERITY = ("passed", "skipped", "xfailed", "xpassed", "failed")


Finding = dict[str, Any]


@dataclass
class Outcomes:
    """What became of each test in one run."""

    run: Run
    tests: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    """Tightship's, as its journal has them; also those that failed nothing."""
    loaded: bool = False
    """Whether pytest had Tightship among its plugins."""

    def counts(self) -> Counter[str]:
        return Counter(self.tests.values())


@dataclass(frozen=True)
class Difference:
    """A test whose outcome is not the same in both runs."""

    test: str
    bare: str
    with_tightship: str
    line: str
    by_finding: bool
    """Whether a finding failed the test; else it failed by itself (perhaps only this time)."""


def main() -> int:
    options = parse_arguments()
    if options.list:
        for suite in SUITES:
            print(suite.requirement)
        return 0
    chosen = choose(options.only)
    bench = Bench(
        cache=options.cache.resolve(),
        python=options.python,
        tightship=None if options.bare_only else options.tightship.resolve(),
        timeout=options.timeout,
    )
    results = []
    for suite in chosen:
        result = run_or_explain(bench, suite)
        results.append(result)
        print_details(result)
    print()
    print(markdown_table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if not options.keep:
        bench.remove_runs()
    return 1 if any(result.get("error") for result in results) else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only this library (may be repeated)"
    )
    parser.add_argument("--list", action="store_true", help="list the libraries and stop")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "tightship-suites",
        help="where sdists and virtual environments are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--python", default=sys.executable, help="the interpreter to test with (default: this one)"
    )
    parser.add_argument(
        "--tightship",
        type=Path,
        default=REPOSITORY,
        help="the Tightship to install: a checkout or a wheel (default: this checkout)",
    )
    parser.add_argument(
        "--bare-only", action="store_true", help="only run without Tightship, to check the suites"
    )
    parser.add_argument("--keep", action="store_true", help="keep the output of each run")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds allowed for one run")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results there too")
    return parser.parse_args()


def choose(names: Sequence[str] | None) -> list[Suite]:
    if not names:
        return list(SUITES)
    known = {suite.name: suite for suite in SUITES}
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[name] for name in names]


class PreparationError(Exception):
    """A suite could not be downloaded or installed."""


class Bench:
    """The cache directory, and how to get a suite's outcomes with it."""

    def __init__(self, *, cache: Path, python: str, tightship: Path | None, timeout: float) -> None:
        self.cache = cache
        cache.mkdir(parents=True, exist_ok=True)
        self.lock = lock(cache)
        self.python = python
        self.timeout = timeout
        self.tag = python_tag(python)
        self.empty = cache / "empty"
        self.recorder = cache / "recorder"
        self.runs = cache / "runs" / self.tag
        for folder in (self.empty, self.recorder, self.runs):
            folder.mkdir(parents=True, exist_ok=True)
        (self.recorder / "bench_recorder.py").write_text(RECORDER, encoding="utf-8")
        self.tightship = None if tightship is None else self.install_tightship(tightship)
        self.tightship_needs = [] if self.tightship is None else requirements_in(self.tightship)

    def install_tightship(self, source: Path) -> Path:
        """Install Tightship into a folder of its own, which only the second run sees.

        Beside the virtual environments and not in them: the bare run must not so much as
        find the entry point, also not in a pytest that a test starts. What Tightship itself
        needs does go into them, so that a second pytest cannot get in by this door.
        """
        target = self.cache / f"tightship-{self.tag}"
        shutil.rmtree(target, ignore_errors=True)
        call([self.python, *PIP_INSTALL, "--no-deps", "--target", str(target), str(source)])
        return target

    def outcomes(self, suite: Suite, source: Path, python: Path, variant: str) -> Outcomes:
        record = self.runs / f"{suite.name}-{variant}.jsonl"
        journal = self.runs / f"{suite.name}-journal.jsonl"
        for path in (record, journal):
            path.unlink(missing_ok=True)
        plugin_folder = self.tightship if variant == "tightship" else self.empty
        folders = [str(self.recorder), str(plugin_folder)]
        if suite.pythonpath:
            folders.insert(0, str(source / suite.pythonpath))
        env = clean_environment() | {
            "PYTHONPATH": os.pathsep.join(folders),
            "BENCH_RECORD": str(record),
            **suite.environment,
        }
        deselect = (part for test in suite.deselect for part in ("--deselect", test))
        plugin = "no:tightship" if variant == "bare" else "bench_recorder"
        command = [
            *(str(python), "-m", "pytest", "-p", "bench_recorder", "-p", plugin),
            *COMMON_ARGUMENTS,
            *([] if variant == "bare" else [f"--tightship-journal={journal}"]),
            *suite.arguments,
            *deselect,
            *suite.paths,
        ]
        run = run_measured(command, cwd=source, env=env, timeout=self.timeout)
        (self.runs / f"{suite.name}-{variant}.log").write_text(run.output, encoding="utf-8")
        outcomes = read_outcomes(run, record)
        if journal.is_file():
            outcomes.findings = read_findings(journal)
        return outcomes

    def prepare(self, suite: Suite) -> tuple[Path, Path]:
        """Return the unpacked sdist and the interpreter of a virtual environment for it."""
        home = self.cache / f"{suite.name}-{suite.version}"
        source, python = self.unpack(suite, home), self.environment(suite, home)
        if self.tightship_needs:
            call([str(python), *PIP_INSTALL, *self.tightship_needs])
        return source, python

    def unpack(self, suite: Suite, home: Path) -> Path:
        unpacked = home / "sdist"
        if not unpacked.is_dir():
            with tempfile.TemporaryDirectory(dir=self.cache) as scratch:
                archive = self.download(suite, Path(scratch))
                with tarfile.open(archive) as tar:
                    tar.extractall(Path(scratch) / "out", filter="data")
                (top,) = (Path(scratch) / "out").iterdir()
                home.mkdir(exist_ok=True)
                top.rename(unpacked)
        return unpacked

    def download(self, suite: Suite, folder: Path) -> Path:
        command = [self.python, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", suite.name, "--dest", str(folder)]
        call([*command, f"{suite.name}=={suite.version}"])
        (archive,) = folder.glob("*.tar.gz")
        return archive

    def environment(self, suite: Suite, home: Path) -> Path:
        venv = home / self.tag
        python = venv / "bin" / "python"
        requirements = [PYTEST, suite.requirement, *suite.requirements]
        stamp = venv / "requirements.txt"
        wanted = "\n".join(requirements) + "\n"
        if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
            call([self.python, "-m", "venv", "--clear", str(venv)])
            call([str(python), *PIP_INSTALL, *requirements])
            stamp.write_text(wanted, encoding="utf-8")
        return python

    def remove_runs(self) -> None:
        shutil.rmtree(self.runs, ignore_errors=True)


SHOWN_FAILING = 5
"""How many of the tests that fail bare are printed: they are not what this is about."""

PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def lock(cache: Path) -> TextIO:
    """Keep other runs of this script out of the cache, until this process ends.

    Two at once would replace each other's Tightship and environments.
    """
    held = (cache / "lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another run uses {cache}; wait for it, or give another --cache")
    return held


def call(command: Sequence[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        tail = "\n".join((finished.stdout + finished.stderr).splitlines()[-20:])
        raise PreparationError(f"{' '.join(command)}\n{tail}")


def requirements_in(folder: Path) -> list[str]:
    """What the distributions in `folder` require, extras aside."""
    found = importlib.metadata.distributions(path=[str(folder)])
    lines = (line for distribution in found for line in distribution.requires or ())
    return [line for line in lines if "extra ==" not in line]


def python_tag(python: str) -> str:
    code = "import sys; print('py{}.{}'.format(*sys.version_info))"
    finished = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return finished.stdout.strip()


def read_outcomes(run: Run, record: Path) -> Outcomes:
    outcomes = Outcomes(run)
    if not record.is_file():
        return outcomes
    with record.open(encoding="utf-8") as lines:
        for line in lines:
            record_line = json.loads(line)
            if "loaded" in record_line:
                outcomes.loaded = record_line["loaded"]
            else:
                add_report(outcomes, record_line)
    return outcomes


def add_report(outcomes: Outcomes, report: Mapping[str, Any]) -> None:
    test, outcome = report["id"], report["outcome"]
    known = outcomes.tests.get(test, "passed")
    outcomes.tests[test] = max(known, outcome, key=SEVERITY.index)
    if report["text"]:
        outcomes.texts.setdefault(test, report["text"])


def read_findings(journal: Path) -> dict[str, list[Finding]]:
    findings: dict[str, list[Finding]] = {}
    with journal.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if record["event"] == "test" and record["findings"]:
                findings.setdefault(record["nodeid"], []).extend(record["findings"])
    return findings


def first_line(text: str) -> str:
    """The line of a failure that says what it is.

    pytest marks the lines of the exception with an `E`; a text without any is a message of its
    own, as Tightship's is, and begins with what matters.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    marked = [line.removeprefix("E").strip() for line in lines if line.startswith("E  ")]
    return next(iter(marked or lines), "")


def compare(bare: Outcomes, tight: Outcomes) -> Iterator[Difference]:
    for test in sorted(bare.tests.keys() | tight.tests.keys()):
        before = bare.tests.get(test, "absent")
        after = tight.tests.get(test, "absent")
        if before != after:
            text = tight.texts.get(test) or bare.texts.get(test, "")
            verdicts = [finding["verdict"] for finding in tight.findings.get(test, [])]
            yield Difference(test, before, after, first_line(text), "fail" in verdicts)


def tally(findings: Mapping[str, Sequence[Finding]]) -> dict[str, int]:
    """How many findings of each verdict and kind."""
    flat = [finding for found in findings.values() for finding in found]
    counts = Counter(f"{finding['verdict']} {finding['kind']}" for finding in flat)
    return dict(sorted(counts.items()))


def run_or_explain(bench: Bench, suite: Suite) -> dict[str, Any]:
    print(f"{suite.requirement} ...", flush=True)
    result: dict[str, Any] = {"name": suite.name, "version": suite.version, "python": bench.tag}
    try:
        source, python = bench.prepare(suite)
    except (PreparationError, OSError) as error:
        return result | {"error": str(error)}
    bare = bench.outcomes(suite, source, python, "bare")
    result["bare"] = summary(bare)
    result["failing_bare"] = {
        test: first_line(bare.texts.get(test, ""))
        for test, outcome in bare.tests.items()
        if outcome == "failed"
    }
    if problem := run_error(bare, wants_tightship=False):
        return result | {"error": problem}
    if bench.tightship is None:
        return result
    tight = bench.outcomes(suite, source, python, "tightship")
    result["tightship"] = summary(tight)
    result["findings"] = tight.findings
    result["tally"] = tally(tight.findings)
    result["differences"] = [asdict(difference) for difference in compare(bare, tight)]
    if problem := run_error(tight, wants_tightship=True):
        result["error"] = problem
    return result


def run_error(outcomes: Outcomes, *, wants_tightship: bool) -> str:
    """What is wrong with a run that is more than failing tests; empty if nothing is."""
    run = outcomes.run
    tail = "\n".join(run.output.splitlines()[-30:])
    if run.timed_out:
        return f"timed out\n{tail}"
    # 0: all passed; 1: some failed. Anything else: interrupted, internal error, usage, no tests.
    if run.status not in (0, 1) or not outcomes.tests:
        return f"pytest ended with status {run.status}\n{tail}"
    # Without this, a run that lost its plugin would look like one that found nothing.
    if outcomes.loaded != wants_tightship:
        return "Tightship was " + ("not loaded" if wants_tightship else "loaded in the bare run")
    return ""


def summary(outcomes: Outcomes) -> dict[str, Any]:
    return {
        **outcomes.counts(),
        "status": outcomes.run.status,
        "wall": round(outcomes.run.wall, 2),
        "cpu": round(outcomes.run.cpu, 2),
        "rss_kib": outcomes.run.rss_kib,
    }


def print_details(result: Mapping[str, Any]) -> None:
    for variant in ("bare", "tightship"):
        if variant in result:
            print(f"  {variant}: {result[variant]}")
    failing = result.get("failing_bare", {})
    for test, line in list(failing.items())[:SHOWN_FAILING]:
        print(f"  fails bare: {test}\n    {line}")
    if len(failing) > SHOWN_FAILING:
        print(f"  ... and {len(failing) - SHOWN_FAILING} more (all of them with --json)")
    if result.get("tally"):
        print("  findings: " + ", ".join(f"{n} x {what}" for what, n in result["tally"].items()))
    for difference in result.get("differences", []):
        by = "" if difference["by_finding"] else " (not by a finding)"
        change = f"{difference['bare']} -> {difference['with_tightship']}{by}"
        print(f"  {change}: {difference['test']}")
        print(f"    {difference['line']}")
    if "error" in result:
        print(f"  ERROR: {result['error']}")
    sys.stdout.flush()


def only_with_tightship(result: Mapping[str, Any]) -> str:
    """The number of tests that pass bare and fail with Tightship, and how many it did not say."""
    failing = [
        difference
        for difference in result.get("differences", [])
        if difference["with_tightship"] == "failed" and difference["bare"] != "failed"
    ]
    others = sum(not difference["by_finding"] for difference in failing)
    return f"{len(failing)} ({others} not by a finding)" if others else str(len(failing))


def markdown_table(results: Iterable[Mapping[str, Any]]) -> str:
    lines = [
        "| Library | Python | Passed bare | Passed with | Fail only with | Fail bare "
        "| Time bare | Time with | CPU bare | CPU with |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for result in results:
        bare, tight = result.get("bare", {}), result.get("tightship", {})
        cells = [
            f"{result['name']} {result['version']}",
            str(result["python"]),
            cell(bare, "passed"),
            cell(tight, "passed"),
            only_with_tightship(result) if tight else "-",
            cell(bare, "failed"),
            cell(bare, "wall", " s"),
            cell(tight, "wall", " s"),
            cell(bare, "cpu", " s"),
            cell(tight, "cpu", " s"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(found: Mapping[str, Any], key: str, unit: str = "") -> str:
    return f"{found.get(key, 0)}{unit}" if found else "-"


if __name__ == "__main__":
    sys.exit(main())
