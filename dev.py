#!/usr/bin/env python3
"""Set everything up and do one of the project's jobs, on a machine that has only Python and pip.

    python3 dev.py demo     the example service: a suite that leaks, then its repaired twin
    python3 dev.py test     build the wheel and test it on every Python of 3.11 to 3.13 there is
    python3 dev.py lint     mypy and ruff
    python3 dev.py bench    what a clean test costs, as tables (bench timeouts: what a limit costs)

Everything is installed below ``.venv/``; nothing outside the checkout is touched.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENVS = ROOT / ".venv"
VERSIONS = ("3.11", "3.12", "3.13")


def main() -> int:
    """Parse the command line and do the job."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("job", choices=("demo", "test", "lint", "bench"))
    parser.add_argument(
        "rest", nargs=argparse.REMAINDER, help="handed on to pytest or the benchmark"
    )
    arguments = parser.parse_args()
    jobs = {"demo": demo, "test": test, "lint": lint, "bench": bench}
    return jobs[arguments.job](arguments.rest)


def demo(rest: list[str]) -> int:
    """Run the leaky suite (which has to fail) and the repaired one (which must not)."""
    python = venv("demo", sys.executable, ["aiohttp", "pytest-asyncio"], editable=True)
    base = [python, "-m", "pytest", "-p", "no:cacheprovider", *rest]
    leaky = run([*base, "examples/stockroom/tests_leaky"], check=False)
    repaired = run([*base, "examples/stockroom/tests_repaired"], check=False)
    if leaky == 1 and repaired == 0:
        say(
            "As it should be: the leaky suite fails with its findings, the repaired twin is silent."
        )
        return 0
    say(
        f"Not as it should be: leaky suite {leaky} (wanted 1), repaired twin {repaired} (wanted 0)."
    )
    return 1


def test(rest: list[str]) -> int:
    """Build the wheel, then run the tests against it on each interpreter."""
    wheel = build()
    failed, skipped = [], []
    for version in VERSIONS:
        interpreter = find(version)
        if interpreter is None:
            skipped.append(version)
            continue
        python = venv(f"test-{version}", interpreter, [*group("test"), str(wheel)], editable=False)
        say(f"Python {version}")
        # -P: the installed wheel is tested, never the sources beside the tests.
        if run(
            [python, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", *rest], check=False
        ):
            failed.append(version)
    for version in skipped:
        say(f"Python {version} is not installed here: NOT TESTED on it.")
    if failed or len(skipped) == len(VERSIONS):
        say(f"Failed on: {', '.join(failed) or 'every version: none is installed'}")
        return 1
    say(f"Passed on: {', '.join(v for v in VERSIONS if v not in skipped)}")
    return 0


def lint(rest: list[str]) -> int:
    """Check types and style."""
    python = venv("lint", sys.executable, [*group("lint"), *group("test")], editable=True)
    results = [
        run([python, "-m", "ruff", "check", "."], check=False),
        run([python, "-m", "ruff", "format", "--check", "."], check=False),
        run([python, "-m", "mypy"], check=False),
    ]
    return 1 if any(results) else 0


def bench(rest: list[str]) -> int:
    """Run a benchmark: ``overhead``, or the one that is named first."""
    python = venv("bench", sys.executable, [*group("test"), "pyleak"], editable=True)
    names = {path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py")}
    name, rest = (rest[0], rest[1:]) if rest and rest[0] in names else ("overhead", rest)
    return run([python, f"benchmarks/{name}.py", *rest], check=False)


def venv(name: str, interpreter: str, requirements: list[str], *, editable: bool) -> str:
    """Return the Python of a virtual environment with these requirements installed."""
    where = VENVS / name
    python = where / "bin" / "python"
    if not python.exists():
        say(f"Setting up {where.relative_to(ROOT)}")
        run([interpreter, "-m", "venv", str(where)])
    own = ["-e", str(ROOT)] if editable else []
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not editable:
        # The wheel may have changed under the same version.
        wheels = [r for r in requirements if r.endswith(".whl")]
        run([*pip, *[r for r in requirements if r not in wheels]])
        run([*pip, "--force-reinstall", "--no-deps", *wheels])
        return str(python)
    run([*pip, *requirements, *own])
    return str(python)


def build() -> Path:
    """Return the wheel of this checkout."""
    python = venv_plain("build", ["build", "hatchling"])
    out = VENVS / "dist"
    shutil.rmtree(out, ignore_errors=True)
    run([python, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)])
    (wheel,) = out.glob("*.whl")
    return wheel


def venv_plain(name: str, requirements: list[str]) -> str:
    """Return the Python of a virtual environment without the project itself."""
    where = VENVS / name
    python = where / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(where)])
    run(
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *requirements,
        ]
    )
    return str(python)


def group(name: str) -> list[str]:
    """Return a dependency group of pyproject.toml."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        return list(tomllib.load(file)["dependency-groups"][name])


def find(version: str) -> str | None:
    """Return an interpreter of this version that runs, or None."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    candidates = [
        sys.executable,
        shutil.which(f"python{version}"),
        *sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python{version}")),
    ]
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        if candidate is None:
            continue
        # A launcher can be on the path without the version that it would launch.
        answer = subprocess.run([candidate, "-c", ask], capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip() == version:
            return candidate
    return None


def run(command: list[str], *, check: bool = True) -> int:
    """Run a command in the checkout; with ``check``, end everything if it fails."""
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if check and code:
        say(f"failed with status {code}: {' '.join(command)}")
        sys.exit(code)
    return code


def say(text: str) -> None:
    """Print a line that stands out."""
    print(f"\n--- {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
